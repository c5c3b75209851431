"""The client of an SDK under a model: what it tries again out of sight is accounted beside the step of the call."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agentbudget.errors import InvalidRequest


def account_client(model: Any) -> None:
    """Look after the retries of the OpenAI or Anthropic client of a model, if it has one. Again: nothing. Raises
    ``InvalidRequest`` where the integration that does so is not installed, unless the client makes no retries."""
    client = getattr(model, "client", None) or getattr(model, "_client", None)
    if client is None or getattr(client, "_agentbudget", None) is not None:
        return
    sdk = next((name for name in map(_root, type(client).__mro__) if name in ("openai", "anthropic")), None)
    if sdk is None:
        return
    try:
        account_retries = import_module(f"agentbudget_{sdk}").account_retries
    except ModuleNotFoundError:
        if client.max_retries == 0:
            return
        raise InvalidRequest(
            f"the {sdk} client of this model tries again out of sight: pip install 'agentbudget-pydantic-ai[{sdk}]', or give the "
            "client max_retries=0",
            "model",
        ) from None
    account_retries(client)


def _root(cls: type) -> str:
    return cls.__module__.partition(".")[0]
