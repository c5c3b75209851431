"""What a hold must know about a call before it runs: model, provider, output cap, candidates, and the payload to
estimate.

The payload is what a provider is sent, by reference: nothing is copied or encoded here, for it is read before every
call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

CAP_NAMES: Final = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict",
    "max_new_tokens", "maxTokens",
)  # fmt: skip
"""Every name under which the partner packages of LangChain send an output cap."""

_NESTS: Final = ("options", "generation_config", "model_kwargs", "inference_config")
"""Option objects that some of them put it into."""

_MODEL_NAMES: Final = ("model", "model_name", "model_id", "azure_deployment", "deployment_name", "endpoint_name")
_PROVIDERS: Final = {
    "amazon_bedrock": "aws", "google_genai": "google", "google_vertexai": "google", "vertexai": "google",
    "mistralai": "mistral", "xai": "x-ai", "moonshot": "moonshotai",
}  # fmt: skip
"""LangChain's provider names where the price table has another."""

_SENT_BESIDE: Final = (
    "functions",
    "response_format",
    "modalities",
    "previous_response_id",
    "conversation",
    "cached_content",
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
    how
    many candidates it asks for. ``server_tools``: the provider may run, and bill, tools of its own."""

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
    LangChain's
    ``metadata`` and its ``invocation_params``."""
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
    cap = cap_of(settings)
    params = {**_attributes(model, ("n", "modalities", "cached_content")), **settings}
    if getattr(model, "use_previous_response_id", False):
        params["previous_response_id"] = "of the last reply"
    return _call(
        messages,
        tools,
        params,
        model=settings.get("model") or model_of(_attributes(model, _MODEL_NAMES)),
        provider=provider_of(_ls_provider(model)),
        cap=cap if cap is not None else own_cap(model),
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
    for name in _SENT_BESIDE:
        if params.get(name):
            payload[name] = params[name]
    candidates = params.get("n")
    return ModelCall(
        model=model if isinstance(model, str) and model else None,
        payload=payload,
        provider=provider,
        cap=cap,
        quantity=candidates if type(candidates) is int and candidates > 1 else 1,
        server_tools=any(is_server_tool(tool) for tool in tools) or bool(params.get("web_search_options")),
    )


def cap_of(params: Mapping[str, Any]) -> int | None:
    """The output cap among call parameters, under any of its names, also inside the nested option objects; of several
    the
    largest, since which one a client sends is its own affair."""
    stated = [value for name in CAP_NAMES if type(value := params.get(name)) is int and value > 0]
    for nest in _NESTS:
        inner = params.get(nest)
        if isinstance(inner, Mapping) and inner:
            deeper = cap_of(inner)
            stated += [] if deeper is None else [deeper]
    return max(stated, default=None)


def own_cap(model: Any) -> int | None:
    """The cap that a model object carries because somebody chose it. ChatAnthropic fills in its profile's maximum: no
    choice."""
    cap = cap_of(_attributes(model, (*CAP_NAMES, *_NESTS)))
    profile = getattr(model, "profile", None)
    filled_in = profile.get("max_output_tokens") if isinstance(profile, Mapping) else None
    return None if cap == filled_in else cap


def model_of(params: Mapping[str, Any]) -> str | None:
    """The model's name among parameters, under any of its names."""
    return next((value for name in _MODEL_NAMES if isinstance(value := params.get(name), str) and value), None)


def provider_of(named: Any) -> str | None:
    """The price table's id of a provider that LangChain names. ``openai`` gives None: ChatOpenAI is the usual client
    of every
    compatible endpoint, so its class does not say who serves the model; the model's name does."""
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
    return {name: value for name in _MESSAGE_FIELDS if (value := fields.get(name))}


def _ls_provider(model: Any) -> Any:
    read = getattr(model, "_get_ls_params", None)
    stated = read() if callable(read) else None
    return stated.get("ls_provider") if isinstance(stated, Mapping) else None


def _attributes(model: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(model, name, None)) is not None}
