"""``agentbudget ledger recover``: what killed processes left, and what is left of it when the machine was started anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import ask, environment, text

KILLED = """
import os
from agentbudget import Runtime
runtime = Runtime.open()
session = runtime.customer("acme").session(budget=4).open()
with session.step("tool", name="search", amount=1):
    pass
step = session.reserve("tool", name="search", amount=2, dispatched=True)
os._exit(0)
"""
"""A process that is gone before it has reported: one step settled, one under way."""


@pytest.fixture
def killed(ledger: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ledger, after the machine was started anew."""
    subprocess.run([sys.executable, "-c", KILLED], env=environment(ledger), check=True)
    monkeypatch.setattr("agentbudget.runtime.spool.format.boot_id", lambda: "another")
    return ledger


def spools(ledger: str) -> list[str]:
    return [path.name for path in Path(f"{ledger.removeprefix('sqlite:///')}.spool").iterdir()]


def test_after_an_orderly_shutdown_the_operator_has_the_rest_booked(killed: str) -> None:
    """L1, L5: the step whose outcome nobody knows is charged what it held, and nothing stays held."""
    found = ask("ledger", "recover", ledger=killed, code=4)
    assert (found["ok"], len(found["damaged"])) == (False, 1)
    assert ask("wallet", "balance", "acme", ledger=killed)["consumed"] == "1"
    assert ask("wallet", "balance", "acme", ledger=killed)["leased"] != "0"
    assert "--orderly-shutdown" in " ".join(text("ledger", "recover", ledger=killed, code=4).split())
    done = ask("ledger", "recover", "--orderly-shutdown", ledger=killed)
    assert (done["ok"], done["spools"], done["unknown"], done["words"]) == (True, 1, 1, [])
    after = ask("wallet", "balance", "acme", ledger=killed)
    assert (after["consumed"], after["held"], after["leased"]) == ("3", "0", "0")
    assert spools(killed) == []


def test_without_anything_left_it_says_so(ledger: str) -> None:
    assert ask("ledger", "recover", ledger=ledger)["ok"]
    assert "spools" in text("ledger", "recover", ledger=ledger)
