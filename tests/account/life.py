"""Random lives of a customer: few names and small amounts, so that everything meets everything. Strategies of commands only:
what they must come to is said by the tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.catalog.terms import (
    Breaker,
    EntitlementTerms,
    EntityTypeTerms,
    GrantTerms,
    LimitTerms,
    PlanTerms,
    Scope,
)
from tests.account.desk import DAY, HOUR, MINUTE, PREPAID, START, Desk, hold

SCOPES = (None, None, Scope(models=("gpt-*",)), Scope(kinds=("tool",)), Scope(features=("f",)), Scope(entities=("user:*",)),
          Scope(workflows=("w",)), Scope(tools=("s*",)), Scope(entities=("session:s1",)))  # fmt: skip
SESSIONS, STEPS = ("s0", "s1", "s2", "s3"), tuple(f"h{n}" for n in range(12))
ENTITIES = ("team:eng", "user:ana", "user:bob")
LIMITED = ("customer", "team:eng", "user:ana", "user:*", "session:*", "session:s0")
BREAKERS = (None, None, Breaker(), Breaker(max_steps=3), Breaker(max_parallel=2), Breaker(max_rate=12), Breaker(repeat=(2, 3)),
            Breaker(max_step_cost=6), Breaker(refusals_in_row=2), Breaker(error_burst=1), Breaker(max_seconds=3600))  # fmt: skip

amounts = st.integers(0, 9)
sessions, steps, entities = st.sampled_from(SESSIONS), st.sampled_from(STEPS), st.sampled_from(ENTITIES)
windows = st.sampled_from(("hour", "day", "month", "lifetime"))
scopes = st.sampled_from(SCOPES)

limit_terms = st.builds(
    LimitTerms, st.sampled_from(LIMITED[:5]), st.integers(0, 30), st.sampled_from(("credits", "credits", "steps", "tokens")),
    windows, st.sampled_from(("hard", "hard", "soft")), scopes,
)  # fmt: skip

plans = st.builds(
    PlanTerms,
    plan=st.sampled_from(("a", "b", "c")),
    catalog=st.just("v1"),
    wallet=st.sampled_from(("prepaid", "prepaid", "postpaid")),
    credit_line=st.sampled_from((None, 10)),
    features=st.sampled_from((None, None, (EntitlementTerms("f", "boolean"),))),
    models=st.sampled_from(((), (), ("gpt-*",))),
    grants=st.sampled_from(((), (GrantTerms("once", 20),), (GrantTerms("daily", 9, every="day", rollover=4),))),
    limits=st.lists(limit_terms, max_size=2).map(tuple),
    breaker=st.sampled_from((Breaker(), Breaker(), Breaker(max_steps=6))),
    entity_types=st.sampled_from(((), (EntityTypeTerms("user", limits=(LimitTerms("x", 15, window="day"),)),))),
    cycle=st.sampled_from(("calendar", "calendar", "anchored")),
)


def _step(
    step: str, session: str, amount: int, shape: tuple[str, str, str | None], units: dict[str, int], **rest: Any
) -> c.Hold:
    kind, names, name = shape
    return hold(step, session, amount, kind=kind, measures=units, stated=f"{amount}{units}", **{names: name}, **rest)


holds = st.builds(
    _step,
    steps, sessions, amounts,
    st.sampled_from((("llm", "model", "gpt-5"), ("llm", "model", "claude"), ("tool", "tool", "search"), ("agent", "tool", None))),
    st.sampled_from(({"steps": 1}, {"steps": 1, "tokens": 5}, {})), feature=st.sampled_from((None, None, "f", "g")),
    wind_down=st.booleans(), fingerprint=st.sampled_from((None, "x", "y")),
)  # fmt: skip

openings = st.builds(
    c.OpenSession, sessions, st.sampled_from((None, None, "s0", "s1")), st.sampled_from((None, 10, 25)),
    st.sampled_from((None, None, 0)), st.sampled_from((None, ("user:ana",), ("user:bob", "team:eng"))),
    st.sampled_from((None, "f")), st.sampled_from((None, "w")), st.sampled_from(BREAKERS), st.sampled_from((None, "release")),
)  # fmt: skip


@st.composite
def grants(draw: st.DrawFn) -> c.IssueGrant:
    """Times are still relative to the moment of sending."""
    effective = draw(st.sampled_from((None, None, -HOUR, HOUR)))
    expires = draw(st.sampled_from((None, None, 2 * HOUR, DAY)))
    return c.IssueGrant(
        draw(st.sampled_from(("g0", "g1", "g2", "g3"))), draw(st.integers(1, 30)), priority=draw(st.sampled_from((1, 50))),
        effective_us=effective, expires_us=expires, category=draw(st.sampled_from(("paid", "promo"))), scope=draw(scopes),
        key=draw(st.sampled_from((None, "k0", "k1"))),
    )  # fmt: skip


settles = st.builds(
    c.SettleHold, steps, st.one_of(amounts, st.integers(0, 25)), st.sampled_from(({}, {"steps": 1}, {"tokens": 2})),
    st.sampled_from((None, None, None, 1, 2)), st.just("settled"), error=st.sampled_from((None, None, "Timeout")),
)  # fmt: skip


def mix(*weighted: tuple[int, st.SearchStrategy[c.Command]]) -> st.SearchStrategy[c.Command]:
    """One of several, some more often than others."""
    many = [strategy for weight, strategy in weighted for _ in range(weight)]
    return st.integers(0, len(many) - 1).flatmap(many.__getitem__)


commands = mix(
    (24, holds), (14, settles), (2, st.builds(c.ReleaseHold, steps)), (3, st.builds(c.LapseHold, steps)),
    (1, st.builds(c.DispatchHold, steps)),
    (3, st.builds(c.ExtendHold, steps, st.integers(1, 3), amounts, st.sampled_from(({}, {"tokens": 2})))),
    (3, grants()), (4, openings), (1, st.builds(c.AssignPlan, plans)),
    (3, st.builds(c.SetLimit, st.sampled_from(LIMITED), st.sampled_from((None, 0, 5, 20, 40)),
                  st.sampled_from(("credits", "credits", "steps", "tokens")), windows,
                  st.sampled_from(("hard", "hard", "soft")), scopes)),
    (3, st.builds(c.SetPaused, st.sampled_from(("customer", "user:ana", "session:s0", "session:s1")),
                  st.sampled_from((False, False, True)))),
    (1, st.builds(c.PutEntity, entities, st.sampled_from((c.ROOT, "team:eng")))),
    (1, st.builds(c.VoidGrant, st.sampled_from(("g0", "g1")), st.sampled_from((None, 1)))),
    (1, st.builds(c.AdjustGrant, st.sampled_from(("g0", "g1")), st.integers(-5, 9))),
    (1, st.builds(c.FundSession, sessions, st.integers(1, 9))), (1, st.builds(c.CloseSession, sessions)),
    (1, st.builds(c.Latch, sessions, st.just("x"))),
    (1, st.builds(lambda n, budget: c.FanOut("s0", tuple(c.OpenSession(f"f{i}", "s0", budget) for i in range(n)), 1),
                  st.integers(1, 3), st.integers(1, 9))),
)  # fmt: skip
waits = st.sampled_from((0, 0, 0, 1, MINUTE, HOUR, DAY, 33 * DAY, -HOUR))
lives = st.lists(st.tuples(waits, commands), min_size=15, max_size=45)
Life = list[tuple[int, c.Command]]


def born(plan: PlanTerms = PREPAID) -> Desk:
    """A customer in Berlin with a tree, a wallet and two sessions: enough that most commands mean something."""
    desk = Desk(plan, zone="Europe/Berlin", anchor_us=START + 3 * DAY)
    for entity, parent in (("team:eng", c.ROOT), ("user:ana", "team:eng"), ("user:bob", c.ROOT)):
        desk.send(c.PutEntity(entity, parent))
    desk.grant("g0", 25)
    desk.open("s0", budget=60, entities=("user:ana",))
    desk.open("s1", entities=("user:bob",))
    return desk


def live(desk: Desk, moment: tuple[int, c.Command]) -> object:
    """Let time pass and send the command; the answer, or the error as a value."""
    wait_us, command = moment
    desk.wait(wait_us)
    return desk.answer(_meant(desk, command))


def _meant(desk: Desk, command: Any) -> c.Command:
    """The command with its times from now, and names of what there is: mostly what is open."""
    if isinstance(command, c.IssueGrant):
        times = {name: getattr(command, name) for name in ("effective_us", "expires_us")}
        command = replace(command, **{name: None if us is None else desk.now_us + us for name, us in times.items()})
    elif isinstance(command, c.OpenSession) and command.session == SESSIONS[-1]:
        command = replace(command, session=f"s{len(desk.index)}")
    elif isinstance(command, (c.Hold, c.FundSession)):
        command = replace(command, session=_session(desk, command.session))
    if hasattr(command, "step"):
        command = replace(command, step=_step_meant(desk, command))
    return command  # type: ignore[no-any-return]


def _session(desk: Desk, name: str) -> str:
    there = [view.id for view in desk.read("sessions") if view.state != "closed"]
    return there[SESSIONS.index(name) % len(there)] if there else name


def _step_meant(desk: Desk, command: Any) -> str:
    """The first nine names stand for a new step where one is to be held, else for an open one; the rest for any there was."""
    which, known = STEPS.index(command.step), [key for key in desk.index if key.startswith("h") and "#" not in key]
    if isinstance(command, c.Hold):
        return f"h{len(known)}" if which < 9 or not known else known[-1]
    running = desk.open_holds() if which < 9 else known
    return running[which % len(running)] if running else command.step
