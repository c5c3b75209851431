"""The command line and ledgers on PostgreSQL: make one, move one there, and act on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget import Runtime
from agentbudget.ledger import export_lines, open_archive, open_journal
from agentbudget.ledger.migrations import HEAD
from tests.cli.support import ask, text
from tests.postgres.server import PostgresServer


@pytest.fixture
def target(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)


def test_a_ledger_is_made_and_told_to_be_up_to_date(target: str, file: Path) -> None:
    for url in (target, f"sqlite:///{file}"):
        assert ask("ledger", "migrate", ledger=url) == {"before": None, "now": HEAD}
        assert ask("ledger", "migrate", ledger=url) == {"before": HEAD, "now": HEAD}
        assert "as before" in text("ledger", "migrate", ledger=url)


def test_L7_a_ledger_is_moved_with_the_same_records_hashes_and_heads(ledger: str, target: str) -> None:
    ask("customer", "create", "zeta", "--plan", "starter", ledger=ledger)
    before = list(export_lines(open_archive(ledger)))
    done = ask("ledger", "move", target, ledger=ledger)
    assert done["imported"] == len(before) - 2
    assert done["skipped"] == 0
    assert list(export_lines(open_archive(target))) == before
    assert list(export_lines(open_archive(ledger))) == before
    assert ask("ledger", "verify", ledger=target)["ok"]
    assert ask("ledger", "reconcile", ledger=target)["ok"]
    again = ask("ledger", "move", target, ledger=ledger)
    assert (again["imported"], again["skipped"]) == (0, len(before) - 2)


def test_the_moved_ledger_goes_on(ledger: str, target: str) -> None:
    ask("ledger", "move", target, ledger=ledger)
    ask("wallet", "grant", "acme", "7", ledger=target)
    assert ask("ledger", "verify", ledger=target)["ok"]
    assert ask("ledger", "move", target, ledger=ledger)["imported"] == 0  # the older one is a prefix of the newer


def test_it_moves_back_too(ledger: str, target: str, tmp_path: Path) -> None:
    ask("ledger", "move", target, ledger=ledger)
    back = f"sqlite:///{tmp_path}/back.db"
    ask("ledger", "move", back, ledger=target)
    assert list(export_lines(open_archive(back))) == list(export_lines(open_archive(ledger)))


def test_a_ledger_that_is_open_for_writing_is_not_moved(ledger: str, target: str) -> None:
    with Runtime.open(ledger):
        assert "another place" in ask("ledger", "move", target, ledger=ledger, code=3)["error"]["message"]
    there = open_journal(target)
    there.claim("somebody")
    try:
        assert "another place" in ask("ledger", "move", target, ledger=ledger, code=3)["error"]["message"]
    finally:
        there.close()


def test_a_misspelt_source_is_refused_and_not_made(target: str, tmp_path: Path) -> None:
    ask("ledger", "move", target, ledger=f"sqlite:///{tmp_path}/budgte.db", code=3)
    assert list(tmp_path.glob("budgte*")) == []


def test_a_second_writer_is_refused_with_its_exit_code(target: str) -> None:
    owner = open_journal(target)
    owner.claim("somebody")
    try:
        error = ask("customer", "create", "acme", "--plan", "starter", ledger=target, code=3)["error"]
    finally:
        owner.close()
    assert "process" in error["owner"]
