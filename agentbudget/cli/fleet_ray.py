"""``agentbudget demo --ray``: actors drain one prepaid wallet, and the actor that owns it is killed meanwhile.

Each worker is handed a session, whose children its runaway sub-agents are. The process that watches reads the ledger's file and
asks Ray how the owner is; it spends nothing.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentbudget.amounts import Credits
from agentbudget.cli.fleet import CUSTOMER, LATENCY_SECONDS, LOOK_SECONDS, MOST_SECONDS, prepare, totals
from agentbudget.cli.fleet_facts import FleetFacts, FleetWatcher, Happening, Look, Totals, WorkerRow, prove
from agentbudget.cli.fleet_worker import SUB_AGENTS, RayWorker, Report, Spec, open_session
from agentbudget.errors import InvalidRequest, OwnerUnavailable

if TYPE_CHECKING:
    from agentbudget.runtime.on_ray.cluster import Remote
    from agentbudget.runtime.on_ray.owners import Owners
    from agentbudget.runtime.runtime import Runtime

WORKERS: Final = 4
"""Where no number is stated."""
OWNER: Final = "owner-0"
"""The only one of a ledger in a file."""
KILLS: Final = (0.35, 0.7)
"""Which part of the wallet is spent when the owner is killed."""
ANSWER_SECONDS: Final = 0.2
"""How long a look waits for what is asked of Ray."""


class Place:
    """One worker and what it said last."""

    def __init__(self, number: int, log: Path, actor: Remote) -> None:
        self.number, self.log, self.actor = number, log, actor
        self.last = Report("", False, 0, 0, 0, "starting")

    @property
    def is_over(self) -> bool:
        return self.last.state in ("done", "ended")

    def row(self) -> WorkerRow:
        last = self.last
        return WorkerRow(self.number, last.pid, 1, last.state, last.steps, Credits.of_nano(last.spent), last.refused)


class RayFleet:
    """The workers, and who kills their owner."""

    def __init__(self, runtime: Runtime, owners: Owners, wallet: Credits, watcher: FleetWatcher) -> None:
        self._runtime, self._owners, self._wallet, self._watcher = runtime, owners, wallet, watcher
        self._started = time.monotonic()
        self._kills = list(KILLS)
        self._places: list[Place] = []
        self._owner = self._killed = 0
        self._killed_at = 0.0
        self._totals = Totals()
        self.happenings: list[Happening] = []
        self.owners_killed = 0

    @property
    def logs(self) -> list[Path]:
        """Where the workers wrote down what they settled."""
        return [place.log for place in self._places]

    def rows(self) -> tuple[WorkerRow, ...]:
        """Every worker now."""
        return tuple(place.row() for place in self._places)

    def run(self, folder: Path, workers: int, model: str) -> None:
        """Start the workers, watch them, and kill the owner, until the wallet is spent. Leaves no worker behind."""
        from agentbudget.runtime.runtime import Runtime

        try:
            for number in range(1, workers + 1):
                self._start(folder, number, model)
            with Runtime.open(self._runtime.settings.ledger, read_only=True) as reader:
                self._watch(reader)
        finally:
            for place in self._places:
                place.actor.end()

    def _start(self, folder: Path, number: int, model: str) -> None:
        from agentbudget.runtime.on_ray.cluster import Remote

        name = f"worker-{number}"
        log = folder / f"{name}.log"
        budget = (
            self._wallet.nano * SUB_AGENTS
        )  # so that each sub-agent may spend the whole wallet: it alone stops them
        ledger = self._runtime.settings.ledger
        spec = Spec(ledger, CUSTOMER, name, budget, model, 1_000 * number, LATENCY_SECONDS, str(log), drains=True)
        handle = open_session(self._runtime, spec).open().handle()
        self._places.append(Place(number, log, Remote(RayWorker, handle, spec)))

    def _watch(self, reader: Any) -> None:
        deadline = self._started + MOST_SECONDS
        while not all(place.is_over for place in self._places):
            if time.monotonic() > deadline:
                raise InvalidRequest(f"the workers did not end within {MOST_SECONDS:.0f} s: try fewer", "workers")
            self._hear()
            self._look(reader)
            self._kill_when_due()
            time.sleep(LOOK_SECONDS / 2)
        self._look(reader)
        if self._totals.consumed == self._wallet:
            self._tell("stopped", 0, 0, f"stopped: {self._totals.consumed} of {self._wallet} credits are spent")

    def _hear(self) -> None:
        for place in self._places:
            if place.is_over:
                continue
            try:
                place.last = place.actor.hear("report", ANSWER_SECONDS) or place.last
            except OwnerUnavailable as error:
                place.last = msgspec.structs.replace(place.last, state="ended")
                self._tell("ended", place.number, 0, f"worker {place.number} ended by itself: {error}")

    def _look(self, reader: Any) -> None:
        """Read the wallet from the file, and ask the owner whether it is there."""
        acme = reader.customer(CUSTOMER)
        self._totals = totals(acme.wallet.balance(), acme.holds(), set())
        self._note_owner(self._owners.look(OWNER, ANSWER_SECONDS))
        self._watcher.looked(Look(self.rows(), self._totals, self._owner))

    def _note_owner(self, status: dict[str, Any] | None) -> None:
        if status is None or not status.get("open") or status["pid"] in (self._owner, self._killed):
            return
        self._owner = status["pid"]
        if self._killed:
            after = time.monotonic() - self._killed_at
            self._tell("owns", 0, self._owner, f"Ray started the owner again: it serves {after:.1f} s after the kill")
        else:
            self._tell("owns", 0, self._owner, f"{OWNER} owns the ledger")

    def _kill_when_due(self) -> None:
        if not self._kills or not self._owner or self._totals.consumed.nano < self._kills[0] * self._wallet.nano:
            return
        if all(place.is_over for place in self._places):
            return
        try:
            self._owners.crash(OWNER)
        except OwnerUnavailable:  # it is being started again already: a later look kills it
            return
        del self._kills[0]
        self._killed, self._owner, self._killed_at = self._owner, 0, time.monotonic()
        self.owners_killed += 1
        self._tell("killed", 0, self._killed, "killed the actor that owns the ledger")

    def _tell(self, what: str, worker: int, pid: int, text: str) -> None:
        seconds = round(time.monotonic() - self._started, 1)
        where = f" (process {pid})" if pid else ""
        self.happenings.append(Happening(seconds, what, worker, pid, f"{text}{where}"))
        self._watcher.happened(self.happenings[-1])


def run_on_ray(path: Path | None, workers: int, model: str, wallet: Credits, watcher: FleetWatcher) -> FleetFacts:
    """The demonstration, on a ledger at ``path`` (None: one that is gone afterwards) and the cluster that this process is on.
    Leaves no owner behind."""
    from agentbudget.catalog import Catalog
    from agentbudget.runtime.on_ray.owners import Owners
    from agentbudget.runtime.runtime import Runtime

    with tempfile.TemporaryDirectory(prefix="agentbudget-") as folder:
        url = f"sqlite:///{Path(folder) / 'demo.db' if path is None else path.absolute()}"
        with Runtime.open(url, Catalog.bundled(), host="ray", owner_lifetime="driver") as runtime:
            owners = Owners.of(runtime.settings)
            try:
                prepare(runtime, wallet)
                fleet = RayFleet(runtime, owners, wallet, watcher)
                fleet.run(Path(folder), workers, model)
            finally:
                for name in owners.names():
                    owners.end(name)
        with Runtime.open(url, Catalog.bundled(), host="local") as runtime:  # nobody owns it any more
            proof = prove(runtime, runtime.customer(CUSTOMER), fleet.logs, url=None if path is None else url)
        rows, killed = fleet.rows(), fleet.owners_killed
        refused = sum(row.refused for row in rows)
        return FleetFacts(CUSTOMER, model, rows, killed, killed, refused, tuple(fleet.happenings), proof, on_ray=True)
