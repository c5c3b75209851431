"""Rows ``step`` and ``callers``: strict steps, each durable before it is answered, against bare commits of the same rows."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agentbudget import Catalog, Runtime
from agentbudget.account.commands import Command, CreateCustomer, Hold, IssueGrant, OpenSession, SettleHold
from agentbudget.clock import SystemClock
from agentbudget.ledger import statements
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.sql import SqlJournal
from agentbudget.runtime.owner.local_host import LocalHost
from agentbudget.runtime.owner.owner import Owner
from benchmarks.speed.measure import Effort, Row, figure, figures, taking_turns

CATALOG: Final = Catalog.loads('[plans.prepaid]\nwallet = "prepaid"', source="benchmark")
CREATION: Final[tuple[Command, ...]] = (
    CreateCustomer(CATALOG.terms("prepaid")),
    IssueGrant("grant", 10**17),
    OpenSession("run", budget=10**17),
)
MOST_RATIO: Final = 2
LEAST_SPEED_UP: Final = 4
CALLERS: Final = 64
STEP: Final = "step through the mailbox"
FLOOR: Final = "two bare commits of its rows"
GROUPED: Final = f"bare rows of {CALLERS} steps in two commits"
ONE_BARE, ONE, MANY = "bare rows of one step in two commits", "one caller", f"{CALLERS} callers"
GAIN: Final = "gain, by round"


def hold(step: str) -> Hold:
    return Hold(step, "run", "tool", 1_000_000, {"steps": 1, "seconds": 1}, tool="search")


def settle(step: str) -> SettleHold:
    return SettleHold(step, 700_000)


class Bare:
    """The floor: the same two rows, each in a transaction of its own, on the driver's connection. ``triggers``: with those
    that refuse changes, or only the table and its indexes."""

    def __init__(self, url: str, rows: tuple[Sealed, Sealed], *, triggers: bool) -> None:
        SqlJournal.open(url).close()
        self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        self._connection.execute("PRAGMA synchronous = FULL")
        if not triggers:
            for name in ("update", "delete", "replace"):
                self._connection.execute(f"DROP TRIGGER entries_no_{name}")
        self._rows, self._seq = rows, itertools.count(1)

    def step(self) -> None:
        self.steps(1)

    def steps(self, many: int) -> None:
        """So many steps at once: all holds in one transaction, then all settlements."""
        connection = self._connection
        for row in self._rows:
            connection.execute("BEGIN IMMEDIATE")
            for seq in itertools.islice(self._seq, many):
                connection.execute(statements.APPEND, ("acme", seq, 1, f"step-{seq}", row.record, row.hash))
            connection.execute("COMMIT")


@contextmanager
def ledgers() -> Iterator[Callable[[str], str]]:
    """Names to URLs, in a folder that is removed afterwards (set TMPDIR to choose the disk)."""
    with tempfile.TemporaryDirectory(prefix="agentbudget-", ignore_cleanup_errors=True) as folder:
        yield lambda name: f"sqlite:///{folder}/{name}.db"


def one_caller(effort: Effort) -> Row:
    """One step after the other: at the owner, through its mailbox, and through the public API."""
    with ledgers() as url:
        owner = Owner(SqlJournal.open(url("owner")), SystemClock(), name="benchmark")
        host, runtime = LocalHost(SqlJournal.open(url("host")), SystemClock()), Runtime.open(url("session"), CATALOG)
        steps = itertools.count()
        owner.handle([("acme", command) for command in CREATION])
        rows = rows_of_a_step(url("rows"))
        runs: dict[str, Callable[[], object]] = {
            FLOOR: Bare(url("bare"), rows, triggers=False).step,
            "two bare commits, with the table's triggers": Bare(url("triggers"), rows, triggers=True).step,
            "step at the owner, no thread between": lambda: at_owner(owner, f"s{next(steps)}"),
            STEP: _through(host, steps),
            "step through session.reserve and settle": _by_session(runtime),
        }
        found = figures(taking_turns(runs, rounds=2 * effort.rounds, block=20, warm_up=20))
        for opened in (owner, host, runtime):
            opened.close()
    what = "a step, held and settled, each durable (WAL, synchronous=FULL) before its answer; one caller"
    row = Row("step", what, found, f"<= {MOST_RATIO} x its bare commits", floor=FLOOR)
    ratio = row.ratio(row[STEP]) or 0
    return Row(row.name, row.what, found, row.target, ratio <= MOST_RATIO, FLOOR)


def rows_of_a_step(url: str) -> tuple[Sealed, Sealed]:
    """The two entries of a step as a ledger has them; one is made there."""
    owner = Owner(SqlJournal.open(url), SystemClock(), name="benchmark")
    owner.handle([("acme", command) for command in (*CREATION, hold("sample"), settle("sample"))])
    owner.close()
    reader = SqlJournal.open(url, read_only=True)
    held, settled = list(reader.entries("acme"))[-2:]
    reader.close()
    return held, settled


def at_owner(owner: Owner, step: str) -> None:
    owner.handle([("acme", hold(step))])
    owner.handle([("acme", settle(step))])


def _through(host: LocalHost, steps: Iterator[int]) -> Callable[[], None]:
    for command in CREATION:
        host.ask("acme", command)

    def step() -> None:
        name = f"s{next(steps)}"
        host.ask("acme", hold(name))
        host.ask("acme", settle(name))

    return step


def _by_session(runtime: Runtime) -> Callable[[], None]:
    acme = runtime.customers.create("acme", plan="prepaid")
    acme.wallet.grant(10**6)
    session = acme.session(budget=10**6, mode="strict").open()

    def step() -> None:
        session.reserve("tool", name="search", amount="0.001", dispatched=True).settle(amount="0.0007")

    return step


def many_callers(effort: Effort) -> Row:
    """Group commit: steps a second of one caller, and of 64 on the same customer."""
    with ledgers() as url:
        host = LocalHost(SqlJournal.open(url("host")), SystemClock())
        bare = Bare(url("bare"), rows_of_a_step(url("rows")), triggers=False)
        found = group_commit(host, bare.steps, effort)
        host.close()
    what = f"durable steps a second (hold + settle) on SQLite: {CALLERS} threads on one customer against one"
    return group_commit_row("callers", what, found)


def group_commit(host: LocalHost, bare: Callable[[int], object], effort: Effort) -> dict[str, list[float]]:
    """Steps a second by the label of who makes them, in turns. ``bare`` writes the rows of so many steps in two commits."""
    step = _through(host, itertools.count())
    step()
    found: dict[str, list[float]] = {label: [] for label in (GROUPED, ONE_BARE, ONE, MANY, GAIN)}
    for _ in range(max(2, effort.rounds // 4)):
        found[GROUPED].append(bare_rate(bare, CALLERS, times=20))
        found[ONE_BARE].append(bare_rate(bare, 1, times=100))
        found[ONE].append(rate(step, callers=1, steps=100))
        found[MANY].append(rate(step, callers=CALLERS, steps=20))
        found[GAIN].append(found[MANY][-1] / found[ONE][-1])
    return found


def group_commit_row(name: str, what: str, found: dict[str, list[float]]) -> Row:
    """The row of either database."""
    row = Row(name, what, [figure(label, "x" if label == GAIN else "steps/s", some) for label, some in found.items()])
    is_met = row[GAIN].median >= LEAST_SPEED_UP
    return Row(name, what, row.figures, f">= {LEAST_SPEED_UP} x one caller's rate", is_met, GROUPED)


def bare_rate(bare: Callable[[int], object], many: int, *, times: int) -> float:
    """Steps a second of so many in two commits."""
    start = time.perf_counter_ns()
    for _ in range(times):
        bare(many)
    return many * times / (time.perf_counter_ns() - start) * 1e9


def rate(step: Callable[[], object], *, callers: int, steps: int) -> float:
    """Steps a second of so many threads, each running so many."""
    barrier, failed = threading.Barrier(callers + 1), list[Exception]()

    def caller() -> None:
        barrier.wait()
        try:
            for _ in range(steps):
                step()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter_ns() - start
    if failed:
        raise failed[0]
    return callers * steps / elapsed * 1e9
