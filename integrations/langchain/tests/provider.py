"""A provider on the loopback: answers as OpenAI's chat completions and Responses and as Anthropic's messages do, and
keeps every request body, so that a test can see which output cap was really sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]

OPENAI_USAGE = {
    "prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 600, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 150, "audio_tokens": 0},
}  # fmt: skip
ANTHROPIC_USAGE = {
    "input_tokens": 100,
    "cache_read_input_tokens": 700,
    "cache_creation_input_tokens": 200,
    "output_tokens": 50,
}


class Provider:
    """``requests``: (path, body) of every request, in order. ``status``: what to answer, by a function of the
    request's number."""

    def __init__(self, status: Callable[[int], int] = lambda number: 200) -> None:
        self.requests: list[tuple[str, Body]] = []
        self.status = status
        self.text = "a short answer"
        self.url = ""

    @property
    def bodies(self) -> list[Body]:
        return [body for _, body in self.requests]

    def answer(self, path: str, body: Body) -> tuple[int, Any]:
        self.requests.append((path, body))
        status = self.status(len(self.requests))
        if status != 200:
            return status, {"error": {"message": "no", "type": "invalid_request_error", "code": "no"}}
        model = f"{body['model']}-2025-08-07"
        if path.endswith("/messages"):
            return 200, _anthropic_events(model, self.text) if body.get("stream") else _anthropic(model, self.text)
        if path.endswith("/responses"):
            return 200, _responses(model, self.text)
        return 200, _openai_events(model, self.text, body) if body.get("stream") else _openai(model, self.text)


@contextmanager
def provider(status: Callable[[int], int] = lambda number: 200) -> Iterator[Provider]:
    """Serve on a free loopback port while the block runs."""
    served = Provider(status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = served.answer(self.path, body)
            is_stream = isinstance(answer, list)
            data = b"".join(answer) if is_stream else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Silent: a test's output is its verdict."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _openai(model: str, text: str) -> Body:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": OPENAI_USAGE,
    }


def _openai_events(model: str, text: str, body: Body) -> list[bytes]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
    chunks: list[Body] = [
        {
            **head,
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": f"{word} "}, "finish_reason": None}],
        }
        for word in text.split()
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": OPENAI_USAGE})
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def _responses(model: str, text: str) -> Body:
    message = {
        "type": "message", "id": "m1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }  # fmt: skip
    usage = {
        "input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200,
        "input_tokens_details": {"cached_tokens": 600}, "output_tokens_details": {"reasoning_tokens": 150},
    }  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": model, "status": "completed",
        "output": [message], "usage": usage,
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
    }  # fmt: skip


def _anthropic(model: str, text: str) -> Body:
    return {
        "id": "m1", "type": "message", "role": "assistant", "model": model, "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": ANTHROPIC_USAGE,
    }  # fmt: skip


def _anthropic_events(model: str, text: str) -> list[bytes]:
    start = {
        **_anthropic(model, ""),
        "content": [],
        "stop_reason": None,
        "usage": {**ANTHROPIC_USAGE, "output_tokens": 1},
    }
    events: list[tuple[str, Body]] = [
        ("message_start", {"message": start}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": f"{word} "}})
            for word in text.split()
        ),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": ANTHROPIC_USAGE}),
        ("message_stop", {}),
    ]
    return [f"event: {name}\ndata: {json.dumps({'type': name, **body})}\n\n".encode() for name, body in events]
