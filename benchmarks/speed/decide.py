"""Row ``decide``: the pure core. A hold and its settlement, decided and applied, on a path of six levels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Final

from agentbudget.account.account import Account
from agentbudget.account.commands import (
    Command,
    CreateCustomer,
    Hold,
    IssueGrant,
    OpenSession,
    PutEntity,
    SetLimit,
    SettleHold,
)
from agentbudget.catalog.terms import PlanTerms, Window
from benchmarks.speed.measure import Effort, Row, figure, figures, taking_turns

START_US: Final = 1_767_225_600_000_000
ENOUGH: Final = 10**17
REQUEST: Final = "0" * 32
"""The hash of the raw request is the caller's work: it is part of row ``step``."""
MEASURES: Final = {"steps": 1, "tokens": 1_500}
LIMITS: Final[tuple[tuple[str, Window], ...]] = (
    ("customer", "month"), ("department:research", "month"), ("team:eng", "week"), ("user:ana", "day"),
    ("agent:writer", "hour"),
)  # fmt: skip
TARGET_US: Final = 25
FLAT: Final = 1.5
"""Within this factor of the small customer counts as flat: 100,000 objects more no longer fit in the processor's caches."""


class Customer:
    """A customer below department, team, user and agent, with an open session, 3 grants, 5 limits, and then some."""

    def __init__(self, *, grants: int = 0, holds: int = 0, entities: int = 0) -> None:
        self._account, self._now_us, self._steps = Account("acme"), START_US, itertools.count()
        self.ask(CreateCustomer(PlanTerms("plan", "catalog")))
        for n in range(3):
            self.ask(IssueGrant(f"grant-{n}", ENOUGH, priority=n))
        for entity, parent in (
            ("department:research", "customer"), ("team:eng", "department:research"), ("user:ana", "team:eng"),
            ("agent:writer", "customer"),
        ):  # fmt: skip
            self.ask(PutEntity(entity, parent))
        for entity, window in LIMITS:
            self.ask(SetLimit(entity, ENOUGH, window=window))
        self.ask(OpenSession("run", budget=ENOUGH, entities=("user:ana", "agent:writer")))
        self._grow(grants, holds, entities)

    def _grow(self, grants: int, holds: int, entities: int) -> None:
        for n in range(grants):
            self.ask(IssueGrant(f"more-{n}", 10**9, priority=90))
        for n in range(entities):
            self.ask(PutEntity(f"user:{n}", "team:eng"))
        for n in range(holds):
            self.ask(hold(f"open-{n}"))

    def ask(self, command: Command) -> None:
        self._now_us += 1
        outcome = self._account.handle(command, now_us=self._now_us, hits={}, request=REQUEST)
        if outcome.error is not None or not outcome.drafts:
            raise RuntimeError(f"the benchmark is wrong: {outcome}")

    def pair(self) -> None:
        """One step: held, and settled below its hold."""
        step = f"step-{next(self._steps)}"
        self.ask(hold(step))
        self.ask(SettleHold(step, 700_000))


def hold(step: str) -> Hold:
    return Hold(step, "run", "llm", 1_000_000, MEASURES, model="gpt-5-mini")


def bare_pair() -> Callable[[], None]:
    """The floor: the least a hold and a settlement can be, without levels, windows, entries or laws."""
    free, used, holds, steps = [ENOUGH], [0], dict[str, int](), itertools.count()

    def pair() -> None:
        step = f"step-{next(steps)}"
        if free[0] >= 1_000_000:
            free[0] -= 1_000_000
            holds[step] = 1_000_000
        held = holds.pop(step)
        used[0] += 700_000
        free[0] += held - 700_000

    return pair


def pairs(effort: Effort) -> Row:
    """Wall time a pair, for a small customer and for one with very many grants, open holds or entities."""
    many = effort.many
    small, name = Customer(), f"{many:,}"
    runs: dict[str, Callable[[], object]] = {
        "integers in a dict": bare_pair(),
        "3 grants, 1 hold, 5 entities": small.pair,
        f"{name} grants": Customer(grants=many).pair,
        f"{name} open holds": Customer(holds=many).pair,
        f"{name} entities": Customer(entities=many).pair,
    }
    found = figures(taking_turns(runs, rounds=effort.rounds, block=250, warm_up=250))
    found.append(figure("3 grants, 1 hold, 5 entities: processor time", "us cpu", _cpu(small.pair, effort.rounds)))
    row = Row(
        "decide", "hold + settle decided and applied: 6 levels, 3 grants, 5 limits", found, floor="integers in a dict"
    )
    base = row["3 grants, 1 hold, 5 entities"].median
    is_flat = all(one.median <= FLAT * base for one in found[2:5])
    target = f"<= {TARGET_US} us a pair, flat (within {FLAT:g} x) to {name}"
    return Row(row.name, row.what, found, target, base <= TARGET_US and is_flat, row.floor)


def _cpu(pair: Callable[[], object], rounds: int, block: int = 1_000) -> list[float]:
    """Processor time a pair, by block: its clock is too coarse for one pair, and it does not count waiting."""
    found = []
    for _ in range(rounds):
        start = time.process_time_ns()
        for _ in range(block):
            pair()
        found.append((time.process_time_ns() - start) / 1e3 / block)
    return found
