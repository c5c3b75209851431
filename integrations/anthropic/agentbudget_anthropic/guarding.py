"""``guard``: the one thing to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from anthropic import Anthropic, AsyncAnthropic

from agentbudget.errors import InvalidRequest
from agentbudget.runtime.guards.attempts import Guard
from agentbudget.runtime.guards.client import guard_client
from agentbudget_anthropic.api import AnthropicApi

if TYPE_CHECKING:
    from agentbudget import Session

C = TypeVar("C")
_SERVED_BY: Final = {"Bedrock": "aws", "Vertex": "google", "Foundry": "azure"}
"""By what a client's class is called, the price table's name of who serves."""


def guard(client: C, session: Session | None = None, *, provider: str | None = None, feature: str | None = None) -> C:
    """Guard a client (``Anthropic``, ``AsyncAnthropic``, Bedrock's, Vertex's): the same object, whose calls are held before they
    are sent, and refused when they do not fit. So are its copies (``with_options``).

    session: whose budget pays; None means the current session at each call, and without one the call is refused
    (``no_session``).  provider: the price table's name of who serves (default: by the client's class).  feature: what the plan
    must entitle (None: the session's).

    The calls then raise ``BudgetDenied`` (or ``BudgetAbort``, by the session's ``on_denied``) before a request is sent, beside
    what the SDK raises. Raises ``InvalidRequest`` for what is no client, or is guarded in another way already.
    """
    if not isinstance(client, _clients()):
        raise InvalidRequest(f"{type(client).__name__} is no Anthropic client", "client")
    api = AnthropicApi(provider=provider or _served_by(client))
    return guard_client(client, Guard(api=api, session=session, feature=feature))


def account_retries(client: C) -> C:
    """For integrations of frameworks, which hold a call as a step of their own: what the client sends as the call of such an open
    step is not held again, but an attempt that may have been billed and that the SDK makes again is a step of its own. What is
    sent outside such steps is left alone. The same object; a client that is guarded stays so."""
    if not isinstance(client, _clients()):
        raise InvalidRequest(f"{type(client).__name__} is no Anthropic client", "client")
    return guard_client(client, Guard(api=AnthropicApi(provider=_served_by(client)), in_steps=True))


def _clients() -> tuple[type, ...]:
    """Bedrock's and Vertex's clients share only the base of all clients with Anthropic's own."""
    found = {
        cls for known in (Anthropic, AsyncAnthropic) for cls in known.__mro__ if cls.__name__.endswith("APIClient")
    }
    return tuple(found)


def _served_by(client: Any) -> str:
    names = "".join(cls.__name__ for cls in type(client).__mro__)
    return next((provider for part, provider in _SERVED_BY.items() if part in names), "anthropic")
