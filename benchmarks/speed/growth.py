"""Row ``growth``: one ledger file and its owner, from 1 to 1,000,000 customers. One of them is active, the others are there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.account import Account
from agentbudget.clock import SystemClock
from agentbudget.ledger.entry import Sealed, genesis, seal
from agentbudget.ledger.fold import verify_and_fold
from agentbudget.ledger.sql import SqlJournal
from agentbudget.runtime.owner.owner import Owner
from benchmarks.speed.measure import Effort, Row, count, figure, taking_turns
from benchmarks.speed.owner import CREATION, FLOOR, Bare, at_owner, ledgers, rows_of_a_step
from benchmarks.speed.reading import BARE_START, Start, filled, long_hold, started

MOST_TIMES: Final = 1.5
MOST_DISK: Final = 2
RECORDS: Final = "its records alone"
FIRST: Final = "customer-0000000"
START_US: Final = 1_767_225_600_000_000


class Stage(Struct, frozen=True):
    """What was measured at one size: microseconds of steps and of bare commits, and starts of new processes."""

    steps: list[float]
    bare: list[float]
    starts: list[Start]


def growth(effort: Effort) -> Row:
    """The same ledger at four sizes: a durable step of the active customer, a new process until its first answer, disk."""
    sizes = (1, max(2, effort.many // 100), effort.many, 10 * effort.many)
    stages, disk = dict[int, Stage](), dict[int, float]()
    with ledgers() as url:
        bare = Bare(url("bare"), rows_of_a_step(url("rows")), triggers=False)
        path, numbers, steps = Path(url("ledger").removeprefix("sqlite:///")), itertools.count(), itertools.count()
        there = 0
        for size in sizes:
            before = path.stat().st_size if there else 0
            missing = itertools.islice(numbers, size - max(there, 1))  # one of them is acme
            filled(url("ledger"), customers(missing)).close()
            if there:
                disk[size] = (path.stat().st_size - before) / (size - there)
            stages[size] = _stage(url("ledger"), bare, steps, effort)
            there = size
    return _row(stages, disk)


def _stage(url: str, bare: Bare, steps: Iterator[int], effort: Effort) -> Stage:
    owner = Owner(SqlJournal.open(url), SystemClock(), name="benchmark")
    for command in (*CREATION, long_hold("open")):  # at a later stage answered as the first time
        owner.handle([("acme", command)])
    runs = {"bare": bare.step, "step": lambda: at_owner(owner, f"s{next(steps)}")}
    found = taking_turns(runs, rounds=effort.rounds, block=20, warm_up=20)
    owner.close()
    starts = [started(url) for _ in range(max(2, effort.rounds // 8))]
    return Stage(found["step"], found["bare"], starts)


def _row(stages: dict[int, Stage], disk: dict[int, float]) -> Row:
    last = max(stages)
    found = [figure(FLOOR, "us", itertools.chain.from_iterable(stage.bare for stage in stages.values()))]
    found += [figure(f"a step, of {_many(size)}", "us", stage.steps) for size, stage in stages.items()]
    bare = [start.bare for stage in stages.values() for start in stage.starts]
    found.append(figure(BARE_START, "s", bare))
    found += [
        figure(f"a start, on {_many(size)}", "s", [start.answer for start in stage.starts])
        for size, stage in stages.items()
    ]
    memory = [
        figure(f"memory of its process, on {_many(size)}", "MB", [start.bytes / 1e6 for start in stage.starts])
        for size, stage in stages.items()
    ]
    records = count(RECORDS, sum(len(one.record) for one in customers(iter([0]))), "bytes")
    found += [*memory, records, *(count(f"disk a customer, of {_many(size)}", n, "bytes") for size, n in disk.items())]
    is_met = _is_flat(stages[1], stages[last]) and disk[last] <= MOST_DISK * records.median
    what = "one SQLite ledger as it grows: a durable step at its owner, a new process until its first answer, disk"
    target = f"step and start flat (within {MOST_TIMES} x) to {last:,}, disk <= {MOST_DISK} x the records"
    floors = [BARE_START, memory[0].label, RECORDS]
    return Row("growth", what, found, target, is_met, FLOOR, floors=floors)


def _many(size: int) -> str:
    return f"{size:,} customer{'s' if size > 1 else ''}"


def _is_flat(first: Stage, last: Stage) -> bool:
    """Steps by the bare commits of their own stage, for the stages lie minutes apart."""
    step = [median(stage.steps) / median(stage.bare) for stage in (first, last)]
    start = [median([one.answer for one in stage.starts]) for stage in (first, last)]
    return step[1] <= MOST_TIMES * step[0] and start[1] <= MOST_TIMES * start[0]


def customers(numbers: Iterator[int]) -> Iterator[Sealed]:
    """Entries of customers with a plan, a grant and an open session. Sealed once, then written for each name: what differs
    between two customers is the name and the hashes. The first of every page is compared with one that was sealed by itself."""
    sample = _sealed(FIRST)
    for place, number in enumerate(numbers):
        name = f"customer-{number:07}"
        found = _renamed(sample, name)
        if place % 100_000 == 0:
            report, _ = verify_and_fold(found)
            if found != _sealed(name) or not report.ok:
                raise RuntimeError(f"the benchmark is wrong: {name} is not as it would be sealed")
        yield from found


def _sealed(name: str) -> list[Sealed]:
    account, head, found = Account(name), genesis(name), list[Sealed]()
    for command in CREATION:
        for draft in account.handle(command, now_us=START_US, hits={}).drafts:
            found.append(seal(draft, head))
            head = found[-1].hash
    return found


def _renamed(sample: Sequence[Sealed], name: str) -> list[Sealed]:
    """The same entries of another customer whose name is as long."""
    was, head, found = genesis(FIRST).encode(), genesis(name), list[Sealed]()
    for one in sample:
        record = one.record.replace(FIRST.encode(), name.encode()).replace(was, head.encode())
        was, head = one.hash.encode(), sha256(record).hexdigest()
        found.append(replace(one, customer=name, record=record, hash=head))
    return found
