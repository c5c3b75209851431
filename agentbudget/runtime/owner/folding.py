"""From the ledger to an account: a snapshot where there is a usable one, and the entries after it (law L6)."""

from __future__ import annotations

from msgspec import Struct

from agentbudget.account.account import SNAPSHOT_FORMAT, Account
from agentbudget.ledger.entry import decode, genesis
from agentbudget.ledger.journal import Archive, Loaded


class Folded(Struct):
    """An account, the hash of its newest entry, how many entries were replayed, and the size of the snapshot used (0:
    none)."""

    account: Account
    head: str
    replayed: int
    snapshot_bytes: int


def fold(archive: Archive, customer: str) -> Folded | None:
    """The customer as the ledger has it, or None when it has no entry. Raises ``LedgerCorrupt`` and
    ``OwnerUnavailable``."""
    loaded = archive.load(customer)
    return None if loaded is None else _replay(archive, customer, loaded)


def _replay(archive: Archive, customer: str, loaded: Loaded) -> Folded:
    snapshot, entries = loaded.snapshot, loaded.entries
    folded = Folded(Account(customer), genesis(customer), 0, 0)
    if snapshot is not None and snapshot.format == SNAPSHOT_FORMAT:
        folded = Folded(Account.restore(customer, snapshot.state), snapshot.head, 0, len(snapshot.state))
    elif snapshot is not None:  # of another version of agentbudget: it only costs the reading that it would have saved
        entries = archive.entries(customer)
    for sealed in entries:
        folded.account.replay(decode(sealed.record))
        folded.head = sealed.hash
        folded.replayed += 1
    return folded


def account_of(archive: Archive, customer: str) -> Account:
    """The customer's account; one that does not exist when it has no entry."""
    folded = fold(archive, customer)
    return Account(customer) if folded is None else folded.account
