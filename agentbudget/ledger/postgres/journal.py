"""The journal on PostgreSQL: the same two ports as on SQLite.

Writing has one session, reading another. The writing session also holds the locks of its shards, so a lost session that
comes back first waits for its predecessor's end at the server: then a commit whose outcome nobody knows is decided.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from msgspec.structs import astuple

from agentbudget.clock import Clock, SystemClock
from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.forking import in_forked_child
from agentbudget.ledger.journal import Batch, DenialNote, Loaded
from agentbudget.ledger.loading import FORKED, digest, fenced
from agentbudget.ledger.postgres import statements as sql
from agentbudget.ledger.postgres.database import RECONNECT_SECONDS, PostgresDatabase
from agentbudget.ledger.postgres.line import Line, Lost, Refused
from agentbudget.ledger.postgres.locks import ShardLocks
from agentbudget.ledger.postgres.reader import PostgresReader
from agentbudget.ledger.postgres.schema import prepare
from agentbudget.ledger.postgres.values import BYTEA, INT8, TEXT, Array, Parameter, copied
from agentbudget.ledger.shards import ALL_SHARDS, shard_of, shards_ok
from agentbudget.ledger.sql import DENIALS_KEPT, SqlArchive

COPY_FROM: Final = 1_000
"""Entries from which COPY is quicker than arrays: it needs two more messages, and less work for each row."""

MAX_KEYS: Final = 5_000
"""Keys looked up by one statement: an owner's batch has far fewer; a message stays below a megabyte."""


class PostgresArchive:
    """The readers' side; safe for many threads, and opened anew by itself in a forked child and after a failure."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._reader = PostgresReader(database)
        self._shared = SqlArchive(self._reader)
        self.customers, self.load = self._shared.customers, self._shared.load
        self.close = self._shared.close

    @classmethod
    def open(cls, url: str) -> PostgresArchive:
        """Read a ledger beside whoever writes it, also on a standby; raises ``OwnerUnavailable`` when there is none."""
        archive = cls(PostgresDatabase.of_url(url))
        archive._reader.rows(sql.OWNERS, (Array(INT8, ()),))
        return archive

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._shared.entries(customer, after=after)

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        found: dict[tuple[str, str], Sealed] = {}
        for start in range(0, len(keys), MAX_KEYS):
            chunk = keys[start : start + MAX_KEYS]
            columns = (Array(TEXT, [customer for customer, _ in chunk]), Array(TEXT, [key for _, key in chunk]))
            for row in self._reader.rows(sql.FIND, columns):
                found[row[0], row[2]] = Sealed(*row)
        return found

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._shared.denials(customer, limit=limit)


class PostgresJournal:
    """A writer of a ledger on PostgreSQL, and a reader of it: of the whole ledger, or of some of its shards.

    Open it with :meth:`open`, then :meth:`claim`. Safe for many threads.
    """

    def __init__(
        self, database: PostgresDatabase, *, writes: bool, shards: Iterable[int], take_over: bool, clock: Clock
    ) -> None:
        self._database, self._writes, self._clock = database, writes, clock
        self._take_over = take_over
        self._archive = PostgresArchive(database)
        self.customers, self.entries, self.denials = (
            self._archive.customers,
            self._archive.entries,
            self._archive.denials,
        )
        self._shards = shards_ok(shards)
        self._line: Line | None = None
        self._ghost = 0  # the server's process of a session that was lost; what it was doing may still be done
        self._epoch, self._pid, self._closed = 0, os.getpid(), False
        self._mutex = threading.RLock()
        in_forked_child(self._leave_to_parent)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        read_only: bool = False,
        shards: Iterable[int] = ALL_SHARDS,
        take_over: bool = False,
        clock: Clock | None = None,
    ) -> PostgresJournal:
        """Open ``postgresql+psycopg://user@host/database``, making or migrating the ledger when it is ours to write.

        ``shards``: what :meth:`claim` will own.  ``take_over``: do not yield to an owner that lives; ``claim`` then ends its
        session. Only for a host that knows that there must be no other (a Ray actor that was started again).
        Raises ``OwnerUnavailable`` (another writer, named; unreachable; no access; unknown schema) or ``InvalidRequest``.
        """
        database = PostgresDatabase.of_url(url)
        journal = cls(database, writes=not read_only, shards=shards, take_over=take_over, clock=clock or SystemClock())
        try:
            if not read_only:
                journal._begin()
            journal._archive._reader.rows(sql.OWNERS, (Array(INT8, ()),))
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def shards(self) -> tuple[int, ...]:
        """The shards that this journal owns, or will when it claims."""
        return self._shards

    def claim(self, owner: str) -> int:
        """Become the owner of the shards: the new epoch. Fences every earlier owner of any of them."""
        with self._mutex:
            return self._claim(self._shards, owner)

    def hold(self, shards: Iterable[int], owner: str) -> int:
        """Own exactly these shards from now on: the new epoch. What is given up is free for another owner at once; put its
        customers away before. Raises ``OwnerUnavailable`` naming who has one of the others (unless ``take_over``)."""
        with self._mutex:
            wanted, had = shards_ok(shards), self._shards
            line = self._usable()
            try:
                locks = ShardLocks(line, self._database.name)
                if not self._take_over:
                    locks.take(set(wanted) - set(had))
                epoch = self._claim(wanted, owner)
                self._shards = wanted
                locks.give(set(had) - set(wanted))
            except BaseException as error:
                raise self._undone(error) from None
            return epoch

    def commit(self, batch: Batch) -> None:
        """Make a batch durable, or nothing of it. After an exception the caller does not know which: it loads again."""
        with self._mutex:
            line = self._usable()
            try:
                if not (batch.entries or batch.snapshots or batch.denials):
                    self._require_all(len(line.run(sql.STILL_OWNED, (self._array(self._shards), self._epoch))))
                elif len(batch.entries) < COPY_FROM:
                    self._append(line, batch, *_tables(batch))
                else:
                    self._copy(line, batch)
            except BaseException as error:
                raise self._undone(error) from None

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        self._settle()
        return self._archive.find(keys)

    def load(self, customer: str) -> Loaded | None:
        """See :meth:`SqlArchive.load`."""
        self._settle()
        return self._archive.load(customer)

    def close(self) -> None:
        """Give the ledger up. In a forked child only the child's own copies are let go."""
        if os.getpid() != self._pid:
            self._leave_to_parent()
        with self._mutex:
            self._closed = True
            self._archive.close()
            if self._line is not None:
                self._line.close()  # and with it the locks: nobody else may write before
                self._line = None

    # --- sessions ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Connect, bring the schema up to date and take the locks, so that what is wrong is said now."""
        try:
            line = self._line = self._database.line(writes=True)
            prepare(line, self._database)
            if not self._take_over:
                ShardLocks(line, self._database.name).take(self._shards)
        except (Lost, Refused) as error:
            raise self._database.failure(error) from None

    def _usable(self) -> Line:
        """The writing session, or a new one in the place of a lost one: with its locks, and only if this is still the owner."""
        if os.getpid() != self._pid:
            raise OwnerUnavailable(*FORKED)
        if self._closed:
            raise OwnerUnavailable(f"the ledger {self._database.name} is closed", "", "open it again")
        if not self._writes:
            raise InvalidRequest("the ledger was opened with read_only=True, so nothing can be written", "ledger")
        if self._line is not None and not self._line.is_alive():
            self._drop(self._line)  # ended while nothing was under way: nothing is in doubt
        if self._line is None:
            try:
                self._line = self._new_line()
            except (Lost, Refused) as error:
                raise self._database.failure(error) from None
            self._ghost = 0
        return self._line

    def _new_line(self) -> Line:
        line = self._database.line_within(RECONNECT_SECONDS, writes=True)
        try:
            locks = ShardLocks(line, self._database.name)
            locks.retake(self._shards, self._ghost, lambda: self._require_owned(line))
            self._require_owned(line)
        except BaseException:
            line.close()
            raise
        return line

    def _require_owned(self, line: Line) -> None:
        """Raises the fence's words when another owner has claimed a shard since this one did."""
        if self._epoch:
            for _, epoch, owner in line.run(sql.OWNERS, (self._array(self._shards),)):
                if epoch != self._epoch:
                    raise fenced(self._epoch, owner)

    def _settle(self) -> None:
        """Before this owner reads what to go on from: a session that was lost in the middle of a commit must have ended."""
        if os.getpid() != self._pid:
            raise OwnerUnavailable(*FORKED)
        if self._ghost:
            with self._mutex:
                self._usable()

    def _undone(self, error: BaseException) -> BaseException:
        """End the transaction, and say what happened. A session that cannot, or was interrupted, is replaced."""
        line = self._line
        try:
            if line is not None and line.is_open and isinstance(error, Exception):
                if line.is_in_transaction:
                    line.script("ROLLBACK")
                return self._database.failure(error) if isinstance(error, Refused | Lost) else error
        except (Lost, Refused):
            pass  # the session is dropped below; the first error is the one to tell
        if line is not None:
            self._drop(line)
        return self._database.failure(error) if isinstance(error, Refused | Lost) else error

    def _drop(self, line: Line) -> None:
        self._ghost, self._line = line.backend, None
        line.close()

    def _leave_to_parent(self) -> None:
        """In a forked child: let go of what was inherited, touching nothing that the parent uses."""
        if self._line is not None:
            self._line.leave_to_parent()
        self._line, self._mutex = None, threading.RLock()

    # --- transactions --------------------------------------------------------------------------------------------------

    def _claim(self, shards: Sequence[int], owner: str) -> int:
        line = self._usable()
        locks = ShardLocks(line, self._database.name)
        try:
            if self._take_over:
                locks.end_holders(shards)  # one that hangs in a transaction would let the claim wait
            line.script(sql.BEGIN_CLAIM)
            rows = line.run(sql.CLAIM, (self._array(shards), owner, self._clock.now_us()))
            line.run(sql.TRIM_DENIALS, (DENIALS_KEPT,))
            line.script("COMMIT")
            self._epoch = int(rows[0][0]) if rows else 0
            if self._take_over:
                locks.take_over(shards)
        except BaseException as error:
            raise self._undone(error) from None
        return self._epoch

    def _append(self, line: Line, batch: Batch, *tables: str) -> None:
        shards = self._shards_of(batch)
        parameters: list[Parameter] = [self._array(shards), self._epoch, len(shards)]
        for table in tables:
            parameters += _columns(table, _rows(table, batch))
        ((held,),) = line.run(sql.append(*tables), parameters)
        if held != len(shards):
            self._refuse(line)

    def _copy(self, line: Line, batch: Batch) -> None:
        shards = self._shards_of(batch)
        data = copied(batch.entries, self._epoch)
        begin = sql.BEGIN_FENCED.format(shards=",".join(map(str, shards)), epoch=self._epoch)
        if len(line.script(begin)) != len(shards):
            line.script("ROLLBACK")
            self._refuse(line)
        line.copy(sql.COPY_ENTRIES, (data,))
        tables = [table for table in _tables(batch) if table != "entries"]
        if tables:
            self._append(line, batch, *tables)
        line.script("COMMIT")

    def _shards_of(self, batch: Batch) -> list[int]:
        customers = {one.customer for part in (batch.entries, batch.snapshots, batch.denials) for one in part}
        shards = {shard_of(customer) for customer in customers}
        others = shards.difference(self._shards)
        if others:
            numbers = ", ".join(map(str, sorted(others)))
            raise OwnerUnavailable(f"this owner does not have shard {numbers}", "", "send the commands to its owner")
        return sorted(shards)

    def _require_all(self, held: int) -> None:
        if held != len(self._shards) or not self._epoch:
            assert self._line is not None  # it just answered
            self._refuse(self._line)

    def _refuse(self, line: Line) -> None:
        """Raise the fence's words: the epoch of one of our shards is another's."""
        owners = line.run(sql.OWNERS, (self._array(self._shards),))
        raise fenced(self._epoch, next((owner for _, epoch, owner in owners if epoch != self._epoch), ""))

    @staticmethod
    def _array(shards: Sequence[int]) -> Array:
        return Array(INT8, shards)


def _tables(batch: Batch) -> list[str]:
    return [name for name in ("entries", "snapshots", "denials") if getattr(batch, name)]


def _rows(table: str, batch: Batch) -> list[tuple[Any, ...]]:
    match table:
        case "entries":
            return [(one.customer, one.seq, one.key, one.record, one.hash) for one in batch.entries]
        case "snapshots":  # the last one of a customer: a statement cannot replace a row twice
            last = {one.customer: one for one in batch.snapshots}
            return [(*astuple(one), digest(one)) for one in last.values()]
        case _:
            return [_storable(note) for note in batch.denials]


def _storable(note: DenialNote) -> tuple[Any, ...]:
    """A note as a row. Its texts come from anywhere, and PostgreSQL's text cannot hold NUL: one such tool name must not stop
    the entries of its batch."""
    return tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in astuple(note))


_TYPES: Final = {"text": TEXT, "bigint": INT8, "bytea": BYTEA}


def _columns(table: str, rows: Sequence[tuple[Any, ...]]) -> list[Parameter]:
    columns = zip(*rows, strict=True)
    return [Array(_TYPES[kind], column) for kind, column in zip(sql.COLUMNS[table], columns, strict=True)]
