"""Reconcile: what the account believes against what the entries say. The two share no arithmetic, so agreement means
something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from agentbudget.errors import LedgerCorrupt
from agentbudget.ledger.chain import Broken, Walk
from agentbudget.ledger.entry import ACCOUNTS
from agentbudget.ledger.fold import Balances
from agentbudget.ledger.journal import Archive, Snapshot

State: TypeAlias = Mapping[str, Mapping[str, int]]
"""grant -> account -> nanocredits; what is missing is zero."""


class Difference(Struct, frozen=True):
    """One thing that does not agree. ``ledger`` and ``found`` are nanocredits; both 0 where the fault is no amount."""

    customer: str
    what: str
    grant: str = ""
    account: str = ""
    ledger: int = 0
    found: int = 0

    def __str__(self) -> str:
        place = "/".join(part for part in (self.customer, self.grant, self.account) if part)
        amounts = f": the entries say {self.ledger}, found {self.found}" if self.ledger != self.found else ""
        return f"{place}: {self.what}{amounts}"


def reconcile(
    archive: Archive, state_of: Callable[[str], State], *, state_in: Callable[[Snapshot], State | None] | None = None
) -> list[Difference]:
    """Every difference, over all customers; an empty list is a clean ledger.

    ``state_of`` gives the account's folded balances of a customer, ``state_in`` those inside a snapshot (None for a
    format it does not know). Checked besides: the chain (L7), that every grant sums to zero and nothing but ``issued``
    is negative (L2). Ask when the owner is idle: entries written between the two readings show as differences.
    """
    return [
        difference
        for customer in archive.customers()
        for difference in _of_customer(archive, customer, state_of, state_in)
    ]


def _of_customer(
    archive: Archive,
    customer: str,
    state_of: Callable[[str], State],
    state_in: Callable[[Snapshot], State | None] | None,
) -> list[Difference]:
    snapshot, found = _snapshot(archive, customer)
    balances, at_snapshot, faults = _folded(archive, customer, snapshot.seq if snapshot is not None else 0)
    found += faults
    found += [Difference(customer, what, grant, account) for grant, account, what in balances.wrong()]
    if not faults:
        found += _compare(customer, "the account's state", balances.grants, state_of(customer))
    inside = state_in(snapshot) if state_in is not None and snapshot is not None else None
    if inside is not None and at_snapshot is not None:
        found += _compare(customer, "the snapshot", at_snapshot.grants, inside)
    return found


def _snapshot(archive: Archive, customer: str) -> tuple[Snapshot | None, list[Difference]]:
    try:
        loaded = archive.load(customer)
    except LedgerCorrupt as error:
        return None, [Difference(customer, error.what)]
    return (loaded.snapshot if loaded is not None else None), []


def _folded(archive: Archive, customer: str, snapshot_seq: int) -> tuple[Balances, Balances | None, list[Difference]]:
    """The balances after the last right entry, those after the snapshot's entry, and the fault of the chain if there is
    one."""
    balances, at_snapshot, walk = Balances(), None, Walk(customer)
    for sealed in archive.entries(customer):
        try:
            balances.add(walk.step(sealed).postings)
        except Broken as broken:
            return balances, at_snapshot, [Difference(customer, f"{broken.fault.how}: {broken.fault.what}")]
        if walk.seq == snapshot_seq:
            at_snapshot = balances.copy()
    return balances, at_snapshot, []


def _compare(customer: str, where: str, ledger: State, found: State) -> list[Difference]:
    differences = []
    for grant in sorted({*ledger, *found}):
        ours, theirs = ledger.get(grant, {}), found.get(grant, {})
        differences += [
            Difference(customer, f"{where} differs", grant, account, ours.get(account, 0), theirs.get(account, 0))
            for account in sorted({*ACCOUNTS, *theirs})
            if ours.get(account, 0) != theirs.get(account, 0)
        ]
    return differences
