"""Every statement on the ledger's tables, named, with its parameters in order: SQL that SQLite and PostgreSQL share.

They are text, not compiled from ``tables.py``, so that opening a ledger does not import the ORM (0.4 s of start-up); a
test prepares each against the migrated schema and compares the columns with the tables. ``?`` marks a parameter.
"""

from __future__ import annotations

from typing import Final

# () -> (epoch, owner): who owns the shard.
OWNER: Final = "SELECT epoch, owner FROM owners WHERE shard = 0"

# (epoch, owner, since_us): become the owner of the shard.
CLAIM: Final = (
    "INSERT INTO owners (shard, epoch, owner, since_us) VALUES (0, ?, ?, ?) ON CONFLICT (shard) DO UPDATE"
    " SET epoch = excluded.epoch, owner = excluded.owner, since_us = excluded.since_us"
)

# (customer, seq, epoch, key, record, hash): append an entry.
APPEND: Final = "INSERT INTO entries (customer, seq, epoch, key, record, hash) VALUES (?, ?, ?, ?, ?, ?)"

# (customer, seq, head, format, state, sha256): put a snapshot in the place of the customer's last one.
KEEP_SNAPSHOT: Final = (
    "INSERT INTO snapshots (customer, seq, head, format, state, sha256) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (customer) DO UPDATE SET seq = excluded.seq, head = excluded.head, format = excluded.format,"
    " state = excluded.state, sha256 = excluded.sha256"
)

# (customer, time_us, session, entity, reason, kind, name, count): note a denial.
NOTE_DENIAL: Final = (
    "INSERT INTO denials (customer, time_us, session, entity, reason, kind, name, count)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

# (kept): drop all but about that many of the newest denials.
TRIM_DENIALS: Final = "DELETE FROM denials WHERE id <= (SELECT max(id) FROM denials) - ?"

# (customer, seq, limit) -> sealed entries: a page of a customer's entries after seq.
PAGE_OF: Final = (
    "SELECT customer, seq, key, record, hash FROM entries WHERE customer = ? AND seq > ? ORDER BY seq LIMIT ?"
)

# (customer, seq) -> (hash): the recorded hash of one entry.
HASH_AT: Final = "SELECT hash FROM entries WHERE customer = ? AND seq = ?"

# (customer) -> (seq): any entry at all?
ANY_ENTRY: Final = "SELECT seq FROM entries WHERE customer = ? LIMIT 1"

# (customer) -> the customer's snapshot.
SNAPSHOT_OF: Final = "SELECT customer, seq, head, format, state, sha256 FROM snapshots WHERE customer = ?"

# (customer) -> (customer): the next customer; a step in the index, where DISTINCT would read it all.
NEXT_CUSTOMER: Final = "SELECT min(customer) FROM entries WHERE customer > ?"

# (customer, limit) -> denial notes, newest first.
DENIALS_OF: Final = (
    "SELECT customer, time_us, session, entity, reason, kind, name, count FROM denials"
    " WHERE customer = ? ORDER BY id DESC LIMIT ?"
)

_FIND: Final = (
    "WITH wanted (customer, key) AS (VALUES {places}) SELECT e.customer, e.seq, e.key, e.record, e.hash"
    " FROM wanted CROSS JOIN entries AS e WHERE e.customer = wanted.customer AND e.key = wanted.key"
)


def find(count: int) -> str:
    """(customer, key) ``count`` times -> sealed entries that carry these keys, by the index."""
    return _FIND.format(places=", ".join(["(?, ?)"] * count))
