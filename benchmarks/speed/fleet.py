"""Rows ``ray-drain`` and ``customers``: a fleet's worth of processes and of customers, with owners on Ray and PostgreSQL."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agentbudget import BudgetDenied, Runtime, Session
from agentbudget.account.account import Account
from agentbudget.account.commands import Command
from agentbudget.amounts import to_nano
from agentbudget.ledger.entry import Sealed, genesis, seal
from agentbudget.ledger.journal import Batch
from agentbudget.ledger.postgres.journal import PostgresJournal
from agentbudget.runtime.host import Host
from agentbudget.runtime.on_ray import opening as ray_open
from agentbudget.runtime.on_ray.owners import Owners
from agentbudget.runtime.session_terms import Mode
from benchmarks.speed.drain import FLOOR, LEAST_PAIRS, PROCESSES, bare, together
from benchmarks.speed.measure import Effort, Row, count, figure
from benchmarks.speed.owner import CATALOG, CREATION, hold, settle
from tests.postgres.server import PostgresServer

THREADS: Final = 4
OWNERS: Final = 4
CALLERS: Final = 4
PAGE: Final = 3_000
WARM_UP: Final = 64
MOST_COLD_US: Final = 100_000
MOST_START: Final = 1.25
MOST_BYTES: Final = 20_000
LEASED: Final = f"{PROCESSES} processes x {THREADS} threads, leased"
LOST: Final = "nanocredits not booked, or booked twice"
EMPTY: Final = "open and first answer, an empty database"
COLD_P95: Final = "first answer of a cold customer, 95th percentile"
A_CUSTOMER: Final = "memory of a customer at its owner"


@contextmanager
def _cluster() -> Iterator[PostgresServer]:
    """A server that syncs, and a Ray cluster of this machine."""
    import ray

    with PostgresServer(is_synced=True) as server:
        ray_open.join(30)
        try:
            yield server
        finally:
            ray.shutdown()


@contextmanager
def _runtime(url: str, owners: int = 1) -> Iterator[Runtime]:
    with Runtime.open(url, CATALOG, "ray", owners=owners) as runtime:
        yield runtime
    seats = Owners.of(runtime.settings)
    for name in seats.names():
        seats.end(name)


# --- one wallet ----------------------------------------------------------------------------------------------------------------


class Worker:
    """A process of the fleet: a Ray actor with sessions of one customer."""

    def __init__(self, url: str, mode: Mode) -> None:
        self._runtime = Runtime.open(url, CATALOG, "ray")
        self._sessions = [self._runtime.customer("acme").session(mode=mode).open() for _ in range(THREADS)]

    def is_ready(self) -> bool:
        return True

    def drain(self) -> None:
        """Until every thread is refused."""
        threads = [threading.Thread(target=_spend, args=(session,)) for session in self._sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def leave(self) -> None:
        self._runtime.close()


def _spend(session: Session) -> None:
    try:
        while True:
            session.reserve("tool", name="search", amount="0.001", dispatched=True).settle(amount="0.001")
    except BudgetDenied:
        session.close()


def drain(effort: Effort) -> Row:
    """Pairs a second from the moment all are ready until the wallet is empty; and the same number of bare pairs."""
    pairs, rounds = max(2_000, effort.many * 10), 3 if effort.rounds > 2 else 1
    floors, leased = list[float](), list[tuple[float, int]]()
    with _cluster() as server:
        for _ in range(rounds):
            floors.append(together(4 * pairs, bare, (4 * pairs // PROCESSES,)))
            leased.append(_drained(server.url(server.new_database()), pairs, "leased"))
        strict = _drained(server.url(server.new_database()), max(1_000, pairs // 500), "strict")
    wrong = sum(nano for _, nano in (*leased, strict))
    found = [
        figure(FLOOR, "pairs/s", floors),
        figure(LEASED, "pairs/s", [rate for rate, _ in leased]),
        figure("the same, strict: two Ray calls a pair", "pairs/s", [strict[0]]),
        count(LOST, wrong),
    ]
    is_met = found[1].median >= LEAST_PAIRS and not wrong
    what = "8 processes drain one wallet to nothing; its owner is a Ray actor, its ledger on PostgreSQL"
    return Row("ray-drain", what, found, f">= {LEAST_PAIRS:,} pairs/s together, exact", is_met, FLOOR)


def _drained(url: str, pairs: int, mode: Mode) -> tuple[float, int]:
    """Pairs a second, and by how many nanocredits the books differ from what was granted."""
    import ray

    credits = pairs // 1_000
    with _runtime(url) as runtime:
        acme = runtime.customers.create("acme", plan="prepaid")
        acme.wallet.grant(credits)
        worker: Any = ray.remote(num_cpus=0)(Worker)
        workers = [worker.remote(url, mode) for _ in range(PROCESSES)]
        ray.get([one.is_ready.remote() for one in workers])
        before = time.perf_counter()
        ray.get([one.drain.remote() for one in workers])
        rate = credits * 1_000 / (time.perf_counter() - before)
        ray.get([one.leave.remote() for one in workers])
        balance = acme.wallet.balance()
        for one in workers:
            ray.kill(one)
    return rate, abs(to_nano(credits) - balance.consumed.nano) + balance.available.nano + balance.held.nano


# --- many customers ------------------------------------------------------------------------------------------------------------


def customers(effort: Effort) -> Row:
    """What customers cost that nobody asks for, what the first question about each of a tenth of them does, and their memory."""
    many, rounds = min(effort.many, 100_000), max(2, effort.rounds // 10)
    asked = [_name(n) for n in range(0, many, 10)]
    full_label = f"open and first answer, {many:,} customers"
    starts: dict[str, list[float]] = {EMPTY: [], full_label: []}
    sizes: dict[str, list[float]] = {EMPTY: [], full_label: []}
    with _cluster() as server:
        urls = {label: server.url(server.new_database()) for label in starts}
        for label, url in urls.items():
            _fill(url, many if label == full_label else 1)
        for _ in range(rounds):
            for label, url in urls.items():
                seconds, size = _start(url)
                starts[label].append(seconds)
                sizes[label].append(size)
        cold, grown = _asked(urls[full_label], asked)
    found = [figure(label, "s", samples) for label, samples in starts.items()]
    found += [
        figure(label.replace("open and first answer", "memory of an owner"), "MB", s) for label, s in sizes.items()
    ]
    found += [
        figure("first answer of a cold customer, durable", "us", cold),
        count(COLD_P95, sorted(cold)[len(cold) * 95 // 100], "us"),
        count(A_CUSTOMER, grown / len(asked), "bytes"),
    ]
    row = Row("customers", "", found)
    is_met = row[COLD_P95].median < MOST_COLD_US and found[1].median <= MOST_START * found[0].median
    is_met = is_met and row[A_CUSTOMER].median <= MOST_BYTES
    what = f"{len(asked):,} customers on {OWNERS} owners on Ray, asked by {CALLERS} callers, of {many:,} on PostgreSQL"
    target = f"cold < {MOST_COLD_US // 1_000} ms at p95, start <= {MOST_START} x an empty one, <= {MOST_BYTES:,} bytes a customer"
    return Row(row.name, what, found, target, is_met, EMPTY)


def _name(number: int) -> str:
    return f"customer-{number:06}"


def _fill(url: str, many: int) -> None:
    """So many customers, each with a grant and an open session."""
    journal = PostgresJournal.open(url)
    journal.claim("benchmark")
    entries = itertools.chain.from_iterable(_entries(_name(n), CREATION) for n in range(many))
    while page := list(itertools.islice(entries, PAGE)):
        journal.commit(Batch(entries=page))
    journal.close()


def _entries(customer: str, commands: Iterable[Command]) -> Iterator[Sealed]:
    account, head, now_us = Account(customer), genesis(customer), time.time_ns() // 1_000
    for command in commands:
        for draft in account.handle(command, now_us=now_us, hits={}).drafts:
            sealed = seal(draft, head)
            head = sealed.hash
            yield sealed


def _start(url: str) -> tuple[float, float]:
    """Seconds until the first answer, and an owner's memory then."""
    before = time.perf_counter()
    with _runtime(url, OWNERS) as runtime:
        runtime.host.ask(_name(0), hold("first"))
        seconds = time.perf_counter() - before
        runtime.host.ask(_name(0), settle("first"))
        size = sum(_sizes(runtime)) / OWNERS / 1e6
    return seconds, size


def _asked(url: str, names: Sequence[str]) -> tuple[list[float], float]:
    """Microseconds of the first answer about each customer, and the bytes by which the owners grew."""
    cold = list[float]()
    with _runtime(url, OWNERS) as runtime:
        for n in range(1, len(names), max(1, len(names) // WARM_UP)):  # every owner has opened its ledger then
            runtime.host.ask(_name(n * 10 + 1), hold("warm-up"))
            runtime.host.ask(_name(n * 10 + 1), settle("warm-up"))
        before = sum(_sizes(runtime))
        waiting = iter(names)
        lock = threading.Lock()

        def ask() -> None:
            while True:
                with lock:
                    name = next(waiting, None)
                if name is None:
                    return
                cold.append(_took_us(runtime.host, name, hold(f"cold-{name}")))
                runtime.host.ask(name, settle(f"cold-{name}"))

        threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return cold, sum(_sizes(runtime)) - before


def _took_us(host: Host, customer: str, command: Command) -> float:
    before = time.perf_counter_ns()
    host.ask(customer, command)
    return (time.perf_counter_ns() - before) / 1e3


def _sizes(runtime: Runtime) -> list[int]:
    """The bytes of memory that each owner's process has."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = [one["pid"] for one in Owners.of(runtime.settings).status()]
    return [int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * page for pid in pids]
