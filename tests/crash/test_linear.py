"""L9: some serial order explains every answer of one customer's owner, whoever asks at once and whatever is lost between."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from agentbudget.ledger import Store, open_journal
from agentbudget.ledger.journal import Batch
from agentbudget.runtime.owner.local_host import LocalHost
from agentbudget.testing import ManualClock, MemoryJournal
from tests.crash.linear import Call, Wallet, is_linearizable
from tests.crash.linear_clients import FREE, race
from tests.scale import Scale
from tests.summary import Record, publish

CALLS = 200
"""Of one history, over all its clients."""


class Faulty(MemoryJournal):
    """Every so often a commit fails: before it took effect, or after it did and nobody hears of it."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    def commit(self, batch: Batch) -> None:
        if batch.entries and self._chance.random() < 0.1:
            self.fail_at(1, after=self._chance.random() < 0.5)
        super().commit(batch)


def of_memory(chance: random.Random, folder: Path) -> Store:
    return MemoryJournal()


def of_sqlite(chance: random.Random, folder: Path) -> Store:
    return open_journal(f"sqlite:///{folder}/{chance.getrandbits(64)}.db")


def of_faulty(chance: random.Random, folder: Path) -> Store:
    return Faulty(chance)


def record(store: Store, clients: int, chance: random.Random) -> tuple[list[Call], int]:
    """One history, and how many answers were lost on the way."""
    host = LocalHost(store, ManualClock())
    try:
        return race([host] * clients, CALLS, chance)
    finally:
        host.close()


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("make", "clients"), [(of_memory, 4), (of_memory, 8), (of_sqlite, 6), (of_faulty, 4)])
def test_L9_a_serial_order_explains_every_answer(
    make: Callable[[random.Random, Path], Store], clients: int, tmp_path: Path, scale: Scale, record_property: Record
) -> None:
    """L9, L4: 200 histories of 200 calls in CI over the four kinds, 2,000 at night."""
    seed, figures = random.randrange(2**32), Counter[str]()
    reached: Counter[object] = Counter()
    for n in range(scale(50)):
        history, lost = record(make(random.Random(seed + n), tmp_path), clients, random.Random(seed + n))
        assert is_linearizable(history, Wallet(free=FREE)), f"seed {seed + n}"
        figures.update(histories=1, calls=len(history), overlapping=overlapping(history), lost_answers=lost)
        reached.update((call.what, call.answer[0]) for call in history)
    publish(record_property, f"serial orders ({make.__name__[3:]}, {clients} clients)", {**figures, "not found": 0})
    for sometimes in (("hold", "refused"), ("settle", "resolved"), ("release", "released"), ("settle", "unknown")):
        assert reached[sometimes] > 0, sometimes
    assert figures["overlapping"] > 0
    assert (figures["lost_answers"] > 0) is (make is of_faulty)


def overlapping(history: list[Call]) -> int:
    """Calls that were sent while another was on its way: without them every history has one order only."""
    calls = sorted(history)
    return sum(later.sent_ns < earlier.answered_ns for earlier, later in pairwise(calls))


def test_the_checker_finds_the_order_that_overlapping_calls_leave_open() -> None:
    late_first = [
        Call(1, 9, "hold", "a", 2, ("held", 2)),
        Call(2, 3, "read", "", 0, ("balance", 3, 2, 0)),  # saw the hold before its own answer came
        Call(4, 8, "settle", "a", 1, ("settled", 1)),
        Call(10, 11, "read", "", 0, ("balance", 4, 0, 1)),
    ]
    assert is_linearizable(late_first, Wallet(free=5))


@pytest.mark.parametrize(
    "lies",
    [
        [Call(1, 2, "hold", "a", 3, ("held", 3)), Call(3, 4, "hold", "b", 3, ("held", 3))],  # more than there is
        [Call(1, 2, "hold", "a", 3, ("held", 3)), Call(3, 4, "read", "", 0, ("balance", 5, 0, 0))],  # a stale answer
        [Call(1, 2, "hold", "a", 3, ("refused", 5))],  # refused although it fits
        [
            Call(1, 2, "hold", "a", 3, ("held", 3)),
            Call(3, 6, "settle", "a", 1, ("settled", 1)),
            Call(4, 7, "settle", "a", 2, ("settled", 2)),  # two ends of one hold
        ],
    ],
    ids=["overspend", "stale read", "false refusal", "ended twice"],
)
def test_the_checker_refuses_a_lie(lies: list[Call]) -> None:
    assert not is_linearizable(lies, Wallet(free=5))


def test_the_checker_refuses_a_recorded_history_with_one_balance_changed() -> None:
    history, _ = record(MemoryJournal(), 4, random.Random(1))
    assert is_linearizable(history, Wallet(free=FREE))
    n = next(n for n, call in enumerate(history) if call.what == "read")
    changed = (*history[n].answer[:-1], -1)
    assert not is_linearizable(
        [*history[:n], history[n]._replace(answer=changed), *history[n + 1 :]], Wallet(free=FREE)
    )
