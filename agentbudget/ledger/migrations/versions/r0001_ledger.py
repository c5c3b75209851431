"""The ledger: entries, snapshots, owners and denials, and the triggers that keep entries as they are."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# INSERT OR REPLACE deletes without firing DELETE triggers, so an insert that meets an existing entry is refused as
# well.
_SQLITE_TRIGGERS = (
    "CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries"
    " BEGIN SELECT RAISE(ABORT, 'entries are never changed: book a correction (L7)'); END",
    "CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries"
    " BEGIN SELECT RAISE(ABORT, 'entries are never removed: book a correction (L7)'); END",
    "CREATE TRIGGER entries_no_replace BEFORE INSERT ON entries"
    " WHEN EXISTS (SELECT 1 FROM entries WHERE customer = NEW.customer AND seq = NEW.seq)"
    " OR (NEW.key IS NOT NULL AND EXISTS (SELECT 1 FROM entries WHERE customer = NEW.customer AND key = NEW.key))"
    " BEGIN SELECT RAISE(ABORT, 'entries are never replaced: this seq or key is taken (L4, L7)'); END",
)


def upgrade() -> None:
    _create_entries()
    _create_the_rest()
    if op.get_bind().dialect.name == "sqlite":
        for trigger in _SQLITE_TRIGGERS:
            op.execute(trigger)


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    with_key = sa.text("key IS NOT NULL")
    op.create_index(
        "entries_key", "entries", ["customer", "key"], unique=True, sqlite_where=with_key, postgresql_where=with_key
    )


def _create_the_rest() -> None:
    op.create_table(
        "snapshots",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("head", sa.Text, nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
    )
    op.create_table(
        "owners",
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("since_us", sa.BigInteger, nullable=False),
    )
    texts = [sa.Column(name, sa.Text, nullable=False) for name in ("session", "entity", "reason", "kind", "name")]
    op.create_table(
        "denials",
        sa.Column("id", _BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        *texts,
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.create_index("denials_customer", "denials", ["customer", "id"])
