"""PostgreSQL as a store: how a session is opened, and what its errors mean."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any, Final

from agentbudget.errors import AgentBudgetError, InvalidRequest, LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger.loading import COLLISION
from agentbudget.ledger.postgres import statements as sql

try:
    from psycopg import Error, conninfo

    from agentbudget.ledger.postgres.line import CANCELED, Line, Lost, Refused, pause
except ImportError as error:
    raise InvalidRequest(
        f"a ledger on PostgreSQL needs psycopg 3 ({error}): pip install 'agentbudget-runtime[postgres]'", "ledger"
    ) from error

CONNECT_SECONDS: Final = 3
"""How long one try to connect takes at most: a server in reach answers in milliseconds."""
STATEMENT_SECONDS: Final = 5
"""The server gives a statement up after so long: a commit takes milliseconds, and callers wait for the owner meanwhile."""
ANSWER_SECONDS: Final = STATEMENT_SECONDS + 2
"""And this side gives the server up: it is paused, or the network swallows packets."""
LOCK_SECONDS: Final = 3
"""How long a statement waits for somebody's lock; shorter than a statement, so that the error says which it was."""
RECONNECT_SECONDS: Final = 3
"""How long a lost session is tried to be replaced before a call fails: a restart of the server takes about a second."""
_PAUSE_MS: Final = 50

_SCHEMES: Final = ("postgresql+psycopg://", "postgresql://")
_NEEDED_VERSION: Final = 140_000

_RETRY: Final = "retry with the same key"
READ_ONLY: Final = "25006"
_MEANINGS: Final = {
    READ_ONLY: ("is read-only", "connect to the primary, or open with read_only=True"),
    CANCELED: (
        f"did not answer within {STATEMENT_SECONDS} s",
        "look for what slows it down (pg_stat_activity), then retry",
    ),
    "55P03": (f"is locked by another program for more than {LOCK_SECONDS} s", "end its transaction, then retry"),
    "40001": ("refused a transaction that was in another's way", _RETRY),
    "40P01": ("refused a transaction that was in another's way", _RETRY),
    "42501": (
        "may not be used so by this user",
        "run `agentbudget ledger migrate` as its owner, or grant this user access",
    ),
    "53100": ("cannot grow: its disk is full", "free some space, then retry"),
    "53200": ("needs more memory than there is", "free memory, then retry"),
    "53300": ("has no connection left", "raise max_connections, or end other sessions"),
    "57P03": ("is starting up or shutting down", "wait a moment, then retry"),
}
_DAMAGE: Final = {
    "42P01": "a table is missing",
    "42703": "a column is missing",
    "42804": "a column has the wrong type",
    "XX001": "a page is malformed",
    "XX002": "an index is malformed",
}
_FATAL: Final = "FATAL:"
"""In libpq's words when the server itself refused a session; it does not tell the SQLSTATE then."""
_TAKEN: Final = ("23505", "23P01")


class PostgresDatabase:
    """One database and how its sessions are opened."""

    __slots__ = ("_conninfo", "name")

    def __init__(self, conninfo: str, name: str) -> None:
        self._conninfo, self.name = conninfo, name

    @classmethod
    def of_url(cls, url: str) -> PostgresDatabase:
        """``postgresql+psycopg://user:password@host:port/database?sslmode=...``: any parameter of libpq. Raises
        ``InvalidRequest``, without the URL in it: it may hold a password."""
        scheme = next((scheme for scheme in _SCHEMES if url.startswith(scheme)), None)
        if scheme is None:
            raise InvalidRequest("write it as postgresql+psycopg://user@host/database", "ledger")
        try:
            stated = conninfo.conninfo_to_dict("postgresql://" + url.removeprefix(scheme))
        except Error as error:
            what = str(error).partition('"')[0].strip(" :")  # behind it stands the URL
            raise InvalidRequest(f"the PostgreSQL URL cannot be read ({what})", "ledger") from None
        if not stated.get("dbname"):
            raise InvalidRequest("the PostgreSQL URL names no database: end it in /database", "ledger")
        settings: dict[str, Any] = {
            **_DEFAULTS,
            "application_name": _this_program(),
            **stated,
            "client_encoding": "UTF8",
        }
        return cls(conninfo.make_conninfo(**settings), _name_of(stated))

    @property
    def conninfo(self) -> str:
        """As libpq reads it; it may hold a password."""
        return self._conninfo

    def line(self, *, writes: bool) -> Line:
        """A session that is ready for our statements; raises :class:`Lost` or :class:`Refused`."""
        line = Line.connect(self._conninfo, connect_seconds=CONNECT_SECONDS, seconds=ANSWER_SECONDS)
        try:
            milliseconds = {"statement_ms": STATEMENT_SECONDS * 1_000, "lock_ms": LOCK_SECONDS * 1_000}
            self._require_fitting(line)
            line.script(sql.SESSION.format(**milliseconds))
            if not writes:
                line.script(sql.FOR_READING)
        except BaseException:
            line.close()
            raise
        return line

    def line_within(self, seconds: int, *, writes: bool) -> Line:
        """The same, tried again for as long while the server is away: nothing was sent yet, so nothing can be doubled."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.line(writes=writes)
            except Lost:
                if time.monotonic() >= deadline:
                    raise
            pause(_PAUSE_MS)

    def failure(self, error: Exception) -> AgentBudgetError:
        """What :class:`Lost` or :class:`Refused` means here."""
        state = error.state if isinstance(error, (Lost, Refused)) else ""
        if state in _TAKEN:
            return OwnerUnavailable(*COLLISION)
        if state in _DAMAGE:
            return LedgerCorrupt(f"{self.name}: {_DAMAGE[state]} ({error})")
        if state in _MEANINGS:
            what, advice = _MEANINGS[state]
            return OwnerUnavailable(f"the ledger {self.name} {what}", "", advice)
        if isinstance(error, Lost) and _FATAL in str(error):
            what = (
                f"the server of the ledger {self.name} refused the session ({str(error).partition(_FATAL)[2].strip()})"
            )
            return OwnerUnavailable(what, "", f"check database, user, password and pg_hba.conf, then {_RETRY}")
        if isinstance(error, Lost):
            what = f"the ledger {self.name} cannot be reached, or its connection was lost ({error})"
            return OwnerUnavailable(what, "", f"check that the server runs and is reachable, then {_RETRY}")
        return OwnerUnavailable(f"the ledger {self.name} failed ({error})", "", _RETRY)

    def refusal(self, state: str) -> OwnerUnavailable:
        """The words for a state that was found without an error."""
        what, advice = _MEANINGS[state]
        return OwnerUnavailable(f"the ledger {self.name} {what}", "", advice)

    def _require_fitting(self, line: Line) -> None:
        encoding, version = line.setting("server_encoding"), line.setting("server_version")
        if encoding != "UTF8":
            raise OwnerUnavailable(
                f"the database {self.name} is encoded in {encoding}", "", "create one with ENCODING 'UTF8'"
            )
        major = version.partition(".")[0]
        if major.isdigit() and int(major) * 10_000 < _NEEDED_VERSION:
            raise OwnerUnavailable(f"the server of {self.name} is PostgreSQL {version}", "", "use version 14 or newer")


_DEFAULTS: Final = {
    # A peer that went without a word is noticed after some eleven seconds; the server is told the same (SESSION).
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "11000",
}

_MAX_NAME: Final = 63
"""Bytes of an application_name that the server keeps."""


def _this_program() -> str:
    """This process, as the server shows it to others (pg_stat_activity), and as a refused second writer sees it."""
    program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    where = f", process {os.getpid()} on {socket.gethostname()}"
    name = f"{program[: max(_MAX_NAME - len(where), 8)]}{where}"
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in name)[:_MAX_NAME]


def _name_of(stated: dict[str, Any]) -> str:
    """The database for people: without user and password."""
    host = stated.get("host") or stated.get("hostaddr") or "localhost"
    port = f":{stated['port']}" if stated.get("port") else ""
    return f"postgresql://{host}{port}/{stated['dbname']}"
