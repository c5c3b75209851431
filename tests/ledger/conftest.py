from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.ledger import Store
from agentbudget.ledger.sql import SqlJournal
from tests.ledger.places import MemoryPlace, Place, SqlPlace


@pytest.fixture
def sql_place(tmp_path: Path) -> Iterator[SqlPlace]:
    place = SqlPlace(tmp_path)
    yield place
    place.close()


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest) -> Place:
    return MemoryPlace() if request.param == "memory" else request.getfixturevalue("sql_place")


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
