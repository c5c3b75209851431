"""Every statement that only PostgreSQL gets, named, with its parameters in order; the readers' are shared with SQLite
(``ledger/statements.py``).

A commit is one statement, hence one message each way and one transaction: the fence locks the owners' rows, and what is
written is written only where the fence found them all with this owner's epoch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

SCHEMA: Final = "agentbudget"
"""Everything of the ledger is in a schema of its own, so that an application may keep it in its own database."""

# A session for writing or reading. Only lookups by an index are made here, so plans are made once and never scan a table,
# whatever the statistics say; an administrator who lets commits answer before they are on disk is overruled (law L1).
SESSION: Final = f"""
SET search_path = {SCHEMA};
SET statement_timeout = {{statement_ms}};
SET lock_timeout = {{lock_ms}};
SET idle_in_transaction_session_timeout = {{statement_ms}};
SET default_transaction_isolation = 'read committed';
SET client_min_messages = error;
SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 11000;
SET plan_cache_mode = force_generic_plan; SET jit = off;
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""

FOR_READING: Final = "SET default_transaction_read_only = on"

# () -> (is read-only): a standby, or a database whose administrator said so.
IS_READ_ONLY: Final = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"

# () -> (alembic's table, whether the ledger's schema has any table).
WHAT_IS_THERE: Final = (
    f"SELECT to_regclass('{SCHEMA}.alembic_version')::text, EXISTS (SELECT 1 FROM pg_class"
    f" WHERE relnamespace = to_regnamespace('{SCHEMA}') AND relkind = 'r')"
)

# The lock of those who write, told from other ledgers' by the table's own number.
_KEY: Final = "'owners'::regclass::oid::bigint::bit(32)::int, 0"
LOCK_ALONE: Final = f"SELECT pg_try_advisory_lock({_KEY})"
LOCK_TOGETHER: Final = f"SELECT pg_try_advisory_lock_shared({_KEY})"
UNLOCK: Final = "SELECT pg_advisory_unlock_all()"

_HOLDERS: Final = (
    "FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.pid <> pg_backend_pid()"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid = 'owners'::regclass::oid AND l.objid = 0"
)

# () -> (backend, name, since): the other sessions that have the lock.
HOLDERS: Final = (
    "SELECT l.pid::bigint, coalesce(a.application_name, ''),"
    " to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"+00:00\"') " + _HOLDERS
)

# (backend) -> (has ended): end a session that has the lock; waits for it for two seconds.
END_GHOST: Final = f"SELECT pg_terminate_backend(l.pid, 2000) {_HOLDERS} AND l.pid = $1"

# () -> (has ended): the same for all that are in a transaction for more than a second.
END_STUCK: Final = (
    f"SELECT pg_terminate_backend(l.pid, 2000) {_HOLDERS} AND a.xact_start < clock_timestamp() - interval '1 second'"
)

# () -> (shard, epoch, owner): who owns the shards that anybody ever took.
OWNERS: Final = "SELECT shard, epoch, owner FROM owners ORDER BY shard"

# One claim at a time, so that two never come to the same epoch; it waits for transactions of the shards' owners, shortly.
BEGIN_CLAIM: Final = (
    "BEGIN; SET LOCAL lock_timeout = '1s'; SELECT pg_advisory_xact_lock('owners'::regclass::oid::bigint)"
)
LOCKED: Final = "55P03"

# (shards, owner, since_us) -> (shard, epoch): become the owner of the shards, with an epoch above every other.
CLAIM: Final = (
    "INSERT INTO owners (shard, epoch, owner, since_us)"
    " SELECT shard, (SELECT coalesce(max(epoch), 0) + 1 FROM owners), $2, $3"
    " FROM unnest($1::bigint[]) AS mine (shard) ORDER BY shard"
    " ON CONFLICT (shard) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, since_us = excluded.since_us"
    " RETURNING shard, epoch"
)

# (kept): drop all but about that many of the newest denials.
TRIM_DENIALS: Final = "DELETE FROM denials WHERE id <= (SELECT max(id) FROM denials) - $1"

# (shards, epochs) -> (shard): the shards that this owner still has.
STILL_OWNED: Final = (
    "SELECT o.shard FROM unnest($1::bigint[], $2::bigint[]) AS mine (shard, epoch)"
    " JOIN owners AS o ON o.shard = mine.shard AND o.epoch = mine.epoch"
)

# The fence of a transaction, with the same parameters: it locks the rows, so that a claim waits for the transaction, or the
# transaction for the claim and then finds another epoch.
FENCE: Final = STILL_OWNED + " ORDER BY o.shard FOR SHARE OF o"

COPY_ENTRIES: Final = "COPY entries (customer, seq, epoch, key, record, hash) FROM STDIN (FORMAT binary)"

# (customers, keys) -> sealed entries that carry these keys, by the index.
FIND: Final = (
    "SELECT e.customer, e.seq, e.key, e.record, e.hash FROM unnest($1::text[], $2::text[]) AS wanted (customer, key)"
    " JOIN entries AS e ON e.customer = wanted.customer AND e.key = wanted.key AND e.key IS NOT NULL"
)

_PARTS: Final = {
    "entries": (
        ("customer text", "seq bigint", "epoch bigint", "key text", "record bytea", "hash text"),
        "INSERT INTO entries (customer, seq, epoch, key, record, hash)"
        " SELECT customer, seq, epoch, key, record, hash FROM {rows}",
    ),
    "snapshots": (
        ("customer text", "seq bigint", "head text", "format bigint", "state bytea", "sha256 text"),
        "INSERT INTO snapshots (customer, seq, head, format, state, sha256)"
        " SELECT customer, seq, head, format, state, sha256 FROM {rows} ORDER BY customer"
        " ON CONFLICT (customer) DO UPDATE SET seq = excluded.seq, head = excluded.head, format = excluded.format,"
        " state = excluded.state, sha256 = excluded.sha256",
    ),
    "denials": (
        ("customer text", "time_us bigint", "session text", "entity text", "reason text", "kind text", "name text",
         "count bigint"),
        "INSERT INTO denials (customer, time_us, session, entity, reason, kind, name, count)"
        " SELECT customer, time_us, session, entity, reason, kind, name, count FROM {rows}",
    ),
}  # fmt: skip

COLUMNS: Final = {table: tuple(column.split()[1] for column in columns) for table, (columns, _) in _PARTS.items()}
"""The types of what :func:`append` takes, by table: one array for each."""


@lru_cache(maxsize=8)
def append(*tables: str) -> str:
    """(shards, epochs, number of shards, then an array for each column of each table) -> (shards still owned): write to
    these tables in one fenced statement, all or nothing."""
    at, parts = 4, [f"fence AS MATERIALIZED ({FENCE})", "held AS MATERIALIZED (SELECT count(*) AS shards FROM fence)"]
    for table in tables:
        columns, insert = _PARTS[table]
        arrays = ", ".join(f"${at + n}::{column.split()[1]}[]" for n, column in enumerate(columns))
        names = ", ".join(column.split()[0] for column in columns)
        rows = f"unnest({arrays}) AS given ({names}) WHERE (SELECT shards FROM held) = $3"
        parts.append(f"put_{table} AS ({insert.format(rows=rows)})")
        at += len(columns)
    return f"WITH {', '.join(parts)} SELECT shards FROM held"
