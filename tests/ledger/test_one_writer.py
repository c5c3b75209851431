"""One writer a file: a second one is refused by name, readers never are, and a forked child must open its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.ledger import Batch, open_archive, open_journal, verify
from agentbudget.ledger.sql import SqlJournal
from agentbudget.testing import sample_chain
from tests.ledger.places import SqlPlace


def in_another_process(program: str, *arguments: str) -> str:
    """Run a program to its end; what it printed."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def in_a_forked_child(work: Callable[[], object]) -> str:
    """Fork, do the work in the child, and give back what it returned or raised, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


def test_a_second_process_is_refused_and_told_who_writes(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    refused = in_another_process(
        """
        import sys
        from agentbudget.errors import OwnerUnavailable
        from agentbudget.ledger import open_journal
        try:
            open_journal(sys.argv[1])
        except OwnerUnavailable as error:
            print(error)
        """,
        sql_place.url,
    )
    assert f"process {os.getpid()} on {os.uname().nodename}, since 20" in refused
    assert "read_only=True" in refused


def test_another_process_reads_while_this_one_writes(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    sql_journal.commit(Batch(entries=sample_chain("acme", 5)))
    reading = """
        import sys
        from agentbudget.ledger import open_archive, open_journal, verify_ledger
        reader = open_journal(sys.argv[1], read_only=True)
        print(verify_ledger(open_archive(sys.argv[1])).entries, reader.load("acme") is not None)
        """
    assert in_another_process(reading, sql_place.url) == "5 True"
    sql_journal.commit(Batch(entries=sample_chain("zeta", 1)))


def test_the_same_process_cannot_write_twice_not_even_by_another_name(
    sql_place: SqlPlace, sql_journal: SqlJournal, tmp_path: Path
) -> None:
    (tmp_path / "alias.db").symlink_to(sql_place.path)
    for url in (sql_place.url, f"sqlite:///{tmp_path}/alias.db"):
        with pytest.raises(OwnerUnavailable, match="open for writing in another place"):
            SqlJournal.open(url)


def test_a_closed_ledger_leaves_no_lock_and_can_be_opened_again(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    about = json.loads(Path(f"{sql_place.path}.owner").read_text())
    assert about["pid"] == os.getpid()
    sql_journal.close()
    assert [path.name for path in sql_place.path.parent.iterdir()] == ["ledger.db"]
    assert sql_place.open().claim("again") == 2


def test_a_killed_owner_leaves_a_lock_file_that_stops_nobody(sql_place: SqlPlace) -> None:
    program = """
        import os, signal, sys
        from agentbudget.ledger import Batch, open_journal
        from agentbudget.testing import sample_chain
        journal = open_journal(sys.argv[1])
        journal.claim("doomed")
        journal.commit(Batch(entries=sample_chain("acme", 4)))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    command = [sys.executable, "-c", textwrap.dedent(program), sql_place.url]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert Path(f"{sql_place.path}.owner").exists()
    assert verify(open_archive(sql_place.url).entries("acme")).entries == 4  # L1: read before any writer recovers it
    assert sql_place.open().claim("next") == 2


def test_a_rivals_lock_survives_the_close_of_the_owner_it_ousted(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    sql_place.rival()
    sql_journal.close()
    with pytest.raises(OwnerUnavailable, match="another place"):
        sql_place.open()


def test_a_journal_opened_for_reading_refuses_to_write(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    reader = open_journal(sql_place.url, read_only=True)
    for call in (lambda: reader.claim("x"), lambda: reader.commit(Batch())):
        with pytest.raises(InvalidRequest, match="read_only"):
            call()


def test_a_reader_never_sees_what_is_not_committed(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    chain = sample_chain("acme", 2)
    sql_journal.commit(Batch(entries=chain[:1]))
    writer = sql_journal._writer
    assert writer is not None
    writer.execute("BEGIN IMMEDIATE")
    sql_journal._write(writer, Batch(entries=chain[1:]))
    assert list(sql_journal.entries("acme")) == chain[:1]
    writer.execute("ROLLBACK")


def test_a_forked_child_must_open_its_own(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    chain = sample_chain("acme", 4)
    sql_journal.commit(Batch(entries=chain[:2]))
    for call in (
        lambda: sql_journal.commit(Batch(entries=chain[2:])),
        lambda: sql_journal.commit(Batch()),
        lambda: sql_journal.claim("the child"),
        lambda: sql_journal.load("acme"),
        lambda: sql_journal.find([("acme", "k1")]),
    ):
        said = in_a_forked_child(call)
        assert said.startswith("OwnerUnavailable: this process was forked")
        assert "in the child" in said
    sql_journal.commit(Batch(entries=chain[2:]))
    assert list(sql_journal.entries("acme")) == chain


def test_a_forked_child_reads_and_closes_without_harm_to_its_parent(
    sql_place: SqlPlace, sql_journal: SqlJournal
) -> None:
    chain = sample_chain("acme", 4)
    sql_journal.commit(Batch(entries=chain[:2]))

    def read_and_close() -> int:
        count = len(list(sql_journal.entries("acme")))
        sql_journal.close()
        return count

    assert in_a_forked_child(read_and_close) == "2"
    sql_journal.commit(Batch(entries=chain[2:]))
    with pytest.raises(OwnerUnavailable, match="another place"):
        SqlJournal.open(sql_place.url)
    sql_journal.close()
    assert list(open_archive(sql_place.url).entries("acme")) == chain


def test_a_child_that_outlives_its_killed_parent_does_not_keep_its_lock(sql_place: SqlPlace) -> None:
    program = """
        import os, signal, sys
        from agentbudget.ledger import open_journal
        journal = open_journal(sys.argv[1])
        journal.claim("doomed")
        if os.fork() == 0:
            print("forked", flush=True)
            sys.stdin.read()  # lives on until the test is done
            os._exit(0)
        signal.pause()
        """
    command = [sys.executable, "-c", textwrap.dedent(program), sql_place.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"forked\n"
        parent.kill()
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        assert sql_place.open().claim("the next owner") == 2


def test_a_childs_ordinary_exit_leaves_its_parents_ledger_whole(sql_place: SqlPlace) -> None:
    program = """
        import os, sys
        from agentbudget.ledger import Batch, open_journal
        from agentbudget.testing import sample_chain
        chain = sample_chain("acme", 4)
        journal = open_journal(sys.argv[1])
        journal.claim("the parent")
        journal.commit(Batch(entries=chain[:2]))
        if os.fork() == 0:
            sys.exit(0)  # with all finalizers, unlike os._exit
        assert os.wait()[1] == 0
        journal.commit(Batch(entries=chain[2:]))
        print(list(journal.entries("acme")) == chain)
        """
    assert in_another_process(program, sql_place.url) == "True"
    assert verify(open_archive(sql_place.url).entries("acme")).entries == 4


def test_a_child_opens_the_ledger_that_its_parent_gave_up(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    sql_journal.close()

    def write() -> int:
        journal = SqlJournal.open(sql_place.url)
        epoch = journal.claim("the child")
        journal.commit(Batch(entries=sample_chain("acme", 1)))
        journal.close()
        return epoch

    assert in_a_forked_child(write) == "2"
    assert len(list(open_archive(sql_place.url).entries("acme"))) == 1


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "mysql://x", "ledger.db", ""])
def test_an_url_that_names_no_ledger_is_refused(url: str) -> None:
    for opening in (open_journal, open_archive):
        with pytest.raises(InvalidRequest, match="ledger"):
            opening(url)


def test_a_memory_ledger_opens_by_url_but_cannot_be_read_from_elsewhere() -> None:
    journal = open_journal("memory://")
    assert journal.claim("the test") == 1
    with pytest.raises(InvalidRequest, match="process"):
        open_archive("memory://")


def test_an_unknown_synchronous_setting_is_refused(sql_place: SqlPlace) -> None:
    with pytest.raises(InvalidRequest, match="FULL"):
        SqlJournal.open(sql_place.url, synchronous="OFF")
    journal = SqlJournal.open(sql_place.url, synchronous="NORMAL")
    assert journal._writer is not None
    assert journal._writer.execute("PRAGMA synchronous").fetchone() == (1,)
    journal.close()


def test_L1_a_commit_is_synced_by_default(sql_journal: SqlJournal) -> None:
    assert sql_journal._writer is not None
    settings = [sql_journal._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]
