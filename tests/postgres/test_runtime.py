"""The runtime on PostgreSQL with its owner in this process: what a killed process leaves, and what the next one makes of it. The
rest of the runtime's tests run on PostgreSQL where they are (tests/runtime)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agentbudget import Runtime
from agentbudget.errors import OwnerUnavailable
from tests.ledger.places import PostgresPlace

KILLED = """
    import os, signal, sys
    from agentbudget import Runtime
    runtime = Runtime.open(sys.argv[1])
    acme = runtime.customers.create("acme", plan="local")
    session = acme.session(budget=100, id="run", mode=sys.argv[2]).open()
    for _ in range(7):
        session.reserve("tool", name="search", amount=2).settle(amount="1.5")
    running = session.reserve("tool", name="search", amount=2)
    running.dispatched()
    print(session.status().spent if sys.argv[2] == "strict" else "", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where spools of ledgers that are no files are kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_L1_L5_what_a_killed_process_settled_is_in_the_books_once(place: PostgresPlace, state: Path, mode: str) -> None:
    """Leased steps are not at the owner yet when the process dies: they come from its spool."""
    command = [sys.executable, "-c", textwrap.dedent(KILLED), place.url, mode]
    done = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == -9, done.stderr
    for _ in range(2):
        with Runtime.open(place.url, hold_ttl_seconds=60) as runtime:
            session = runtime.customer("acme").session(id="run")
            status = session.open().status()
            leased_unknown = 2 if mode == "leased" else 0  # dispatched, never settled: charged as unknown by its spool
            assert status.spent == 7 * 1.5 + leased_unknown
            assert runtime.ledger.verify().ok
            assert runtime.ledger.reconcile() == []
    if mode == "leased":
        assert list((state / "agentbudget").glob("*.spool/*")) == []


def test_a_second_runtime_of_the_same_process_is_refused_and_the_first_goes_on(place: PostgresPlace) -> None:
    with Runtime.open(place.url) as runtime:
        session = runtime.customers.create("acme", plan="local").session(budget=5).open()
        with pytest.raises(OwnerUnavailable, match=f"process {os.getpid()}"):
            Runtime.open(place.url)
        session.reserve("tool", name="search", amount=1).settle(amount=1)
        assert session.status().spent == 1
    with Runtime.open(place.url) as runtime:
        assert runtime.customers.list() == ["acme"]


def test_an_owner_whose_place_was_taken_answers_that_it_is_fenced_and_makes_room(place: PostgresPlace) -> None:
    """An operator ended its session, and another process became the owner before it came back."""
    with Runtime.open(place.url) as runtime:
        acme = runtime.customers.create("acme", plan="local")
        rival = place.rival()
        rival.claim("the rival")
        with pytest.raises(OwnerUnavailable, match="took the ledger over"):
            acme.wallet.grant(5, key="late")
    assert [key for key in ("grant:late",) if rival.find([("acme", key)])] == []
