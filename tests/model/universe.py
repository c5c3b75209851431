"""The small world that the machine plays in: few names, small amounts, so that everything collides with everything.

Values with many fields come from pools made once (simplest first, for shrinking): drawing each field anew costs more than
all that is tested.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st

from agentbudget.account import commands as ask
from agentbudget.catalog.terms import WINDOWS, Breaker, EntitlementTerms, GrantTerms, LimitTerms, PlanTerms, Scope

HOUR, DAY = 3_600, 86_400
SECOND_US = 1_000_000
START_US = 1_774_735_200 * SECOND_US
"""2026-03-28T22:00:00Z: the evening before Berlin's clocks go forward, three days before a month and a quarter end."""
FOREVER_US = 50 * 365 * DAY * SECOND_US
"""No session or step ends by its age here: that is another test's."""
MAX_DEPTH = 4
"""Sessions below sessions, at most: deep enough that a child of a child of a child asks for room."""
POOL = 400
"""Values in a pool: enough that two examples rarely meet the same few."""

ZONES = ("UTC", "Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "Asia/Kathmandu")
CYCLES = ("calendar", "anchored")
ENTITIES = ("user:ana", "team:eng", "team:ops", "user:bob", "agent:r")
PARENTS = (ask.ROOT, "team:eng", "team:ops")
SESSIONS = ("s0", "s1", "s2")
SCOPES = (
    None, Scope(models=("gpt-*",)), Scope(kinds=("tool",)), Scope(features=("research",)), Scope(entities=("user:*",)),
    Scope(workflows=("nightly",), models=("*",)), Scope(tools=("s*",)), Scope(entities=("session:s0*",)),
)  # fmt: skip
BREAKERS = (
    Breaker(max_steps=4), Breaker(max_depth=1), Breaker(max_parallel=2), Breaker(repeat=(2, 3)), Breaker(max_rate=25),
    Breaker(max_step_cost=9), Breaker(max_seconds=7_200), Breaker(refusals_in_row=2), Breaker(error_burst=2),
    Breaker(max_steps=3, max_seconds=7_200), Breaker(max_steps=3, max_step_cost=4), Breaker(max_steps=5),
)  # fmt: skip
FEATURES = (
    EntitlementTerms("research", "boolean"), EntitlementTerms("chat", "boolean", False),
    EntitlementTerms("exports", "metered"),
)  # fmt: skip
PLAN_LIMITS = (
    LimitTerms("customer", 60, window="day"), LimitTerms("user:*", 30, window="month"),
    LimitTerms("session:*", 6, measure="steps"),
    LimitTerms("customer", 5, measure="exports", window="week", mode="soft"),
)  # fmt: skip
MEASURES = ({"steps": 1}, {}, {"steps": 1, "tokens": 8}, {"tokens": 3, "exports": 2})
KINDS = (
    ("llm", "gpt-5", None), ("tool", None, "search"), ("llm", "mini", None), ("tool", None, "run"),
    ("agent", None, None), ("embedding", "gpt-e", None), ("retrieval", None, "search"),
)  # fmt: skip

amounts = st.integers(0, 12)
some = st.integers(0, 7)
"""Which of several: taken modulo how many there are."""
measures = st.sampled_from(MEASURES)
passing = st.sampled_from((1, 30, 61, HOUR // 2, HOUR, 5 * HOUR, DAY, 3 * DAY, 33 * DAY, 120 * DAY))
"""Seconds that may pass."""

_Value = TypeVar("_Value")


def _pool(make: Callable[[random.Random], _Value]) -> st.SearchStrategy[_Value]:
    chance = random.Random(2026)
    pool = sorted((make(chance) for _ in range(POOL)), key=lambda value: len(repr(value)))
    return st.integers(0, POOL - 1).map(lambda place: pool[place])


def _often(chance: random.Random, usual: _Value, others: tuple[_Value, ...]) -> _Value:
    """The usual value three times of four."""
    return usual if chance.random() < 0.75 else chance.choice(others)


def _plan(chance: random.Random, cycle: str) -> PlanTerms:
    return PlanTerms(
        plan=chance.choice(("free", "team")), catalog="c1", cycle=cycle,  # type: ignore[arg-type]
        wallet=chance.choice(("prepaid", "prepaid", "postpaid")), credit_line=chance.choice((None, 0, 15)),
        features=_often(chance, None, (FEATURES,)), models=_often(chance, (), (("gpt-*",),)),
        grants=_often(chance, (), ((GrantTerms("start", 25, category="promo"),),)),
        limits=chance.choice(((), (), PLAN_LIMITS[:1], PLAN_LIMITS, PLAN_LIMITS[2:])),
        breaker=_often(chance, Breaker(refusals_in_row=20), (Breaker(max_parallel=6), Breaker(max_steps=8))),
    )  # fmt: skip


plans = {cycle: _pool(lambda chance, cycle=cycle: _plan(chance, cycle)) for cycle in CYCLES}  # type: ignore[misc]
"""Plans that differ in everything that may refuse, by cycle (which a customer keeps)."""

limits = _pool(
    lambda chance: ask.SetLimit(
        _often(chance, ask.ROOT, ("team:eng", "user:ana", "user:*", "session:s0", "agent:*", "team:no")),
        chance.choice((None, 0, 5, 10, 20, 40, 1_000)),
        _often(chance, "credits", ("steps", "tokens", "exports")),
        chance.choice(WINDOWS),
        _often(chance, "hard", ("soft",)),
        _often(chance, None, SCOPES[1:4]),
    )
)


def _opening(chance: random.Random) -> ask.OpenSession:
    return ask.OpenSession(
        chance.choice(SESSIONS), budget=chance.choice((None, 8, 20, 40)), wind_down=_often(chance, None, (0, 3)),
        entities=_often(chance, ("user:ana",), (None, (), ("user:ana", "agent:r"), ("user:bob",), ("team:ops",))),
        feature=_often(chance, None, ("research", "chat")), workflow=_often(chance, None, ("nightly",)),
        breaker=_often(chance, None, BREAKERS), on_unknown=_often(chance, None, ("charge", "release")),
        on_denied=_often(chance, None, ("stop",)), ttl_us=FOREVER_US, max_step_us=FOREVER_US,
    )  # fmt: skip


openings = _pool(_opening)


def _hold(chance: random.Random) -> ask.Hold:
    kind, model, tool = chance.choice(KINDS)
    amount = chance.randint(0, 12)
    return ask.Hold(
        "", "", kind, amount, chance.choice(MEASURES), model, tool,  # type: ignore[arg-type]
        feature=_often(chance, None, ("research", "chat", "exports")), wind_down=_often(chance, False, (True,)),
        fingerprint=tool, dispatched=chance.choice((True, False)), stated=f"{amount}",
        note_refusal=_often(chance, True, (False,)),
    )  # fmt: skip


holds = _pool(_hold)
"""Holds of a step and a session still to be named."""

HOLDERS = ("p1", "p2")
"""Processes that hold leases."""
LEASE_MEASURES = ({"steps": 1}, {"steps": 1, "tokens": 4}, {"steps": 1, "tokens": 2, "exports": 1})
"""A leased step counts as a step always."""


def _asking(chance: random.Random) -> ask.Renew:
    kind, model, tool = chance.choice(KINDS[:2])
    feature = "research" if chance.random() < 0.15 else None
    wind_down = chance.random() < 0.1
    amount = max(1, chance.randint(-2, 6)) if chance.random() < 0.9 else 0
    hold = ask.Hold(
        "", "", kind, amount, chance.choice(LEASE_MEASURES), model, tool, feature=feature, wind_down=wind_down,  # type: ignore[arg-type]
        stated=f"{amount}", note_refusal=_often(chance, True, (False,)),
    )  # fmt: skip
    return ask.Renew(
        "", 1, "", chance.choice(HOLDERS), kind, model, tool, feature, wind_down,  # type: ignore[arg-type]
        ask=hold, times=chance.choice((1, 2, 4, 16)),
    )  # fmt: skip


askings = _pool(_asking)
"""First messages of a lease and a session still to be named."""


class Turn(NamedTuple):
    """What one message of a holder tells: steps begun, what others cost that end, what goes back, what is wanted."""

    starts: tuple[int, ...]
    costs: tuple[int, ...]
    measures: dict[str, int]
    back: int
    wants: int | None
    times: int
    top_up: bool
    ran: bool


turns = _pool(
    lambda chance: Turn(
        tuple(chance.randint(0, 6) for _ in range(chance.randint(0, 3))),
        tuple(chance.randint(0, 9) for _ in range(chance.randint(0, 3))),
        chance.choice(LEASE_MEASURES),
        _often(chance, 0, (1, 2, 4)),
        chance.choice((None, None, 1, 2, 5)),
        chance.choice((1, 2, 8)),
        chance.random() < 0.3,
        chance.random() < 0.5,
    )
)
LIES = ("back", "gap", "negative", "session", "holder", "overrun", "steps", "old", "key", "close")
ODD_ENDS = ("close", "close", "close", "empty", "units back", "lose track", "lose track", "lose track", "session ends")
SILENCES = ("silence", "silence", "one beats", "a day", "a day", "lost before", "lost after")

grants = _pool(
    lambda chance: ask.IssueGrant(
        "",
        chance.randint(1, 40),
        priority=_often(chance, 50, (0,)),
        effective_us=_often(chance, None, (-HOUR, 2 * HOUR)),
        expires_us=chance.choice((None, HOUR, DAY, 40 * DAY)),
        category=chance.choice(("paid", "promo")),  # type: ignore[arg-type]
        scope=_often(chance, None, SCOPES[1:]),
    )
)
"""Grants whose times are still relative, in seconds from now."""

pauses = st.builds(
    ask.SetPaused,
    entity=st.sampled_from(("user:ana", "team:eng", "session:s0", "session:s1", "customer", "team:no")),
    paused=st.booleans(),
)
