"""Who has the ledger open for writing: a lock that the writing session holds for as long as it lives. The owner of the whole
ledger holds it alone; owners of some shards hold it together.

The server gives it up when the session ends: when its process dies, at the latest some eleven seconds after its machine or
network did (keepalives). The lock is for people, and so that nobody takes a living owner's place unasked; what may be written
the epoch decides, in each transaction.
"""

from __future__ import annotations

import time
from typing import Final, Literal, NamedTuple, TypeAlias

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.postgres import statements as sql
from agentbudget.ledger.postgres.line import Line, pause

PATIENCE_SECONDS: Final = 1
"""How long a lock is waited for: the server notices the end of a killed owner within milliseconds, and a restart is quick."""
_PAUSE_MS: Final = 20

Mode: TypeAlias = Literal["alone", "together"]
_LOCK: Final = {"alone": sql.LOCK_ALONE, "together": sql.LOCK_TOGETHER}


class Holder(NamedTuple):
    """A session that has the lock: the server's process, the owner's own name, and since when (UTC)."""

    backend: int
    name: str
    since: str

    def __str__(self) -> str:
        return f"{self.name or 'a session of another user'}, since {self.since or '?'}"


class OwnerLock:
    """The lock as one session has it."""

    __slots__ = ("_ledger", "_line", "mode")

    def __init__(self, line: Line, ledger: str) -> None:
        self._line, self._ledger = line, ledger
        self.mode: Mode | None = None

    def take(self, mode: Mode) -> None:
        """Hold the lock this way; raises ``OwnerUnavailable`` naming who holds it in the way."""
        if self.mode == mode:
            return
        if self.mode is not None:  # owners of some shards that wait for each other to be alone would wait for ever
            self._line.run(sql.UNLOCK)
            self.mode = None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._line.run(_LOCK[mode])[0][0]:
            if time.monotonic() >= deadline:
                raise self.refusal()
            pause(_PAUSE_MS)
        self.mode = mode

    def holders(self) -> list[Holder]:
        """The other sessions that have the lock."""
        return [Holder(*row) for row in self._line.run(sql.HOLDERS)]

    def end_ghost(self, backend: int) -> None:
        """End the session that this one replaces, and wait until it has: what it was doing is then done, or will never be.
        Raises ``OwnerUnavailable`` when it does not end."""
        if not all(ended for (ended,) in self._line.run(sql.END_GHOST, (backend,))):
            what = f"the session of {self._ledger} that was lost is still busy at the server"
            raise OwnerUnavailable(what, "", "wait a moment, then retry with the same key")

    def end_stuck(self) -> None:
        """End other owners' sessions that have been in one transaction for more than a second: theirs take milliseconds, so they
        were paused in the middle of one, and whoever takes their shards would wait for them."""
        self._line.run(sql.END_STUCK)

    def refusal(self) -> OwnerUnavailable:
        """The words for somebody else who has the ledger open for writing."""
        holders = self.holders()
        ended = " or ".join(f"SELECT pg_terminate_backend({one.backend})" for one in holders[:1])
        advice = (
            "stop it and open the ledger again"
            + (f" (if its machine hangs, end its session: {ended})" if ended else "")
            + "; or read beside it with read_only=True; or share the ledger through Ray (host='ray')"
        )
        return OwnerUnavailable(
            f"the ledger {self._ledger} is open for writing in another place",
            "; ".join(map(str, holders)) or "a session that has just ended",
            advice,
        )
