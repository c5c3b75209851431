"""The schema: migrations, the triggers that keep entries as they are, and statements that fit the tables."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from agentbudget.errors import LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger import Batch, open_archive, statements, verify, verify_ledger
from agentbudget.ledger.migrations import HEAD, REVISIONS, recorded
from agentbudget.ledger.migrations.upgrade import config
from agentbudget.ledger.sql import SqlJournal
from agentbudget.ledger.tables import LedgerTable
from agentbudget.testing import sample_chain
from tests.ledger.places import SqlPlace

NAMED = {name: text for name, text in vars(statements).items() if name.isupper() and not name.startswith("_")}


@pytest.fixture
def raw(sql_place: SqlPlace, sql_journal: SqlJournal) -> sqlite3.Connection:
    sql_journal.commit(Batch(entries=sample_chain("acme", 3)))
    return sqlite3.connect(sql_place.path, isolation_level=None)


def test_the_revisions_known_at_a_glance_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory.from_config(config())
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_current_head() == HEAD


def test_a_migrated_file_has_the_tables_that_are_declared(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    with create_engine(sql_place.url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), LedgerTable.metadata) == []


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_statement_fits_the_schema(raw: sqlite3.Connection, name: str) -> None:
    raw.execute(f"EXPLAIN {NAMED[name]}", [None] * NAMED[name].count("?"))


@pytest.mark.parametrize("name", ["APPEND", "KEEP_SNAPSHOT", "CLAIM", "NOTE_DENIAL"])
def test_every_insert_names_every_column(name: str) -> None:
    table, _, rest = NAMED[name].removeprefix("INSERT INTO ").partition(" (")
    columns = {column.name for column in LedgerTable.metadata.tables[table].columns if column.autoincrement is not True}
    assert set(rest.partition(")")[0].split(", ")) == columns


def test_keys_are_found_by_the_index(raw: sqlite3.Connection) -> None:
    plan = raw.execute(f"EXPLAIN QUERY PLAN {statements.find(3)}", ["acme", "k1"] * 3).fetchall()
    assert any("entries_key" in step[3] for step in plan)
    assert not any("SCAN e" in step[3] for step in plan)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("UPDATE entries SET record = x'00' WHERE seq = 2", "never changed"),
        ("DELETE FROM entries WHERE seq = 3", "never removed"),
        (
            "INSERT OR REPLACE INTO entries SELECT customer, seq, epoch, NULL, x'00', hash FROM entries",
            "never replaced",
        ),
        ("INSERT OR REPLACE INTO entries SELECT customer, 9, epoch, key, x'00', hash FROM entries", "never replaced"),
    ],
)
def test_L7_the_database_refuses_to_change_an_entry(raw: sqlite3.Connection, attack: str, said: str) -> None:
    before = raw.execute("SELECT * FROM entries").fetchall()
    with pytest.raises(sqlite3.IntegrityError, match=said):
        raw.execute(attack)
    assert raw.execute("SELECT * FROM entries").fetchall() == before


def test_L7_without_the_triggers_a_change_is_still_named(raw: sqlite3.Connection, sql_journal: SqlJournal) -> None:
    raw.execute("DROP TRIGGER entries_no_update")
    raw.execute("UPDATE entries SET record = replace(record, '1000', '9000') WHERE seq = 1")
    fault = verify(sql_journal.entries("acme")).fault
    assert fault is not None
    assert (fault.seq, fault.how) == (1, "edited")


def test_an_older_file_is_migrated_by_its_writer_and_a_copy_folds_alike(sql_place: SqlPlace, tmp_path: Path) -> None:
    """The only older schema so far is the empty one; with a second revision this goes through a file of the first."""
    older = tmp_path / "older.db"
    older.touch()
    copy = shutil.copy(older, tmp_path / "copy.db")
    with pytest.raises(OwnerUnavailable, match="older schema") as refused:
        open_archive(f"sqlite:///{copy}")
    assert "for writing once" in refused.value.advice
    SqlJournal.open(f"sqlite:///{copy}").close()
    assert recorded(sqlite3.connect(copy)) == HEAD
    assert list(open_archive(f"sqlite:///{copy}").customers()) == []


def test_a_file_with_an_unknown_schema_is_refused_and_left_alone(sql_place: SqlPlace, raw: sqlite3.Connection) -> None:
    sql_place.close()
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    for opening in (sql_place.open, lambda: open_archive(sql_place.url)):
        with pytest.raises(OwnerUnavailable, match="'9999'") as refused:
            opening()
        assert "newer" in refused.value.advice
    raw.execute("UPDATE alembic_version SET version_num = ?", (HEAD,))
    assert len(list(sql_place.open().entries("acme"))) == 3


def test_the_database_of_another_program_is_refused_and_left_alone(sql_place: SqlPlace) -> None:
    other = sqlite3.connect(sql_place.path)
    other.execute("CREATE TABLE songs (title)")
    with pytest.raises(OwnerUnavailable, match="another program"):
        sql_place.open()
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


def test_a_missing_table_is_damage(sql_place: SqlPlace, raw: sqlite3.Connection, sql_journal: SqlJournal) -> None:
    raw.execute("DROP TABLE snapshots")
    with pytest.raises(LedgerCorrupt, match="snapshots"):
        sql_journal.load("acme")


def rewritten(text: bytes, place: int) -> bytes:
    return text[:place] + bytes([text[place] ^ 0xA0]) + text[place + 1 :]  # 0xA0: text is then no UTF-8


@pytest.mark.parametrize("column", ["customer", "key", "record", "hash"])
@pytest.mark.parametrize("seq", [1, 3, 5])
def test_L7_a_changed_byte_of_any_column_of_the_file_is_noticed(
    sql_place: SqlPlace, sql_journal: SqlJournal, column: str, seq: int
) -> None:
    chain = sample_chain("acme", 5)
    sql_journal.commit(Batch(entries=chain))
    sql_journal.close()
    raw = sqlite3.connect(sql_place.path, isolation_level=None)
    raw.execute("DROP TRIGGER entries_no_update")
    kind = "BLOB" if column == "record" else "TEXT"
    for place in range(2):
        (old,) = raw.execute(f"SELECT CAST({column} AS BLOB) FROM entries WHERE seq = ?", (seq,)).fetchone()
        change = f"UPDATE entries SET {column} = CAST(? AS {kind}) WHERE seq = ?"
        raw.execute(change, (rewritten(old, place), seq))
        archive = open_archive(sql_place.url)
        fault = verify(archive.entries("acme"), customer="acme", anchor=(5, chain[-1].hash)).fault
        assert fault is not None
        assert fault.seq == seq
        raw.execute(change, (old, seq))
    assert verify_ledger(open_archive(sql_place.url)).ok


def test_a_customer_id_that_is_no_text_is_damage(sql_place: SqlPlace, raw: sqlite3.Connection) -> None:
    raw.execute("DROP TRIGGER entries_no_update")
    raw.execute("UPDATE entries SET customer = CAST(x'61ff' AS TEXT) WHERE seq = 3")
    with pytest.raises(LedgerCorrupt, match="UTF-8"):
        list(open_archive(sql_place.url).customers())
