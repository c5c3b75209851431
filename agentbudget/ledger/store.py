"""Opening a ledger by its URL. The database's modules are imported here and only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agentbudget.errors import InvalidRequest
from agentbudget.ledger.journal import Archive, Journal

if TYPE_CHECKING:
    from agentbudget.clock import Clock
    from agentbudget.ledger.sqlite import Synchronous

_KNOWN = "use sqlite:///path, sqlite:////absolute/path, postgresql+psycopg://user@host/database or memory://"


class Store(Journal, Archive, Protocol):
    """A journal that can be read as well: what :func:`open_journal` gives."""


def open_journal(
    url: str,
    *,
    synchronous: Synchronous = "FULL",
    read_only: bool = False,
    clock: Clock | None = None,
) -> Store:
    """Open a ledger to write it (claim it next), or with ``read_only`` beside its writer.

    ``synchronous``: "FULL", or "NORMAL", by which SQLite may lose acknowledged entries at power loss; PostgreSQL always syncs.
    A SQLite ledger that another writes is refused here, one on PostgreSQL when it is claimed. Raises ``OwnerUnavailable``,
    ``LedgerCorrupt``, or ``InvalidRequest`` for a URL of no known kind.
    """
    if is_postgres(url):
        from agentbudget.ledger.postgres.journal import PostgresJournal

        return PostgresJournal.open(url, read_only=read_only, clock=clock)
    if url == "memory://":
        from agentbudget.ledger.memory import MemoryJournal

        return MemoryJournal()
    _require_sqlite(url)
    from agentbudget.ledger.sql import SqlJournal

    return SqlJournal.open(url, synchronous=synchronous, read_only=read_only, clock=clock)


def open_archive(url: str) -> Archive:
    """Open an existing ledger to read it, at any time, from any process. Raises as :func:`open_journal` does."""
    if url == "memory://":
        raise InvalidRequest(
            "a memory ledger can be read only in the process and by the journal that holds it", "ledger"
        )
    if is_postgres(url):
        from agentbudget.ledger.postgres.journal import PostgresArchive

        return PostgresArchive.open(url)
    _require_sqlite(url)
    from agentbudget.ledger.sql import SqlArchive

    return SqlArchive.open(url)


def migrate(url: str) -> tuple[str | None, str]:
    """Make a ledger, or bring an existing one to the schema of this version: the revision before (None: there was none) and
    now. Raises as :func:`open_journal` does, and when the ledger is open for writing and has an older schema."""
    from agentbudget.ledger.migrations import HEAD

    if is_postgres(url):
        from agentbudget.ledger.postgres.schema import migrate as migrate_postgres

        return migrate_postgres(url), HEAD
    _require_sqlite(url)
    from agentbudget.ledger.sqlite import SqliteFile

    before = SqliteFile.of_url(url).revision()
    if before != HEAD:
        open_journal(url).close()
    return before, HEAD


def is_postgres(url: str) -> bool:
    """Whether the ledger is on PostgreSQL, where many machines reach it."""
    return url.partition(":")[0] in ("postgresql", "postgresql+psycopg")


def _require_sqlite(url: str) -> None:
    if not url.startswith("sqlite:"):
        raise InvalidRequest(
            f"{url.partition(':')[0]!r} is no kind of ledger that this version knows: {_KNOWN}", "ledger"
        )
