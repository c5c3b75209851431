"""Comparing the account's fold with the postings' sums: two ways that share no arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agentbudget.account.account import SNAPSHOT_FORMAT, Account
from agentbudget.ledger.audit import Difference, State, reconcile
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.journal import Archive, DenialNote, Loaded, Snapshot
from agentbudget.runtime.owner.folding import account_of


class _OneCustomer:
    """An archive as if it held one customer only."""

    def __init__(self, archive: Archive, customer: str) -> None:
        self._archive, self._customer = archive, customer

    def customers(self) -> Iterator[str]:
        return iter((self._customer,))

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._archive.entries(customer, after=after)

    def load(self, customer: str) -> Loaded | None:
        return self._archive.load(customer)

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        return self._archive.find(keys)

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._archive.denials(customer, limit=limit)


def reconcile_customer(archive: Archive, customer: str) -> list[Difference]:
    """Every difference of one customer; empty is right."""
    return reconcile_ledger(_OneCustomer(archive, customer))


def reconcile_ledger(archive: Archive) -> list[Difference]:
    """Every difference of every customer, the snapshots' included; empty is right."""
    return reconcile(archive, lambda customer: account_of(archive, customer).balances(), state_in=_inside)


def _inside(snapshot: Snapshot) -> State | None:
    if snapshot.format != SNAPSHOT_FORMAT:
        return None
    return Account.restore(snapshot.customer, snapshot.state).balances()
