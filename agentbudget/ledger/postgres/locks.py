"""Who has a shard open for writing: a lock of the writing session on each of its shards.

The server gives a lock up when its session ends: when its process dies, at the latest some eleven seconds after its machine or
network did (keepalives). The lock is for people, and so that nobody takes a living owner's place unasked; what may be
written the epoch decides, in each transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.postgres import statements as sql
from agentbudget.ledger.postgres.line import Line, pause
from agentbudget.ledger.postgres.values import INT8, Array

TAKE_OVER_SECONDS: Final = 5
"""How long a takeover goes on ending the old owner's sessions: it may connect again until it hears of the new epoch."""
_PAUSE_MS: Final = 50


class Holder(NamedTuple):
    """A session that has shards locked: the server's process, the owner's own name, and since when (UTC)."""

    backend: int
    name: str
    since: str


class ShardLocks:
    """The locks of one session."""

    __slots__ = ("_ledger", "_line")

    def __init__(self, line: Line, ledger: str) -> None:
        self._line, self._ledger = line, ledger

    def take(self, shards: Iterable[int]) -> None:
        """Lock shards; raises ``OwnerUnavailable`` naming who has one of them, and then locks none."""
        taken = self._try(shards)
        if taken:
            raise self._refusal(self.holders(taken))

    def retake(self, shards: Iterable[int], ghost: int, require_owned: Callable[[], None]) -> None:
        """Lock the shards of a session that was lost. Its process at the server, ``ghost``, may still be there, and may be in
        the middle of a commit: it is ended, and waited for. ``require_owned`` raises when somebody else owns them."""
        taken = self._try(shards)
        if not taken:
            return
        others = [holder for holder in self.holders(taken) if holder.backend != ghost]
        if others:
            require_owned()
            raise self._refusal(others)
        self._end([ghost])
        self.take(shards)

    def take_over(self, shards: Iterable[int]) -> None:
        """Lock shards whose owner this session has become, ending whoever has them locked."""
        deadline = time.monotonic() + TAKE_OVER_SECONDS
        while (taken := self._try(shards)) and time.monotonic() < deadline:
            self.end_holders(taken)
            pause(_PAUSE_MS)
        if taken:
            raise self._refusal(self.holders(taken))

    def give(self, shards: Iterable[int]) -> None:
        """Give locks up."""
        self._line.run(sql.UNLOCK_SHARDS, (Array(INT8, sorted(shards)),))

    def holders(self, shards: Iterable[int]) -> list[Holder]:
        """The other sessions that have one of these shards locked."""
        return [Holder(*row) for row in self._line.run(sql.HOLDERS, (Array(INT8, sorted(shards)),))]

    def end_holders(self, shards: Iterable[int]) -> None:
        """End the other sessions that have one of these shards locked; their transactions are undone."""
        self._end([holder.backend for holder in self.holders(shards)])

    def _end(self, backends: list[int]) -> None:
        if backends:
            self._line.run(sql.END_SESSIONS, (Array(INT8, backends),))

    def _try(self, shards: Iterable[int]) -> list[int]:
        """Lock all of these shards, or none: those that another session has."""
        wanted = sorted(shards)
        taken = [shard for (shard,) in self._line.run(sql.LOCK_SHARDS, (Array(INT8, wanted),))]
        if taken:
            self.give(set(wanted).difference(taken))
        return taken

    def _refusal(self, holders: list[Holder]) -> OwnerUnavailable:
        named = [f"{one.name or 'a session of another user'}, since {one.since or '?'}" for one in holders]
        return OwnerUnavailable(
            f"the ledger {self._ledger} is open for writing in another place",
            "; ".join(named) or "a session that has just ended",
            "stop it and open the ledger again; or read beside it with read_only=True; or share its budgets through Ray"
            ' (host="ray"), or from the processes of one machine through a SQLite ledger',
        )
