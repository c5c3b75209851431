"""What a hold must know about a call of a ``Model``: its size, its cap, what the provider may do beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic_ai.messages import (
    AudioUrl,
    BaseToolReturnPart,
    BinaryContent,
    DocumentUrl,
    FileUrl,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    UploadedFile,
    VideoUrl,
)
from pydantic_ai.profiles.anthropic import ANTHROPIC_THINKING_BUDGET_MAP
from pydantic_ai.tools import ToolDefinition

from agentbudget.runtime.guards.api import whole

if TYPE_CHECKING:
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

_CAPS: Final = ("max_output_tokens", "max_completion_tokens", "max_tokens")
"""Names under which ``extra_body`` may carry a cap past ``ModelSettings["max_tokens"]``."""

_LOCAL: Final = frozenset({"memory", "tool_search"})
"""Native tools that run here, or at no cost of their own. The others are the provider's, which may bill them."""

_STORED: Final = {
    "openai_previous_response_id": "previous_response_id", "openai_conversation_id": "conversation",
    "google_cached_content": "cached_content",
}  # fmt: skip
"""Settings that name input which the provider keeps, and what an estimate calls it."""

_PROVIDERS: Final = {
    "bedrock": "aws", "bedrock-mantle": "aws", "google-cloud": "google", "google-gla": "google", "google-vertex": "google",
    "xai": "x-ai",
}  # fmt: skip
"""Pydantic AI's provider names where the price table has another."""

_LINKS: Final = {ImageUrl: "image_url", AudioUrl: "input_audio", VideoUrl: "video_url", DocumentUrl: "file"}
_STAYS_HERE: Final = frozenset(
    {
        "timestamp", "usage", "metadata", "run_id", "conversation_id", "model_name", "provider_url", "provider_response_id",
        "finish_reason", "state", "failed_attempts", "instructions", "history_digest", "vendor_metadata",
    }
)  # fmt: skip
"""Fields of messages and parts that no provider is sent. Instructions are sent once, not with every message."""


def payload_of(
    messages: Sequence[ModelMessage], settings: Mapping[str, Any], parameters: ModelRequestParameters
) -> dict[str, Any]:
    """What the provider is sent, as plain data. ``settings``, ``parameters``: prepared."""
    sent: dict[str, Any] = {"instructions": _instructions(messages, parameters), "messages": _sent(list(messages))}
    described = [*parameters.function_tools, *parameters.output_tools, *parameters.native_tools]
    if described:
        sent["tools"] = [_tool(tool) for tool in described]
    if parameters.output_object is not None:
        sent["text"] = parameters.output_object.json_schema
    for name, stored in _STORED.items():
        if isinstance(value := settings.get(name), str) and value != "auto":
            sent[stored] = value  # "auto" is a response of this history, which is counted already
    return sent | dict(_extra_body(settings))


def uses_server_tools(parameters: ModelRequestParameters) -> bool:
    return any(tool.kind not in _LOCAL for tool in parameters.native_tools)


def cap_of(settings: Mapping[str, Any]) -> int | None:
    """The output cap of a call, also where it is written beside the settings."""
    extra = _extra_body(settings)
    caps = [whole(settings.get("max_tokens")), *(whole(extra.get(name)) for name in _CAPS)]
    return max((cap for cap in caps if cap is not None), default=None)


def with_cap(settings: ModelSettings | None, merged: Mapping[str, Any], cap: int) -> ModelSettings:
    """The settings of the call with this output cap and no other. ``merged``: with those of the model."""
    made: dict[str, Any] = {**(settings or {}), "max_tokens": cap}
    extra = _extra_body(merged)
    if not extra.keys().isdisjoint(_CAPS):
        made["extra_body"] = {name: value for name, value in extra.items() if name not in _CAPS}
    return cast("ModelSettings", made)


def quantity_of(settings: Mapping[str, Any]) -> int:
    """How many candidates a call asks for: only beside the settings."""
    return whole(_extra_body(settings).get("n")) or 1


def thinking_budget(model: Model, settings: Mapping[str, Any], parameters: ModelRequestParameters) -> int:
    """Tokens of a thinking budget that Anthropic counts as output, 0 without one. It refuses a cap that is not above it."""
    stated = settings.get("anthropic_thinking")
    if isinstance(stated, Mapping):
        return (whole(stated.get("budget_tokens")) or 0) if stated.get("type") == "enabled" else 0
    is_claude = "anthropic" in model.system or "claude" in model.model_name.lower()
    if not parameters.thinking or not is_claude or model.profile.get("anthropic_supports_adaptive_thinking"):
        return 0
    return ANTHROPIC_THINKING_BUDGET_MAP[parameters.thinking]


def provider_of(system: str) -> str | None:
    """The price table's name of who serves a model. ``openai`` gives None: its client is the usual one of every compatible
    endpoint, so the model's name tells."""
    return None if system == "openai" else _PROVIDERS.get(system, system)


def _extra_body(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = settings.get("extra_body")
    return extra if isinstance(extra, Mapping) else {}


def _instructions(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> list[str]:
    if parameters.instruction_parts is not None:
        return [part.content for part in parameters.instruction_parts]
    return [said.instructions for said in messages if isinstance(said, ModelRequest) and said.instructions]


def _tool(tool: Any) -> dict[str, Any]:
    if isinstance(tool, ToolDefinition):
        return {"name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema}
    return {"name": tool.kind, "description": repr(tool)}


def _sent(value: Any) -> Any:
    """A message, a part or what is in it, as plain data; files so that an estimate knows them."""
    if value is None or isinstance(value, (str, int, float, bytes)):
        return value
    if isinstance(value, FileUrl):
        return {
            "type": next((kind for cls, kind in _LINKS.items() if isinstance(value, cls)), "file"),
            "url": value.url,
        }
    if isinstance(value, BinaryContent):
        return {"type": "media", "media_type": value.media_type, "data": value.base64}
    if isinstance(value, UploadedFile):
        return {"file_id": value.file_id}
    if isinstance(value, BaseToolReturnPart):
        return {
            "type": "tool_result", "name": value.tool_name, "id": value.tool_call_id,
            "content": value.model_response_str(), "files": _sent(value.files),
        }  # fmt: skip
    if isinstance(value, Mapping):
        return {str(name): _sent(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sent(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return {name: _sent(each) for name, each in fields.items() if each and name not in _STAYS_HERE}
    return value
