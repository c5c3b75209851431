"""The twin in memory of a process's spool: what it had written when it died, whole record by whole record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agentbudget.account.commands import Renew, StepReport
from agentbudget.runtime.leases.lease import Key, OpenStep


class Died(BaseException):
    """The process ends here, in the middle of what it did."""


@dataclass
class Left:
    """What the records of one lease say that its process has left behind."""

    lease: str
    session: str
    holder: str
    key: Key
    on_unknown: str
    seq: int = 0
    names: tuple[str, ...] = ()
    tariffs: tuple[tuple[str, str], ...] = ()
    sent: Renew | None = None
    reports: list[StepReport] = field(default_factory=list)
    open: dict[int, OpenStep] = field(default_factory=dict)
    released: int = 0


@dataclass
class MemorySpool:
    """``tear`` is called before each record and may end the process (``Died``) or say that there is no room (False)."""

    holder: str
    tear: Callable[[str], bool]
    trails: dict[str, MemoryTrail] = field(default_factory=dict)
    unwritten: set[str] = field(default_factory=set)

    lack: str = "the fault has it so"

    def trail(self, customer: str, lease: str, session: str, key: Key, on_unknown: str) -> MemoryTrail | None:
        if not self.tear("trail"):
            return None
        self.trails[lease] = MemoryTrail(self, Left(lease, session, self.holder, key, on_unknown))
        return self.trails[lease]

    def close(self) -> None:
        """Nothing to give up."""


@dataclass
class MemoryTrail:
    """A record is written when it changes ``left``: a process that dies before has not written it."""

    spool: MemorySpool
    left: Left

    def begun(self, n: int, amount: int, measures: dict[str, int], opened_us: int, dispatched: bool) -> bool:
        if not self.spool.tear("begun"):
            return False
        self.left.open[n] = OpenStep(amount, dict(measures), 0, opened_us, dispatched)
        return True

    def dispatched(self, n: int) -> bool:
        if not self.spool.tear("dispatched"):
            return False
        self.left.open[n].dispatched = True
        return True

    def extended(self, n: int, amount: int, measures: dict[str, int]) -> bool:
        if not self.spool.tear("extended"):
            return False
        step = self.left.open[n]
        step.amount, step.measures = amount, dict(measures)
        return True

    def settled(self, report: StepReport) -> bool:
        if not self.spool.tear("settled"):
            self.spool.unwritten.add(report.step)
            return False
        self.left.open.pop(int(report.step.rpartition(".")[2]), None)
        self.left.reports.append(report)
        return True

    def released(self, n: int) -> bool:
        self.spool.tear("released!")
        self.left.open.pop(n, None)
        self.left.released += 1
        return True

    def guessed(self, n: int) -> bool:
        self.spool.tear("guessed!")
        self.left.open.pop(n, None)
        return True

    def facts(self, names: tuple[str, ...], tariffs: tuple[tuple[str, str], ...]) -> bool:
        self.spool.tear("facts!")
        self.left.names, self.left.tariffs = names, tariffs
        return True

    def sending(self, renew: Renew) -> bool:
        self.spool.tear("sending!")
        left, steps = self.left, {step.step for step in renew.steps}
        for name in steps:
            left.open.pop(int(name.rpartition(".")[2]), None)  # there may have been no room to say that it had ended
        left.released = 0
        left.sent, left.reports = renew, [report for report in left.reports if report.step not in steps]
        return True

    def answered(self, seq: int, live: Mapping[int, OpenStep], reports: list[StepReport]) -> None:
        self.spool.tear("answered!")
        left = self.left
        left.sent, left.seq, left.reports = None, seq, list(reports)
        left.open = {n: OpenStep(s.amount, s.measures, 0, s.opened_us, s.dispatched) for n, s in live.items()}

    def closed(self) -> None:
        self.spool.tear("closed!")
        self.spool.trails.pop(self.left.lease, None)
