"""Anthropic's HTTP API as a guard sees it: what a POST may cost, and what streams state.

``usage.input_tokens`` leaves out what was read from and written to the cache; streams state their usage twice, the second time
cumulatively, so the larger of each field counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from agentbudget.runtime.guards.api import Body, Call, Heard, merged, text_of, usage_in, whole

_CLIENT_TOOLS: Final = ("custom", "bash_", "text_editor_", "computer_", "memory_")
"""Types of tools that the caller runs; Anthropic's own carry a date after the underscore."""


class AnthropicApi(Struct, frozen=True, kw_only=True):
    """See :class:`agentbudget.runtime.guards.api.Api`."""

    provider: str | None = "anthropic"

    def call_of(self, path: str, body: Any) -> Call | None:
        if path.endswith("/messages/batches"):
            return Call(kind="tool", name="anthropic batches")
        if not path.endswith(("/messages", "/complete")):
            return None
        fields: Body = body if isinstance(body, Mapping) else {}
        cap_name = "max_tokens" if path.endswith("/messages") else "max_tokens_to_sample"
        return Call(
            kind="llm",
            model=text_of(fields.get("model")),
            provider=self.provider,
            request=fields,
            cap=whole(fields.get(cap_name)),
            cap_name=cap_name,
            server_tools=_uses_server_tools(fields),
        )

    def sent(self, path: str, body: Body) -> Body:
        """Streams state their usage unasked."""
        return body

    def heard(self, request: Any, event: Any, before: Heard) -> Heard:
        if not isinstance(event, Mapping):
            return before
        kind = event.get("type")
        if kind not in ("message_start", "message_delta", "message_stop"):
            return before
        usage = merged(before.usage, usage_in(event))
        delta = event.get("delta")
        ends = kind == "message_stop" or (isinstance(delta, Mapping) and delta.get("stop_reason") is not None)
        return Heard(usage, ends)


def _uses_server_tools(body: Body) -> bool:
    """Whether the provider may run, and bill, tools of its own."""
    tools = body.get("tools")
    listed = [tool for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list) else []
    return bool(body.get("mcp_servers")) or any(
        not str(tool.get("type", "custom")).startswith(_CLIENT_TOOLS) for tool in listed
    )
