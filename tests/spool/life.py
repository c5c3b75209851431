"""A made-up life of a process's leases: what is written, and what a reader must find after any number of its operations.

The truth is kept by a few lines of their own; the spool is only told. An operation is a tuple; the same seed gives the same life.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from agentbudget.account.commands import Renew, StepReport
from agentbudget.runtime.leases.lease import Key, OpenStep
from agentbudget.runtime.spool.reading import LeaseRecords, SpoolContents
from agentbudget.runtime.spool.writing import Spool, Trail

HOLDER = "holder"
KEY = Key("llm", "gpt-5-mini", None, "research", False)
NAMES = ("tokens", "steps")
TARIFFS = (("per-token", "v1"), ("per-call", "v1"), ("per-token", "v2"))

Operation = tuple[Any, ...]


class Known(NamedTuple):
    """What a reader finds of a lease."""

    unanswered: tuple[Renew, ...] = ()
    reports: tuple[StepReport, ...] = ()
    steps: frozenset[tuple[int, int, int, int, bool]] = frozenset()
    released: int = 0


class Lease:
    """A lease by hand."""

    def __init__(self, name: str) -> None:
        self.name, self.n, self.seq, self.tariffs = name, 0, 0, 1
        self.open: dict[int, OpenStep] = {}
        self.reports: list[StepReport] = []
        self.sent: Renew | None = None
        self.released = 0

    def known(self) -> Known:
        steps = frozenset((n, s.amount, s.measures["tokens"], s.opened_us, s.dispatched) for n, s in self.open.items())
        return Known(() if self.sent is None else (self.sent,), tuple(self.reports), steps, self.released)


def found(records: LeaseRecords) -> Known:
    """The same of what was read."""
    steps = frozenset((s.n, s.amount, s.measures["tokens"], s.opened_us, s.dispatched) for s in records.steps)
    return Known(records.unanswered, records.reports, steps, records.released)


def by_lease(contents: SpoolContents) -> dict[str, Known]:
    return {records.identity.lease: found(records) for records in contents.leases}


class Life:
    """Draws operations and keeps the truth; ``do`` also tells a spool, when it has one. ``busy``: how many leases, and how many
    steps between messages."""

    def __init__(self, seed: int, *, leases: int = 4, busy: int = 60) -> None:
        self._random = random.Random(seed)
        self._most, self._busy, self._made = leases, busy, 0
        self.leases: dict[str, Lease] = {}
        self.trails: dict[str, Trail] = {}

    def truth(self) -> dict[str, Known]:
        return {name: lease.known() for name, lease in self.leases.items()}

    def play(self, count: int, spool: Spool | None = None, done: Callable[[int], None] | None = None) -> Iterator[int]:
        """Do operations; yields after each."""
        for number in range(1, count + 1):
            self._one(spool)
            if done is not None:
                done(number)
            yield number

    def _one(self, spool: Spool | None) -> None:
        chance = self._random
        if not self.leases or (len(self.leases) < self._most and chance.random() < 0.1):
            return self._open(spool)
        lease = chance.choice(list(self.leases.values()))
        trail = self.trails.get(lease.name)
        draw = chance.random()
        if lease.sent is not None and draw < 0.15:
            return self._answer(lease, trail)
        if lease.sent is None and draw < 1 / self._busy:
            return self._send(lease, trail, part=draw < 0.3 / self._busy)
        if not lease.open and not lease.reports and lease.sent is None and draw > 0.97:
            del self.leases[lease.name]
            self.trails.pop(lease.name, None)
            if trail is not None:
                trail.closed()
            return None
        if lease.open and draw < 0.55:
            return self._end(lease, trail)
        if lease.open and draw < 0.6:
            return self._dispatch(lease, trail)
        if lease.open and draw < 0.65:
            return self._extend(lease, trail)
        return self._begin(lease, trail)

    def _open(self, spool: Spool | None) -> None:
        self._made += 1
        name = f"lease-{self._made}" + "x" * self._random.choice((0, 20, 150))
        self.leases[name] = lease = Lease(name)
        if spool is not None:
            trail = spool.trail("acme", name, "session", KEY, "charge")
            assert trail is not None
            self.trails[name] = trail
            assert trail.facts(NAMES, TARIFFS[: lease.tariffs])

    def _begin(self, lease: Lease, trail: Trail | None) -> None:
        lease.n += 1
        step = OpenStep(
            self._random.randrange(10**9),
            {"tokens": 1_592, "steps": 1},
            0,
            lease.n * 1_000,
            self._random.random() < 0.7,
        )
        lease.open[lease.n] = step
        if trail is not None:
            assert trail.begun(lease.n, step.amount, dict(step.measures), step.opened_us, step.dispatched)

    def _dispatch(self, lease: Lease, trail: Trail | None) -> None:
        n = self._random.choice(list(lease.open))
        lease.open[n].dispatched = True
        if trail is not None:
            assert trail.dispatched(n)

    def _extend(self, lease: Lease, trail: Trail | None) -> None:
        n = self._random.choice(list(lease.open))
        step = lease.open[n]
        step.amount += self._random.randrange(10**6)
        step.measures = {**step.measures, "tokens": step.measures["tokens"] + 64}
        if trail is not None:
            assert trail.extended(n, step.amount, dict(step.measures))

    def _end(self, lease: Lease, trail: Trail | None) -> None:
        n = self._random.choice(list(lease.open)[:3])
        step = lease.open.pop(n)
        how = self._random.random()
        if how < 0.3:
            lease.released += how < 0.2
            if trail is not None:
                assert trail.released(n) if how < 0.2 else trail.guessed(n)
            return
        usage = {"input_tokens": n, "output_tokens": 412}
        amount = self._random.randrange(step.amount + 1)
        report = StepReport(f"{lease.name}.{n}", amount, (n, 1), 0, usage, "gpt-5", step.opened_us, step.opened_us + 5)
        lease.reports.append(report)
        if trail is not None:
            assert trail.settled(report)

    def _send(self, lease: Lease, trail: Trail | None, *, part: bool) -> None:
        count = len(lease.reports) // 2 if part else len(lease.reports)
        lease.tariffs = min(len(TARIFFS), lease.tariffs + 1)
        steps, lease.reports = tuple(lease.reports[:count]), lease.reports[count:]
        lease.sent = Renew(
            lease.name,
            lease.seq + 1,
            "session",
            HOLDER,
            *KEY,
            measures=NAMES,
            steps=steps,
            tariffs=TARIFFS[: lease.tariffs],
            back=7,
            released=lease.released,
        )
        lease.released = 0
        if trail is not None:
            assert trail.facts(NAMES, TARIFFS[: lease.tariffs])
            assert trail.sending(lease.sent)

    def _answer(self, lease: Lease, trail: Trail | None) -> None:
        assert lease.sent is not None
        lease.seq, lease.sent = lease.sent.seq, None
        if trail is not None:
            trail.answered(lease.seq, lease.open, lease.reports)


def truths(seed: int, count: int, **shape: int) -> list[dict[str, Known]]:
    """The truth after each of so many operations, and before the first."""
    life = Life(seed, **shape)
    return [{}, *(life.truth() for _ in life.play(count))]


def last_truths(seed: int, count: int) -> tuple[dict[str, Known], dict[str, Known]]:
    """The truth before the last of so many operations, and after it."""
    life, before = Life(seed), dict[str, Known]()
    for number in life.play(count):
        if number == count - 1:
            before = life.truth()
    return before, life.truth()
