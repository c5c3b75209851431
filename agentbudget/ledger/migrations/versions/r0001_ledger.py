"""The ledger: entries, snapshots, owners and denials, and the triggers that keep entries as they are."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # in the order of their bytes, as SQLite has them

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

# Whole statements are refused, whether they would meet a row or not, TRUNCATE and ON CONFLICT DO UPDATE among them; ALWAYS:
# also in a session that calls itself a replica.
_POSTGRES_TRIGGERS = (
    "CREATE FUNCTION entries_stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " RAISE EXCEPTION 'entries are never %: book a correction (L7)',"
    " CASE TG_OP WHEN 'UPDATE' THEN 'changed' ELSE 'removed' END USING ERRCODE = 'integrity_constraint_violation';"
    " END $$",
    "CREATE TRIGGER entries_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON entries"
    " FOR EACH STATEMENT EXECUTE FUNCTION entries_stay()",
    "ALTER TABLE entries ENABLE ALWAYS TRIGGER entries_stay",
)


def upgrade() -> None:
    _create_entries()
    _create_the_rest()
    for trigger in {"sqlite": _SQLITE_TRIGGERS, "postgresql": _POSTGRES_TRIGGERS}[op.get_bind().dialect.name]:
        op.execute(trigger)


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("customer", _ID, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("key", _ID, nullable=True),
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
        sa.Column("customer", _ID, primary_key=True),
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
        sa.Column("customer", _ID, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        *texts,
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.create_index("denials_customer", "denials", ["customer", "id"])
