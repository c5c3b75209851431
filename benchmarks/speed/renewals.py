"""Row ``renew``: what the owner spends on the messages of leases, by how many steps one reports."""

from __future__ import annotations

import itertools
import time
from typing import Final

import msgspec

from agentbudget.account.commands import Hold
from agentbudget.account.decision import Renewed
from agentbudget.clock import SystemClock
from agentbudget.ledger.memory import MemoryJournal
from agentbudget.ledger.sql import SqlJournal
from agentbudget.runtime.leases.lease import Key, Lease
from agentbudget.runtime.owner.owner import Owner
from benchmarks.speed.measure import Effort, Row, figure
from benchmarks.speed.owner import CREATION, ledgers

STEPS: Final = (1, 64, 512)
MOST_US: Final = 4
HELD, USED = 1_000_000, 700_000
MEASURES: Final = {"steps": 1, "seconds": 1, "tool_calls": 1}
ENCODED: Final = "encoding the 512 reports of a message"
LEAST: Final = "a step, of 512 in a message"


class Source:
    """A lease as its holder has it, and an owner that answers its messages."""

    def __init__(self, owner: Owner, name: str) -> None:
        self._owner, self._numbers = owner, itertools.count(1)
        self._lease = Lease(name, "run", Key("tool", None, "search", None, False))
        self._ask = Hold(name, "run", "tool", HELD, MEASURES, tool="search", note_refusal=False)
        self.message_us(0)

    def message_us(self, steps: int) -> float:
        """The owner's time for a message that reports so many steps and asks for more."""
        lease = self._lease
        for _ in range(steps):
            n = lease.take(HELD, MEASURES, 1, 1, dispatched=True)
            if not n:
                raise RuntimeError("the lease has too little left for the row")
            lease.settle(n, f"{lease.id}.{n}", USED, MEASURES, 0, {}, None, 1, 1)
        lease.tariff("stated", "")
        renew = lease.message("benchmark", 1, ask=self._ask)
        renew = lease.sent = msgspec.structs.replace(renew, times=max(STEPS))
        before = time.perf_counter_ns()
        (answer,) = self._owner.handle([("acme", renew)])
        elapsed_us = (time.perf_counter_ns() - before) / 1e3
        if not isinstance(answer, Renewed):
            raise RuntimeError(f"the owner answered {answer}")
        lease.answered(answer, 1)
        return elapsed_us

    def encoding_us(self, steps: int) -> float:
        """The floor: the reports written down once, as an entry's body."""
        report: tuple[object, ...] = ("0123456789abcdef.12345", USED, (1, 1, 1), 0, {}, None, 1, 1)
        reports = [report] * steps
        before = time.perf_counter_ns()
        msgspec.json.encode(reports)
        return (time.perf_counter_ns() - before) / 1e3


def renew(effort: Effort) -> Row:
    """Microseconds a message, and a step of the longest, by an owner without a thread between."""
    with ledgers() as url:
        owners = [
            Owner(MemoryJournal(), SystemClock(), name="benchmark"),
            Owner(SqlJournal.open(url("owner")), SystemClock(), name="benchmark"),
        ]
        for owner in owners:
            owner.handle([("acme", command) for command in CREATION])
        in_memory, on_disk = (Source(owner, "lease:benchmark") for owner in owners)
        rounds = effort.rounds * 5
        floors, found = list[float](), {steps: list[float]() for steps in STEPS}
        disk = list[float]()
        for _ in range(rounds):
            floors.append(in_memory.encoding_us(max(STEPS)))
            for steps in STEPS:
                found[steps].append(in_memory.message_us(steps))
            disk.append(on_disk.message_us(max(STEPS)))
        for owner in owners:
            owner.close()
    figures = [figure(ENCODED, "us", floors)]
    figures += [figure(f"a message of {steps} steps", "us", found[steps]) for steps in STEPS]
    figures.append(figure(f"a message of {max(STEPS)} steps, durable on SQLite", "us", disk))
    figures.append(figure(LEAST, "us a step", [us / max(STEPS) for us in found[max(STEPS)]]))
    what = "the owner's time for a message of a lease: reports booked, more held, the entry sealed"
    return Row("renew", what, figures, f"<= {MOST_US} us a step", figures[-1].median <= MOST_US, ENCODED)
