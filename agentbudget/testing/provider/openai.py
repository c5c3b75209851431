"""The wire format of OpenAI's chat completions, Responses and embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from agentbudget.testing.provider.words import Answer, Body

Event = tuple[int, bytes]
"""Tokens of output that it brings, and its bytes."""


def error(status: int) -> Body:
    """The body of a refusal."""
    return {"error": {"message": f"the fake answers {status}", "type": "fake_error", "code": "fake", "param": None}}


# --- chat completions ----------------------------------------------------------------------------------------------------


def chat(answer: Answer) -> Body:
    message: Body = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.tools:
        message["tool_calls"] = [_tool_call(tool) for tool in answer.tools]
    choice = {"index": 0, "finish_reason": _finish(answer), "logprobs": None, "message": message}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": answer.served, "choices": [choice],
        "usage": _chat_usage(answer, answer.output_tokens),
    }  # fmt: skip


def chat_events(answer: Answer) -> Iterator[Event]:
    came = answer.reasoning

    def chunk(delta: Body | None, finish: str | None = None, *, usage: bool = False) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": answer.served,
                "choices": choices}  # fmt: skip
        if usage:
            body["usage"] = _chat_usage(answer, came)
        return _data(body)

    is_running = answer.usage == "running"
    yield answer.reasoning, chunk({"role": "assistant", "content": ""}, usage=is_running)
    for piece in answer.pieces:
        came += 1
        yield 1, chunk({"content": piece}, usage=is_running)
    for index, tool in enumerate(answer.tools):
        came += answer.tool_tokens[index]
        yield answer.tool_tokens[index], chunk({"tool_calls": [{"index": index, **_tool_call(tool)}]}, usage=is_running)
    yield 0, chunk({}, _finish(answer), usage=is_running)
    if answer.asked.includes_usage and answer.usage != "never":
        for _ in range(2 if answer.usage == "twice" else 1):
            yield 0, chunk(None, usage=True)
    yield 0, b"data: [DONE]\n\n"


def _finish(answer: Answer) -> str:
    return "length" if answer.is_cut else "tool_calls" if answer.tools else "stop"


def _tool_call(tool: tuple[str, str, str]) -> Body:
    name, arguments = tool[1:]
    return {"id": tool[0], "type": "function", "function": {"name": name, "arguments": arguments}}


def _chat_usage(answer: Answer, output_tokens: int) -> Body:
    into = answer.asked.input_tokens
    return {
        "prompt_tokens": into, "completion_tokens": output_tokens, "total_tokens": into + output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": answer.reasoning, "audio_tokens": 0},
    }  # fmt: skip


# --- Responses -----------------------------------------------------------------------------------------------------------


def responses(answer: Answer, *, status: str = "completed", output: list[Body] | None = None) -> Body:
    is_done = status == "completed"
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": answer.served, "status": status,
        "output": _items(answer) if output is None else output, "usage": _usage(answer) if is_done else None,
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_done and answer.is_cut else None,
        "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
    }  # fmt: skip


def responses_events(answer: Answer) -> Iterator[Event]:
    number = 0

    def event(kind: str, **body: Any) -> bytes:
        nonlocal number
        number += 1
        return f"event: {kind}\n".encode() + _data({"type": kind, "sequence_number": number - 1, **body})

    yield 0, event("response.created", response=responses(answer, status="in_progress", output=[]))
    yield answer.reasoning, event("response.in_progress", response=responses(answer, status="in_progress", output=[]))
    items = _items(answer)
    for index, item in enumerate(items):
        at = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "message":
            part = {"type": "output_text", "text": "", "annotations": []}
            blank = {**item, "content": [], "status": "in_progress"}
            yield 0, event("response.output_item.added", output_index=index, item=blank)
            yield 0, event("response.content_part.added", **at, content_index=0, part=part)
            for piece in answer.pieces:
                yield 1, event("response.output_text.delta", **at, content_index=0, delta=piece, logprobs=[])
            yield 0, event("response.output_text.done", **at, content_index=0, text=answer.text, logprobs=[])
            yield 0, event("response.content_part.done", **at, content_index=0, part=item["content"][0])
        else:
            tool = index - len(items)  # they stand at the end
            blank = {**item, "arguments": "", "status": "in_progress"}
            yield 0, event("response.output_item.added", output_index=index, item=blank)
            arguments = item["arguments"]
            yield (
                answer.tool_tokens[tool],
                event("response.function_call_arguments.delta", **at, delta=arguments),
            )
            yield 0, event("response.function_call_arguments.done", **at, arguments=arguments, name=item["name"])
        yield 0, event("response.output_item.done", output_index=index, item=item)
    for _ in range(2 if answer.usage == "twice" else 1):
        whole = responses(answer)
        if answer.usage == "never":
            whole["usage"] = None
        yield 0, event("response.completed", response=whole)


def _items(answer: Answer) -> list[Body]:
    items: list[Body] = []
    if answer.pieces or not answer.tools:
        part = {"type": "output_text", "text": answer.text, "annotations": []}
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]})
    for at, (call, name, arguments) in enumerate(answer.tools):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{at}",
                "call_id": call,
                "name": name,
                "arguments": arguments,
                "status": "completed",
            }
        )
    return items


def _usage(answer: Answer) -> Body:
    into, out = answer.asked.input_tokens, answer.output_tokens
    return {
        "input_tokens": into, "output_tokens": out, "total_tokens": into + out,
        "input_tokens_details": {"cached_tokens": answer.cached},
        "output_tokens_details": {"reasoning_tokens": answer.reasoning},
    }  # fmt: skip


# --- embeddings ----------------------------------------------------------------------------------------------------------


def embeddings(answer: Answer, count: int) -> Body:
    tokens = answer.asked.input_tokens
    data = [{"object": "embedding", "index": at, "embedding": [0.5, 0.25]} for at in range(count)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": answer.served, "usage": usage}


def _data(body: Body) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
