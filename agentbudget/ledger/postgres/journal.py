"""The journal on PostgreSQL: the same two ports as on SQLite, and shards.

Writing has one session, reading another. A session that takes the place of a lost one first waits for its end at the server:
then a commit whose outcome nobody knew is decided.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from agentbudget.ledger.postgres.lock import Mode, OwnerLock
from agentbudget.ledger.postgres.reader import PostgresReader
from agentbudget.ledger.postgres.schema import prepare
from agentbudget.ledger.postgres.values import BYTEA, INT8, TEXT, Array, Parameter, copied
from agentbudget.ledger.shards import SHARDS, shard_of
from agentbudget.ledger.sql import DENIALS_KEPT, SqlArchive

COPY_FROM: Final = 1_000
"""Entries from which a batch is copied. On one machine the two ways cost the same at some 400 entries and COPY is a third
quicker from 2,000; it needs three more messages each way, so across a network they are equal at about a thousand."""

MAX_KEYS: Final = 5_000
"""Keys looked up by one statement: an owner's batch has far fewer; a message stays below a megabyte."""


class PostgresArchive:
    """The readers' side; safe for many threads, and opened anew by itself in a forked child and after a failure."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._reader = PostgresReader(database)
        self._shared = SqlArchive(self._reader)

    @classmethod
    def open(cls, url: str) -> PostgresArchive:
        """Read a ledger beside whoever writes it, also on a standby; raises ``OwnerUnavailable`` when there is none."""
        archive = cls(PostgresDatabase.of_url(url))
        archive.owners()
        return archive

    def customers(self) -> Iterator[str]:
        return self._shared.customers()

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._shared.entries(customer, after=after)

    def load(self, customer: str) -> Loaded | None:
        """See :meth:`SqlArchive.load`."""
        return self._shared.load(customer)

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

    def owners(self) -> list[tuple[int, int, str]]:
        """Shard, epoch and owner of every shard that anybody ever took."""
        return [(shard, epoch, owner) for shard, epoch, owner in self._reader.rows(sql.OWNERS)]

    def close(self) -> None:
        self._shared.close()


class PostgresJournal:
    """A writer of a ledger on PostgreSQL, and a reader of it. See ``shards.ShardedStore``: :meth:`claim` owns all of it, alone;
    :meth:`take` some shards of it, beside other owners. Safe for many threads."""

    def __init__(self, database: PostgresDatabase, *, writes: bool, clock: Clock) -> None:
        self._database, self._writes, self._clock = database, writes, clock
        self._archive = PostgresArchive(database)
        self._epochs: dict[int, int] = {}
        self._line: Line | None = None
        self._lock: OwnerLock | None = None
        self._ghost = 0  # the server's process of a session that was lost; what it was doing may still be done
        self._pid, self._closed = os.getpid(), False
        self._mutex = threading.RLock()
        in_forked_child(self._leave_to_parent)

    @classmethod
    def open(cls, url: str, *, read_only: bool = False, clock: Clock | None = None) -> PostgresJournal:
        """Open ``postgresql+psycopg://user@host/database``, making or migrating the ledger when it is ours to write.

        Raises ``OwnerUnavailable`` (unreachable; read-only; no access; unknown schema) or ``InvalidRequest`` (the URL).
        """
        journal = cls(PostgresDatabase.of_url(url), writes=not read_only, clock=clock or SystemClock())
        try:
            if not read_only:
                journal._begin()
            journal._archive.owners()
        except BaseException:
            journal.close()
            raise
        return journal

    def claim(self, owner: str) -> int:
        """Become the owner of the whole ledger: the new epoch. Raises ``OwnerUnavailable`` naming who has it open for writing,
        if somebody has."""
        with self._mutex:
            return max(self._claim("alone", owner, range(SHARDS), None).values())

    def take(self, owner: str, shards: Collection[int], seen: Mapping[int, str] | None = None) -> Collection[int]:
        """Become the owner of these shards too: a new epoch, which fences whoever had them. Where ``seen`` is given, only of
        those whose owner is still who it was there (absent: nobody). The shards that were taken. Raises ``OwnerUnavailable``
        naming who has the whole ledger open for writing, if somebody has."""
        with self._mutex:
            return list(self._claim("together", owner, sorted(set(shards)), seen))

    def give_up(self, shards: Collection[int]) -> None:
        """Forget that these were taken; nothing of them is written through this journal any more."""
        with self._mutex:
            for shard in shards:
                self._epochs.pop(shard, None)

    def owners(self) -> dict[int, str]:
        """By shard, the name under which it was taken last; shards that nobody ever took are left out."""
        return {shard: owner for shard, _, owner in self._archive.owners()}

    def commit(self, batch: Batch) -> None:
        """Make a batch durable, or nothing of it. After an exception the caller does not know which: it loads again."""
        with self._mutex:
            line = self._usable()
            try:
                if not (batch.entries or batch.snapshots or batch.denials):
                    self._require_all(line)
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

    def customers(self) -> Iterator[str]:
        return self._archive.customers()

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._archive.entries(customer, after=after)

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._archive.denials(customer, limit=limit)

    def close(self) -> None:
        """Give the ledger up. In a forked child only the child's own copies are let go."""
        if os.getpid() != self._pid:
            self._leave_to_parent()
        with self._mutex:
            self._closed = True
            self._archive.close()
            if self._line is not None:
                self._line.close()  # and with it the lock: nobody else may write before
                self._line = None

    # --- sessions ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Connect and bring the schema up to date, so that what is wrong is said now."""
        try:
            line = self._line = self._database.line(writes=True)
            self._lock = OwnerLock(line, self._database.name)
            prepare(line, self._database)
        except (Lost, Refused) as error:
            raise self._database.failure(error) from None

    def _usable(self) -> Line:
        """The writing session, or a new one in the place of a lost one."""
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
        """A session that goes on where the lost one ended: after it, and with its lock."""
        line = self._database.line_within(RECONNECT_SECONDS, writes=True)
        try:
            lock, mode = OwnerLock(line, self._database.name), self._lock.mode if self._lock is not None else None
            if self._ghost:
                lock.end_ghost(self._ghost)
            if mode is not None:
                self._retake(line, lock, mode)
            self._lock = lock
        except BaseException:
            line.close()
            raise
        return line

    def _retake(self, line: Line, lock: OwnerLock, mode: Mode) -> None:
        try:
            lock.take(mode)
        except OwnerUnavailable as taken:  # by our successor, if it has claimed already
            raise (self._successor(line, self._epochs) or taken) from None

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
        if line is not None and not (isinstance(error, Exception) and _is_rolled_back(line)):
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

    # --- owning --------------------------------------------------------------------------------------------------------

    def _claim(self, mode: Mode, owner: str, shards: Sequence[int], seen: Mapping[int, str] | None) -> dict[int, int]:
        """The epoch of each shard that was taken."""
        line = self._usable()
        lock = self._lock
        assert lock is not None  # it came with the line
        try:
            lock.take(mode)
            try:
                taken = self._claimed(line, owner, shards, seen)
            except Refused as error:
                if error.state != sql.LOCKED:
                    raise
                line.script("ROLLBACK")
                lock.end_stuck()
                taken = self._claimed(line, owner, shards, seen)
        except BaseException as error:
            raise self._undone(error) from None
        self._epochs.update(taken)
        return taken

    def _claimed(self, line: Line, owner: str, shards: Sequence[int], seen: Mapping[int, str] | None) -> dict[int, int]:
        line.script(sql.BEGIN_CLAIM)
        if seen is not None:  # nobody else claims until this transaction ends
            now = {shard: name for shard, _, name in line.run(sql.OWNERS)}
            shards = [shard for shard in shards if now.get(shard) == seen.get(shard)]
        rows = line.run(sql.CLAIM, (Array(INT8, shards), owner, self._clock.now_us()))
        line.run(sql.TRIM_DENIALS, (DENIALS_KEPT,))
        line.script("COMMIT")
        return dict(rows)

    def _require_all(self, line: Line) -> None:
        if not self._epochs:
            raise fenced(0, "")
        held = line.run(sql.STILL_OWNED, _pairs(self._epochs))
        if len(held) != len(self._epochs):
            raise self._fenced(line, self._epochs)

    def _successor(self, line: Line, epochs: Mapping[int, int]) -> OwnerUnavailable | None:
        """The fence's words if one of these shards is another's."""
        for shard, epoch, owner in line.run(sql.OWNERS):
            if epochs.get(shard, epoch) != epoch:
                return fenced(epochs[shard], owner)
        return None

    def _fenced(self, line: Line, epochs: Mapping[int, int]) -> OwnerUnavailable:
        return self._successor(line, epochs) or fenced(max(epochs.values()), "")

    # --- transactions --------------------------------------------------------------------------------------------------

    def _append(self, line: Line, batch: Batch, *tables: str) -> None:
        epochs = self._epochs_of(batch)
        parameters: list[Parameter] = [*_pairs(epochs), len(epochs)]
        for table in tables:
            parameters += _columns(table, _rows(table, batch, epochs))
        ((held,),) = line.run(sql.append(*tables), parameters)
        if held != len(epochs):
            raise self._fenced(line, epochs)

    def _copy(self, line: Line, batch: Batch) -> None:
        epochs = self._epochs_of(batch)
        data = copied(batch.entries, epochs)
        line.script("BEGIN")
        if len(line.run(sql.FENCE, _pairs(epochs))) != len(epochs):
            raise self._fenced(line, epochs)
        line.copy(sql.COPY_ENTRIES, (data,))
        tables = [table for table in _tables(batch) if table != "entries"]
        if tables:
            self._append(line, batch, *tables)
        line.script("COMMIT")

    def _epochs_of(self, batch: Batch) -> dict[int, int]:
        """The epoch of each shard that the batch touches. Raises ``OwnerUnavailable`` when this owner never took one."""
        customers = {one.customer for part in (batch.entries, batch.snapshots, batch.denials) for one in part}
        try:
            return {shard: self._epochs[shard] for shard in map(shard_of, customers)}
        except KeyError:
            raise fenced(0, "") from None


def _is_rolled_back(line: Line) -> bool:
    try:
        if line.is_open and line.is_in_transaction:
            line.script("ROLLBACK")
    except (Lost, Refused):
        return False
    return line.is_open


def _pairs(epochs: Mapping[int, int]) -> tuple[Array, Array]:
    return Array(INT8, list(epochs)), Array(INT8, list(epochs.values()))


def _tables(batch: Batch) -> list[str]:
    return [name for name in ("entries", "snapshots", "denials") if getattr(batch, name)]


def _rows(table: str, batch: Batch, epochs: Mapping[int, int]) -> list[tuple[Any, ...]]:
    match table:
        case "entries":
            return [
                (one.customer, one.seq, epochs[shard_of(one.customer)], one.key, one.record, one.hash)
                for one in batch.entries
            ]
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
