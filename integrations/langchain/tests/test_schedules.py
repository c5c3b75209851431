"""A thousand random schedules: whatever is called, streamed, left, cancelled, retried and nested, nothing stays held, and what is
booked is what was billed, and what nobody knows."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from agentbudget_langchain.runs import OPEN

from agentbudget import Catalog, Runtime
from agentbudget.testing.integration_suite.world import CATALOG, charged_unknown, drained
from integrations.langchain.tests.schedules import OPERATIONS, Schedule, Stage
from tests.scale import SCALE
from tests.summary import Record, publish

CHUNKS = 4
"""Parts of the work that may run beside each other."""
SCHEDULES = SCALE(1_000)


def play(seed: int, stage: Stage, runtime: Runtime) -> Schedule:
    """One schedule, for a customer of its own; what is wrong is raised with the seed."""
    schedule, before = Schedule(seed, stage), stage.till.nano
    customer = runtime.customers.create(f"c{seed}", plan="suite")
    try:
        with customer.session(**schedule.session_terms()):
            schedule.run()
        if customer.wallet.balance().held or len(OPEN):
            drained(customer)
        assert len(OPEN) == 0, "a run is still open (L5)"
        billed, booked, unknown = (
            stage.till.nano - before,
            customer.wallet.balance().consumed.nano,
            charged_unknown(customer),
        )
        assert billed <= booked <= billed + unknown, f"billed {billed}, booked {booked}, unknown {unknown} (L11)"
    except Exception as error:
        pytest.fail(f"seed {seed}, {schedule.done}: {error!r}")
    return schedule


@contextmanager
def quick_collector() -> Iterator[None]:
    """Collecting what a schedule leaves must not mean to walk over all of LangChain each time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("chunk", range(1, CHUNKS + 1))
def test_whatever_is_scheduled_nothing_stays_held_and_the_books_match_the_bill(
    chunk: int, record_property: Record
) -> None:
    """L5, L11: holds open after drain 0, billed <= booked <= billed + unknown; fresh seeds each time."""
    base, done = random.SystemRandom().randrange(2**32), Counter[str]()
    with Runtime.open("memory://", catalog=Catalog.loads(CATALOG)) as runtime:
        stage = Stage()
        with quick_collector():
            for seed in range(base, base + SCHEDULES // CHUNKS):
                done.update(play(seed, stage, runtime).done)
        assert runtime.ledger.verify().ok
        assert runtime.ledger.reconcile() == []
    publish(record_property, f"schedules {chunk}/{CHUNKS}", {"schedules": SCHEDULES // CHUNKS, "operations": done.total(),
            "model calls": stage.till.calls, "from seed": base})  # fmt: skip
    assert set(done) == {operation.__name__ for operation in OPERATIONS}
