"""What a process says to the owner, until it is answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from agentbudget.account.commands import Command
from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.runtime.host import Beat, no_answer_within
from agentbudget.runtime.machine import wire
from agentbudget.runtime.watching import carried

Said = Command | Beat | wire.Publish | str


class Call:
    """Something said, until it is answered. ``done`` is called once, whatever happens; a caller who stopped waiting takes it
    away. ``waits``: it blocks a thread, which may read its answer itself."""

    __slots__ = ("customer", "data", "deadline", "done", "seconds", "trace", "waits", "what")

    def __init__(self, customer: str, what: Said, done: Callable[[Any], None], seconds: float) -> None:
        """Raises ``InvalidRequest`` for a command that cannot be written."""
        self.customer, self.what, self.seconds, self.waits = customer, what, seconds, False
        self.done: Callable[[Any], None] | None = done
        self.deadline = time.monotonic() + seconds
        self.trace = "" if isinstance(what, OTHERS) else carried()
        self.data = (
            what.document if isinstance(what, wire.Publish) else b"" if isinstance(what, OTHERS) else wire.packed(what)
        )
        if len(self.data) > wire.MAX_COMMAND:
            raise InvalidRequest(f"{len(self.data)} bytes, and a message takes {wire.MAX_COMMAND}", type(what).__name__)

    def end(self, answer: Any) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(answer)


OTHERS: Final = (Beat, wire.Publish, str)
Outbox = deque[Call]


def traces_of(calls: Iterable[Call]) -> list[str]:
    """The trace of each command among them, in order; empty where none has one."""
    traces = [call.trace for call in calls if not isinstance(call.what, OTHERS)]
    return traces if any(traces) else []


def end_overdue(calls: deque[Call] | list[Call], owner: str) -> None:
    """Answer those that have waited as long as they may. They stay where they are, and are passed over."""
    now = time.monotonic()
    for call in list(calls):
        if call.done is not None and call.deadline <= now:
            late = no_answer_within(call.seconds)
            call.end(OwnerUnavailable(late.what, owner, late.advice))
