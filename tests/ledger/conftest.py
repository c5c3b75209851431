from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.ledger import Store
from agentbudget.ledger.sql import SqlJournal
from tests.ledger.places import MemoryPlace, Place, PostgresPlace, SqlPlace
from tests.postgres.server import PostgresServer


@pytest.fixture
def sql_place(tmp_path: Path) -> Iterator[SqlPlace]:
    place = SqlPlace(tmp_path)
    yield place
    place.close()


@pytest.fixture
def postgres_place(postgres: PostgresServer, postgres_template: str) -> Iterator[PostgresPlace]:
    place = PostgresPlace(postgres, postgres_template)
    yield place
    place.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place
    found = MemoryPlace() if request.param == "memory" else request.getfixturevalue(_PLACES[request.param])
    return found


_PLACES = {"sqlite": "sql_place", "postgres": "postgres_place"}


@pytest.fixture
def journal(place: Place) -> Store:
    """A claimed journal on each backend."""
    opened = place.open()
    opened.claim("the test")
    return opened


@pytest.fixture
def sql_journal(sql_place: SqlPlace) -> SqlJournal:
    opened = sql_place.open()
    opened.claim("the test")
    return opened
