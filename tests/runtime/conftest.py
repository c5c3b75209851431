"""A runtime on each kind of ledger, and a customer to work with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget import Runtime
from agentbudget.runtime.customer import Customer
from agentbudget.testing import ManualClock, MemoryJournal


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/budget.db"


@pytest.fixture
def runtime(ledger: str, clock: ManualClock) -> Iterator[Runtime]:
    """On memory and on SQLite."""
    with Runtime.open(ledger, clock=clock) as opened:
        yield opened


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def quick(journal: MemoryJournal, clock: ManualClock) -> Iterator[Runtime]:
    """In memory only: for what does not depend on the store."""
    with Runtime.open(journal, clock=clock) as opened:
        yield opened


@pytest.fixture
def acme(runtime: Runtime) -> Customer:
    """A postpaid customer: only sessions and limits bind it."""
    return runtime.customers.create("acme", plan="local")


@pytest.fixture
def bolt(quick: Runtime) -> Customer:
    """The same, in memory only."""
    return quick.customers.create("bolt", plan="local")
