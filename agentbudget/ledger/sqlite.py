"""SQLite as a store: how a connection is opened, and what its errors mean. Everything that is SQL is in ``sql.py``."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

from agentbudget.errors import AgentBudgetError, InvalidRequest, LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger.forking import in_forked_child
from agentbudget.ledger.loading import COLLISION
from agentbudget.ledger.migrations import HEAD, recorded

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]
"""``FULL`` (the default) syncs the log in every commit: what was acknowledged survives power loss. ``NORMAL`` syncs at
checkpoints only, some 115 us a commit cheaper: nothing is lost when the process dies, but **a power cut or a crash of
the operating system may lose the entries acknowledged since the last checkpoint**. What remains is a whole, verifying
prefix."""

BUSY_TIMEOUT_MS: Final = 2_000
"""How long a call waits for another program's lock. One writer has nobody to wait for but backups and database
browsers; a session waits for the owner meanwhile, so it is short."""

_SCHEME: Final = "sqlite:///"
_MEMORY_ADVICE: Final = "for a ledger that need not outlive the process use memory://"

_Meaning: TypeAlias = tuple[str, str]
_BUSY: Final = ("is locked by another program", "end its transaction (a backup? a database browser?), then retry")
_MEANINGS: Final[dict[int, _Meaning]] = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_FULL: ("cannot grow: the disk, or the file's size limit, is full", "free some space, then retry"),
    sqlite3.SQLITE_IOERR: ("got an input/output error from the disk", "check the disk and its free space, then retry"),
    sqlite3.SQLITE_READONLY: ("is read-only", "make the file and its folder writable, or open with read_only=True"),
    sqlite3.SQLITE_PERM: ("may not be opened by this user", "give this user access, or use another file"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that the file and its folder exist and are accessible"),
    sqlite3.SQLITE_NOMEM: ("needs more memory than there is", "free memory, then retry"),
    sqlite3.SQLITE_INTERRUPT: ("was interrupted", "retry with the same key"),
}
_DAMAGE: Final = {
    sqlite3.SQLITE_CORRUPT: "a page of the file is malformed",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database",
    sqlite3.SQLITE_ERROR: "a table is missing or not what it must be",
    sqlite3.SQLITE_MISMATCH: "a column has the wrong type",
}


class SqliteFile:
    """One database file and how it is opened."""

    __slots__ = ("busy_timeout_ms", "path", "synchronous")

    def __init__(self, path: str, *, synchronous: Synchronous, busy_timeout_ms: int) -> None:
        self.path, self.synchronous, self.busy_timeout_ms = path, synchronous, busy_timeout_ms

    @classmethod
    def of_url(
        cls, url: str, *, synchronous: Synchronous = "FULL", busy_timeout_ms: int = BUSY_TIMEOUT_MS
    ) -> SqliteFile:
        """``sqlite:///relative/path`` or ``sqlite:////absolute/path``; raises ``InvalidRequest`` for anything else."""
        path = url.removeprefix(_SCHEME)
        if path == url or not path or path == ":memory:":
            raise InvalidRequest(f"{url!r} names no SQLite file: write sqlite:///path; {_MEMORY_ADVICE}", "ledger")
        if synchronous not in ("FULL", "NORMAL"):
            raise InvalidRequest(f"{synchronous!r} is neither 'FULL' nor 'NORMAL'", "synchronous")
        # The real path: two names of one file must meet at one lock.
        return cls(os.path.realpath(path), synchronous=synchronous, busy_timeout_ms=busy_timeout_ms)

    def writer(self) -> sqlite3.Connection:
        """A connection that may write; the file is made when there is none."""
        if os.path.exists(self.path) and not os.access(
            self.path, os.W_OK
        ):  # SQLite would say so at the first write only
            raise self._refusal(sqlite3.SQLITE_READONLY)
        connection = self._connect("mode=rwc")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            connection.close()
            raise OwnerUnavailable(
                f"{self.path} is on a file system without shared memory (WAL)", "", "use a local disk"
            )
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: reach the platter; elsewhere without effect
        return connection

    def reader(self) -> tuple[sqlite3.Connection, bool]:
        """A connection that cannot write, of a ledger with the current schema; and whether it sees later commits.

        Reading a WAL database needs its -shm file. In a folder where none can be made the file is read as it is, which
        is right only while nobody writes: such a connection serves one call.
        """
        if not os.path.exists(self.path):
            raise OwnerUnavailable(
                f"there is no ledger at {self.path}", "", "check the path, or open it for writing first"
            )
        connection, live = self._connect("mode=ro"), True
        try:
            self._require_schema(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            connection, live = self._frozen(), False
            self._require_schema(connection)
        return connection, live

    def revision(self) -> str | None:
        """The schema that the file has; None when there is none. See ``migrations.recorded``."""
        if not os.path.exists(self.path):
            return None
        connection = self._connect("mode=ro")
        try:
            return recorded(connection)
        finally:
            connection.close()

    def failure(self, error: sqlite3.Error) -> AgentBudgetError:
        """What an error of SQLite means here. Raw messages are passed on only where they name tables, never rows."""
        code = _code(error)
        if code in _DAMAGE:
            return LedgerCorrupt(f"{self.path}: {_DAMAGE[code]} ({error})")
        if code == sqlite3.SQLITE_CONSTRAINT:
            return OwnerUnavailable(*COLLISION)
        if code in _MEANINGS:
            return self._refusal(code)
        if isinstance(error, sqlite3.ProgrammingError):
            return OwnerUnavailable(f"the ledger {self.path} is closed", "", "open it again")
        if code is None:  # the driver's own: text that is not UTF-8
            return LedgerCorrupt(f"{self.path}: {error}")
        return OwnerUnavailable(f"the ledger {self.path} failed ({error})", "", "retry with the same key")

    def _refusal(self, code: int) -> OwnerUnavailable:
        what, advice = _MEANINGS[code]
        return OwnerUnavailable(f"the ledger {self.path} {what}", "", advice)

    def is_disk_failure(self, error: sqlite3.Error) -> bool:
        """Whether the connection's own view of the file may be wrong after this error, so that it must be opened
        again."""
        return _code(error) in (
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_READONLY,
        )

    def _connect(self, how: str) -> sqlite3.Connection:
        if os.path.isdir(self.path):
            raise OwnerUnavailable(f"{self.path} is a folder", "", "name a file in it")
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?{how}", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout = {self.busy_timeout_ms}")
        connection.execute("PRAGMA trusted_schema = OFF")  # a planted view or trigger may not call functions
        connection.execute("PRAGMA cell_size_check = ON")  # notice a damaged page when it is read
        return connection

    def _frozen(self) -> sqlite3.Connection:
        if os.path.exists(f"{self.path}-wal"):
            what = f"{self.path}-wal holds entries that cannot be read in a read-only folder"
            raise OwnerUnavailable(what, "", "copy the ledger and its -wal file together to a writable folder")
        return self._connect("immutable=1")

    def _require_schema(self, connection: sqlite3.Connection) -> None:
        if recorded(connection) != HEAD:
            what = f"{self.path} is empty or has an older schema"
            raise OwnerUnavailable(what, "", "open it for writing once, which brings it up to date")


class Reader:
    """A reading connection for many threads: opened at first use, and again in a forked child."""

    __slots__ = ("__weakref__", "_closed", "_connection", "_file", "_mutex", "_pid")

    def __init__(self, file: SqliteFile) -> None:
        self._file, self._pid, self._closed = file, os.getpid(), False
        self._connection: sqlite3.Connection | None = None
        self._mutex = threading.Lock()
        in_forked_child(self._leave_to_parent)

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement, as its own short read transaction."""
        if os.getpid() != self._pid:
            self._leave_to_parent()
        with self._mutex:
            try:
                return self._rows(statement, parameters)
            except sqlite3.Error as error:
                raise self._file.failure(error) from None

    def close(self) -> None:
        if os.getpid() != self._pid:
            self._leave_to_parent()
        with self._mutex:
            self._closed = True
            self._drop()

    def _rows(self, statement: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        if self._closed:
            raise OwnerUnavailable(f"the ledger {self._file.path} is closed", "", "open it again")
        live = True
        if self._connection is None:
            self._connection, live = self._file.reader()
        try:
            return _fetch(self._connection, statement, parameters)
        finally:
            if not live:
                self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _leave_to_parent(self) -> None:
        leak(self._connection)
        self._connection, self._pid, self._mutex = None, os.getpid(), threading.Lock()


def leak(connection: sqlite3.Connection | None) -> None:
    """Keep an inherited connection from ever being closed here.

    After a fork the child must not use or close its parent's connection: closing could take the parent's locks away and
    checkpoint a log that is in use (sqlite.org/howtocorrupt.html, 2.6). Python would close it when the last reference
    goes, at exit at the latest, so one reference is made that never does.
    """
    if connection is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _fetch(connection: sqlite3.Connection, statement: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
    """All rows. Text that is not UTF-8 (somebody changed it) is read as it is, so that verifying can name its entry."""
    try:
        return connection.execute(statement, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if _code(error) is not None:
            raise
    connection.text_factory = _as_it_is
    try:
        return connection.execute(statement, parameters).fetchall()
    finally:
        connection.text_factory = str


def _as_it_is(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _code(error: sqlite3.Error) -> int | None:
    """The primary code; extended ones (a full disk inside an I/O error, say) are refined by it."""
    extended: int | None = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF
