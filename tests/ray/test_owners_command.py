"""``agentbudget owners`` on a real cluster, and the other commands beside an owner on Ray."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from agentbudget import Runtime
from tests.cli.support import ask, process, text
from tests.ray import work

pytest.importorskip("ray")


def test_status_and_drain_of_a_ledger_in_one_file(
    opened: Any, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    runtime = opened()
    acme = runtime.customers.create("acme", plan="postpaid")
    ledger = runtime.settings.ledger
    with acme.session(budget=1, mode="strict") as session:
        work.spend(session, 10)
        (owner,) = ask("owners", "status", ledger=ledger)["owners"]
        assert (owner["name"], owner["shards"], owner["processes"]) == ("owner-0", 64, 1)
        assert owner["process"] == runtime.host.owner
        assert "owner-0" in text("owners", "status", ledger=ledger)
        refused = ask("owners", "move", "--to", "owner-1", "--customer", "acme", ledger=ledger, code=2)
        assert "one owner for all" in str(refused)
        # Not in this process, where Ray says on standard output that the call of the runtime is done again.
        drained = process("owners", "drain", "owner-0", "--json", ledger=ledger)
        assert json.loads(drained.stdout) == {"owners": []}
        work.spend(session, 10)
        assert session.status().spent.nano == 20
    assert "no such owner" in str(ask("owners", "drain", "owner-7", ledger=ledger, code=2))
    assert "name what to move" in str(ask("owners", "move", "--to", "owner-1", ledger=ledger, code=2))


def test_a_command_that_is_not_told_of_the_cluster_names_the_owner_on_ray(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L8."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    runtime.customers.create("acme", plan="postpaid")
    refused = process("wallet", "grant", "acme", "5", "--key", "k", "--json", ledger=runtime.settings.ledger, code=3)
    assert b"owner on Ray, process" in refused.stderr


def test_another_terminal_pauses_a_session_whose_owner_is_on_ray(
    opened: Any, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the owner by RAY_ADDRESS."""
    from agentbudget import BudgetDenied

    runtime = opened()
    acme = runtime.customers.create("acme", plan="postpaid")
    with acme.session(budget=1, id="run") as session:
        work.spend(session, 10)
        monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
        shown = ask("session", "pause", "acme", "run", ledger=runtime.settings.ledger)
        assert "paused" in str(shown)
        runtime.sweep()
        with pytest.raises(BudgetDenied):
            work.spend(session, 10)
    assert "RAY_ADDRESS" in os.environ
