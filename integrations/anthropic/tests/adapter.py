"""The guarded SDK as the suite of every integration drives it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

import anthropic
from agentbudget_anthropic import guard

from agentbudget.testing.integration_suite import Ask

_HELPER: Final = {
    "name": "ask_helper",
    "description": "Asks a helper.",
    "input_schema": {"type": "object", "properties": {"question": {"type": "string"}}},
}


def client_of(ask: Ask, kind: Callable[..., Any] = anthropic.Anthropic) -> Any:
    """A guarded client of the fake."""
    made = kind(base_url=ask.url, api_key="none", timeout=ask.timeout_seconds, max_retries=ask.max_retries)
    return guard(made)


class Messages:
    """The messages API."""

    name: str = "anthropic"
    api: Any = "anthropic"
    calls: Any = ("sync", "async")
    streams: Any = ("sync", "async")
    cannot: Mapping[str, str] = {}

    def call(self, ask: Ask) -> Any:
        with client_of(ask) as client:
            return self.create(client, ask)

    async def acall(self, ask: Ask) -> Any:
        async with client_of(ask, anthropic.AsyncAnthropic) as client:
            return await self.create(client, ask)

    def stream(self, ask: Ask) -> Iterator[Any]:
        with client_of(ask) as client, self.create(client, ask, stream=True) as events:
            yield from events

    async def astream(self, ask: Ask) -> AsyncIterator[Any]:
        kind = anthropic.AsyncAnthropic
        async with client_of(ask, kind) as client, await self.create(client, ask, stream=True) as events:
            async for event in events:
                yield event

    def doubled(self, ask: Ask) -> Any:
        with client_of(ask) as client:
            return self.create(guard(client), ask)

    def create(self, client: Any, ask: Ask, **more: Any) -> Any:
        messages = [{"role": "user", "content": ask.prompt}]
        what = {"model": ask.model, "messages": messages, "max_tokens": ask.max_output_tokens}
        return client.messages.create(**{**what, **more})

    def nested(self, ask: Ask) -> Any:
        messages: list[Any] = [{"role": "user", "content": ask.prompt}]
        with client_of(ask) as client:
            while True:
                reply = self.create(client, ask, messages=messages, tools=[_HELPER])
                called = [block for block in reply.content if block.type == "tool_use"]
                if not called:
                    return reply.content[0].text
                results = []
                for block in called:
                    question = [{"role": "user", "content": block.input["question"]}]
                    with ask.session.step("tool", name="ask_helper"):
                        said = self.create(client, ask, messages=question).content[0].text
                    results.append({"type": "tool_result", "tool_use_id": block.id, "content": said})
                messages += [
                    {"role": "assistant", "content": [block.to_dict() for block in reply.content]},
                    {"role": "user", "content": results},
                ]
