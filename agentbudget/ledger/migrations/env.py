"""What alembic runs. The connection comes from ``upgrade.py``; there is no offline mode, because nothing else may write
a ledger."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,  # revisions are written by hand, so the ORM need not be imported; a test compares the two
    transactional_ddl=True,  # SQLite can, when it is told to begin; alembic assumes that it cannot
)
with context.begin_transaction():
    context.run_migrations()
