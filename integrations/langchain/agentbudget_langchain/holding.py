"""How a handler and a middleware ask for a hold, and how they find the session that it is asked of."""

from __future__ import annotations

import queue
from typing import Any, Final

import msgspec

from agentbudget import BudgetAbort, BudgetDenied, Session, Step, current_session
from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer
from agentbudget.errors import AgentBudgetError
from agentbudget.runtime import reserving
from agentbudget.runtime.asking import Ask
from agentbudget.runtime.current import require_session
from agentbudget.runtime.host import Host, no_answer_within, run
from agentbudget_langchain.request import ModelCall

_BY_AMOUNT: Final = frozenset({"session_budget", "insufficient_credits", "limit", "overdraft"})
"""Refusals that a smaller hold may pass."""

HOW_TO_CAP: Final = (
    "a callback handler cannot write an output cap into the request: give the model one (max_tokens=...), use "
    "BudgetMiddleware, or state assume_max_output_tokens= and have what goes beyond it booked as an overrun"
)


def session_for(given: Session | None) -> Session:
    """The session a step belongs to: the current one, or the given one, or a child of the given one that is current
    (its
    budget is carved out of the given one, so both bind). Raises ``BudgetDenied`` (``no_session``) when there is
    none."""
    if given is None:
        return require_session()
    current = current_session()
    return current if current is not None and _is_below(current, given) else given


def _is_below(session: Session, ancestor: Session) -> bool:
    node: Session | None = session
    while node is not None:
        if node is ancestor or (node.id == ancestor.id and node.link.customer == ancestor.link.customer):
            return True
        node = node._parent
    return False


def model_ask(call: ModelCall, *, cap: int | None, cap_enforced: bool, feature: str | None = None) -> dict[str, Any]:
    """The arguments of ``reserve`` for a model call."""
    return {
        "model": call.model,
        "provider": call.provider,
        "request": call.payload,
        "max_output_tokens": cap,
        "cap_enforced": cap_enforced,
        "quantity": call.quantity,
        "server_tools": call.server_tools,
        "feature": feature,
        "dispatched": True,
    }


def reserve_within(session: Session, seconds: float, kind: Any, **what: Any) -> Step:
    """``session.reserve``, but waiting at most ``seconds`` for the owner; then ``OwnerUnavailable``, and nothing is
    held."""
    patient: Host = _Impatient(session.link.host, seconds)
    return run(patient, session.link.customer, reserving.reserve(session, Ask(kind=kind, **what)))


def explained(error: BudgetDenied | BudgetAbort) -> BudgetDenied | BudgetAbort:
    """The refusal of a call without an output cap, with how to set one."""
    decision = error.decision
    if decision is None or decision.reason not in _BY_AMOUNT:
        return error
    return type(error)(msgspec.structs.replace(decision, suggestions=(*decision.suggestions, HOW_TO_CAP)))


class _Impatient:
    """A host that waits less long. Everything else is the host's own."""

    __slots__ = ("_host", "live", "timeout_seconds")

    def __init__(self, host: Host, seconds: float) -> None:
        self._host, self.live, self.timeout_seconds = host, host.live, seconds

    def ask(self, customer: str, command: Command) -> Answer:
        answers: queue.SimpleQueue[Answer | AgentBudgetError] = queue.SimpleQueue()
        self._host.submit(customer, command, answers.put)
        try:
            answer = answers.get(timeout=self.timeout_seconds)
        except queue.Empty:
            raise no_answer_within(self.timeout_seconds) from None
        if isinstance(answer, AgentBudgetError):
            raise answer
        return answer

    def submit(self, customer: str, command: Command, done: Any) -> None:
        self._host.submit(customer, command, done)

    def sweep(self) -> None:
        self._host.sweep()

    def close(self) -> None:
        self._host.close()
