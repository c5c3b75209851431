"""Law L6: all balances are the fold of the entries' postings. Arithmetic of its own: it shares no code with the
account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentbudget.ledger.chain import Anchor, Postings, VerifyReport, header_of, verify
from agentbudget.ledger.entry import ACCOUNTS, ISSUED, Sealed


class Balances:
    """Nanocredits per grant per account. ``balances["welcome"]["held"]``; a grant without postings has zeros."""

    __slots__ = ("_grants",)

    def __init__(self) -> None:
        self._grants: dict[str, dict[str, int]] = {}

    def add(self, postings: Postings) -> None:
        """Book an entry's postings; an account that does not exist is a ``KeyError``."""
        grants = self._grants
        for account, grant, amount in postings:
            accounts = grants.get(grant)
            if accounts is None:
                accounts = grants[grant] = dict.fromkeys(ACCOUNTS, 0)
            accounts[account] += amount

    def __getitem__(self, grant: str) -> Mapping[str, int]:
        return self._grants.get(grant) or dict.fromkeys(ACCOUNTS, 0)

    def __eq__(self, other: object) -> bool:
        return self._grants == other._grants if isinstance(other, Balances) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # balances change

    def __repr__(self) -> str:
        return f"Balances({self._grants!r})"

    @property
    def grants(self) -> Mapping[str, Mapping[str, int]]:
        """Every grant with its accounts: a live view, to be read only."""
        return self._grants

    def copy(self) -> Balances:
        """The same balances, from here on apart."""
        twin = Balances()
        twin._grants = {grant: dict(accounts) for grant, accounts in self._grants.items()}
        return twin

    def total(self, account: str) -> int:
        """Nanocredits on one account over all grants."""
        return sum(accounts[account] for accounts in self._grants.values())

    def wrong(self) -> list[tuple[str, str, str]]:
        """(grant, account, what) of every balance that breaks law L2: a sum that is not zero, or a negative account
        that is not ``issued``."""
        found = []
        for grant, accounts in self._grants.items():
            if sum(accounts.values()):
                found.append((grant, "", "its accounts do not sum to zero"))
            found += [
                (grant, account, "is negative") for account, nano in accounts.items() if nano < 0 and account != ISSUED
            ]
        return found


def fold(entries: Iterable[Sealed]) -> Balances:
    """The balances after these entries of one customer. The entries are taken as right: see :func:`verify_and_fold`."""
    balances = Balances()
    for sealed in entries:
        balances.add(header_of(sealed.record).postings)
    return balances


def verify_and_fold(
    entries: Iterable[Sealed], *, customer: str = "", anchor: Anchor | tuple[int, str] | None = None
) -> tuple[VerifyReport, Balances]:
    """Both in one pass; the balances are those of the entries before the fault, if there is one."""
    balances = Balances()
    return verify(entries, customer=customer, anchor=anchor, fold=balances.add), balances
