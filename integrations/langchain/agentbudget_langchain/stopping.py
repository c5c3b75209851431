"""A graceful stop: a refused step ends the agent with a message that says why and what would unblock it.

A refused model call is answered by the message itself; a refused tool call by an error for the model, and the model
call that would follow by the message. ``jump_to="end"`` takes the agent out of any loop it is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from langchain.agents.middleware import types
from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Command

from agentbudget import BudgetDenied, InvalidRequest

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ToolCallRequest

MARK: Final = "agentbudget_refused"
"""In ``response_metadata`` of both messages: the refusal as plain data."""


def needs_jumps() -> None:
    """Raise ``InvalidRequest`` where langchain cannot jump out of a model call."""
    if not hasattr(types, "ExtendedModelResponse"):
        raise InvalidRequest('needs a langchain whose model calls may jump: upgrade it, or use "raise"', "on_refused")


def ended(refused: BudgetDenied | str, facts: dict[str, Any] | None = None) -> Any:
    """What a refused model call returns: the last message, and the jump to the end."""
    stated = facts if facts is not None else _facts(refused)
    message = AIMessage(content=f"Stopped by the budget: {refused}", response_metadata={MARK: stated})
    return types.ExtendedModelResponse(ModelResponse(result=[message]), Command(update={"jump_to": "end"}))


def ended_before(request: ModelRequest[Any]) -> Any:
    """The end of an agent one of whose tools was refused just before; None where none was."""
    for message in reversed(request.messages):
        if not isinstance(message, ToolMessage):
            return None
        facts = message.response_metadata.get(MARK)
        if facts is not None:
            return ended(facts["message"], facts)
    return None


def refused_tool(request: ToolCallRequest, refused: BudgetDenied) -> ToolMessage:
    """What a refused tool call returns."""
    call = request.tool_call
    return ToolMessage(
        content=f"Not run: {refused}",
        name=call["name"],
        tool_call_id=call["id"] or "",
        status="error",
        response_metadata={MARK: _facts(refused)},
    )


def _facts(refused: BudgetDenied | str) -> dict[str, Any]:
    decision = None if isinstance(refused, str) else refused.decision
    if decision is None:
        return {"message": str(refused), "reason": None, "suggestions": []}
    return {
        "message": str(refused),
        "reason": decision.reason,
        "need": str(decision.need),
        "affordable": str(decision.affordable.amount),
        "retry_at": None if decision.retry_at is None else decision.retry_at.isoformat(),
        "suggestions": list(decision.suggestions),
    }
