"""Row ``ray``: steps whose owner is a Ray actor, against the least that a durable answer of an actor can cost."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agentbudget import Runtime
from agentbudget.runtime.host import Host
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.answers import to_send
from agentbudget.runtime.on_ray import opening as ray_open
from agentbudget.runtime.on_ray import wire as ray_wire
from agentbudget.runtime.on_ray.owners import Owners
from benchmarks.speed.leased import fixed_pair, furnished, opened
from benchmarks.speed.measure import Effort, Row, figure, figures, taking_turns
from benchmarks.speed.owner import CATALOG, CREATION, hold, ledgers, settle

MOST_RATIO: Final = 1.7
MOST_LEASED: Final = 1.1
LEAST_STEPS: Final = 20_000
CALLERS: Final = 256
FLOOR: Final = "a bare actor's answer of the same bytes, with a bare commit before it"
COMMAND: Final = "strict command to an owner on Ray"
LOCAL: Final = "leased reserve + settle, local owner"
ON_RAY: Final = "leased reserve + settle, owner on Ray"
MANY: Final = f"strict steps of {CALLERS} threads, hold + settle"


class Bare:
    """What any durable actor does at least."""

    def __init__(self, path: str, reply: bytes) -> None:
        self._reply, self._seq = reply, itertools.count()
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, row BLOB)")

    def answer(self, request: bytes) -> bytes:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO rows VALUES (?, ?)", (next(self._seq), request + self._reply))
        self._connection.execute("COMMIT")
        return self._reply


def on_ray(effort: Effort) -> Row:
    """One caller, many callers, and a leased pair beside a local one, in one run."""
    import ray

    ray_open.join(30)
    try:
        with ledgers() as url, _runtime(url("ray")) as runtime, Runtime.open(url("local"), CATALOG, "local") as local:
            request, reply = _frames(runtime.host)
            remote: Any = ray.remote(num_cpus=0)(Bare)
            bare = remote.remote(str(Path(url("bare").removeprefix("sqlite:///"))), reply)
            runs: dict[str, Callable[[], object]] = {
                FLOOR: lambda: ray.get(bare.answer.remote(request)),
                COMMAND: _commands(runtime.host),
            }
            found = figures(taking_turns(runs, rounds=2 * effort.rounds, block=20, warm_up=20))
            pairs = {
                LOCAL: fixed_pair(opened(furnished(local))),
                ON_RAY: fixed_pair(opened(furnished(runtime, "leased"))),
            }
            found += figures(taking_turns(pairs, rounds=effort.rounds, block=1_000, warm_up=2_000))
            found.append(figure(MANY, "steps/s", [_rate(runtime.host, effort) for _ in range(3)]))
    finally:
        ray.shutdown()
    row = Row("ray", "the owner is a Ray actor on this machine, SQLite, every answer durable", found, floor=FLOOR)
    strict, leased = row.ratio(row[COMMAND]) or 0, row[ON_RAY].median / row[LOCAL].median
    is_met = strict <= MOST_RATIO and leased <= MOST_LEASED and row[MANY].median >= LEAST_STEPS
    target = f"strict <= {MOST_RATIO} x its floor, leased <= {MOST_LEASED} x local, >= {LEAST_STEPS:,} steps/s"
    return Row(row.name, row.what, found, target, is_met, FLOOR)


@contextmanager
def _runtime(url: str) -> Iterator[Runtime]:
    with Runtime.open(url, CATALOG, "ray") as runtime:
        yield runtime
    Owners.of(runtime.settings).drain("owner-0")


def _frames(host: Host) -> tuple[bytes, bytes]:
    """What travels for a hold, there and back."""
    for command in CREATION:
        host.ask("acme", command)
    answer = host.ask("acme", hold("sample"))
    batch = wire.Batch([("acme", wire.packed(hold("sample")))])
    told = wire.Answers([to_send(answer)])
    said = ray_wire.Said(ray_wire.VERSION, "0" * 32, batch)
    return ray_wire.encode(said), ray_wire.encode(ray_wire.Served(host.owner, 0, [], told))


def _commands(host: Host) -> Callable[[], None]:
    """A hold and its settlement in turn."""
    steps = (command for n in itertools.count() for command in (hold(f"one-{n}"), settle(f"one-{n}")))

    def command() -> None:
        host.ask("acme", next(steps))

    return command


def _rate(host: Host, effort: Effort) -> float:
    """Durable steps a second."""
    each = max(2, effort.rounds)
    barrier = threading.Barrier(CALLERS + 1)
    names = itertools.count()

    def caller() -> None:
        barrier.wait()
        for _ in range(each):
            name = f"many-{next(names)}-{threading.get_ident()}-{time.perf_counter_ns()}"
            host.ask("acme", hold(name))
            host.ask("acme", settle(name))

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    return CALLERS * each / (time.perf_counter_ns() - start) * 1e9
