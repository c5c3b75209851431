"""What ``agentbudget demo --workers`` (and ``--ray``) shows while it runs, and proves when it is over."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from agentbudget.amounts import Credits

if TYPE_CHECKING:
    from agentbudget.runtime.customer import Customer
    from agentbudget.runtime.runtime import Runtime

SETTLE_SECONDS: Final = 20.0
"""How long the end waits for what dead processes held; it is replayed at once, unless something is wrong."""


class WorkerRow(Struct, frozen=True):
    """A worker now. ``lives``: processes that it was; ``pid``: of the newest. ``steps``, ``spent``, ``refused``: of all."""

    number: int
    pid: int
    lives: int
    state: str
    steps: int
    spent: Credits
    refused: int


class Totals(Struct, frozen=True):
    """The wallet. ``dead``: of what is held, what killed processes hold until it is replayed; ``suspended``: of it, what the
    owner has marked because its holder is silent."""

    available: Credits = Credits(0)
    held: Credits = Credits(0)
    dead: Credits = Credits(0)
    suspended: Credits = Credits(0)
    consumed: Credits = Credits(0)


class Happening(Struct, frozen=True):
    """Something that happened, ``seconds`` after the start. ``what``: killed, owns (the ledger), replayed, ended, or
    stopped (nothing is left). ``worker``: 0 when it was none."""

    seconds: float
    what: str
    worker: int
    pid: int
    text: str


class Look(Struct, frozen=True):
    """Everything at one moment. ``owner``: its process, 0 while nobody owns the ledger."""

    workers: tuple[WorkerRow, ...]
    totals: Totals
    owner: int


class FleetWatcher(Protocol):
    """Is told what happens while it happens."""

    def looked(self, look: Look) -> None: ...

    def happened(self, one: Happening) -> None: ...


class FleetProof(Struct, frozen=True):
    """The ledger afterwards. ``settled``: steps that workers saw settled, by what they wrote down themselves; ``lost``: of
    these, the ones that the ledger has not, or not at that cost; ``twice``: steps that it has more than once; ``cut_short``:
    steps that were under way when their process was killed, charged in full because nobody knows what they cost;
    ``overspend``: what was consumed beyond the grant. ``unresolved``: holds that are still open. ``suspended``: of what is held,
    what silent processes have leased."""

    url: str | None
    entries: int
    verified: bool
    differences: int
    steps: int
    settled: int
    lost: int
    twice: int
    cut_short: int
    unresolved: int
    granted: Credits
    consumed: Credits
    available: Credits
    held: Credits
    overspend: Credits
    suspended: Credits = Credits(0)

    @property
    def is_drained(self) -> bool:
        """Whether the wallet was spent to the last nanocredit, and not beyond."""
        return self.consumed + self.suspended == self.granted

    @property
    def is_sound(self) -> bool:
        """Whether nothing is lost, booked twice, overspent or left open."""
        balanced = self.granted == self.consumed + self.available + self.held
        wrong = self.differences or self.lost or self.twice or self.unresolved or self.overspend
        return self.verified and balanced and not wrong


class FleetFacts(Struct, frozen=True):
    """The whole run. ``on_ray``: the workers were to drain the wallet, and only owners were killed."""

    customer: str
    model: str
    workers: tuple[WorkerRow, ...]
    kills: int
    owners_killed: int
    refused: int
    happenings: tuple[Happening, ...]
    ledger: FleetProof
    on_ray: bool = False

    @property
    def failed(self) -> int:
        """Workers that ended with an error of their own."""
        return sum(one.what == "ended" for one in self.happenings)

    @property
    def is_sound(self) -> bool:
        """Whether everything that the demonstration claims is so."""
        return self.ledger.is_sound and not self.failed and (self.ledger.is_drained or not self.on_ray)


def prove(runtime: Runtime, customer: Customer, logs: Iterable[Path], *, url: str | None) -> FleetProof:
    """Wait until what dead processes held is replayed, then check everything. The runtime owns the ledger."""
    unresolved = _wait_until_replayed(runtime, customer)
    for session in customer.sessions.list():
        if session.parent is None:
            customer.sessions.close(session.id)
    booked, amounts, cut_short = _booked(customer)
    settled = _written_down(logs)
    lost = sum(amounts.get(step) != nano for step, nano in settled.items())
    balance, report = customer.wallet.balance(), runtime.ledger.verify()
    granted = balance.issued - balance.voided - balance.overdraft - balance.receivable
    return FleetProof(
        url=url, entries=report.entries, verified=report.ok, differences=len(runtime.ledger.reconcile()),
        steps=len(booked), settled=len(settled), lost=lost, twice=sum(times > 1 for times in booked.values()),
        cut_short=cut_short, unresolved=unresolved, granted=granted, consumed=balance.consumed,
        available=balance.available, held=balance.held, overspend=balance.overdraft + balance.receivable,
        suspended=balance.suspended,
    )  # fmt: skip


def _wait_until_replayed(runtime: Runtime, customer: Customer) -> int:
    """Holds that are still open, at most ``SETTLE_SECONDS`` later."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        runtime.sweep()
        holds = customer.holds()
        if not holds or time.monotonic() > deadline:
            return len(holds)
        time.sleep(0.2)


def _booked(customer: Customer) -> tuple[Counter[str], dict[str, int], int]:
    """From the entries alone: how often each step is booked, at what, and how many were charged without being known."""
    times: Counter[str] = Counter()
    amounts: Counter[str] = Counter()
    cut_short = 0
    for line in customer.ledger.steps():
        amounts[line.step] += line.amount
        times[line.step] += line.state in ("settled", "unknown")
        cut_short += line.state == "unknown"
    return times, amounts, cut_short


def _written_down(logs: Iterable[Path]) -> dict[str, int]:
    """What workers wrote down; the last line of a killed one may be cut off."""
    found = {}
    for path in logs:
        if path.exists():
            for line in path.read_text("ascii").splitlines(keepends=True):
                if line.endswith("\n"):
                    step, nano = line.split()
                    found[step] = int(nano)
    return found
