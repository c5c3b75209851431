"""Row ``drain``: processes that drain one wallet of one ledger file, leased, against bare pairs and strict ones."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any, Final

from agentbudget import BudgetDenied, Runtime
from agentbudget.amounts import to_nano
from agentbudget.runtime.session_terms import Mode
from benchmarks.speed.leased import bare_pair
from benchmarks.speed.measure import Effort, Row, count, figure
from benchmarks.speed.owner import CATALOG, ledgers

PROCESSES: Final = 8
FLOOR: Final = "8 processes, a lock and two integers each"
LEAST_PAIRS: Final = 100_000


def drain(effort: Effort) -> Row:
    """Pairs a second of 8 processes together, from the moment all are ready until the wallet is empty; and the same number of
    bare pairs, so that what else the machine does is seen."""
    many = max(2_000, effort.many * 10)
    floors, leased = list[float](), list[tuple[float, int]]()
    for _ in range(3 if effort.rounds > 2 else 1):
        floors.append(together(4 * many, bare, (4 * many // PROCESSES,)))
        leased.append(_drained(many, "leased"))
    strict = [_drained(max(1_000, many // 500), "strict")]
    wrong = sum(nano for _, nano in leased + strict)
    found = [
        figure(FLOOR, "pairs/s", floors),
        figure("8 processes, leased", "pairs/s", [rate for rate, _ in leased]),
        figure("8 processes, strict: two round trips a pair", "pairs/s", [rate for rate, _ in strict]),
        count("nanocredits not booked, or booked twice", wrong),
    ]
    is_met = found[1].median >= LEAST_PAIRS and not wrong
    what = "8 processes drain one wallet to nothing"
    return Row("drain", what, found, f">= {LEAST_PAIRS:,} pairs/s together, exact", is_met, FLOOR)


def _drained(pairs: int, mode: Mode) -> tuple[float, int]:
    """Pairs a second, and by how many nanocredits the books differ from what was granted."""
    credits = pairs // 1_000
    with ledgers() as url, Runtime.open(url("drain"), CATALOG) as runtime:
        acme = runtime.customers.create("acme", plan="prepaid")
        acme.wallet.grant(credits)
        rate = together(credits * 1_000, _spend, (url("drain"), mode))
        balance = acme.wallet.balance()
    return rate, abs(to_nano(credits) - balance.consumed.nano) + balance.available.nano + balance.held.nano


def together(pairs: int, work: Callable[..., None], what: tuple[object, ...]) -> float:
    """Pairs a second of processes that start together and do so many."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Semaphore(0), context.Event()
    workers = [context.Process(target=work, args=(ready, go, *what)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    before = time.perf_counter()
    go.set()
    for worker in workers:
        worker.join()
    return pairs / (time.perf_counter() - before)


def bare(ready: Any, go: Any, pairs: int) -> None:
    pair = bare_pair()
    ready.release()
    go.wait()
    for _ in range(pairs):
        pair()


def _spend(ready: Any, go: Any, url: str, mode: Mode) -> None:
    with Runtime.open(url, CATALOG) as runtime:
        session = runtime.customer("acme").session(mode=mode).open()
        ready.release()
        go.wait()
        try:
            while True:
                session.reserve("tool", name="search", amount="0.001", dispatched=True).settle(amount="0.001")
        except BudgetDenied:
            session.close()
