"""The server: one thread a connection, and a list of what was asked and billed."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from agentbudget.testing.provider import anthropic, openai
from agentbudget.testing.provider.words import Answer, Asked, Body, Reply, answer_to, asked_of, bill

_LOOKS_SECONDS: Final = 0.01
"""So often a stalled answer looks whether its client has gone."""


@dataclass
class Call:
    """A request that arrived. ``output_tokens`` grow while a stream is sent; ``nano``: what it is billed, in nanocredits.
    ``end``: ``answered``, ``refused``, ``stalled`` (until the client left), ``left`` or ``broken``; empty while it runs."""

    path: str
    body: Body
    asked: Asked
    headers: dict[str, str]
    output_tokens: int = 0
    cached_tokens: int = 0
    end: str = ""
    is_billed: bool = False

    @property
    def nano(self) -> int:
        if not self.is_billed:
            return 0
        return bill(self.asked.model, self.asked.input_tokens, self.output_tokens, self.cached_tokens)


class FakeProvider:
    """See the package. ``url``: Anthropic's root; OpenAI's is ``url + "/v1"``. ``calls``: every request, in order of arrival.
    ``usual``: the reply when none is left of what was ``say``-d, or a function that makes it from a request."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.calls: list[Call] = []
        self.usual: Reply | Callable[[Asked, Body], Reply] = Reply()
        self._next: deque[Reply] = deque()
        self._changed = threading.Condition()
        self._is_over = threading.Event()

    @property
    def openai_url(self) -> str:
        """What an OpenAI client takes as ``base_url``."""
        return f"{self.url}/v1"

    def say(self, *replies: Reply) -> None:
        """Answer the next requests with these, in order."""
        with self._changed:
            self._next.extend(replies)

    @property
    def bodies(self) -> list[Body]:
        return [call.body for call in self.calls]

    @property
    def billed(self) -> int:
        """Nanocredits of everything so far."""
        return sum(call.nano for call in self.calls)

    def wait_for(self, done: Callable[[FakeProvider], bool], seconds: float = 30.0) -> None:
        """Until ``done(self)``, looked at whenever something arrives or ends; raises ``TimeoutError``."""
        with self._changed:
            if not self._changed.wait_for(lambda: done(self), seconds):
                raise TimeoutError(f"after {seconds} s, {[(call.path, call.end) for call in self.calls]}")

    # --- for the server ---------------------------------------------------------------------------------------------------

    def arrived(self, path: str, body: Body, headers: dict[str, str]) -> tuple[Call, Reply, int]:
        asked = asked_of(path, body)
        with self._changed:
            usual = self.usual
            reply = self._next.popleft() if self._next else usual(asked, body) if callable(usual) else usual
            call = Call(path, body, asked, headers)
            self.calls.append(call)
            self._changed.notify_all()
            return call, reply, len(self.calls)

    def ended(self, call: Call, end: str) -> None:
        with self._changed:
            call.end = end
            self._changed.notify_all()

    def came(self, call: Call, tokens: int) -> None:
        with self._changed:
            call.is_billed = True
            call.output_tokens += tokens
            self._changed.notify_all()

    def stall(self, connection: socket.socket) -> None:
        """Until the client has gone, or the fake is over."""
        while not self._is_over.is_set():
            if select.select([connection], [], [], _LOOKS_SECONDS)[0]:
                try:
                    if connection.recv(1, socket.MSG_PEEK) == b"":
                        return
                except OSError:
                    return

    def close(self) -> None:
        self._is_over.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, fake: FakeProvider) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no fault of the server's; what else goes wrong a test sees in its client."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fake = self.server.fake
        self.close_connection = True
        headers = {name.lower(): value for name, value in self.headers.items()}
        call, reply, number = fake.arrived(self.path, body, headers)
        if reply.status != 200:
            wire = anthropic if call.asked.api == "messages" else openai
            fake.ended(call, "refused")
            return self._send(reply.status, wire.error(reply.status))
        answer = answer_to(call.asked, reply, number)
        call.cached_tokens = answer.cached
        if call.asked.is_stream:
            return self._stream(call, reply, answer)
        fake.came(call, answer.output_tokens)
        if reply.stalls:
            fake.stall(self.connection)
            return fake.ended(call, "stalled")
        fake.ended(call, "answered")
        return self._send(200, _whole(answer, body))

    def _send(self, status: int, answer: Body) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("retry-after-ms", "1")  # the SDKs wait half a second otherwise
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, call: Call, reply: Reply, answer: Answer) -> None:
        fake, sent = self.server.fake, 0
        if reply.stalls:
            fake.came(call, 0)
            fake.stall(self.connection)
            return fake.ended(call, "stalled")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        for tokens, data in _EVENTS[call.asked.api](answer):
            if tokens and sent == reply.stalls_after:
                fake.stall(self.connection)
                return fake.ended(call, "stalled")
            if tokens and sent == reply.breaks_after:
                fake.ended(call, "broken")
                self.connection.shutdown(socket.SHUT_RDWR)
                return None
            sent += 1 if tokens else 0
            fake.came(call, tokens)
            if not self._wrote(data):
                return fake.ended(call, "left")
        fake.ended(call, "answered")
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _wrote(self, data: bytes) -> bool:
        """One chunk; False when the client has gone."""
        try:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        except OSError:
            return False
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Silent: a test's output is its verdict."""


_EVENTS: Final[dict[str, Callable[[Answer], Iterator[openai.Event]]]] = {
    "chat": openai.chat_events, "responses": openai.responses_events, "messages": anthropic.message_events,
}  # fmt: skip


def _whole(answer: Answer, body: Body) -> Body:
    match answer.asked.api:
        case "messages":
            return anthropic.message(answer)
        case "responses":
            return openai.responses(answer)
        case "embeddings":
            said = body.get("input")
            return openai.embeddings(answer, len(said) if isinstance(said, list) else 1)
        case _:
            return openai.chat(answer)


@contextmanager
def fake_provider() -> Iterator[FakeProvider]:
    """Serve on a free port of the loopback while the block runs."""
    fake = FakeProvider()
    server = _Server(fake)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-provider", daemon=True
    )
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        fake.close()
        server.shutdown()
        server.server_close()
        thread.join()
