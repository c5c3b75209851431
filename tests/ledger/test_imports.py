"""Importing the ledger costs neither ORM nor database driver; opening an existing one does not cost the ORM either."""

from __future__ import annotations

import subprocess
import sys

from agentbudget.ledger.sql import SqlJournal
from tests.ledger.places import SqlPlace


def loaded_after(program: str) -> set[str]:
    code = f"{program}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_ledger_loads_no_database() -> None:
    loaded = loaded_after("import agentbudget.ledger, agentbudget.testing")
    assert not loaded & {"sqlalchemy", "sqlmodel", "alembic", "sqlite3"}


def test_opening_an_existing_ledger_loads_no_orm(sql_place: SqlPlace, sql_journal: SqlJournal) -> None:
    sql_journal.close()
    loaded = loaded_after(f"from agentbudget.ledger import open_journal; open_journal({sql_place.url!r})")
    assert "sqlite3" in loaded
    assert not loaded & {"sqlalchemy", "sqlmodel", "alembic"}
