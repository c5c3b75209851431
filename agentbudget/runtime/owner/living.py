"""Which steps are worked on, in this process and in those that it serves: their holds do not lapse by silence (law L5)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

GRACE_SECONDS: Final = 2.0
"""After a takeover every step counts as alive for so long, until the other processes have come and said which are: they
come within a second, or are gone."""


class Living:
    """``own``: ids of this process's steps, shared with its steps, which add and remove them. Safe from any thread: each
    call is one step of the interpreter, and a set of another process belongs to one connection."""

    __slots__ = ("_grace_until", "_others", "own")

    def __init__(self) -> None:
        self.own: set[str] = set()
        self._others: dict[object, set[str]] = {}
        self._grace_until = 0.0

    def __contains__(self, step: object) -> bool:
        if step in self.own or any(step in others for others in list(self._others.values())):
            return True
        return time.monotonic() < self._grace_until

    def took_over(self, seconds: float = GRACE_SECONDS) -> None:
        """The steps of processes that are still to connect count as alive for a while."""
        self._grace_until = time.monotonic() + seconds

    def change(self, process: object, living: Iterable[str], gone: Iterable[str]) -> None:
        """A process said which of its steps began and ended."""
        steps = self._others.setdefault(process, set())
        steps.difference_update(gone)
        steps.update(living)

    def leave(self, process: object) -> None:
        """A process has gone: nobody works on its steps."""
        self._others.pop(process, None)

    def forked(self) -> None:
        """In a forked child: what the parent works on is the parent's."""
        self.own.clear()
        self._others = {}
        self._grace_until = 0.0
