"""Which schema a ledger on PostgreSQL has, and bringing it up to date."""

from __future__ import annotations

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.migrations import HEAD, known
from agentbudget.ledger.postgres import statements as sql
from agentbudget.ledger.postgres.database import CONNECT_SECONDS, READ_ONLY, PostgresDatabase
from agentbudget.ledger.postgres.line import Line, Lost, Refused
from agentbudget.ledger.postgres.lock import OwnerLock


def recorded(line: Line) -> str | None:
    """The revision of the ledger; None when there is none yet. Raises ``OwnerUnavailable`` when the schema is another
    program's, or of a revision that this version does not know."""
    ((versions, has_tables),) = line.run(sql.WHAT_IS_THERE)
    if versions is None:
        if has_tables:
            what = f"the schema {sql.SCHEMA!r} of the database belongs to another program"
            raise OwnerUnavailable(what, "", "give the ledger a database of its own")
        return None
    rows = line.run("SELECT version_num FROM alembic_version")
    return known(str(rows[0][0])) if rows else None


def require_head(line: Line, name: str) -> None:
    """Raises ``OwnerUnavailable`` unless the ledger is there, with the schema of this version."""
    revision = recorded(line)
    if revision is None:
        raise OwnerUnavailable(
            f"there is no ledger in {name}", "", "run `agentbudget ledger migrate`, or open it for writing once"
        )
    if revision != HEAD:
        what = f"{name} has an older schema ({revision})"
        raise OwnerUnavailable(what, "", "run `agentbudget ledger migrate`, or open it for writing once")


def prepare(line: Line, database: PostgresDatabase) -> None:
    """Bring the ledger to the schema of this version, if it is not there. Raises ``OwnerUnavailable`` when it cannot be."""
    if line.run(sql.IS_READ_ONLY)[0][0]:
        raise database.refusal(READ_ONLY)
    if recorded(line) != HEAD:
        upgrade(database)


def upgrade(database: PostgresDatabase) -> None:
    """Run the missing revisions, in one transaction. Raises ``OwnerUnavailable`` when the database refuses."""
    import psycopg

    from agentbudget.ledger.migrations.upgrade import upgrade_postgres  # a second of imports, once a schema

    try:
        upgrade_postgres(lambda: psycopg.connect(database.conninfo, connect_timeout=CONNECT_SECONDS), sql.SCHEMA)
    except psycopg.Error as error:
        state, said = error.sqlstate or "", error.diag.message_primary or str(error)
        raise database.failure(Refused(state, said) if state else Lost(said)) from None


def migrate(url: str) -> str | None:
    """Bring a ledger to the schema of this version; the revision it had. Whoever has it open for writing must stop first,
    unless there is nothing to do. Raises ``OwnerUnavailable``."""
    database = PostgresDatabase.of_url(url)
    try:
        line = database.line(writes=True)
        try:
            before = recorded(line)
            if before not in (None, HEAD):
                OwnerLock(line, database.name).take("alone")
            prepare(line, database)
        finally:
            line.close()
    except (Lost, Refused) as error:
        raise database.failure(error) from None
    return before
