"""OpenAI's HTTP API as a guard sees it: what a POST may cost, and what streams state.

``usage.prompt_tokens`` (``input_tokens``) includes cached tokens, the output includes reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from agentbudget.runtime.guards.api import Body, Call, Heard, merged, text_of, usage_in, whole

_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_CHAT_CAPS: Final = ("max_completion_tokens", "max_tokens")
_OTHER_WORK: Final = ("images", "audio", "videos", "batches", "fine_tuning", "runs", "submit_tool_outputs")
"""Parts of paths of work that is billed by other things than the tokens of one reply: a step of kind ``tool`` named
``openai images`` and so on, at the price that a rate of the catalog sets."""

_NO_WORK: Final = frozenset({"cancel", "pause", "resume"})
_CLIENT_TOOLS: Final = frozenset(
    {"function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview"}
)
"""Types of tools that the caller runs."""


class OpenAIApi(Struct, frozen=True, kw_only=True):
    """See :class:`agentbudget.runtime.guards.api.Api`."""

    provider: str | None = None
    cap_parameter: str = "max_completion_tokens"

    def call_of(self, path: str, body: Any) -> Call | None:
        fields: Body = body if isinstance(body, Mapping) else {}
        if path.endswith("/chat/completions"):
            caps = (*(name for name in _CHAT_CAPS if whole(fields.get(name))), self.cap_parameter)
            return self._model_call(fields, caps[0], candidates=fields.get("n"))
        if path.endswith("/responses"):
            return self._model_call(fields, "max_output_tokens")
        if path.endswith("/responses/compact"):
            return self._model_call(fields, None)
        if path.endswith("/completions"):
            return self._model_call(fields, "max_tokens", candidates=_completions(fields))
        if path.endswith("/embeddings"):
            model = text_of(fields.get("model"))
            return Call(kind="embedding", model=model, provider=self.provider, request=fields.get("input"))
        parts = path.strip("/").split("/")
        named = None if parts[-1] in _NO_WORK else next((part for part in _OTHER_WORK if part in parts), None)
        return None if named is None else Call(kind="tool", name=f"openai {named}")

    def sent(self, path: str, body: Body) -> Body:
        """Streams of chat completions state their usage only when they are asked to."""
        if not body.get("stream") or not path.endswith("/completions"):
            return body
        options = body.get("stream_options")
        return {**body, "stream_options": {**(options if isinstance(options, Mapping) else {}), "include_usage": True}}

    def heard(self, request: Any, event: Any, before: Heard) -> Heard:
        """The chunk that is there only for its usage is the caller's if he asked for it: code that reads ``choices[0]`` of every
        chunk does not expect one without choices."""
        if not isinstance(event, Mapping):
            return before
        if event.get("type") in _ENDS:
            return Heard(usage_in(event.get("response")), True)
        choices, stated = event.get("choices"), isinstance(event.get("usage"), Mapping)
        usage = merged(before.usage, usage_in(event)) if stated else before.usage
        if not choices:
            is_extra = stated and not _asks_for_usage(request)
            return Heard(usage, before.is_last or (stated and usage is not None), is_extra)
        return Heard(usage, before.is_last, waits=not _asks_for_usage(request) and any(map(_ends, choices)))

    def _model_call(self, body: Body, cap_name: str | None, candidates: Any = None) -> Call:
        return Call(
            kind="llm",
            model=text_of(body.get("model")),
            provider=self.provider,
            request=body,
            cap=whole(body.get(cap_name)) if cap_name is not None else None,
            cap_name=cap_name,
            quantity=whole(candidates) or 1,
            server_tools=_uses_server_tools(body),
        )


def _completions(body: Body) -> int:
    """How many texts a plain completion makes: for each prompt ``best_of`` or ``n``."""
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return prompts * max(whole(body.get("best_of")) or 1, whole(body.get("n")) or 1)


def _ends(choice: Any) -> bool:
    return isinstance(choice, Mapping) and choice.get("finish_reason") is not None


def _asks_for_usage(request: Any) -> bool:
    options = request.get("stream_options") if isinstance(request, Mapping) else None
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def _uses_server_tools(body: Body) -> bool:
    """Whether the provider may run, and bill, tools of its own."""
    tools = body.get("tools")
    kinds = [tool.get("type") for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list) else []
    return any(kind not in _CLIENT_TOOLS for kind in kinds) or bool(body.get("web_search_options"))
