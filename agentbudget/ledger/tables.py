"""The ledger's tables, declared once. The migrations create them; tests compare the two, and
the columns of ``statements.py``, with these.

The types are those that SQLite and PostgreSQL share. ``entries`` keeps SQLite's row id: measured with records of 600
bytes, WITHOUT ROWID writes a third slower (one entry a commit) to twice as slow (100 a commit), because large rows sit
in the key's own tree.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

_BIG_ID = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER counts up by itself in SQLite
_ID = Text().with_variant(Text(collation="C"), "postgresql")  # in the order of their bytes, as SQLite has them
_WITH_KEY = text("key IS NOT NULL")


class LedgerTable(SQLModel, registry=registry()):
    """A registry of its own: the tables of an application that uses SQLModel too may have the same names."""


class EntryRow(LedgerTable, table=True):
    """One entry, never changed (triggers refuse it). (customer, seq) fences a second writer; (customer, key) is law
    L4."""

    __tablename__ = "entries"
    __table_args__ = (
        Index("entries_key", "customer", "key", unique=True, sqlite_where=_WITH_KEY, postgresql_where=_WITH_KEY),
    )
    customer: str = Field(sa_column=Column("customer", _ID, primary_key=True))
    seq: int = Field(sa_column=Column("seq", BigInteger, primary_key=True, autoincrement=False))
    epoch: int = Field(sa_column=Column("epoch", BigInteger, nullable=False))
    key: str | None = Field(default=None, sa_column=Column("key", _ID, nullable=True))
    record: bytes = Field(sa_column=Column("record", LargeBinary, nullable=False))
    hash: str = Field(sa_column=Column("hash", Text, nullable=False))


class SnapshotRow(LedgerTable, table=True):
    """The newest snapshot of a customer, replaced in place. ``sha256`` covers the other columns: a damaged one is
    ignored."""

    __tablename__ = "snapshots"
    customer: str = Field(sa_column=Column("customer", _ID, primary_key=True))
    seq: int = Field(sa_column=Column("seq", BigInteger, nullable=False))
    head: str = Field(sa_column=Column("head", Text, nullable=False))
    format: int = Field(sa_column=Column("format", Integer, nullable=False))
    state: bytes = Field(sa_column=Column("state", LargeBinary, nullable=False))
    sha256: str = Field(sa_column=Column("sha256", Text, nullable=False))


class OwnerRow(LedgerTable, table=True):
    """Who may write a shard: the epoch that every transaction checks. SQLite has one, 0, for all customers; PostgreSQL has
    those of ``shards.py``."""

    __tablename__ = "owners"
    shard: int = Field(default=0, sa_column=Column("shard", Integer, primary_key=True, autoincrement=False))
    epoch: int = Field(sa_column=Column("epoch", BigInteger, nullable=False))
    owner: str = Field(sa_column=Column("owner", Text, nullable=False))
    since_us: int = Field(sa_column=Column("since_us", BigInteger, nullable=False))


class DenialRow(LedgerTable, table=True):
    """Coalesced refusals, outside the chain, for consoles and alerts; the oldest are dropped."""

    __tablename__ = "denials"
    __table_args__ = (Index("denials_customer", "customer", "id"),)
    id: int | None = Field(default=None, sa_column=Column("id", _BIG_ID, primary_key=True, autoincrement=True))
    customer: str = Field(sa_column=Column("customer", _ID, nullable=False))
    time_us: int = Field(sa_column=Column("time_us", BigInteger, nullable=False))
    session: str = Field(sa_column=Column("session", Text, nullable=False))
    entity: str = Field(sa_column=Column("entity", Text, nullable=False))
    reason: str = Field(sa_column=Column("reason", Text, nullable=False))
    kind: str = Field(sa_column=Column("kind", Text, nullable=False))
    name: str = Field(sa_column=Column("name", Text, nullable=False))
    count: int = Field(default=1, sa_column=Column("count", BigInteger, nullable=False))
