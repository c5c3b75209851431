"""How much a lease is given: as many times what its next step needs as no level has less than a share for (DESIGN.md §4).

A level is a node of the path with what limits it there. Its share is all that remains where nobody else lives at it, else
a sixteenth, so that many sessions draining one wallet all go on until it is empty. A child draws on its carve-out first, which
is its own; only what passes that needs a share of the parent's budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from agentbudget.account.admission import Admission, Request
from agentbudget.account.books import Books
from agentbudget.account.leases import lease_of
from agentbudget.account.sessions import Rooms
from agentbudget.account.state import SessionState
from agentbudget.amounts import MAX_NANO

SHARE: Final = 16
"""A lease takes at most this part of what remains where others live."""
MAX_TIMES: Final = 1_000_000
"""Far beyond what a holder asks for; it bounds what a lease without any limit holds of soft limits."""
_NO_BOUND: Final = 2**64
Shared = Callable[[str], bool]


def multiple(books: Books, request: Request, admission: Admission, *, times: int, holder: str) -> int:
    """The largest k <= times such that k times the step fits every share; 1 at least, since the step itself was admitted."""
    leases = books.leases

    def shared(node: str) -> bool:
        return leases.shared(node, holder)

    bounds = _of_rows(admission, shared)
    k = min((share // need for share, need in bounds), default=times)
    hold, session = request.hold, request.session
    assert session is not None
    if hold.amount:
        budgets = _of_budgets(books.rooms, session, shared, keep=not hold.wind_down)
        k = min(k, budgets // hold.amount, books.judge.wallet_room(request.context) // hold.amount)
    steps_left = books.judge.steps_left(session)
    if steps_left is not None:
        others = any(lease_of(one).holder != holder for one in leases.of_session(session.id))
        k = min(k, _share(steps_left, others) // max(1, hold.measures.get("steps", 1)))
    most = max((hold.amount, *hold.measures.values()))
    return max(1, min(k, times, MAX_NANO // most if most else times))


def _of_rows(admission: Admission, shared: Shared) -> Iterator[tuple[int, int]]:
    """Share and need of each limit and of the wallet."""
    for _, kind, node, _, limit, used, held, need, _, mode, _, _, _ in admission.rows:
        if limit is not None and need > 0 and mode == "hard" and kind != "session_budget":
            yield _share(limit - used - held, shared(node)), need


def _of_budgets(rooms: Rooms, session: SessionState, shared: Shared, *, keep: bool) -> int:
    """What a step of the session may draw in all: at each level its own room, and its carve-out plus what the parent has."""
    room = _NO_BOUND
    for level in reversed(tuple(rooms.lineage(session))):
        above = room + max(0, level.carve - level.consumption) if level.parent is not None else _NO_BOUND
        own = _NO_BOUND
        if level.budget is not None:
            left = level.budget - (level.wind_down if keep else 0) - level.consumption
            own = _share(max(0, left), shared(f"session:{level.id}"))
        room = min(own, above)
    return room


def _share(remaining: int, shared: bool) -> int:
    return remaining // SHARE if shared else remaining
