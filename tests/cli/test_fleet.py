"""Workers that share a wallet are killed, the owner too, and the ledger is right to the nanocredit."""

from __future__ import annotations

import importlib.util
import json
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli.support import ask, process, text


def test_L2_L5_killed_workers_and_owners_lose_nothing_and_spend_nothing_twice(tmp_path: Path) -> None:
    kept = tmp_path / "fleet.db"
    facts = json.loads(process("demo", "--workers", "3", "--keep", str(kept), "--json").stdout)
    proof = facts["ledger"]
    granted, consumed, available = (Decimal(proof[name]) for name in ("granted", "consumed", "available"))
    assert granted == consumed + available
    assert consumed > granted * Decimal("0.9")
    assert (proof["held"], proof["overspend"], proof["unresolved"]) == ("0", "0", 0)
    assert (proof["lost"], proof["twice"], proof["verified"], proof["differences"]) == (0, 0, True, 0)
    assert proof["settled"] > 100
    assert facts["kills"] >= 2
    assert facts["owners_killed"] >= 1
    assert facts["refused"] > 0
    told = [one["what"] for one in facts["happenings"]]
    assert told.count("killed") == facts["kills"]
    assert told.count("owns") > 1
    assert "ended" not in told
    assert ask("wallet", "balance", "acme", ledger=proof["url"])["consumed"] == proof["consumed"]
    assert ask("ledger", "verify", ledger=proof["url"])["ok"]


def test_one_worker_alone_prints_lines_for_people() -> None:
    told = process("demo", "--workers", "1", "--budget", "0.15").stdout.decode()
    assert max(map(len, told.splitlines())) <= 100
    assert "WRONG" not in told
    for words in (
        "1 process of runaway agents",
        "owns the ledger",
        "nanocredits apart",
        "overspend 0",
        "chain verified",
    ):
        assert words in told


@pytest.mark.parametrize("number", ["0", "-1", "33"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(number: str, tmp_path: Path) -> None:
    kept = tmp_path / "x.db"
    assert ask("demo", f"--workers={number}", "--keep", str(kept), code=2)["error"]["field"] == "workers"
    assert not kept.exists()


def test_a_missing_ray_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find, kept = importlib.util.find_spec, tmp_path / "x.db"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    error = ask("demo", "--ray", "--keep", str(kept), code=3)["error"]
    assert error["type"] == "MissingExtra"
    assert "agentbudget-runtime[ray]" in error["message"]
    assert not kept.exists()
    assert len(text("demo", "--ray", code=3).strip().splitlines()) == 1
