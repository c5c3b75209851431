"""When holders must be told at once that something is asked back of them, instead of at their next beat."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from agentbudget.account.commands import AssignPlan, CloseSession, Command, Latch, PutEntity, SetLimit, SetPaused
from agentbudget.account.decision import Answer, Recalling, Renewed
from agentbudget.errors import AgentBudgetError

_CHANGING: Final = frozenset({AssignPlan, CloseSession, Latch, PutEntity, SetLimit, SetPaused})
"""After these the leases that were judged before end."""
AGAIN_SECONDS: Final = 0.25
"""A ticket is asked for again every few milliseconds; the holders are told of it again after so long."""
MAX_TICKETS: Final = 1_000


class Recalls:
    """Which tickets the holders were told of, and when."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[tuple[str, int], float] = {}

    def are_in(self, requests: Iterable[tuple[str, Command]], replies: Iterable[Answer | AgentBudgetError]) -> bool:
        """Whether a batch asks something back that the holders were not told of yet."""
        found = False
        for (customer, command), reply in zip(requests, replies, strict=True):
            kind = type(reply)
            if kind is Renewed or kind is Recalling:
                ticket = _ticket(reply)
                found = (ticket is not None and self._is_new(customer, ticket)) or found
            elif type(command) in _CHANGING:
                found = True
        return found

    def _is_new(self, customer: str, ticket: int) -> bool:
        now = time.monotonic()
        if now - self._told.get((customer, ticket), -AGAIN_SECONDS) < AGAIN_SECONDS:
            return False
        if len(self._told) >= MAX_TICKETS:
            self._told.clear()
        self._told[customer, ticket] = now
        return True


def _ticket(reply: object) -> int | None:
    match reply:
        case Recalling(ticket=ticket) | Renewed(recalling=Recalling(ticket=ticket)):
            return ticket
    return None
