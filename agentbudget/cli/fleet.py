"""``agentbudget demo --workers``: processes that share one prepaid wallet are killed while they spend it.

The process that watches only reads; one of the workers owns the ledger, and the owner is killed too.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentbudget.amounts import Credits
from agentbudget.cli.fleet_facts import FleetFacts, FleetWatcher, Happening, Look, Totals, WorkerRow, prove
from agentbudget.cli.fleet_worker import INPUT, OUTPUT, Report, Spec
from agentbudget.errors import InvalidRequest

if TYPE_CHECKING:
    from agentbudget.runtime.runtime import Runtime
    from agentbudget.runtime.views import Balance, OpenHold

CUSTOMER: Final = "acme"
MAX_WORKERS: Final = 32
STEPS_EACH: Final = 200
"""Steps per worker that the wallet is made for, where no budget is stated."""
LATENCY_SECONDS: Final = 0.04
LOOK_SECONDS: Final = 0.4
MOST_SECONDS: Final = 90.0
"""When the workers are stopped, whatever they do; they are done in a few seconds."""
KILLS: Final = ((0.15, False), (0.3, True), (0.5, False), (0.7, True))
"""Which part of the wallet is spent when somebody is killed, and whether it is the owner."""


class Life:
    """One process of a worker."""

    def __init__(self, number: int, life: int, child: subprocess.Popen[bytes], log: Path) -> None:
        self.number, self.life, self.child, self.log = number, life, child, log
        self.last = Report("", False, 0, 0, 0, "starting")
        self.is_killed = self.is_over = False
        self._rest = b""

    def hear(self) -> bool:
        """Take what it said; False at its end."""
        assert self.child.stdout is not None
        data = os.read(self.child.stdout.fileno(), 65_536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self.last = msgspec.json.decode(lines[-1], type=Report)
        return bool(data)

    @property
    def runs(self) -> bool:
        return not (self.is_over or self.is_killed) and self.last.state in ("working", "waiting")


class Fleet:
    """The workers, and whoever kills them."""

    def __init__(
        self, url: str, folder: Path, workers: int, model: str, wallet: Credits, watcher: FleetWatcher
    ) -> None:
        self._url, self._folder, self._workers, self._model, self._wallet = url, folder, workers, model, wallet
        self._watcher, self._started = watcher, time.monotonic()
        self._dice = random.Random(workers)
        self._selector = selectors.DefaultSelector()
        self._lives: list[Life] = []
        self._waiting: list[Life] = []
        self._kills = [kill for kill in KILLS if workers > 1 or kill[1]]
        self._owner: Life | None = None
        self._totals = Totals()
        self.happenings: list[Happening] = []
        self.owners_killed = 0

    @property
    def logs(self) -> list[Path]:
        """Where the workers wrote down what they settled."""
        return [life.log for life in self._lives]

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(life.is_killed for life in self._lives)

    def run(self) -> None:
        """Start the workers, watch and kill them, until the wallet is spent and all have ended. Leaves no process behind."""
        from agentbudget.runtime.runtime import Runtime

        try:
            for number in range(1, self._workers + 1):
                self._start(number)
            with Runtime.open(self._url, read_only=True) as reader:
                self._watch(reader)
        finally:
            for life in self._lives:
                _end(life.child)
            self._selector.close()

    def rows(self) -> tuple[WorkerRow, ...]:
        """Every worker now."""
        return tuple(self._row(number) for number in range(1, self._workers + 1))

    def _watch(self, reader: Any) -> None:
        next_look, deadline = 0.0, self._started + MOST_SECONDS
        while any(not life.is_over for life in self._lives):
            now = time.monotonic()
            if now > deadline:
                raise InvalidRequest(f"the workers did not end within {MOST_SECONDS:.0f} s: try fewer", "workers")
            if now >= next_look:
                self._look(reader)
                next_look = time.monotonic() + LOOK_SECONDS
            self._hear(max(0.0, next_look - time.monotonic()))
            self._note_owner()
            self._kill_when_due()
        self._look(reader)

    def _hear(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            life: Life = key.data
            if life.hear():
                continue
            self._selector.unregister(key.fileobj)
            life.is_over = True
            code = life.child.wait()
            if not life.is_killed and code:
                why = life.log.with_suffix(".err").read_text("utf-8", "replace").strip().rpartition("\n")[2]
                self._tell("ended", life, f"worker {life.number} ended by itself with code {code}: {why[:200]}")

    def _note_owner(self) -> None:
        owner = next((life for life in self._lives if life.runs and life.last.owns), None)
        if owner is not None and owner is not self._owner:
            verb = "owns the ledger" if self._owner is None else "took over the ledger"
            self._tell("owns", owner, f"worker {owner.number} {verb}")
            self._owner = owner

    def _kill_when_due(self) -> None:
        spent = sum(life.last.spent for life in self._lives)
        if not self._kills or spent < self._kills[0][0] * self._wallet.nano:
            return
        _, of_owner = self._kills[0]
        found = [life for life in self._lives if life.runs and life.last.owns == of_owner and life.last.steps]
        if found:
            del self._kills[0]
            self._kill(self._dice.choice(found), of_owner=of_owner)

    def _kill(self, life: Life, *, of_owner: bool) -> None:
        life.is_killed = True
        life.child.send_signal(signal.SIGKILL)
        self.owners_killed += of_owner
        self._waiting.append(life)
        self._tell("killed", life, f"killed worker {life.number}{', which owned the ledger' if of_owner else ''}")
        self._start(life.number)

    def _start(self, number: int) -> None:
        life = 1 + sum(one.number == number for one in self._lives)
        name = f"worker-{number}.{life}"
        log = self._folder / f"{name}.log"
        spec = Spec(
            self._url, CUSTOMER, name, self._wallet.nano, self._model, 1_000 * number + life, LATENCY_SECONDS, str(log)
        )
        with open(self._folder / f"{name}.err", "wb") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", "agentbudget.cli.fleet_worker", msgspec.json.encode(spec).decode()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )  # fmt: skip
        made = Life(number, life, child, log)
        self._lives.append(made)
        assert child.stdout is not None
        self._selector.register(child.stdout, selectors.EVENT_READ, made)

    def _look(self, reader: Any) -> None:
        """Read the wallet from the file, and see which dead processes have been replayed."""
        from agentbudget.runtime.machine.sharing import database_of, spool_folder

        acme = reader.customer(CUSTOMER)
        dead = {life.last.holder for life in self._lives if life.is_killed}
        self._totals = totals(acme.wallet.balance(), acme.holds(), dead)
        spools = spool_folder(database_of(self._url))
        for life in list(self._waiting):
            if life.last.holder and not any(Path(spools).glob(f"{life.last.holder}*")):
                self._waiting.remove(life)
                self._tell("replayed", life, f"what killed worker {life.number} had not reported is in the ledger")
        owner = 0 if self._owner is None or not self._owner.runs else self._owner.child.pid
        self._watcher.looked(Look(self.rows(), self._totals, owner))

    def _row(self, number: int) -> WorkerRow:
        own = [life for life in self._lives if life.number == number]
        last = own[-1]
        state = last.last.state if not last.is_over or last.last.state == "done" else "ended"
        steps, spent = sum(life.last.steps for life in own), sum(life.last.spent for life in own)
        refused = sum(life.last.refused for life in own)
        return WorkerRow(number, last.child.pid, len(own), state, steps, Credits.of_nano(spent), refused)

    def _tell(self, what: str, life: Life, text: str) -> None:
        seconds = round(time.monotonic() - self._started, 1)
        self.happenings.append(
            Happening(seconds, what, life.number, life.child.pid, f"{text} (process {life.child.pid})")
        )
        self._watcher.happened(self.happenings[-1])


def run_fleet(path: Path | None, workers: int, model: str, wallet: Credits, watcher: FleetWatcher) -> FleetFacts:
    """The demonstration, on a ledger at ``path`` (None: one that is gone afterwards)."""
    from agentbudget.catalog import Catalog
    from agentbudget.runtime.runtime import Runtime

    with tempfile.TemporaryDirectory(prefix="agentbudget-") as folder:
        url = f"sqlite:///{Path(folder) / 'demo.db' if path is None else path.absolute()}"
        with Runtime.open(url, Catalog.bundled()) as runtime:
            prepare(runtime, wallet)
        fleet = Fleet(url, Path(folder), workers, model, wallet, watcher)
        fleet.run()
        with Runtime.open(url, Catalog.bundled()) as runtime:
            proof = prove(runtime, runtime.customer(CUSTOMER), fleet.logs, url=None if path is None else url)
        rows = fleet.rows()
        refused = sum(row.refused for row in rows)
        happenings = tuple(fleet.happenings)
        return FleetFacts(CUSTOMER, model, rows, fleet.kills, fleet.owners_killed, refused, happenings, proof)


def prepare(runtime: Runtime, wallet: Credits) -> None:
    """The customer with the prepaid wallet, and nothing else."""
    acme = runtime.customers.create(CUSTOMER, plan="starter")
    acme.wallet.void("plan:trial", reason="the demonstration has a grant of its own")
    acme.wallet.grant(wallet, label="prepaid", key="prepaid")


def wallet_for(workers: int, model: str) -> Credits:
    """What the workers spend in a few seconds, up to whole tenths of a credit."""
    from agentbudget.catalog import Catalog, PriceRequest, Usage

    usage = Usage(input_tokens=INPUT[0], output_tokens=sum(OUTPUT) // 4)
    nano = Catalog.bundled().charge(PriceRequest(kind="llm", model=model), usage).nano * STEPS_EACH * workers
    return Credits.of_nano(-(-nano // 100_000_000) * 100_000_000)


def totals(balance: Balance, holds: tuple[OpenHold, ...], dead: set[str]) -> Totals:
    """The wallet; ``dead``: the holders that were killed."""
    of_dead = sum((one.amount for one in holds if one.holder and one.holder in dead), Credits(0))
    return Totals(balance.available, balance.held, of_dead, balance.suspended, balance.consumed)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a worker that we started, if it still runs."""
    if child.poll() is None:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
