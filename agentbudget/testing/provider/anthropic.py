"""The wire format of Anthropic's messages. Its usage counts cached input apart, and a stream's output is a running total."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from agentbudget.testing.provider.openai import Event
from agentbudget.testing.provider.words import Answer, Body


def error(status: int) -> Body:
    """The body of a refusal."""
    return {"type": "error", "error": {"type": "fake_error", "message": f"the fake answers {status}"}}


def message(answer: Answer) -> Body:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": answer.served, "content": _blocks(answer),
        "stop_reason": _stop(answer), "stop_sequence": None, "usage": _usage(answer, answer.output_tokens),
    }  # fmt: skip


def message_events(answer: Answer) -> Iterator[Event]:
    came = answer.reasoning
    start = {**message(answer), "content": [], "stop_reason": None, "usage": _usage(answer, min(1, came))}
    yield answer.reasoning, _event("message_start", message=start)
    for index, block in enumerate(_blocks(answer)):
        is_text = block["type"] == "text"
        blank = {**block, "text": ""} if is_text else {**block, "input": {}}
        yield 0, _event("content_block_start", index=index, content_block=blank)
        if is_text:
            for piece in answer.pieces:
                came += 1
                yield 1, _event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
                if answer.usage == "running":
                    yield 0, _message_delta(answer, None, came)
        else:
            tokens = answer.tool_tokens[index - _texts(answer)]
            came += tokens
            part = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield tokens, _event("content_block_delta", index=index, delta=part)
        yield 0, _event("content_block_stop", index=index)
    for _ in range(2 if answer.usage == "twice" else 1):
        yield 0, _message_delta(answer, _stop(answer), came)
    yield 0, _event("message_stop")


def _texts(answer: Answer) -> int:
    return 1 if answer.pieces or not answer.tools else 0


def _blocks(answer: Answer) -> list[Body]:
    blocks: list[Body] = [{"type": "text", "text": answer.text, "citations": None}] * _texts(answer)
    for call, name, arguments in answer.tools:
        blocks.append({"type": "tool_use", "id": call, "name": name, "input": json.loads(arguments)})
    return blocks


def _stop(answer: Answer) -> str:
    return "max_tokens" if answer.is_cut else "tool_use" if answer.tools else "end_turn"


def _usage(answer: Answer, output_tokens: int) -> Body:
    return {
        "input_tokens": answer.asked.input_tokens - answer.cached, "cache_read_input_tokens": answer.cached,
        "cache_creation_input_tokens": 0, "output_tokens": output_tokens,
    }  # fmt: skip


def _message_delta(answer: Answer, stop: str | None, came: int) -> bytes:
    delta = {"stop_reason": stop, "stop_sequence": None}
    return _event("message_delta", delta=delta, usage=_usage(answer, came))


def _event(kind: str, **body: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n".encode()
