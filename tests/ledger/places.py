"""Where a ledger under test lives: opened as often as a test likes, by its owner or by a rival without a lock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from agentbudget.ledger import Store
from agentbudget.ledger.postgres.journal import PostgresJournal
from agentbudget.ledger.sql import SqlJournal
from agentbudget.testing import MemoryJournal, MemoryStore
from tests.postgres.server import PostgresServer


class Place(Protocol):
    def open(self) -> Store:
        """Open the ledger; a restart when the last journal was closed."""
        ...

    def rival(self) -> Store:
        """Open it as a second writer, while the first one lives."""
        ...


class MemoryPlace:
    def __init__(self) -> None:
        self.store = MemoryStore()

    def open(self) -> Store:
        return MemoryJournal(self.store)

    def rival(self) -> Store:
        return MemoryJournal(self.store)


class SqlPlace:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.opened: list[SqlJournal] = []

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def open(self) -> SqlJournal:
        self.opened.append(SqlJournal.open(self.url, busy_timeout_ms=0))
        return self.opened[-1]

    def rival(self) -> SqlJournal:
        os.unlink(f"{self.path}.owner")  # what an operator may do, or a network file system that forgets locks
        return self.open()

    def close(self) -> None:
        for journal in self.opened:
            journal.close()


class PostgresPlace:
    """A database of its own on the server of the test run."""

    def __init__(self, server: PostgresServer, template: str | None = None) -> None:
        self.server, self.database = server, server.new_database(template)
        self.opened: list[PostgresJournal] = []

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    def open(self) -> PostgresJournal:
        self.opened.append(PostgresJournal.open(self.url))
        return self.opened[-1]

    def rival(self) -> PostgresJournal:
        """What an operator does when the owner's machine hangs: its session is ended at the server."""
        self.server.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE datname = '{self.database}' AND pid <> pg_backend_pid()"
        )
        return self.open()

    def close(self) -> None:
        for journal in self.opened:
            journal.close()
        self.server.drop_database(self.database)
