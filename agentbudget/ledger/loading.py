"""What every journal does alike: the fence's words, and from where a customer is folded."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from agentbudget.errors import LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger.chain import Walk
from agentbudget.ledger.journal import Snapshot

COLLISION: Final = (
    "another writer recorded an entry with the same seq or key, so this owner is fenced",
    "",
    "discard the state and load the customer again",
)
"""The words of ``OwnerUnavailable`` when (customer, seq) or (customer, key) is taken."""


FORKED: Final = (
    "this process was forked after the ledger was opened, and two processes must not write through one connection",
    "",
    "open the ledger (or the Runtime) in the child, after the fork",
)
"""The words of ``OwnerUnavailable`` in a forked child."""


def fenced(epoch: int, owner: str) -> OwnerUnavailable:
    """The refusal of a transaction whose epoch (0: never claimed) is not the store's; ``owner`` has the ledger now."""
    if not epoch:
        return OwnerUnavailable("this journal never became the owner of the ledger", owner, "call claim() first")
    what = "another owner took the ledger over, so this one is fenced"
    return OwnerUnavailable(what, owner, "discard the state; send the commands to the new owner with the same keys")


def digest(snapshot: Snapshot) -> str:
    """What is stored beside a snapshot, so that a damaged one is ignored: SHA-256 (hex) over all its fields."""
    head = f"{snapshot.customer}\0{snapshot.seq}\0{snapshot.head}\0{snapshot.format}\0".encode()
    return sha256(head + snapshot.state).hexdigest()


def start_after(
    customer: str, snapshot: Snapshot | None, hash_at: Callable[[int], str | None]
) -> tuple[Snapshot | None, Walk]:
    """The snapshot and the walk that goes on after it. ``hash_at`` gives the recorded hash of an entry of the customer.

    An undamaged snapshot is committed with or after its entry, so one whose entry is missing or has another hash proves
    that entries were lost or rewritten: ``LedgerCorrupt``. Going on from either of the two would be a guess about
    money.
    """
    if snapshot is None:
        return None, Walk(customer)
    recorded = hash_at(snapshot.seq)
    if recorded is None:
        raise LedgerCorrupt("a snapshot proves an entry that is missing (tail removed?)", customer, snapshot.seq)
    if recorded != snapshot.head:
        raise LedgerCorrupt("the entry has another hash than its snapshot proves", customer, snapshot.seq)
    return snapshot, Walk(customer, seq=snapshot.seq, head=snapshot.head)
