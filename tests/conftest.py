"""What every test may use: the scale, and Hypothesis profiles that fit it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres.server import PostgresServer
from tests.scale import SCALE, Scale
from tests.summary import pytest_terminal_summary

__all__ = ["pytest_terminal_summary", "scale"]

# No deadline: two busy cores make any single example slow now and then.
# Fresh seeds each run, and a blob to replay a failure.
_COMMON = settings(deadline=None, derandomize=False, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", _COMMON, max_examples=100)
settings.register_profile("night", _COMMON, max_examples=2_000)
settings.load_profile(SCALE.name)


@pytest.fixture(scope="session")
def scale() -> Scale:
    """How much to do; in decorators use ``from tests.scale import SCALE``."""
    return SCALE


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL of this test run (of this worker of it), started for the first test that asks."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """A database with an empty ledger; tests work on copies of it."""
    from agentbudget.ledger import open_journal

    name = postgres.new_database()
    open_journal(postgres.url(name)).close()
    return name
