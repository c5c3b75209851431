"""The wallet: which free credits a step may use, in which order, and what happens to credits that come back.

Laws kept here: L2 (every method returns postings that sum to zero per grant), L3 (never more than is free), L12 with the
limits. Grants that nobody issued stand for what was used beyond all grants: ``@overdraft`` and ``@receivable`` are issued as
they are drawn, so the identity of L2 holds for them too.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

from agentbudget.account.matching import StepContext, covers
from agentbudget.account.state import Debt, GrantState, Order, Slice, State
from agentbudget.catalog.terms import Scope
from agentbudget.errors import check
from agentbudget.ledger.entry import (
    AVAILABLE,
    CONSUMED,
    EXPIRED,
    HELD,
    ISSUED,
    OVERDRAFT,
    PAYMENTS,
    RECEIVABLE,
    Posting,
)

DRAWN = (OVERDRAFT, RECEIVABLE)
_CACHE = 1024
"""Step contexts whose pools are remembered: a customer has few shapes of steps at a time."""


class Pool:
    """Effective grants of one scope in burn order, those with nothing free left out; ``free`` is their sum."""

    __slots__ = ("free", "grants", "orders", "scope")

    def __init__(self, scope: Scope | None) -> None:
        self.scope = scope
        self.orders: list[Order] = []
        self.grants: dict[Order, GrantState] = {}
        self.free = 0


class Wallet:
    """The grants of one customer's state, with the pools that make a hold independent of how many there are."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._pools: dict[Scope | None, Pool] = {}
        self._of: dict[str, Pool] = {}
        self._eligible: dict[StepContext, tuple[Pool, ...]] = {}
        self._pending: list[tuple[int, str]] = []
        self._expiring: list[tuple[int, str]] = []
        self.issued = sum(grant.issued for grant in state.grants.values())
        """All credits ever issued or drawn, less what was paid back: the bound of every balance."""
        for grant in state.grants.values():
            self.add(grant, state.time_us)

    # -- the index ------------------------------------------------------------------------------------------------------

    def add(self, grant: GrantState, now_us: int) -> None:
        """Take a grant that the state has (again) into the index."""
        if grant.id in DRAWN or grant.id == PAYMENTS:
            return
        if grant.expires_us is not None:
            heapq.heappush(self._expiring, (grant.expires_us, grant.id))
        if grant.effective_us > now_us:
            heapq.heappush(self._pending, (grant.effective_us, grant.id))
        else:
            self._activate(grant)

    def _activate(self, grant: GrantState) -> None:
        pool = self._pools.get(grant.scope)
        if pool is None:
            pool = self._pools[grant.scope] = Pool(grant.scope)
            self._eligible.clear()
        self._of[grant.id] = pool
        if grant.available:
            insort(pool.orders, grant.order)
            pool.grants[grant.order] = grant
            pool.free += grant.available

    @property
    def next_change_us(self) -> int:
        """When the next grant becomes effective or expires."""
        heads = [heap[0][0] for heap in (self._pending, self._expiring) if heap]
        return min(heads, default=2**62)

    def mature(self, now_us: int) -> bool:
        """Let grants whose time has come into their pools; True when any did."""
        came = False
        while self._pending and self._pending[0][0] <= now_us:
            self._activate(self._state.grants[heapq.heappop(self._pending)[1]])
            came = True
        return came

    def expire(self, now_us: int, at_most: int) -> list[GrantState]:
        """Grants that have expired by now with credits still free, no longer in any pool; their credits are to be posted."""
        gone: list[GrantState] = []
        while self._expiring and self._expiring[0][0] <= now_us and len(gone) < at_most:
            grant = self._state.grants[heapq.heappop(self._expiring)[1]]
            pool = self._of.pop(grant.id, None)
            if pool is not None:
                self._drop(pool, grant)
            if grant.available:
                gone.append(grant)
        return gone

    @staticmethod
    def _drop(pool: Pool, grant: GrantState) -> None:
        order = grant.order
        if pool.grants.pop(order, None) is not None:
            del pool.orders[bisect_left(pool.orders, order)]
            pool.free -= grant.available

    def post(self, postings: Iterable[Posting]) -> None:
        """Apply postings to their grants and to the index."""
        grants = self._state.grants
        for posting in postings:
            account, amount = posting.account, posting.amount
            grant = grants.get(posting.grant)
            if grant is None:
                grant = grants[posting.grant] = _drawn(posting.grant)
            if account == AVAILABLE:
                self._post_available(grant, amount)
            elif account == HELD:
                grant.held += amount
            elif account == CONSUMED:
                grant.consumed += amount
            elif account == ISSUED:
                grant.issued -= amount
                self.issued -= amount
            elif account == EXPIRED:
                grant.expired += amount
            else:
                grant.voided += amount

    def _post_available(self, grant: GrantState, amount: int) -> None:
        before = grant.available
        after = grant.available = before + amount
        if after < 0:
            check(False, "L3", f"grant {grant.id} would have {after} nanocredits free")
        pool = self._of.get(grant.id)
        if pool is None:
            return
        pool.free += amount
        if before == 0 or after == 0:
            self._list(pool, grant, present=after != 0)

    @staticmethod
    def _list(pool: Pool, grant: GrantState, *, present: bool) -> None:
        order = grant.order
        if present and order not in pool.grants:
            insort(pool.orders, order)
            pool.grants[order] = grant
        elif not present and pool.grants.pop(order, None) is not None:
            del pool.orders[bisect_left(pool.orders, order)]

    # -- questions ------------------------------------------------------------------------------------------------------

    def pools(self, context: StepContext) -> tuple[Pool, ...]:
        """The pools whose scope covers the step."""
        found = self._eligible.get(context)
        if found is None:
            if len(self._eligible) >= _CACHE:
                self._eligible.clear()
            found = self._eligible[context] = tuple(p for p in self._pools.values() if covers(p.scope, context))
        return found

    def free(self, context: StepContext) -> int:
        """Free credits (nanocredits) that the step may use."""
        return sum(pool.free for pool in self.pools(context))

    def take(self, amount: int, context: StepContext) -> tuple[list[Slice], int]:
        """Slices of free credits in burn order that make up ``amount``, and what is missing. Nothing is changed."""
        slices: list[Slice] = []
        if amount:
            pools = self.pools(context)
            if len(pools) == 1 and pools[0].orders:
                first = pools[0].grants[pools[0].orders[0]]
                if first.available >= amount:
                    return [(first.id, amount)], 0
            for grant in self._in_order(context):
                part = min(amount, grant.available)
                slices.append((grant.id, part))
                amount -= part
                if not amount:
                    break
        return slices, amount

    def _in_order(self, context: StepContext) -> Iterator[GrantState]:
        pools = [pool for pool in self.pools(context) if pool.orders]
        if len(pools) == 1:
            yield from map(pools[0].grants.__getitem__, pools[0].orders)
            return
        for order in heapq.merge(*(pool.orders for pool in pools)):
            yield next(pool.grants[order] for pool in pools if order in pool.grants)

    def usable(self, grant_id: str, context: StepContext, now_us: int) -> bool:
        """True when credits given back to the grant would be free for the step."""
        if grant_id in DRAWN:
            return True
        grant = self._state.grants[grant_id]
        return not grant.is_expired(now_us) and covers(grant.scope, context)

    def drawn(self, grant_id: str) -> int:
        """What is consumed of @overdraft or @receivable: the debt, or what billing has still to collect."""
        grant = self._state.grants.get(grant_id)
        return 0 if grant is None else grant.consumed

    @property
    def receivable_with_holds(self) -> int:
        """What a credit line is measured against: receivable that is owed, and held of it."""
        grant = self._state.grants.get(RECEIVABLE)
        return 0 if grant is None else grant.consumed + grant.held

    def back_to(self, grant_id: str, now_us: int) -> str:
        """The account that credits given back to a grant go to: forfeited when it has expired, never moved to another."""
        if grant_id in DRAWN:
            return ISSUED
        return EXPIRED if self._state.grants[grant_id].is_expired(now_us) else AVAILABLE


def _drawn(grant_id: str) -> GrantState:
    check(grant_id.startswith("@"), "L2", f"a posting names an unknown grant {grant_id!r}")
    return GrantState(grant_id, None, "paid", 0, 0, None, 0)


def hold_postings(slices: Sequence[Slice]) -> list[Posting]:
    """Set slices aside."""
    out = []
    for grant, amount in slices:
        out.append(Posting(ISSUED if grant in DRAWN else AVAILABLE, grant, -amount))
        out.append(Posting(HELD, grant, amount))
    return out


def burn_postings(slices: Sequence[Slice]) -> list[Posting]:
    """Consume free credits without a hold: overrun and corrections."""
    out = []
    for grant, amount in slices:
        out.append(Posting(ISSUED if grant in DRAWN else AVAILABLE, grant, -amount))
        out.append(Posting(CONSUMED, grant, amount))
    return out


def move_postings(slices: Sequence[Slice], source: str, target: str) -> list[Posting]:
    """Move slices between two accounts of their own grants."""
    out = []
    for grant, amount in slices:
        out.append(Posting(source, grant, -amount))
        out.append(Posting(target, grant, amount))
    return out


def give_back(wallet: Wallet, slices: Sequence[Slice], source: str, now_us: int) -> list[Posting]:
    """Return slices from ``source`` (held, or consumed) to where their grants take them."""
    out = []
    for grant, amount in slices:
        out.append(Posting(source, grant, -amount))
        out.append(Posting(wallet.back_to(grant, now_us), grant, amount))
    return out


def split(slices: Sequence[Slice], amount: int) -> tuple[list[Slice], list[Slice]]:
    """The first ``amount`` of slices in burn order, and the rest: so the last-burnt is the first to be given back."""
    if len(slices) == 1 and 0 < amount < slices[0][1]:
        grant, part = slices[0]
        return [(grant, amount)], [(grant, part - amount)]
    first: list[Slice] = []
    rest: list[Slice] = []
    for grant, part in slices:
        now = min(part, amount)
        amount -= now
        if now:
            first.append((grant, now))
        if part > now:
            rest.append((grant, part - now))
    return first, rest


def merged(slices: Iterable[Slice], more: Iterable[Slice]) -> list[Slice]:
    """Slices in the order in which they were burnt; neighbours of one grant are one slice."""
    joined: list[Slice] = []
    for grant, amount in (*slices, *more):
        if joined and joined[-1][0] == grant:
            joined[-1] = (grant, joined[-1][1] + amount)
        else:
            joined.append((grant, amount))
    return joined


def pay_debts(wallet: Wallet, debts: list[Debt]) -> tuple[list[Posting], list[tuple[str, int]]]:
    """Let free credits pay overdraft, oldest debt first, each from the grants that cover its step in burn order.

    Credits used for an earlier debt are not free for a later one, so the sum taken of each grant is tracked here.
    """
    postings: list[Posting] = []
    paid: list[tuple[str, int]] = []
    taken: dict[str, int] = {}
    for debt in debts:
        slices = list(_affordable(wallet, debt, taken))
        amount = sum(part for _, part in slices)
        if amount:
            postings += burn_postings(slices)
            postings += [Posting(CONSUMED, OVERDRAFT, -amount), Posting(ISSUED, OVERDRAFT, amount)]
            paid.append((debt.step, amount))
    return postings, paid


def _affordable(wallet: Wallet, debt: Debt, taken: dict[str, int]) -> Iterator[Slice]:
    left = debt.amount
    for grant in wallet._in_order(context_of(debt)):
        part = min(left, grant.available - taken.get(grant.id, 0))
        if part:
            taken[grant.id] = taken.get(grant.id, 0) + part
            left -= part
            yield grant.id, part
        if not left:
            return


def context_of(debt: Debt) -> StepContext:
    """The step that left the debt, as scopes see it."""
    return StepContext(debt.kind, debt.model, debt.tool, debt.feature, debt.workflow, debt.path)
