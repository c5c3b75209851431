"""``guard``: the one thing to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from openai import AsyncOpenAI, OpenAI

from agentbudget.errors import InvalidRequest
from agentbudget.runtime.guards.attempts import Guard
from agentbudget.runtime.guards.client import guard_client
from agentbudget_openai.api import OpenAIApi

if TYPE_CHECKING:
    from agentbudget import Session

C = TypeVar("C", bound="OpenAI | AsyncOpenAI")


def guard(
    client: C,
    session: Session | None = None,
    *,
    provider: str | None = None,
    cap_parameter: str = "max_completion_tokens",
    feature: str | None = None,
) -> C:
    """Guard a client (``OpenAI``, ``AsyncOpenAI``, Azure's, any compatible endpoint's): the same object, whose calls are held
    before they are sent, and refused when they do not fit. So are its copies (``with_options``).

    session: whose budget pays; None means the current session at each call, and without one the call is refused
    (``no_session``).  provider: the price table's name of who serves (default: the model's name tells).  cap_parameter: the
    field in which chat completions take an output cap, for endpoints that know only ``max_tokens``.  feature: what the plan must
    entitle (None: the session's).

    The calls then raise ``BudgetDenied`` (or ``BudgetAbort``, by the session's ``on_denied``) before a request is sent, beside
    what the SDK raises. Raises ``InvalidRequest`` for what is no client, or is guarded in another way already.
    """
    if not isinstance(client, (OpenAI, AsyncOpenAI)):
        raise InvalidRequest(f"{type(client).__name__} is no OpenAI client", "client")
    api = OpenAIApi(provider=provider, cap_parameter=cap_parameter)
    return guard_client(client, Guard(api=api, session=session, feature=feature))


def account_retries(client: C) -> C:
    """For integrations of frameworks, which hold a call as a step of their own: what the client sends as the call of such an open
    step is not held again, but an attempt that may have been billed and that the SDK makes again is a step of its own. What is
    sent outside such steps is left alone. The same object; a client that is guarded stays so."""
    if not isinstance(client, (OpenAI, AsyncOpenAI)):
        raise InvalidRequest(f"{type(client).__name__} is no OpenAI client", "client")
    return guard_client(client, Guard(api=OpenAIApi(), in_steps=True))
