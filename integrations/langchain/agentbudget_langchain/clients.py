"""The retries of the SDK below a chat model: no callback and no middleware is told of them.

A handler or a middleware holds a model call as one step. Where the provider's SDK makes the call again by itself, after a
timeout say, the attempt before may have been billed too. The clients inside the model tell of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, TypeVar

from langchain_core.language_models import BaseLanguageModel

from agentbudget import InvalidRequest

M = TypeVar("M", bound="BaseLanguageModel[Any]")

_CLIENTS: Final = ("root_client", "root_async_client", "_client", "_async_client")
"""Where ChatOpenAI and its kin, and ChatAnthropic, keep the clients of their SDKs."""

_GUARDS: Final = {"openai": "agentbudget_openai", "anthropic": "agentbudget_anthropic"}


def account_retries(model: M) -> M:
    """Account the attempts that the SDK below a model (``ChatOpenAI`` and its kin, ``ChatAnthropic``) makes out of sight: one
    that may have been billed and is made again is a step of its own beside the call's, and is refused where it does not fit.

    The same model; its calls are held by a handler or a middleware as before, and what nobody holds is left alone. A client that
    is guarded stays so. Needs ``agentbudget-openai`` or ``agentbudget-anthropic``; raises ``ImportError`` without it, and
    ``InvalidRequest`` for a model that has no client of these SDKs."""
    found = list(_clients_of(model))
    if not found:
        raise InvalidRequest(f"{type(model).__name__} has no client of the openai or anthropic SDK", "model")
    for client, guards in found:
        try:
            integration = import_module(guards)
        except ImportError as error:
            raise ImportError(
                f"the retries of this model's SDK are seen by {guards.replace('_', '-')}: install it"
            ) from error
        integration.account_retries(client)
    return model


def _clients_of(model: object) -> Iterator[tuple[Any, str]]:
    """The clients of a model, each with the package that guards its kind."""
    for name in _CLIENTS:
        client = getattr(model, name, None)
        sdks = {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
        yield from ((client, guards) for sdk, guards in _GUARDS.items() if sdk in sdks)
