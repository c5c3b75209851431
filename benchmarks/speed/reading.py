"""Rows ``verify``, ``restart`` and ``idle``: what a ledger costs those who read it, start on it, or leave it alone."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.account import SNAPSHOT_FORMAT, Account
from agentbudget.account.commands import Command, Hold
from agentbudget.clock import SECOND_US
from agentbudget.ledger.entry import Sealed, decode, genesis, seal
from agentbudget.ledger.fold import verify_and_fold
from agentbudget.ledger.journal import Batch, Snapshot
from agentbudget.ledger.sql import SqlJournal
from agentbudget.runtime.owner.owner import IDLE_SECONDS, SNAPSHOT_EVERY, Owner
from agentbudget.testing import ManualClock
from benchmarks.record import ROOT
from benchmarks.speed.measure import Effort, Row, count, elapsed_us, figure
from benchmarks.speed.owner import CREATION, hold, ledgers, settle

LEAST_A_SECOND: Final = 100_000
MOST_RESTART_SECONDS: Final = 2
MOST_IDLE_BYTES: Final = 100
PAGE: Final = 10_000
BARE_START: Final = "SQLite alone: open, read, hash the same"
LATE: Final = SNAPSHOT_EVERY - 2
"""Entries after the newest snapshot, the most that a small customer has (they come in pairs)."""
HELD: Final = 10
"""Open holds that a restart finds, so that it is not an empty state that it reads."""


class Life:
    """A customer's entries, one after the other: steps held and settled."""

    def __init__(self, customer: str = "acme") -> None:
        self.account, self.head, self._now_us = Account(customer), genesis(customer), time.time_ns() // 1_000

    def entries(self) -> Iterator[Sealed]:
        """Without end."""
        steps = (command for n in itertools.count() for command in (hold(f"step-{n}"), settle(f"step-{n}")))
        for command in itertools.chain(CREATION, (long_hold(f"open-{n}") for n in range(HELD)), steps):
            yield from self._sealed(command)

    def _sealed(self, command: Command) -> Iterator[Sealed]:
        self._now_us += 1
        for draft in self.account.handle(command, now_us=self._now_us, hits={}).drafts:
            sealed = seal(draft, self.head)
            self.head = sealed.hash
            yield sealed


def long_hold(step: str) -> Hold:
    """One that does not lapse while the benchmark runs."""
    return replace(hold(step), ttl_us=86_400 * SECOND_US)


def verify_and_fold_entries(effort: Effort) -> Row:
    """Entries a second through ``verify`` and ``fold`` in one pass, and through the account's own replay."""
    many = min(effort.entries, 100_000)
    entries = list(itertools.islice(Life().entries(), many))
    with ledgers() as url:
        journal = filled(url("ledger"), iter(entries))
        runs: dict[str, Callable[[], object]] = {
            "SHA-256 of each record": lambda: [sha256(one.record).hexdigest() for one in entries],
            "verify + fold": lambda: _right(entries),
            "verify + fold, read from SQLite": lambda: _right(journal.entries("acme")),
            "replay into an account": lambda: _replayed(entries),
        }
        rates: dict[str, list[float]] = {label: [] for label in runs}
        for _ in range(max(2, effort.rounds // 8)):
            for label, run in runs.items():
                rates[label].append(many / elapsed_us(run) * 1e6)
        journal.close()
    found = [figure(label, "entries/s", samples) for label, samples in rates.items()]
    is_met = found[1].median >= LEAST_A_SECOND
    target = f">= {LEAST_A_SECOND:,} entries/s"
    what = f"the chain checked and balances folded, {many:,} entries"
    return Row("verify", what, found, target, is_met, "SHA-256 of each record")


def _right(entries: Iterator[Sealed] | list[Sealed]) -> None:
    report, _ = verify_and_fold(entries)
    if not report.ok:
        raise RuntimeError(f"the benchmark is wrong: {report.fault}")


def _replayed(entries: list[Sealed]) -> Account:
    account = Account("acme")
    for sealed in entries:
        account.replay(decode(sealed.record))
    return account


def filled(url: str, entries: Iterator[Sealed]) -> SqlJournal:
    """A ledger with these entries, not synced at each commit."""
    journal = SqlJournal.open(url, synchronous="NORMAL")
    journal.claim("benchmark")
    while page := list(itertools.islice(entries, PAGE)):
        journal.commit(Batch(entries=page))
    return journal


_START: Final = """
import os, sys, time
from hashlib import sha256
import sqlite3
start = time.perf_counter()
connection = sqlite3.connect(sys.argv[1].removeprefix("sqlite:///"))
read = connection.execute("SELECT state FROM snapshots WHERE customer = 'acme'").fetchall()
read += connection.execute(
    "SELECT record FROM entries WHERE customer = 'acme' AND seq >"
    " (SELECT coalesce(max(seq), 0) FROM snapshots WHERE customer = 'acme')"
)
hashes = [sha256(row).hexdigest() for (row,) in read]
connection.close()
began = time.perf_counter()
from agentbudget import Runtime
from benchmarks.speed.owner import CATALOG
imported = time.perf_counter()
runtime = Runtime.open(sys.argv[1], CATALOG)
held = runtime.customer("acme").wallet.balance().held.nano
answered = time.perf_counter()
assert held, "no hold was found"
assert hashes, "the floor has read nothing"
pages = int(open("/proc/self/statm").read().split()[1])
print(began - start, answered - imported, imported - began, pages * os.sysconf("SC_PAGE_SIZE"), flush=True)
os._exit(0)  # as a crash would: closing writes a snapshot, and the next start would have nothing to replay
"""


def restart(effort: Effort) -> Row:
    """A new process opens a ledger of a million entries and answers. Its snapshot is as old as one gets, and stays so: with one
    entry more the first start would write a new one, and those after it would have nothing to replay."""
    with ledgers() as url:
        life = Life()
        journal = filled(url("ledger"), itertools.islice(life.entries(), effort.entries - LATE))
        _keep_snapshot(journal, life)
        _continue(journal, life)
        journal.close()
        age = _age_of_snapshot(url("ledger"))
        starts = [started(url("ledger")) for _ in range(max(2, effort.rounds // 4))]
        if not age == _age_of_snapshot(url("ledger")) == LATE:
            raise RuntimeError(f"the benchmark is wrong: a start replays {age} entries, then others another number")
    found = [
        figure(BARE_START, "s", [start.bare for start in starts]),
        figure(f"open, replay {LATE} entries, first answer", "s", [start.answer for start in starts]),
        figure("imports before it", "s", [start.imports for start in starts]),
    ]
    what = f"a process starts on {effort.entries:,} entries whose snapshot is {LATE} entries old"
    is_met = found[1].median < MOST_RESTART_SECONDS
    return Row("restart", what, found, f"< {MOST_RESTART_SECONDS} s", is_met, BARE_START)


def _keep_snapshot(journal: SqlJournal, life: Life) -> None:
    state = life.account.snapshot()
    journal.commit(Batch(snapshots=[Snapshot("acme", life.account.seq, life.head, SNAPSHOT_FORMAT, state)]))


def _continue(journal: SqlJournal, life: Life) -> None:
    """Entries after the snapshot."""
    commands = (command for n in range(LATE // 2) for command in (hold(f"late-{n}"), settle(f"late-{n}")))
    journal.commit(Batch(entries=[sealed for command in commands for sealed in life._sealed(command)]))


def _age_of_snapshot(url: str) -> int:
    """How many entries a start replays."""
    reader = SqlJournal.open(url, read_only=True)
    loaded = reader.load("acme")
    age = sum(1 for _ in loaded.entries) if loaded is not None else 0
    reader.close()
    return age


class Start(Struct, frozen=True):
    """Of one new process: seconds of SQLite alone for what it reads, until its first answer, and of its imports; its memory."""

    bare: float
    answer: float
    imports: float
    bytes: float


def started(url: str) -> Start:
    """A process starts on the ledger, asks for the balance of acme (which has something held), and dies."""
    done = subprocess.run(
        [sys.executable, "-c", _START, url], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return Start(*map(float, done))


def idle_customers(effort: Effort) -> Row:
    """Memory of the owner per customer: while it is in memory, and after it was put away."""
    customers, clock = min(effort.many, 2_000), ManualClock()
    with ledgers() as url:
        owner = Owner(SqlJournal.open(url("ledger"), synchronous="NORMAL"), clock, name="benchmark")
        _spend(owner, "first")  # what the first customer brings along is nobody's
        _put_away(owner, clock)
        tracemalloc.start()
        before = _memory()
        for n in range(customers):
            _spend(owner, f"customer-{n}")
        loaded = _memory()
        _put_away(owner, clock)
        put_away = _memory()
        tracemalloc.stop()
        owner.close()
    found = [
        count("in memory", (loaded - before) / customers, "bytes"),
        count("put away", (put_away - before) / customers, "bytes"),
    ]
    what = f"memory of the owner a customer, {customers:,} customers with a grant, a session and a settled step"
    return Row("idle", what, found, f"<= {MOST_IDLE_BYTES} bytes put away", found[1].median <= MOST_IDLE_BYTES)


def _spend(owner: Owner, customer: str) -> None:
    owner.handle([(customer, command) for command in (*CREATION, hold("step"), settle("step"))])


def _put_away(owner: Owner, clock: ManualClock) -> None:
    clock.advance(IDLE_SECONDS + 1)
    owner.tick()


def _memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
