"""The journal in SQL: SQLite, in WAL mode. What is SQLite's own is in ``sqlite.py``; PostgreSQL is in ``postgres/``, and
reads through the archive of this file.

Statements run on the driver's own connection: through SQLAlchemy's, a commit costs a third more. Writes have one
connection, reads another, so that a reader in this process never sees what is not committed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from msgspec.structs import astuple

from agentbudget.clock import Clock, SystemClock
from agentbudget.errors import InvalidRequest, LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger import statements as sql
from agentbudget.ledger.chain import checked
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.forking import in_forked_child
from agentbudget.ledger.journal import Batch, DenialNote, Loaded, Snapshot
from agentbudget.ledger.loading import FORKED, digest, fenced, start_after
from agentbudget.ledger.migrations import HEAD, recorded
from agentbudget.ledger.ownerfile import OwnerFile
from agentbudget.ledger.sqlite import BUSY_TIMEOUT_MS, Reader, SqliteFile, Synchronous, leak

PAGE: Final = 1_000
"""Entries read at once: no read transaction stays open between pages, so a slow reader never holds up a checkpoint."""

MAX_KEYS: Final = 500
"""Keys looked up by one statement: two parameters each, within every SQLite's limit of 999 + 1."""

DENIALS_KEPT: Final = 100_000
"""Denial notes that survive a claim; older ones are dropped then: some 20 MB of what people may still want to look
at."""


class Rows(Protocol):
    """What an archive reads from: safe for many threads, and opened anew by itself in a forked child."""

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement, as its own short read transaction."""
        ...

    def close(self) -> None: ...


class SqlArchive:
    """The readers' side of a SQL ledger; safe for many threads, and opened anew by itself in a forked child."""

    def __init__(self, reader: Rows) -> None:
        self._reader = reader

    @classmethod
    def open(cls, url: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> SqlArchive:
        """Read a ledger beside whoever writes it; raises ``OwnerUnavailable`` when there is none."""
        archive = cls(Reader(SqliteFile.of_url(url, busy_timeout_ms=busy_timeout_ms)))
        archive._reader.rows(sql.OWNER)
        return archive

    def customers(self) -> Iterator[str]:
        last = ""
        while (last := self._reader.rows(sql.NEXT_CUSTOMER, (last,))[0][0]) is not None:
            if not isinstance(last, str) or last.encode(errors="ignore") != last.encode(errors="replace"):
                raise LedgerCorrupt("a customer's id is no UTF-8 text")
            yield last

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        while page := self._reader.rows(sql.PAGE_OF, (customer, after, PAGE)):
            for row in page:
                yield Sealed(*row)
            after = page[-1][1]

    def load(self, customer: str) -> Loaded | None:
        """The customer's snapshot and entries after it. Raises ``LedgerCorrupt``, while the entries are read, at the
        first that does not follow."""
        if not self._reader.rows(sql.ANY_ENTRY, (customer,)):
            return None
        snapshot, walk = start_after(customer, self._snapshot(customer), lambda seq: self._hash_at(customer, seq))
        return Loaded(snapshot, checked(self.entries(customer, after=walk.seq), walk))

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        found: dict[tuple[str, str], Sealed] = {}
        for start in range(0, len(keys), MAX_KEYS):
            chunk = _padded(keys[start : start + MAX_KEYS])
            flat = [text for key in chunk for text in key]
            for row in self._reader.rows(sql.find(len(chunk)), flat):
                found[row[0], row[2]] = Sealed(*row)
        return found

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return [DenialNote(*row) for row in self._reader.rows(sql.DENIALS_OF, (customer, limit))]

    def close(self) -> None:
        self._reader.close()

    def _snapshot(self, customer: str) -> Snapshot | None:
        """The stored snapshot, or None when there is none or it is damaged (reading from the first entry is always
        right)."""
        for *columns, sha256 in self._reader.rows(sql.SNAPSHOT_OF, (customer,)):
            snapshot = Snapshot(*columns)
            return snapshot if isinstance(snapshot.state, bytes) and digest(snapshot) == sha256 else None
        return None

    def _hash_at(self, customer: str, seq: int) -> str | None:
        rows = self._reader.rows(sql.HASH_AT, (customer, seq))
        return rows[0][0] if rows else None


class SqlJournal:
    """The single writer of a SQL ledger, and a reader of it. Writes belong to one thread at a time; reads to any.

    Open it with :meth:`open`, then :meth:`claim`. With ``read_only`` it reads beside the writer, and writing is
    refused.
    """

    def __init__(self, file: SqliteFile, *, lock: OwnerFile | None, clock: Clock) -> None:
        self._file, self._lock, self._clock = file, lock, clock
        self._archive = SqlArchive(Reader(file))
        self._writer: sqlite3.Connection | None = None
        self._epoch, self._pid, self._closed = 0, os.getpid(), False
        in_forked_child(self.forget)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        synchronous: Synchronous = "FULL",
        read_only: bool = False,
        clock: Clock | None = None,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
    ) -> SqlJournal:
        """Open ``sqlite:///path`` (or ``sqlite:////absolute/path``), making or migrating the file when it is ours to
        write.

        ``synchronous="NORMAL"`` may lose acknowledged entries at power loss: see ``sqlite.Synchronous``.
        Raises ``OwnerUnavailable`` (another writer, named; no access; unknown schema), ``LedgerCorrupt`` (no database)
        or ``InvalidRequest`` (the URL).
        """
        file = SqliteFile.of_url(url, synchronous=synchronous, busy_timeout_ms=busy_timeout_ms)
        clock = clock or SystemClock()
        lock = None if read_only else OwnerFile.acquire(file.path, now_us=clock.now_us())
        journal = cls(file, lock=lock, clock=clock)
        try:
            journal._prepare()
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def owner(self) -> str:
        """This process as a refused second writer sees it; empty when reading only."""
        return self._lock.owner if self._lock is not None else ""

    def claim(self, owner: str) -> int:
        """Become the owner: the new epoch. Fences every earlier owner, whatever became of its lock file."""
        connection = self._usable()
        try:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute(sql.OWNER).fetchone()
            epoch = (row[0] if row is not None else 0) + 1
            connection.execute(sql.CLAIM, (epoch, owner, self._clock.now_us()))
            connection.execute(sql.TRIM_DENIALS, (DENIALS_KEPT,))
            connection.execute("COMMIT")
        except BaseException as error:
            raise self._undone(error) from None
        self._epoch = epoch
        return epoch

    def commit(self, batch: Batch) -> None:
        """Make a batch durable, or nothing of it. After an exception the caller does not know which: it loads again."""
        connection = self._usable()
        try:
            if not (batch.entries or batch.snapshots or batch.denials):
                self._require_epoch(connection)  # a read: sees the newest epoch, and syncs nothing
                return
            connection.execute("BEGIN IMMEDIATE")
            self._require_epoch(connection)
            self._write(connection, batch)
            connection.execute("COMMIT")
        except BaseException as error:
            raise self._undone(error) from None

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        self._refuse_forked()
        return self._archive.find(keys)

    def load(self, customer: str) -> Loaded | None:
        """See :meth:`SqlArchive.load`."""
        self._refuse_forked()
        return self._archive.load(customer)

    def customers(self) -> Iterator[str]:
        return self._archive.customers()

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._archive.entries(customer, after=after)

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._archive.denials(customer, limit=limit)

    def close(self) -> None:
        """Give the ledger up. In a forked child only the child's own copies are let go."""
        if os.getpid() != self._pid:
            self.forget()
        self._closed = True
        self._archive.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock is not None:
            self._lock.release()  # last: nobody may write before our connection has gone

    def forget(self) -> None:
        """Let go of what was inherited by a fork, touching nothing that the parent uses."""
        leak(self._writer)
        self._writer = None
        if self._lock is not None:
            self._lock.forget()

    def _prepare(self) -> None:
        """Bring the schema up to date, and open both connections, so that what is wrong is said now."""
        try:
            if self._lock is not None:
                self._writer = self._file.writer()
                if recorded(self._writer) != HEAD:
                    from agentbudget.ledger.migrations.upgrade import upgrade  # a second of imports, once a schema

                    upgrade(self._file.writer)
            self._archive._reader.rows(sql.OWNER)
        except sqlite3.Error as error:
            raise self._file.failure(error) from None

    def _usable(self) -> sqlite3.Connection:
        """The writing connection; opened anew after a failure that it did not survive."""
        self._refuse_forked()
        if self._closed:
            raise OwnerUnavailable(f"the ledger {self._file.path} is closed", "", "open it again")
        if self._lock is None:
            raise InvalidRequest("the ledger was opened with read_only=True, so nothing can be written", "ledger")
        if self._writer is None:
            try:
                self._writer = self._file.writer()
            except sqlite3.Error as error:
                raise self._file.failure(error) from None
        return self._writer

    def _refuse_forked(self) -> None:
        if os.getpid() != self._pid:
            raise OwnerUnavailable(*FORKED)

    def _require_epoch(self, connection: sqlite3.Connection) -> None:
        epoch, owner = connection.execute(sql.OWNER).fetchone() or (0, "")
        if epoch != self._epoch or not self._epoch:
            raise fenced(self._epoch, owner)

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        epoch = self._epoch
        rows = [(one.customer, one.seq, epoch, one.key, one.record, one.hash) for one in batch.entries]
        connection.executemany(sql.APPEND, rows)
        if batch.snapshots:
            connection.executemany(sql.KEEP_SNAPSHOT, [_row_of(snapshot) for snapshot in batch.snapshots])
        if batch.denials:
            connection.executemany(sql.NOTE_DENIAL, [astuple(note) for note in batch.denials])

    def _undone(self, error: BaseException) -> BaseException:
        """Roll back, and say what happened. A connection that cannot roll back, or whose disk failed, is replaced."""
        connection = self._writer
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_writer()
        if not isinstance(error, sqlite3.Error):
            return error
        if self._file.is_disk_failure(error):
            self._drop_writer()
        return self._file.failure(error)

    def _drop_writer(self) -> None:
        connection, self._writer = self._writer, None
        if connection is not None:
            connection.close()


def _row_of(snapshot: Snapshot) -> tuple[Any, ...]:
    return (*astuple(snapshot), digest(snapshot))


def _padded(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The keys, the last one repeated up to a power of two or the limit, so that few statements are prepared."""
    size = min(1 << (len(keys) - 1).bit_length(), MAX_KEYS)
    return [*keys, *[keys[-1]] * (size - len(keys))]
