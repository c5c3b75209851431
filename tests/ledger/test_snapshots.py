"""Law L6: a snapshot changes cost, never meaning. A damaged one is as good as none."""

from __future__ import annotations

import sqlite3

import pytest

from agentbudget.ledger import Batch, Snapshot
from agentbudget.ledger.sql import DENIALS_KEPT, SqlJournal
from agentbudget.testing import sample_chain
from tests.ledger.places import SqlPlace

DAMAGES = (
    "state = x'ff'", "state = 'text'", "seq = 4", "head = 'x'", "format = 9", "sha256 = ''", "state = zeroblob(5)",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_L6_a_damaged_snapshot_is_ignored(sql_place: SqlPlace, sql_journal: SqlJournal, damage: str) -> None:
    chain = sample_chain("acme", 5)
    sql_journal.commit(Batch(entries=chain, snapshots=[Snapshot("acme", 3, chain[2].hash, 1, b"state")]))
    raw = sqlite3.connect(sql_place.path, isolation_level=None)
    raw.execute(f"UPDATE snapshots SET {damage}")
    loaded = sql_journal.load("acme")
    assert loaded is not None
    assert loaded.snapshot is None
    assert list(loaded.entries) == chain


def test_L6_a_deleted_snapshot_is_not_missed(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    chain = sample_chain("acme", 5)
    sql_journal.commit(Batch(entries=chain, snapshots=[Snapshot("acme", 3, chain[2].hash, 1, b"state")]))
    sqlite3.connect(sql_place.path, isolation_level=None).execute("DELETE FROM snapshots")
    loaded = sql_journal.load("acme")
    assert loaded is not None
    assert list(loaded.entries) == chain


def test_old_denials_are_dropped_when_an_owner_starts(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    raw = sqlite3.connect(sql_place.path, isolation_level=None)
    values = "'acme', 1, 's', 'e', 'limit', 'llm', 'm', 1"
    for number in (1, 2, DENIALS_KEPT + 1):
        raw.execute(f"INSERT INTO denials VALUES ({number}, {values})")
    sql_journal.claim("again")
    assert raw.execute("SELECT id FROM denials").fetchall() == [(2,), (DENIALS_KEPT + 1,)]
