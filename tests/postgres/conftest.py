from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentbudget.ledger.postgres.journal import PostgresJournal
from tests.ledger.places import PostgresPlace
from tests.postgres.server import PostgresServer


@pytest.fixture
def place(postgres: PostgresServer, postgres_template: str) -> Iterator[PostgresPlace]:
    opened = PostgresPlace(postgres, postgres_template)
    yield opened
    opened.close()


@pytest.fixture
def journal(place: PostgresPlace) -> PostgresJournal:
    """A claimed journal."""
    opened = place.open()
    opened.claim("the test")
    return opened


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that the tests of a module may kill, pause and restart."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_place(own_server: PostgresServer) -> Iterator[PostgresPlace]:
    opened = PostgresPlace(own_server)
    yield opened
    opened.close()
