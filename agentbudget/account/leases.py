"""Where the open leases are: by holder, by session, and by each node of their paths, kept up entry by entry.

A renewal asks two things of it, whose cost must not grow with how many sessions or leases there are: who else lives at a
level, and what of this holder's is asked back. Everything here follows from the state, and is built from it at a start.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from agentbudget.account.sessions import Rooms
from agentbudget.account.state import HoldState, LeaseState, Mark, SessionState, State
from agentbudget.errors import check

K = TypeVar("K", bound=Hashable)
Below = tuple[list[SessionState], list[HoldState]]
"""Open sessions and leases whose path passes an entity."""
_NONE: Mapping[str, HoldState] = {}


def lease_of(hold: HoldState) -> LeaseState:
    """What makes a hold a lease, of one that is."""
    lease = hold.lease
    check(lease is not None, "L6", f"hold {hold.step} is no lease")
    assert lease is not None
    return lease


class Leases:
    """The open leases of one customer's state, and how many sessions are open at each node."""

    def __init__(self, state: State, rooms: Rooms) -> None:
        self._state, self._rooms = state, rooms
        self._of_holder: dict[str, dict[str, HoldState]] = {}
        self._of_session: dict[str, dict[str, HoldState]] = {}
        self._at: dict[str, dict[str, HoldState]] = {}
        self._marked: dict[Mark, dict[str, HoldState]] = {}
        self._holders_at: dict[str, dict[str, int]] = {}
        self._sessions_at: dict[str, int] = {}
        self.count = 0
        for session in state.sessions.values():
            if not session.closed:
                self.session_opened(session)
        for hold in state.holds.values():
            if hold.lease is not None:
                self.add(hold)

    # -- questions ------------------------------------------------------------------------------------------------------

    @property
    def holders(self) -> Iterable[str]:
        """Every process that holds a lease."""
        return self._of_holder

    def of_holder(self, holder: str) -> Iterable[HoldState]:
        return self._of_holder.get(holder, _NONE).values()

    def of_session(self, session: str) -> Iterable[HoldState]:
        return self._of_session.get(session, _NONE).values()

    def at(self, node: str) -> Iterable[HoldState]:
        """The leases whose path passes the node."""
        return self._at.get(node, _NONE).values()

    def marked(self, mark: Mark) -> Iterable[HoldState]:
        """The leases counted there, wherever their entities have moved since they opened."""
        return self._marked.get(mark, _NONE).values()

    def shared(self, node: str, holder: str) -> bool:
        """True when another session than the one that asks (it is open, and passes the node), or another holder, lives there."""
        if self._sessions_at.get(node, 0) > 1:
            return True
        holders = self._holders_at.get(node, {})
        return len(holders) > (1 if holder in holders else 0)

    # -- keeping up -----------------------------------------------------------------------------------------------------

    def session_opened(self, session: SessionState) -> None:
        for node in self._rooms.path(session):
            self._sessions_at[node] = self._sessions_at.get(node, 0) + 1

    def session_closed(self, session: SessionState) -> None:
        for node in self._rooms.path(session):
            _less(self._sessions_at, node)

    def add(self, hold: HoldState) -> None:
        """A lease has opened."""
        holder, step = lease_of(hold).holder, hold.step
        self.count += 1
        self._of_holder.setdefault(holder, {})[step] = hold
        self._of_session.setdefault(hold.session, {})[step] = hold
        for mark in hold.marks:
            self._marked.setdefault(mark, {})[step] = hold
        for node in self._rooms.path(self._state.sessions[hold.session]):
            self._at.setdefault(node, {})[step] = hold
            holders = self._holders_at.setdefault(node, {})
            holders[holder] = holders.get(holder, 0) + 1

    def remove(self, hold: HoldState) -> None:
        """A lease has ended; its session is still there."""
        holder, step = lease_of(hold).holder, hold.step
        self.count -= 1
        _drop(self._of_holder, holder, step)
        _drop(self._of_session, hold.session, step)
        for mark in hold.marks:
            _drop(self._marked, mark, step)
        for node in self._rooms.path(self._state.sessions[hold.session]):
            _drop(self._at, node, step)
            holders = self._holders_at[node]
            _less(holders, holder)
            if not holders:
                del self._holders_at[node]

    def take_below(self, entity: str) -> Below:
        """Take out what is below an entity that is about to move; ``put_below`` puts it back at its new place."""
        paths = (
            (session, self._rooms.path(session)) for session in self._state.sessions.values() if not session.closed
        )
        sessions = [session for session, path in paths if entity in path]
        holds = list(self.at(entity))
        for session in sessions:
            self.session_closed(session)
        for hold in holds:
            self.remove(hold)
        return sessions, holds

    def put_below(self, below: Below) -> None:
        sessions, holds = below
        for session in sessions:
            self.session_opened(session)
        for hold in holds:
            self.add(hold)

    def all(self) -> Iterator[HoldState]:
        for holds in self._of_holder.values():
            yield from holds.values()


def _less(counts: dict[str, int], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _drop(index: dict[K, dict[str, HoldState]], key: K, step: str) -> None:
    del index[key][step]
    if not index[key]:
        del index[key]
