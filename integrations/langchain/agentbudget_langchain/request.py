"""What a hold must know about a call before it runs: model, provider, output cap, candidates, and the payload to
estimate.

The payload is what a provider is sent, by reference: nothing is copied or encoded here, for it is read before every
call.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

CAP_NAMES: Final = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict",
    "max_new_tokens", "maxTokens",
)  # fmt: skip
"""Every name under which the partner packages of LangChain send an output cap."""

_NESTS: Final = ("options", "generation_config", "model_kwargs", "inference_config")
"""Option objects that some of them put it into."""

_CAP_PLACES: Final = frozenset((*CAP_NAMES, *_NESTS))

_MODEL_NAMES: Final = ("model", "model_name", "model_id", "azure_deployment", "deployment_name", "endpoint_name")
_SENT_BY_A_MODEL: Final = ("n", "modalities", "cached_content")
_OF_A_MODEL: Final = frozenset((*_MODEL_NAMES, *_SENT_BY_A_MODEL, *_CAP_PLACES, "profile", "use_previous_response_id"))
"""What is read of a model object before each call."""

MAX_PROVIDERS: Final = 256
"""Model objects whose provider is remembered; a program that makes one for every call must not fill the memory."""

_providers: Final[dict[int, tuple[weakref.ref[Any], str | None]]] = {}
_PROVIDERS: Final = {
    "amazon_bedrock": "aws", "google_genai": "google", "google_vertexai": "google", "vertexai": "google",
    "mistralai": "mistral", "xai": "x-ai", "moonshot": "moonshotai",
}  # fmt: skip
"""LangChain's provider names where the price table has another."""

_SENT_BESIDE: Final = frozenset(
    ("functions", "response_format", "modalities", "previous_response_id", "conversation", "cached_content")
)
"""Call parameters that add input, or that say where input or audio comes from."""

_MESSAGE_FIELDS: Final = (
    "type",
    "name",
    "content",
    "tool_calls",
    "invalid_tool_calls",
    "tool_call_id",
    "additional_kwargs",
)
"""What of a message is sent. Its usage, its metadata and its id stay here."""

_CLIENT_TOOLS: Final = ("function", "custom", "bash_", "text_editor_", "computer_", "memory_")
"""Types of tools that the caller runs: functions, and Anthropic's client tools, which carry a date after the
underscore."""


class ModelCall(Struct, frozen=True, kw_only=True):
    """One model call, as a hold sees it. ``cap``: the output cap that the request carries (None: none). ``quantity``:
    how many candidates it asks for. ``server_tools``: the provider may run, and bill, tools of its own."""

    model: str | None
    payload: dict[str, Any]
    provider: str | None = None
    cap: int | None = None
    quantity: int = 1
    server_tools: bool = False


def call_of_callback(
    messages: Sequence[Any], metadata: Mapping[str, Any] | None, params: Mapping[str, Any] | None
) -> ModelCall:
    """The call that ``on_chat_model_start`` or ``on_llm_start`` announces: the messages (prompts) of the run,
    LangChain's ``metadata`` and its ``invocation_params``."""
    metadata, params = metadata or {}, params or {}
    cap, traced = cap_of(params), metadata.get("ls_max_tokens")
    return _call(
        messages,
        params.get("tools") or (),
        params,
        model=metadata.get("ls_model_name") or model_of(params),
        provider=provider_of(metadata.get("ls_provider")),
        cap=cap if cap is not None or type(traced) is not int or traced <= 0 else traced,
    )


def call_of_model(model: Any, messages: Sequence[Any], tools: Sequence[Any], settings: Mapping[str, Any]) -> ModelCall:
    """The call that a middleware is about to make: a chat model, its messages, its tools as providers see them, and the
    settings of this call. ``cap`` is one that somebody chose: a profile's maximum that the client fills in is none."""
    cap, own = cap_of(settings), attributes_of(model, _OF_A_MODEL)
    params = {name: own[name] for name in _SENT_BY_A_MODEL if name in own} | dict(settings)
    if own.get("use_previous_response_id"):
        params["previous_response_id"] = "of the last reply"
    return _call(
        messages,
        tools,
        params,
        model=settings.get("model") or model_of(own),
        provider=_provider_by_model(model),
        cap=cap if cap is not None else _chosen_cap(own),
    )


def _call(
    messages: Sequence[Any],
    tools: Sequence[Any],
    params: Mapping[str, Any],
    *,
    model: Any,
    provider: str | None,
    cap: int | None,
) -> ModelCall:
    payload: dict[str, Any] = {"messages": [_sent(message) for message in messages]}
    if tools:
        payload["tools"] = tools
    for name in params.keys() & _SENT_BESIDE:
        if params[name]:
            payload[name] = params[name]
    candidates = params.get("n")
    return ModelCall(
        model=model if isinstance(model, str) and model else None,
        payload=payload,
        provider=provider,
        cap=cap,
        quantity=candidates if type(candidates) is int and candidates > 1 else 1,
        server_tools=bool((tools and any(is_server_tool(tool) for tool in tools)) or params.get("web_search_options")),
    )


def cap_of(params: Mapping[str, Any]) -> int | None:
    """The output cap among call parameters, under any of its names, also inside the nested option objects; of several
    the largest, since which one a client sends is its own affair."""
    most = 0
    for name in params.keys() & _CAP_PLACES:  # most calls have one of a dozen, so the sets meet before anything is read
        value = params[name]
        if name in _NESTS:
            value = cap_of(value) if isinstance(value, Mapping) and value else None
        if type(value) is int and value > most:
            most = value
    return most or None


def own_cap(model: Any) -> int | None:
    """The cap that a model object carries because somebody chose it. ChatAnthropic fills in its profile's maximum: no
    choice."""
    return _chosen_cap(attributes_of(model, _OF_A_MODEL))


def _chosen_cap(own: Mapping[str, Any]) -> int | None:
    cap, profile = cap_of(own), own.get("profile")
    filled_in = profile.get("max_output_tokens") if isinstance(profile, Mapping) else None
    return None if cap == filled_in else cap


def model_of(params: Mapping[str, Any]) -> str | None:
    """The model's name among parameters, under any of its names."""
    return next((value for name in _MODEL_NAMES if isinstance(value := params.get(name), str) and value), None)


def provider_of(named: Any) -> str | None:
    """The price table's id of a provider that LangChain names. ``openai`` gives None: ChatOpenAI is the usual client of
    every compatible endpoint, so its class does not say who serves the model; the model's name does."""
    return _PROVIDERS.get(named, named) if isinstance(named, str) and named != "openai" else None


def is_server_tool(tool: Any) -> bool:
    """Whether the provider itself runs this tool (and may bill it): a built-in one, not a function of the caller's."""
    if not isinstance(tool, Mapping) or "function" in tool or "input_schema" in tool or "parameters" in tool:
        return False
    kind = tool.get("type")
    return not isinstance(kind, str) or not kind.startswith(_CLIENT_TOOLS)


def _sent(message: Any) -> Any:
    """A message as plain data (a lookup that fails costs a pydantic model microseconds, so its fields are read
    directly)."""
    fields = getattr(message, "__dict__", None)
    if fields is None or "content" not in fields:
        return message
    return {name: fields[name] for name in _MESSAGE_FIELDS if fields.get(name)}


def _provider_by_model(model: Any) -> str | None:
    """The provider that a model object names; asked of each object once, since LangChain puts a dozen facts together."""
    known = _providers.get(id(model))
    if known is not None and known[0]() is model:
        return known[1]
    read = getattr(model, "_get_ls_params", None)
    stated = read() if callable(read) else None
    found = provider_of(stated.get("ls_provider") if isinstance(stated, Mapping) else None)
    with contextlib.suppress(TypeError):  # an object that takes no weak reference is asked again
        if len(_providers) >= MAX_PROVIDERS:
            _providers.clear()
        _providers[id(model)] = (weakref.ref(model), found)
    return found


def attributes_of(model: Any, names: frozenset[str]) -> dict[str, Any]:
    """Those attributes that a model object has, and that are not None. A pydantic model takes microseconds for each that
    it has not, so they are looked for where they can be."""
    fields, on_class = getattr(model, "__dict__", None), _on_class(type(model), names)  # type: ignore[arg-type]
    if fields is None or on_class is None:
        return {name: value for name in names if (value := getattr(model, name, None)) is not None}
    found = {name: fields[name] for name in fields.keys() & names}
    for name in on_class:
        if name not in found:
            found[name] = getattr(model, name, None)
    extra = getattr(model, "__pydantic_extra__", None) if hasattr(type(model), "__pydantic_extra__") else None
    if extra:
        found |= {name: extra[name] for name in extra.keys() & names}
    return {name: value for name, value in found.items() if value is not None}


@lru_cache(maxsize=256)
def _on_class(cls: type, names: frozenset[str]) -> tuple[str, ...] | None:
    """Which of the names the class answers for (properties, constants); None where it makes names up as they are asked."""
    computed = ("__getattr__", "__getattribute__")
    for base in cls.__mro__:
        if (
            base is not object
            and not base.__module__.startswith("pydantic.")
            and any(n in vars(base) for n in computed)
        ):
            return None
    return tuple(name for name in names if any(name in vars(base) for base in cls.__mro__))
