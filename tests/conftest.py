"""What every test may use: the scale, and Hypothesis profiles that fit it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres.server import PostgresServer
from tests.ray.cluster import QUIET
from tests.scale import SCALE, Scale
from tests.summary import pytest_terminal_summary

__all__ = ["pytest_terminal_summary", "scale"]

# Before anything touches Ray, which reads them once in a process: a driver that wants tokens refuses what a cluster without them
# says, and the cluster then takes it for dead and ends its actors before they run.
os.environ.update(QUIET)

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


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """The address of the run's Ray cluster: one for all workers."""
    pytest.importorskip("ray")
    from tests.ray.cluster import shared_cluster

    own = tmp_path_factory.getbasetemp()
    with shared_cluster(own if worker_id == "master" else own.parent) as address:
        yield address


@pytest.fixture(scope="module")
def ray_cluster(ray_address: str) -> Iterator[str]:
    """This process is on the cluster until the module's last test: the others open their ledgers without Ray."""
    import ray

    ray.init(address=ray_address, log_to_driver=False, configure_logging=False, namespace="tests")
    yield ray_address
    ray.shutdown()
