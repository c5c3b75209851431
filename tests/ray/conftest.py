"""A ledger whose owner is an actor of the run's cluster."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentbudget import Runtime
from agentbudget.runtime.customer import Customer
from tests.leases.spending import CATALOG

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup`` one worker has them all, and the others never start Ray."""
    for item in items:
        if "ray_address" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture
def opened(ray_cluster: str, tmp_path: Path) -> Iterator[Callable[..., Runtime]]:
    """Opens the ledger as a program on Ray does; its owners end with the test."""
    runtimes: list[Runtime] = []

    def open_one(**what: Any) -> Runtime:
        runtimes.append(Runtime.open(f"sqlite:///{tmp_path}/budget.db", CATALOG, **what))
        return runtimes[-1]

    from tests.ray.ending import end_owners

    yield open_one
    for runtime in runtimes:
        runtime.close()
    for ledger in {runtime.settings.ledger for runtime in runtimes}:
        end_owners(ledger)


@pytest.fixture
def runtime(opened: Callable[..., Runtime]) -> Runtime:
    return opened()


@pytest.fixture
def acme(runtime: Runtime) -> Customer:
    """Postpaid: only sessions bind it."""
    return runtime.customers.create("acme", plan="postpaid")
