"""The guarded SDK as the suite of every integration drives it."""

from __future__ import annotations

from typing import Any, Final

import anthropic
from agentbudget_anthropic import guard

from agentbudget.testing.integration_suite import Ask, ClientAdapter, How

_HELPER: Final = {
    "name": "ask_helper",
    "description": "Asks a helper.",
    "input_schema": {"type": "object", "properties": {"question": {"type": "string"}}},
}


class Messages(ClientAdapter):
    """The messages API."""

    name = "anthropic"
    api = "anthropic"

    def made(self, ask: Ask, how: How) -> Any:
        kind: Any = anthropic.Anthropic if how == "sync" else anthropic.AsyncAnthropic
        return kind(base_url=ask.url, api_key="none", timeout=ask.timeout_seconds, max_retries=ask.max_retries)

    def guard(self, client: Any) -> Any:
        return guard(client)

    def create(self, client: Any, ask: Ask, **more: Any) -> Any:
        messages = [{"role": "user", "content": ask.prompt}]
        what = {"model": ask.model, "messages": messages, "max_tokens": ask.max_output_tokens}
        return client.messages.create(**{**what, **more})

    def nested(self, ask: Ask) -> Any:
        messages: list[Any] = [{"role": "user", "content": ask.prompt}]
        with self.client(ask) as client:
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
