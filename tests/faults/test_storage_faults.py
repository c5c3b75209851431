"""When storage fails: a clear error, nothing lost (L1), nothing half written, and the next start is clean."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.errors import AgentBudgetError, LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger import Batch, Sealed, Snapshot, open_archive, verify, verify_ledger
from agentbudget.ledger.sql import SqlJournal
from agentbudget.testing import sample_chain
from tests.ledger.places import SqlPlace

CHAIN = sample_chain("acme", 60, note="x" * 300)


def commit_until_refused(journal: SqlJournal, chain: list[Sealed]) -> tuple[int, OwnerUnavailable]:
    """How many entries were acknowledged, one a commit, and what refused the next."""
    for count, entry in enumerate(chain):
        try:
            journal.commit(Batch(entries=[entry]))
        except OwnerUnavailable as refused:
            return count, refused
    raise AssertionError("nothing was refused")


def assert_next_start_is_clean(place: SqlPlace, acknowledged: int, chain: list[Sealed] = CHAIN) -> None:
    """Everything acknowledged is there, the rest can be written, and the whole verifies."""
    place.close()
    journal = place.open()
    journal.claim("the next owner")
    assert list(journal.entries("acme")) == chain[:acknowledged]
    journal.commit(Batch(entries=chain[acknowledged:]))
    assert verify(journal.entries("acme")).entries == len(chain)
    check = sqlite3.connect(place.path)
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    check.close()


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_L1_a_full_database_refuses_clearly_and_loses_nothing(place: SqlPlace, journal: SqlJournal) -> None:
    assert journal._writer is not None
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages + 3}")
    acknowledged, refused = commit_until_refused(journal, CHAIN)
    assert 0 < acknowledged < len(CHAIN)
    assert "is full" in refused.what
    assert "free some space" in refused.advice
    assert list(journal.entries("acme")) == CHAIN[:acknowledged]
    assert_next_start_is_clean(place, acknowledged)


def test_after_space_was_freed_the_same_journal_goes_on(journal: SqlJournal) -> None:
    assert journal._writer is not None
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages + 3}")
    acknowledged, _ = commit_until_refused(journal, CHAIN)
    journal._writer.execute("PRAGMA max_page_count = 1000000")
    journal.commit(Batch(entries=CHAIN[acknowledged:]))
    assert list(journal.entries("acme")) == CHAIN


FILE_TOO_LARGE = """
    import os, resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk
    from agentbudget.errors import AgentBudgetError
    from agentbudget.ledger import Batch, open_journal
    from agentbudget.testing import sample_chain
    if sys.argv[2]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), 120_000))
    try:
        journal = open_journal(sys.argv[1])
        journal.claim("the child")
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
        for entry in sample_chain("acme", 60, note="x" * 300):
            journal.commit(Batch(entries=[entry]))
            print("acknowledged")
    except AgentBudgetError as error:
        print(f"{type(error).__name__}: {error}")
    os._exit(0)  # no tidying up: the disk is still full
    """


def test_L1_a_full_disk_refuses_clearly_and_loses_nothing(place: SqlPlace) -> None:
    place.open().close()
    *acknowledged, refused = python(FILE_TOO_LARGE, place.url, "").stdout.splitlines()
    assert 0 < len(acknowledged) < len(CHAIN)
    assert refused.startswith("OwnerUnavailable: the ledger")
    assert "free" in refused
    assert_next_start_is_clean(place, len(acknowledged))


@pytest.mark.parametrize("limit", [0, 4_096, 10_000, 20_000, 30_000, 40_000])
def test_a_disk_that_is_full_at_the_first_start_leaves_nothing_half_made(place: SqlPlace, limit: int) -> None:
    said = python(FILE_TOO_LARGE, place.url, str(limit)).stdout
    assert said.startswith("OwnerUnavailable: "), said
    assert_next_start_is_clean(place, 0)


# --- access -----------------------------------------------------------------------------------------------------------

AS_NOBODY = """
    import os, sys
    import agentbudget.ledger.sql, agentbudget.ledger.migrations.upgrade
    from agentbudget.errors import AgentBudgetError
    from agentbudget.ledger import open_archive, open_journal, verify_ledger
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)  # root may write everywhere
    for opening in (open_journal, open_archive):
        try:
            opened = opening(sys.argv[1])
            print("entries", verify_ledger(opened).entries)
        except AgentBudgetError as error:
            print(f"{type(error).__name__}: {error}")
    """


@pytest.fixture
def shared() -> Iterator[SqlPlace]:
    """A ledger with three entries in a folder that other users can look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        place = SqlPlace(Path(folder))
        journal = place.open()
        journal.claim("the test")
        journal.commit(Batch(entries=CHAIN[:3]))
        journal.close()
        yield place
        place.close()
        os.chmod(folder, 0o755)


def test_a_read_only_folder_refuses_writers_and_serves_readers(shared: SqlPlace) -> None:
    os.chmod(shared.path, 0o444)
    os.chmod(shared.path.parent, 0o555)
    done = python(AS_NOBODY, shared.url)
    written, read = done.stdout.splitlines()
    assert written.startswith("OwnerUnavailable"), done
    assert "writable" in written
    assert read == "entries 3"


def test_a_read_only_file_refuses_writers_and_serves_readers(shared: SqlPlace) -> None:
    os.chmod(shared.path, 0o444)
    os.chmod(shared.path.parent, 0o777)
    done = python(AS_NOBODY, shared.url)
    written, read = done.stdout.splitlines()
    assert written.startswith("OwnerUnavailable"), done
    assert "read-only" in written
    assert read == "entries 3"
    assert not Path(f"{shared.path}.owner").exists()


def test_L1_a_log_that_cannot_be_read_in_a_read_only_folder_is_not_passed_over(shared: SqlPlace) -> None:
    program = """
        import os, sys
        from agentbudget.ledger import Batch, open_journal
        from agentbudget.testing import sample_chain
        journal = open_journal(sys.argv[1])
        journal.claim("doomed")
        journal.commit(Batch(entries=sample_chain("acme", 4, note="x" * 300)[3:]))
        os._exit(0)
        """
    assert python(program, shared.url).returncode == 0
    os.unlink(f"{shared.path}-shm")
    for path in shared.path.parent.iterdir():
        os.chmod(path, 0o444)
    os.chmod(shared.path.parent, 0o555)
    _, read = python(AS_NOBODY, shared.url).stdout.splitlines()
    assert read == "entries 4" or ("-wal" in read and read.startswith("OwnerUnavailable"))


def test_a_file_of_another_user_is_refused(shared: SqlPlace) -> None:
    os.chmod(shared.path, 0o600)
    os.chmod(shared.path.parent, 0o777)
    done = python(AS_NOBODY, shared.url)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["OwnerUnavailable"] * 2, done


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/missing/ledger.db"
    with pytest.raises(OwnerUnavailable, match=r"missing does not exist") as refused:
        SqlJournal.open(url)
    assert "create it" in refused.value.advice
    with pytest.raises(OwnerUnavailable, match="there is no ledger at"):
        open_archive(url)
    assert list(tmp_path.iterdir()) == []


def test_reading_a_ledger_that_is_not_there_makes_none(place: SqlPlace) -> None:
    with pytest.raises(OwnerUnavailable, match="there is no ledger at"):
        open_archive(place.url)
    assert not place.path.exists()


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    for opening in (SqlJournal.open, open_archive):
        with pytest.raises(OwnerUnavailable, match="is a folder"):
            opening(f"sqlite:///{tmp_path}/ledger.db")


# --- other programs ---------------------------------------------------------------------------------------------------


def test_a_locked_database_refuses_clearly_and_goes_on_afterwards(place: SqlPlace, journal: SqlJournal) -> None:
    journal.commit(Batch(entries=CHAIN[:1]))
    other = sqlite3.connect(place.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for call in (lambda: journal.commit(Batch(entries=CHAIN[1:2])), lambda: journal.claim("again")):
        with pytest.raises(OwnerUnavailable, match="locked by another program") as refused:
            call()
        assert "retry" in refused.value.advice
    assert list(journal.entries("acme")) == CHAIN[:1]  # reading is always possible
    other.execute("ROLLBACK")
    journal.commit(Batch(entries=CHAIN[1:]))
    assert list(journal.entries("acme")) == CHAIN


def test_a_locked_database_cannot_be_opened_the_first_time_but_the_second(place: SqlPlace) -> None:
    other = sqlite3.connect(place.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OwnerUnavailable, match="locked by another program"):
        place.open()
    other.execute("ROLLBACK")
    other.close()
    assert place.open().claim("now") == 1


def test_an_interrupted_commit_is_rolled_back(journal: SqlJournal) -> None:
    with pytest.raises(KeyboardInterrupt):
        journal.commit(Batch(entries=CHAIN[:1], snapshots=_Interrupted([Snapshot("acme", 1, CHAIN[0].hash, 1, b"")])))
    assert list(journal.entries("acme")) == []
    journal.commit(Batch(entries=CHAIN))
    assert list(journal.entries("acme")) == CHAIN


class _Interrupted(list[Snapshot]):
    """Snapshots whose reading is interrupted in the middle of the transaction, as Ctrl-C may."""

    def __iter__(self) -> Iterator[Snapshot]:
        raise KeyboardInterrupt


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_left_alone(place: SqlPlace) -> None:
    text = b"Dear diary, today I learned about ledgers. " * 100
    place.path.write_bytes(text)
    for opening in (place.open, lambda: open_archive(place.url)):
        with pytest.raises(LedgerCorrupt, match="no SQLite database"):
            opening()
    assert place.path.read_bytes() == text
    assert [path.name for path in place.path.parent.iterdir()] == ["ledger.db"]


def pages_of(path: Path, wanted: str) -> list[int]:
    """The pages (from 1) of one table or index, found with a connection of its own."""
    raw = sqlite3.connect(path)
    try:
        return [page for (page,) in raw.execute("SELECT pageno FROM dbstat WHERE name = ?", (wanted,))]
    except sqlite3.OperationalError:  # a SQLite without dbstat: the root page will do
        return [row[0] for row in raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (wanted,))]
    finally:
        raw.close()


@pytest.mark.parametrize("wanted", ["entries", "sqlite_autoindex_entries_1"])
def test_L7_a_corrupt_page_is_noticed_and_never_read_as_entries(place: SqlPlace, wanted: str) -> None:
    journal = place.open()
    journal.claim("the test")
    journal.commit(Batch(entries=CHAIN))
    journal.close()
    for page in pages_of(place.path, wanted):
        whole = place.path.read_bytes()
        start = (page - 1) * 4096
        place.path.write_bytes(whole[:start] + b"\xa5" * 4096 + whole[start + 4096 :])
        assert damage_is_noticed(place)
        place.path.write_bytes(whole)
    assert_next_start_is_clean(place, len(CHAIN))


def damage_is_noticed(place: SqlPlace) -> bool:
    """Whether reading everything raises LedgerCorrupt or verify names a fault."""
    try:
        archive = open_archive(place.url)
        loaded = archive.load("acme")
        read = list(loaded.entries) if loaded is not None else []
        return read != CHAIN and not verify_ledger(archive, {"acme": (len(CHAIN), CHAIN[-1].hash)}).ok
    except LedgerCorrupt:
        return True


def test_an_owner_that_meets_a_corrupt_page_writes_nothing(place: SqlPlace) -> None:
    journal = place.open()
    journal.claim("the test")
    journal.commit(Batch(entries=CHAIN))
    journal.close()
    whole = place.path.read_bytes()
    for page in pages_of(place.path, "sqlite_autoindex_entries_1"):
        start = (page - 1) * 4096
        whole = whole[:start] + b"\xa5" * 4096 + whole[start + 4096 :]
    place.path.write_bytes(whole)
    journal = place.open()
    journal.claim("the next owner")
    with pytest.raises(AgentBudgetError) as refused:
        journal.commit(Batch(entries=sample_chain("acme", 1, after=CHAIN[-1])))
    assert isinstance(refused.value, LedgerCorrupt)
