"""Writing an output cap into a model request: under the name that the model's class really sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentbudget_langchain.request import CAP_NAMES, attributes_of

_PARAMETER: Final = {
    # ChatOpenAI on the Responses API drops a per-call max_tokens where the model object has a cap of its own; this name
    # wins on both of its APIs.
    "ChatOpenAI": "max_completion_tokens",
    "AzureChatOpenAI": "max_completion_tokens",
    "ChatAnthropic": "max_tokens",
    "ChatGoogleGenerativeAI": "max_output_tokens",
    "ChatVertexAI": "max_output_tokens",
    "ChatOllama": "num_predict",
}
"""By class name, looked up along the class's ancestors, so that no partner package is imported."""

_THINKING: Final = frozenset(("thinking",))

_ON_THE_MODEL: Final = frozenset({"num_predict"})
"""Parameters that are no call argument: ChatOllama reads them from the model object."""


def cap_parameter(model: Any) -> str:
    """The parameter under which a chat model takes an output cap. ``max_tokens`` is LangChain's standard name."""
    for cls in type(model).__mro__:
        if cls.__name__ in _PARAMETER:
            return _PARAMETER[cls.__name__]
    fields = getattr(type(model), "model_fields", {})
    return next((name for name in CAP_NAMES if name in fields and name != "max_tokens_to_sample"), "max_tokens")


def with_cap(request: Any, cap: int, parameter: str | None = None) -> Any:
    """The ``ModelRequest`` with this output cap and no other."""
    name = parameter or cap_parameter(request.model)
    if name in _ON_THE_MODEL and hasattr(request.model, name):
        return request.override(model=request.model.model_copy(update={name: cap}))
    settings = {key: value for key, value in request.model_settings.items() if key not in CAP_NAMES}
    return request.override(model_settings={**settings, name: cap})


def thinking_budget(model: Any, settings: Mapping[str, Any]) -> int:
    """Tokens of a stated thinking budget (Anthropic), 0 without one. The provider refuses an output cap that is not
    above it."""
    thinking = settings.get("thinking") or attributes_of(model, _THINKING).get("thinking")
    budget = (
        thinking.get("budget_tokens") if isinstance(thinking, Mapping) and thinking.get("type") == "enabled" else None
    )
    return budget if type(budget) is int and budget > 0 else 0
