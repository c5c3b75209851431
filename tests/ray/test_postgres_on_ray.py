"""Several owners of a real cluster share a real PostgreSQL, which says who has which shard."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from agentbudget import Credits, Runtime
from agentbudget.ledger.shards import shard_of
from agentbudget.runtime.on_ray.owners import Owners
from tests.leases.spending import CATALOG, is_sound
from tests.ray import work
from tests.ray.ending import end_owners

ray = pytest.importorskip("ray")

CUSTOMERS = [f"customer-{n}" for n in range(6)]


def test_owners_of_a_database_are_killed_and_moved_while_workers_spend(
    ray_cluster: str, postgres: Any, postgres_template: str
) -> None:
    """L1, L3, L4, L9: the code between is that of one file."""
    url = postgres.url(postgres.new_database(template=postgres_template))
    with Runtime.open(url, CATALOG, owners=2) as runtime:
        owners = Owners.of(runtime.settings)
        try:
            _spend_and_move(runtime, owners)
        finally:
            for name in owners.names():
                owners.end(name)
    end_owners(runtime.settings.ledger)


def _spend_and_move(runtime: Runtime, owners: Owners) -> None:
    sessions = []
    for name in CUSTOMERS:
        customer = runtime.customers.create(name, plan="prepaid")
        customer.wallet.grant(Credits.of_nano(10**6), key="all")
        sessions.append(customer.session(id="run").open())
    shards = [shard_of(name) for name in CUSTOMERS]
    assert {owners.owner_of(shard) for shard in shards} == {"owner-0", "owner-1"}
    task = ray.remote(work.drain).options(num_cpus=0)
    assert (
        ray.get(ray.remote(work.owners_as_here).options(num_cpus=0).remote(sessions[0].handle()))
        == [(2, "detached")] * 2
    )
    running = [task.remote(session.handle(), 10**3, n) for n, session in enumerate(sessions[:3])]
    strict = threading.Thread(target=lambda: [work.spend(session, 100) for session in sessions[3:] for _ in range(20)])
    strict.start()
    owners.move(shards[:2], "owner-1")
    os.kill(next(one["pid"] for one in owners.status() if one["name"] == "owner-1"), 9)
    owners.move(shards, "owner-0")
    assert ray.get(running, timeout=120) == [10**6] * 3
    strict.join(60)
    for session in sessions:
        session.close()
    for n, name in enumerate(CUSTOMERS):
        balance = runtime.customer(name).wallet.balance()
        assert balance.held == 0
        assert balance.consumed == Credits.of_nano(10**6 if n < 3 else 2_000)
    assert {owners.owner_of(shard) for shard in shards} == {"owner-0"}
    assert is_sound(runtime)
