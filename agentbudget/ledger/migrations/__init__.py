"""Which schema a ledger has, without importing alembic (a second of start-up): only an older schema needs the tool."""

from __future__ import annotations

import sqlite3
from typing import Final

from agentbudget.errors import OwnerUnavailable

REVISIONS: Final = ("0001",)
"""Every revision this version knows, oldest first; a test compares them with ``versions/``."""

HEAD: Final = REVISIONS[-1]


def recorded(connection: sqlite3.Connection) -> str | None:
    """The revision of an open SQLite file; None when the file is empty.

    Raises ``OwnerUnavailable`` when the file has tables but is no ledger, or has a revision that this version does not
    know.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise OwnerUnavailable("the file is a database of another program", "", "give the ledger a file of its own")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return known(str(row[0])) if row is not None else None


def known(revision: str) -> str:
    """The revision, if this version knows it; raises ``OwnerUnavailable`` otherwise."""
    if revision not in REVISIONS:
        raise OwnerUnavailable(
            f"the ledger has schema {revision!r}, and this version of agentbudget knows {', '.join(REVISIONS)}",
            "",
            "use the version of agentbudget that wrote it, or a newer one",
        )
    return revision
