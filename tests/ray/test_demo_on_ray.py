"""``agentbudget demo --ray`` on a cluster that is there: the wallet is drained exactly while its owner is killed."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from agentbudget.ledger.store import open_journal
from agentbudget.runtime.spool.state_folder import ledger_id
from tests.cli.support import ask

ray = pytest.importorskip("ray")


def named_actors() -> set[str]:
    """Of all ledgers."""
    return {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}


def test_L1_L2_L4_actors_drain_a_wallet_to_the_last_nanocredit_while_its_owner_is_killed(
    ray_cluster: str, tmp_path: Path
) -> None:
    kept = tmp_path / "ray.db"
    facts = ask("demo", "--ray", "--workers", "2", "--budget", "0.3", "--keep", str(kept))
    proof = facts["ledger"]
    assert (proof["granted"], proof["consumed"], proof["suspended"]) == ("0.3", "0.3", "0")
    assert (proof["available"], proof["held"], proof["overspend"], proof["unresolved"]) == ("0", "0", "0", 0)
    assert (proof["lost"], proof["twice"], proof["verified"], proof["differences"]) == (0, 0, True, 0)
    assert sum(Decimal(row["spent"]) for row in facts["workers"]) == Decimal("0.3")
    assert facts["owners_killed"] >= 1
    assert {row["state"] for row in facts["workers"]} == {"done"}
    told = [one["what"] for one in facts["happenings"]]
    assert told[-1] == "stopped"
    assert len({one["pid"] for one in facts["happenings"] if one["what"] == "owns"}) == told.count("killed") + 1
    assert ask("ledger", "verify", ledger=proof["url"])["ok"]
    assert ray.is_initialized()  # the cluster was there before
    assert not [name for name in named_actors() if name.startswith(ledger_id(proof["url"]))]
    open_journal(proof["url"]).close()
