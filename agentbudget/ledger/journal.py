"""The port behind which entries become durable. Two implementations: ``sql.SqlJournal`` and ``testing.MemoryJournal``.

The owner writes through a Journal; everybody else reads through an Archive. Both are synchronous: the owner has a thread
(or a process) of its own, and asynchronous faces are made above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from agentbudget.ledger.entry import Sealed


class Snapshot(Struct, frozen=True):
    """The account's state after entry ``seq`` (whose hash is ``head``), encoded by the account. It saves reading, never means
    anything by itself: it may be deleted at any time."""

    customer: str
    seq: int
    head: str
    format: int
    state: bytes


class DenialNote(Struct, frozen=True):
    """Refusals of one session for one reason, coalesced: for consoles and alerts, kept outside the chain, best effort."""

    customer: str
    time_us: int
    session: str
    entity: str
    reason: str
    kind: str
    name: str
    count: int = 1


class Batch(Struct):
    """What one transaction makes durable: all of it or nothing."""

    entries: Sequence[Sealed] = ()
    snapshots: Sequence[Snapshot] = ()
    denials: Sequence[DenialNote] = ()


class Loaded(Struct):
    """A customer as the journal has it: the newest usable snapshot, and the sealed entries after it in order."""

    snapshot: Snapshot | None
    entries: Iterable[Sealed]


class Journal(Protocol):
    """The single writer's side. Every method raises ``OwnerUnavailable`` when the store gives no answer and ``LedgerCorrupt``
    when it gives a wrong one; after any exception from ``commit`` the caller must assume that it does not know."""

    def claim(self, owner: str) -> int:
        """Become the owner: the new epoch (greater than any before). Fences every earlier owner. ``owner`` names this process
        for people (host, pid, since) and is what a second process is told."""
        ...

    def commit(self, batch: Batch) -> None:
        """Make a batch durable in one transaction that also checks the epoch. An empty batch only checks the epoch."""
        ...

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        """The entries that carry these (customer, key) pairs: the idempotency index, one query a batch."""
        ...

    def load(self, customer: str) -> Loaded | None:
        """A customer to fold, or None when it has no entry."""
        ...

    def close(self) -> None:
        """Give the ledger up; the next ``claim`` need not wait."""
        ...


class Archive(Protocol):
    """The readers' side: always possible, from any process, never blocks the writer."""

    def customers(self) -> Iterator[str]:
        """Ids of all customers, in order."""
        ...

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        """The customer's entries with seq > after, in order."""
        ...

    def load(self, customer: str) -> Loaded | None: ...

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]: ...

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        """The newest denial notes, newest first."""
        ...
