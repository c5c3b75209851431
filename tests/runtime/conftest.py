"""A runtime on each kind of ledger, and a customer to work with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget import Runtime
from agentbudget.runtime.customer import Customer
from agentbudget.testing import ManualClock, MemoryJournal
from tests.postgres.server import PostgresServer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of an empty ledger on PostgreSQL."""
    database = postgres.new_database(postgres_template)
    yield postgres.url(database)
    postgres.drop_database(database)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty ledger."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # spools of ledgers that are no files
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/budget.db"


@pytest.fixture
def runtime(ledger: str, clock: ManualClock) -> Iterator[Runtime]:
    """On memory, SQLite and PostgreSQL."""
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
