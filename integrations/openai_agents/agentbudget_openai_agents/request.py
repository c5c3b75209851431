"""What a hold must know about a call of a ``Model``, and what its reply states."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agents import FunctionTool
from agents.model_settings import ModelSettings

from agentbudget import InvalidRequest, Usage
from agentbudget.runtime.guards.api import tokens_in

_CAPS: Final = ("max_output_tokens", "max_completion_tokens", "max_tokens")
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_LOCAL: Final = frozenset(
    {"FunctionTool", "CustomTool", "ComputerTool", "LocalShellTool", "ShellTool", "ApplyPatchTool"}
)
"""Tools that run here. The others are the provider's, which may bill them."""


def payload_of(
    instructions: Any, said: Any, tools: Sequence[Any], schema: Any, handoffs: Sequence[Any], stored: Mapping[str, Any]
) -> dict[str, Any]:
    """What the provider is sent. ``stored``: conversations and prompts that it keeps, whose size is not known here."""
    described = [*map(_tool, tools), *map(_handoff, handoffs)]
    sent: dict[str, Any] = {"instructions": instructions, "input": said, **{k: v for k, v in stored.items() if v}}
    if described:
        sent["tools"] = described
    if schema is not None and not schema.is_plain_text():
        sent["text"] = schema.json_schema()
    return sent


def uses_server_tools(tools: Sequence[Any]) -> bool:
    return any(type(tool).__name__ not in _LOCAL for tool in tools)


def cap_of(settings: ModelSettings) -> int | None:
    """The output cap of the call, also where it is written beside the settings."""
    stated = [settings.max_tokens, *(extra.get(name) for extra in _extras(settings).values() for name in _CAPS)]
    caps = [cap for cap in stated if type(cap) is int and cap > 0]
    return max(caps, default=None)


def with_cap(settings: ModelSettings, cap: int) -> ModelSettings:
    """The settings with this output cap and no other."""
    bare = {
        name: {key: value for key, value in extra.items() if key not in _CAPS}
        for name, extra in _extras(settings).items()
    }
    return dataclasses.replace(settings, max_tokens=cap, **bare)  # type: ignore[arg-type]


def with_usage(settings: ModelSettings) -> ModelSettings:
    """The settings of a stream that states its usage: chat completions do so only when they are asked to."""
    return dataclasses.replace(settings, include_usage=True)


def _extras(settings: ModelSettings) -> dict[str, Mapping[str, Any]]:
    found = {"extra_args": settings.extra_args, "extra_body": settings.extra_body}
    return {name: extra for name, extra in found.items() if isinstance(extra, Mapping)}


def usage_of(reply: Any) -> Usage | None:
    """The usage of a ``ModelResponse`` or of a response; None where nothing was stated (the SDK then counts zeros)."""
    stated = getattr(reply, "usage", None)
    if stated is None or not (stated.input_tokens or stated.output_tokens):
        return None
    try:
        usage = Usage.of(stated)
    except InvalidRequest:
        return None
    model = getattr(reply, "model", None)
    return Usage.merge_max(usage, Usage(model=model)) if isinstance(model, str) and model else usage


def usage_of_event(event: Any) -> Usage | None:
    """The usage with the event that ends a response."""
    return usage_of(event.response) if getattr(event, "type", None) in _ENDS else None


def tokens_of_event(event: Any) -> int:
    """How much output an event of a stream brings, about."""
    kind = getattr(event, "type", "")
    return tokens_in({"delta": event.delta}) if isinstance(kind, str) and kind.endswith(".delta") else 0


def _tool(tool: Any) -> dict[str, Any]:
    if isinstance(tool, FunctionTool):
        return {"name": tool.name, "description": tool.description, "parameters": tool.params_json_schema}
    return {"name": getattr(tool, "name", type(tool).__name__), "description": repr(tool)}


def _handoff(handoff: Any) -> dict[str, Any]:
    return {
        "name": handoff.tool_name, "description": handoff.tool_description, "parameters": handoff.input_json_schema,
    }  # fmt: skip
