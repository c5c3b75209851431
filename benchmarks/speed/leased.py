"""Rows ``lease``, ``threads`` and ``sessions``: steps decided in the process, on what the owner has set aside for it."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Final

from agentbudget import Catalog, Runtime, Session, Usage
from agentbudget.catalog.terms import Window
from agentbudget.runtime.customer import Customer
from benchmarks.speed.measure import Effort, Row, count, figure, figures, taking_turns
from benchmarks.speed.owner import CATALOG, ledgers

LIMITS: Final[tuple[tuple[str, Window], ...]] = (
    ("customer", "month"), ("department:research", "month"), ("team:eng", "week"), ("user:ana", "day"),
    ("agent:writer", "hour"),
)  # fmt: skip
FLOOR: Final = "a lock and two integers"
MANY_BARE: Final = "64 threads, the same without a session"
MANY: Final = "64 threads"
BARE_AMONG: Final = "one pair without a session among them"
FIXED: Final = "reserve + settle, a stated price"
TARGET_US: Final = 10
TARGET_P99_US: Final = 100
CALLERS: Final = 64
LEAST_PAIRS: Final = 40_000
MOST_WAIT_US: Final = 20_000
MOST_BYTES: Final = 2_048


def furnished(runtime: Runtime, name: str = "acme") -> Customer:
    """Six levels: customer, department, team, user (and agent), session; with five limits."""
    acme = runtime.customers.create(name, plan="prepaid")
    acme.wallet.grant(10**9)
    for entity, parent in (
        ("department:research", None), ("team:eng", "department:research"), ("user:ana", "team:eng"),
        ("agent:writer", None),
    ):  # fmt: skip
        acme.entities.put(entity, parent)
    for entity, window in LIMITS:
        acme.limits.set(entity, 10**9, window=window)
    return acme


def opened(acme: Customer, **stated: object) -> Session:
    """Its session, below user and agent."""
    return acme.session(budget=10**9, entities=["user:ana", "agent:writer"], **stated).open()  # type: ignore[arg-type]


def bare_pair() -> Callable[[], None]:
    """The floor: the least a hold and a settlement between threads can be."""
    lock, free, used = threading.Lock(), [10**15], [0]

    def pair() -> None:
        with lock:
            free[0] -= 1_000_000
        with lock:
            free[0] += 300_000
            used[0] += 700_000

    return pair


def fixed_pair(session: Session) -> Callable[[], None]:
    def pair() -> None:
        session.reserve("tool", name="search", amount="0.001", dispatched=True).settle(amount="0.0007")

    return pair


def priced_pair(session: Session) -> Callable[[], None]:
    def pair() -> None:
        step = session.reserve("llm", model="gpt-5-mini", input_tokens=1_000, max_output_tokens=400, dispatched=True)
        step.settle(Usage(input_tokens=900, output_tokens=300))

    return pair


def lease(effort: Effort) -> Row:
    """One thread, full semantics, spool on: at a stated price, and priced by the catalog; beside a strict step."""
    with ledgers() as url, Runtime.open(url("leased"), _priced()) as runtime:
        acme = furnished(runtime)
        session, strict = opened(acme), opened(acme, mode="strict")
        runs: dict[str, Callable[[], object]] = {
            FLOOR: bare_pair(),
            FIXED: fixed_pair(session),
            "reserve + settle, priced by tokens and settled by usage": priced_pair(session),
        }
        found = figures(taking_turns(runs, rounds=effort.rounds, block=1_000, warm_up=2_000))
        found += figures(taking_turns({"the same in strict mode": fixed_pair(strict)}, rounds=effort.rounds, block=10))
    row = Row("lease", "a leased step: 6 levels, 5 limits, spool on, one thread", found, floor=FLOOR)
    target = f"<= {TARGET_US} us a pair, p99 < {TARGET_P99_US} us"
    is_met = row[FIXED].median <= TARGET_US and row[FIXED].p99 < TARGET_P99_US
    return Row(row.name, row.what, found, target, is_met, FLOOR)


def threads(effort: Effort) -> Row:
    """64 threads, each with a session of its own, on one customer; and messages to the owner for each step."""
    pairs = 1_000 if effort.rounds > 2 else 20
    with ledgers() as url, Runtime.open(url("threads"), CATALOG) as runtime:
        acme = furnished(runtime)
        sessions = [opened(acme) for _ in range(CALLERS)]
        for session in sessions:
            fixed_pair(session)()
        turns = {MANY_BARE: [bare_pair() for _ in sessions], MANY: [fixed_pair(session) for session in sessions]}
        rates: dict[str, list[float]] = {label: [] for label in turns}
        waits: dict[str, list[float]] = {label: [] for label in turns}
        for _ in range(max(2, effort.rounds // 8)):
            for label, those in turns.items():
                before = time.perf_counter()
                waits[label] += _at_once(those, pairs)
                rates[label].append(CALLERS * pairs / (time.perf_counter() - before))
        alone = opened(acme)
        messages = _messages(runtime, lambda: [fixed_pair(alone)() for _ in range(20 * pairs)]) / (20 * pairs)
    found = [*figures(rates, "pairs/s")]
    found += [figure(BARE_AMONG, "us", waits[MANY_BARE]), figure("one pair among them", "us", waits[MANY])]
    found.append(count("messages to the owner, a step", messages))
    is_met = found[1].median >= LEAST_PAIRS and found[3].p99 < MOST_WAIT_US and messages < 0.02
    target = f">= {LEAST_PAIRS:,} pairs/s, p99 < {MOST_WAIT_US // 1000} ms, < 1 message in 50 steps"
    what = "64 threads of one process, a session each"
    return Row("threads", what, found, target, is_met, MANY_BARE, floors=[BARE_AMONG])


def _at_once(those: list[Callable[[], None]], pairs: int) -> list[float]:
    waits: list[float] = []
    barrier = threading.Barrier(len(those))

    def work(pair: Callable[[], None]) -> None:
        own = list[float]()
        barrier.wait()
        for _ in range(pairs):
            before = time.perf_counter_ns()
            pair()
            own.append((time.perf_counter_ns() - before) / 1e3)
        waits.extend(own)

    workers = [threading.Thread(target=work, args=(pair,)) for pair in those]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return waits


def _messages(runtime: Runtime, work: Callable[[], object]) -> int:
    """How many commands the owner got meanwhile."""
    host, seen = runtime.host, [0]
    submit = host.submit

    def counted(*args: object) -> None:
        seen[0] += 1
        submit(*args)  # type: ignore[arg-type]

    host.submit = counted  # type: ignore[method-assign,assignment]
    try:
        work()
    finally:
        host.submit = submit  # type: ignore[method-assign]
    return seen[0]


def sessions(effort: Effort) -> Row:
    """The cost of a pair with one session open, and with very many; and what an idle session costs in memory."""
    many = effort.many
    with ledgers() as url, Runtime.open(url("many"), CATALOG) as runtime:
        acme = furnished(runtime)
        pair = fixed_pair(opened(acme))
        floor = bare_pair()
        few = taking_turns({FLOOR: floor, "one session": pair}, rounds=effort.rounds, block=500, warm_up=1_000)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = [opened(acme) for _ in range(many)]
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / many
        tracemalloc.stop()
        more = taking_turns({FLOOR: floor, f"{many:,} sessions": pair}, rounds=effort.rounds, block=500, warm_up=1_000)
        kept.clear()
        more[FLOOR] += few.pop(FLOOR)
    bare, full = figures(more)
    found = [bare, *figures(few), full, count("an idle session, owner's side included", each, "bytes")]
    is_flat = full.median <= 1.5 * found[1].median
    target = f"flat (within 1.5 x) to {many:,}, < {MOST_BYTES:,} bytes an idle session"
    is_met = is_flat and each < MOST_BYTES
    return Row("sessions", "a leased pair among idle sessions", found, target, is_met, FLOOR)


def _priced() -> Catalog:
    return Catalog.loads(
        '[plans.prepaid]\nwallet = "prepaid"\n[[rates]]\nmodel = "*"\ncost_plus = "1.0x"', source="benchmark"
    )
