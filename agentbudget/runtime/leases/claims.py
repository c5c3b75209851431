"""What a plan waits for on a lease: a place in its next message, or the answer of the one under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentbudget.account.commands import Hold
from agentbudget.runtime.leases.lease import Lease

if TYPE_CHECKING:
    from agentbudget.runtime.leases.session_leases import SessionLeases

Done = Callable[[Any], None]


class NoRoom(Exception):
    """The spool has no room for another lease."""


class Claim:
    """A caller that needs the owner before its step may begin: one place in a message of a lease. As a ``Waiting`` it ends
    with the number of the step that has begun on ``lease``, the owner's ``Renewed`` when it did not, or None when another
    message had to be waited for: then ask again."""

    __slots__ = ("dispatched", "done", "gone", "hold", "lease", "n", "own")

    def __init__(self, own: SessionLeases, lease: Lease, hold: Hold) -> None:
        self.own, self.lease, self.hold = own, lease, hold
        self.dispatched, self.n, self.gone = hold.dispatched, 0, False
        self.done: Done | None = None

    def start(self, done: Done) -> None:
        self.own.claim(self, done)

    def abandon(self) -> None:
        """The caller does not wait any more: what it may have got is given back."""
        with self.own.lock:
            self.gone = True
            if self.n:
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
