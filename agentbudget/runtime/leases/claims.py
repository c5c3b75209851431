"""What a plan waits for on a lease: a place in its next message, or the answer of the one under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agentbudget.account.commands import Hold
from agentbudget.runtime.leases.lease import Lease

if TYPE_CHECKING:
    from agentbudget.runtime.leases.session_leases import SessionLeases

Done = Callable[[Any], None]


def extend(own: SessionLeases, lease: Lease, n: int, amount: int, measures: Mapping[str, int]) -> bool | None:
    """Hold more for an open step out of what is leased already, asking nobody; False when that does not cover it, None when
    the step has ended, or is being ended."""
    now_us = own.holder.clock.monotonic_us()
    with own.lock:
        step = lease.open.get(n)
        if step is None or step.guessed:
            return None
        return now_us < own.holder.alive_until_us and lease.extend(n, amount, measures, now_us)


class NoRoom(Exception):
    """The spool has no room for another lease."""


class Claim:
    """A caller that needs the owner before its step may begin: one place in a message of a lease. As a ``Waiting`` it ends
    with the number of the step that has begun on ``lease``, the owner's ``Renewed`` when it did not, or None when another
    message had to be waited for: then ask again. ``grows``: the open step for which ``hold`` is more, instead of a new one."""

    __slots__ = ("dispatched", "done", "gone", "grows", "hold", "lease", "n", "own")

    def __init__(self, own: SessionLeases, lease: Lease, hold: Hold, *, grows: int = 0) -> None:
        self.own, self.lease, self.hold, self.grows = own, lease, hold, grows
        self.dispatched, self.n, self.gone = hold.dispatched, 0, False
        self.done: Done | None = None

    def start(self, done: Done) -> None:
        self.own.claim(self, done)

    def take(self, now_us: int, wall_us: int) -> int:
        """Its part of what was granted, with the session's lock held: the step's number, or 0."""
        lease, hold, n = self.lease, self.hold, self.grows
        if n:
            return n if n in lease.open and lease.extend(n, hold.amount, hold.measures, now_us) else 0
        return lease.take(hold.amount, hold.measures, now_us, wall_us, dispatched=self.dispatched)

    def abandon(self) -> None:
        """The caller does not wait any more: what it may have got is given back. (What an open step got, it holds.)"""
        with self.own.lock:
            self.gone = True
            if self.n and not self.grows:
                self.lease.release(self.n, self.own.holder.clock.monotonic_us())


class Guessed:
    """A ``Waiting`` for the owner to have booked every guess of a session that is under way."""

    __slots__ = ("own",)

    def __init__(self, own: SessionLeases) -> None:
        self.own = own

    def start(self, done: Done) -> None:
        with self.own.lock:
            if self.own.guessing:
                self.own.guess_waiters.append(done)
                return
        done(None)


class Answered:
    """A ``Waiting`` for the answer of what is under way on a lease."""

    __slots__ = ("lease", "own")

    def __init__(self, own: SessionLeases, lease: Lease) -> None:
        self.own, self.lease = own, lease

    def start(self, done: Done) -> None:
        self.own.when_answered(self.lease, done)
