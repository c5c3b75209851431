"""How a handler and a middleware ask for a hold, and how they find the session that it is asked of."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentbudget import BudgetAbort, BudgetDenied, Session, current_session
from agentbudget.runtime.steps.current import require_session
from agentbudget_langchain.request import ModelCall

_BY_AMOUNT: Final = frozenset({"session_budget", "insufficient_credits", "limit", "overdraft"})
"""Refusals that a smaller hold may pass."""

HOW_TO_CAP: Final = (
    "a callback handler cannot write an output cap into the request: give the model one (max_tokens=...), use "
    "BudgetMiddleware, or state assume_max_output_tokens= and have what goes beyond it booked as an overrun"
)


def session_for(given: Session | None) -> Session:
    """The session a step belongs to: the current one, or the given one, or a child of the given one that is current
    (its budget is carved out of the given one, so both bind). Raises ``BudgetDenied`` (``no_session``) when there is
    none."""
    if given is None:
        return require_session()
    current = current_session()
    return current if current is not None and is_below(current, given) else given


def is_below(session: Session, ancestor: Session) -> bool:
    """Whether a session is another one, or a child of it at any depth."""
    node: Session | None = session
    while node is not None:
        if node is ancestor or (node.id == ancestor.id and node.link.customer == ancestor.link.customer):
            return True
        node = node.parent
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


def explained(error: BudgetDenied | BudgetAbort) -> BudgetDenied | BudgetAbort:
    """The refusal of a call without an output cap, with how to set one."""
    decision = error.decision
    if decision is None or decision.reason not in _BY_AMOUNT:
        return error
    return type(error)(msgspec.structs.replace(decision, suggestions=(*decision.suggestions, HOW_TO_CAP)))
