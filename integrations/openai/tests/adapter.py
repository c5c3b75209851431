"""The guarded SDK as the suite of every integration drives it: chat completions and Responses."""

from __future__ import annotations

import json
from typing import Any, Final

import openai
from agentbudget_openai import guard

from agentbudget.testing.integration_suite import Ask, ClientAdapter, How

_PARAMETERS: Final = {"type": "object", "properties": {"question": {"type": "string"}}}
_HELPER: Final = {"name": "ask_helper", "description": "Asks a helper.", "parameters": _PARAMETERS}


class Chat(ClientAdapter):
    """Chat completions."""

    name = "openai chat"
    api = "openai"

    def made(self, ask: Ask, how: How) -> Any:
        kind: Any = openai.OpenAI if how == "sync" else openai.AsyncOpenAI
        return kind(base_url=ask.openai_url, api_key="none", timeout=ask.timeout_seconds, max_retries=ask.max_retries)

    def guard(self, client: Any) -> Any:
        return guard(client)

    def create(self, client: Any, ask: Ask, **more: Any) -> Any:
        messages = [{"role": "user", "content": ask.prompt}]
        what = {"model": ask.model, "messages": messages, "max_completion_tokens": ask.max_output_tokens}
        return client.chat.completions.create(**{**what, **more})

    def nested(self, ask: Ask) -> Any:
        messages: list[Any] = [{"role": "user", "content": ask.prompt}]
        tools = [{"type": "function", "function": _HELPER}]
        with self.client(ask) as client:
            while True:
                message = self.create(client, ask, messages=messages, tools=tools).choices[0].message
                if not message.tool_calls:
                    return message.content
                messages.append(message.to_dict())
                for tool in message.tool_calls:
                    question = [{"role": "user", "content": json.loads(tool.function.arguments)["question"]}]
                    with ask.session.step("tool", name="ask_helper"):
                        said = self.create(client, ask, messages=question).choices[0].message.content
                    messages.append({"role": "tool", "tool_call_id": tool.id, "content": said})


class Responses(Chat):
    """Responses."""

    name = "openai responses"

    def create(self, client: Any, ask: Ask, **more: Any) -> Any:
        what = {"model": ask.model, "input": ask.prompt, "max_output_tokens": ask.max_output_tokens}
        return client.responses.create(**{**what, **more})

    def nested(self, ask: Ask) -> Any:
        said: list[Any] = [{"role": "user", "content": ask.prompt}]
        tools = [{"type": "function", "strict": False, **_HELPER}]
        with self.client(ask) as client:
            while True:
                reply = self.create(client, ask, input=said, tools=tools)
                called = [item for item in reply.output if item.type == "function_call"]
                if not called:
                    return reply.output_text
                for item in called:
                    question = json.loads(item.arguments)["question"]
                    with ask.session.step("tool", name="ask_helper"):
                        answer = self.create(client, ask, input=question).output_text
                    said += [
                        {
                            "type": "function_call",
                            "name": item.name,
                            "arguments": item.arguments,
                            "call_id": item.call_id,
                        },
                        {"type": "function_call_output", "call_id": item.call_id, "output": answer},
                    ]
