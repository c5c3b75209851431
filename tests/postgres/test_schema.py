"""The schema on PostgreSQL: migrations, the triggers that keep entries as they are, and statements that fit the tables."""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger import Batch, Snapshot, open_archive, open_journal, statements, verify, verify_ledger
from agentbudget.ledger.migrations import HEAD
from agentbudget.ledger.postgres import statements as own
from agentbudget.ledger.postgres.journal import COPY_FROM, PostgresJournal
from agentbudget.ledger.postgres.reader import _numbered
from agentbudget.ledger.store import migrate
from agentbudget.ledger.tables import LedgerTable
from agentbudget.testing import sample_chain
from tests.ledger.places import PostgresPlace
from tests.postgres.server import PostgresServer

CHAIN = sample_chain("acme", 3)
SHARED = {name: text for name, text in vars(statements).items() if name.isupper() and not name.startswith("_")}
READ = sorted(name for name, text in SHARED.items() if text.startswith("SELECT"))


@pytest.fixture
def raw(place: PostgresPlace, journal: PostgresJournal) -> psycopg.Connection[object]:
    """Somebody with a connection of their own, and three entries to change."""
    journal.commit(Batch(entries=CHAIN, snapshots=[Snapshot("acme", 3, CHAIN[-1].hash, 1, b"state")]))
    connection = place.server.connect(place.database)
    connection.execute("SET search_path = agentbudget")
    return connection


def test_a_migrated_database_has_the_tables_that_are_declared(place: PostgresPlace) -> None:
    engine = create_engine(place.url, connect_args={"options": "-csearch_path=agentbudget"})
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), LedgerTable.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("name", READ)
def test_every_shared_statement_fits_the_schema(raw: psycopg.Connection[object], name: str) -> None:
    raw.execute(f"PREPARE shared AS {_numbered(SHARED[name])}".encode())


@pytest.mark.parametrize("table", ["entries", "snapshots", "denials"])
def test_every_insert_names_every_column(table: str) -> None:
    names = own.append(table).partition(f"INSERT INTO {table} (")[2].partition(")")[0]
    columns = {column.name for column in LedgerTable.metadata.tables[table].columns if column.autoincrement is not True}
    assert set(names.split(", ")) == columns
    assert len(own.COLUMNS[table]) == len(columns)


@pytest.mark.parametrize(
    "statement",
    [
        _numbered(statements.PAGE_OF), _numbered(statements.NEXT_CUSTOMER), _numbered(statements.HASH_AT),
        _numbered(statements.SNAPSHOT_OF), _numbered(statements.DENIALS_OF), own.FIND,
    ],
)  # fmt: skip
def test_everything_is_found_by_an_index_even_while_the_tables_look_empty(
    raw: psycopg.Connection[object], statement: str
) -> None:
    raw.execute(own.SESSION.format(statement_ms=0, lock_ms=0).encode())
    raw.execute(f"PREPARE wanted AS {statement}".encode())
    numbers = [int(number) for number in re.findall(r"\$(\d+)", statement)]
    places = ", ".join(["NULL"] * max(numbers))
    plan = "\n".join(str(row) for row in raw.execute(f"EXPLAIN EXECUTE wanted ({places})".encode()).fetchall())
    assert "Seq Scan" not in plan
    assert "Index" in plan


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("UPDATE entries SET record = '\\x00' WHERE seq = 2", "never changed"),
        ("UPDATE entries SET record = record WHERE false", "never changed"),
        ("DELETE FROM entries WHERE seq = 3", "never removed"),
        ("TRUNCATE entries", "never removed"),
        (
            "INSERT INTO entries SELECT customer, seq, epoch, NULL, '\\x00', hash FROM entries"
            " ON CONFLICT (customer, seq) DO UPDATE SET record = excluded.record",
            "never changed",
        ),
        ("SET session_replication_role = replica; DELETE FROM entries", "never removed"),
    ],
)
def test_L7_the_database_refuses_to_change_an_entry(raw: psycopg.Connection[object], attack: str, said: str) -> None:
    before = raw.execute("SELECT * FROM entries ORDER BY seq").fetchall()
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match=said):
        raw.execute(attack.encode())
    assert raw.execute("SELECT * FROM entries ORDER BY seq").fetchall() == before


@pytest.mark.parametrize("column", ["customer", "key", "record", "hash"])
def test_L7_without_the_trigger_a_change_is_still_named(
    raw: psycopg.Connection[object], journal: PostgresJournal, column: str
) -> None:
    raw.execute("DROP TRIGGER entries_stay ON entries")
    changed = "set_byte(record, 20, 48)" if column == "record" else f"'x' || {column}"
    raw.execute(f"UPDATE entries SET {column} = {changed} WHERE seq = 3".encode())
    fault = verify(journal.entries("acme"), customer="acme", anchor=(3, CHAIN[-1].hash)).fault
    assert fault is not None
    assert fault.seq == 3


def test_records_and_hashes_are_the_same_bytes_by_either_way_of_writing(journal: PostgresJournal) -> None:
    """Zero bytes, quotes and letters of any script in ids, keys and records come back as they went in."""
    odd = "Ümlaut '\"\\ \u2028 \U0001f600"
    short, long = (
        sample_chain(odd, 3, note="\0 \\x00 ' \ufffd"),
        sample_chain("zeta", COPY_FROM + 1, note="\0\t\n\\N\ufeff"),
    )
    journal.commit(Batch(entries=short))
    journal.commit(Batch(entries=long))
    assert list(journal.entries(odd)) == short
    assert list(journal.entries("zeta")) == long
    assert journal.find([(odd, "k3"), ("zeta", f"k{COPY_FROM + 1}")]).keys() == {
        (odd, "k3"),
        ("zeta", f"k{COPY_FROM + 1}"),
    }


def test_a_long_batch_is_committed_whole_or_not_at_all_with_all_that_is_in_it(journal: PostgresJournal) -> None:
    chain = sample_chain("acme", COPY_FROM + 5)
    snapshot = Snapshot("acme", COPY_FROM, chain[COPY_FROM - 1].hash, 1, b"state")
    journal.commit(Batch(entries=chain[-1:]))
    with pytest.raises(OwnerUnavailable, match="another writer recorded"):
        journal.commit(Batch(entries=chain, snapshots=[snapshot]))
    assert list(journal.entries("acme")) == chain[-1:]
    journal.commit(Batch(entries=chain[:-1], snapshots=[snapshot, snapshot]))
    loaded = journal.load("acme")
    assert loaded is not None
    assert loaded.snapshot == snapshot
    assert list(loaded.entries) == chain[COPY_FROM:]


# --- migrating ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(postgres: PostgresServer) -> str:
    """The URL of a database with nothing in it."""
    return postgres.url(postgres.new_database())


def test_an_empty_database_is_made_a_ledger_once(empty: str) -> None:
    with pytest.raises(OwnerUnavailable, match="there is no ledger") as refused:
        open_archive(empty)
    assert "agentbudget ledger migrate" in refused.value.advice
    assert migrate(empty) == (None, HEAD)
    assert migrate(empty) == (HEAD, HEAD)
    assert verify_ledger(open_archive(empty)).entries == 0


def test_many_that_open_an_empty_database_at_once_make_one_ledger(empty: str) -> None:
    errors: list[BaseException] = []

    def open_it() -> None:
        try:
            open_journal(empty).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_schema_of_another_program_and_an_unknown_one_are_refused_and_left_alone(
    postgres: PostgresServer, place: PostgresPlace, empty: str
) -> None:
    database = empty.rpartition("/")[2]
    postgres.sql("CREATE SCHEMA agentbudget CREATE TABLE songs (title text)", database)
    postgres.sql("UPDATE agentbudget.alembic_version SET version_num = '9999'", place.database)
    for url, said in ((empty, "belongs to another program"), (place.url, "'9999'")):
        for opening in (open_journal, open_archive, migrate):
            with pytest.raises(OwnerUnavailable, match=said):
                opening(url)


def test_tables_of_an_application_beside_the_ledger_are_no_hindrance(postgres: PostgresServer, empty: str) -> None:
    postgres.sql("CREATE TABLE entries (id int)", empty.rpartition("/")[2])
    journal = open_journal(empty)
    journal.claim("the test")
    journal.commit(Batch(entries=CHAIN))
    assert list(journal.entries("acme")) == CHAIN
    journal.close()


def test_without_the_extra_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
from agentbudget import Runtime
from agentbudget.errors import InvalidRequest
try:
    Runtime.open("postgresql+psycopg://postgres@127.0.0.1/x")
except InvalidRequest as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "pip install 'agentbudget-runtime[postgres]'" in said


def test_neither_importing_us_nor_opening_loads_more_than_it_needs(place: PostgresPlace, tmp_path: object) -> None:
    def loaded_after(program: str) -> set[str]:
        code = f"{program}\nimport sys\nprint(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        return set(done.stdout.split())

    assert "psycopg" not in loaded_after("import agentbudget, agentbudget.testing; agentbudget.Runtime")
    assert "psycopg" not in loaded_after(
        f"from agentbudget.ledger import open_journal; open_journal('sqlite:///{tmp_path}/x.db')"
    )
    here = loaded_after(f"from agentbudget.ledger import open_journal; open_journal({place.url!r})")
    assert "psycopg" in here
    assert not here & {"sqlalchemy", "sqlmodel", "alembic"}
