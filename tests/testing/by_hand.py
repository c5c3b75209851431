"""The smallest adapter: OpenAI's SDK with a step around each call, written by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, Final

import openai

from agentbudget import Usage
from agentbudget.testing.integration_suite import Ask

HELPER: Final = {
    "type": "function",
    "function": {
        "name": "ask_helper",
        "description": "Asks a helper.",
        "parameters": {"type": "object", "properties": {"question": {"type": "string"}}},
    },
}


def usage_of(chunk: Any) -> Usage | None:
    return Usage.of(chunk) if chunk.usage is not None else None


def tokens_of(chunk: Any) -> int:
    return sum(bool(choice.delta.content or choice.delta.tool_calls) for choice in chunk.choices)


class ByHand:
    """See the module."""

    name: str = "by hand"
    api: Any = "openai"
    calls: Any = ("sync", "async")
    streams: Any = ("sync", "async")
    cannot: Mapping[str, str] = {
        "a_call_that_is_guarded_twice_is_charged_once": "nothing is guarded here: each call has its step",
        "a_retry_after_a_timeout_is_charged_for_both": "the SDK's retries are hidden in one step",
    }

    def call(self, ask: Ask) -> Any:
        return self._ask(ask, _messages(ask))

    async def acall(self, ask: Ask) -> Any:
        async with _client(ask, openai.AsyncOpenAI) as client, _step(ask) as step:
            reply = await client.chat.completions.create(**_request(ask, _messages(ask)))
            await step.asettle(reply)
            return reply

    def stream(self, ask: Ask) -> Iterator[Any]:
        with _client(ask, openai.OpenAI) as client, _step(ask) as step:
            chunks = client.chat.completions.create(**_request(ask, _messages(ask)), **_STREAMED)
            with closing(step.wrap(chunks, usage_of, tokens_of)) as counted:
                yield from counted

    async def astream(self, ask: Ask) -> AsyncIterator[Any]:
        async with _client(ask, openai.AsyncOpenAI) as client, _step(ask) as step:
            chunks = await client.chat.completions.create(**_request(ask, _messages(ask)), **_STREAMED)
            async with aclosing(step.awrap(chunks, usage_of, tokens_of)) as counted:
                async for chunk in counted:
                    yield chunk

    def nested(self, ask: Ask) -> Any:
        messages: list[Any] = _messages(ask)
        while True:
            message = self._ask(ask, messages, tools=[HELPER]).choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message.to_dict())
            for tool in message.tool_calls:
                question = json.loads(tool.function.arguments)["question"]
                with ask.session.step("tool", name="ask_helper"):
                    said = self._ask(ask, [{"role": "user", "content": question}]).choices[0].message.content
                messages.append({"role": "tool", "tool_call_id": tool.id, "content": said})

    def doubled(self, ask: Ask) -> Any:
        raise AssertionError("see cannot")

    def _ask(self, ask: Ask, messages: list[Any], **more: Any) -> Any:
        with _client(ask, openai.OpenAI) as client, _step(ask, request=[messages, more]) as step:
            reply = client.chat.completions.create(**_request(ask, messages), **more)
            step.settle(reply)
            return reply


_STREAMED: Final[dict[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}


def _client(ask: Ask, kind: Callable[..., Any]) -> Any:
    return kind(base_url=ask.openai_url, api_key="none", timeout=ask.timeout_seconds, max_retries=ask.max_retries)


def _messages(ask: Ask) -> list[Any]:
    return [{"role": "user", "content": ask.prompt}]


def _step(ask: Ask, **more: Any) -> Any:
    what = {"model": ask.model, "request": _messages(ask), "max_output_tokens": ask.max_output_tokens, **more}
    return ask.session.step("llm", **what)


def _request(ask: Ask, messages: list[Any]) -> dict[str, Any]:
    return {"model": ask.model, "messages": messages, "max_completion_tokens": ask.max_output_tokens}
