"""The owner's door: one thread that takes frames of other processes from a Unix socket and has them decided.

A process is never waited for. Its next frame is not read before its last was answered, what it has not read is bounded,
and whoever sends what is no message, or nothing after it connected, is closed. All frames that have come make one batch,
which this thread decides itself while the owner's has nothing to do, else that one does. The answer of a frame is written
by who decided it, right after the commit; only what a full socket did not take is left to this thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer
from agentbudget.errors import AgentBudgetError, InvalidRequest, InvariantBroken
from agentbudget.runtime.host import Beaten
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.answers import to_send
from agentbudget.runtime.machine.descriptors import not_for_children, unforked
from agentbudget.runtime.machine.path import SocketPath
from agentbudget.runtime.owner.local_host import LocalHost
from agentbudget.runtime.owner.mailbox import Letter, Sheet
from agentbudget.runtime.owner.owner import MAX_BATCH, Reply, Request

_log = logging.getLogger("agentbudget")

MAX_CLIENTS: Final = 256
"""Processes served at once: a machine's workers many times over, a quarter of the usual limit of open files."""
GREETING_SECONDS: Final = 5.0
"""How long a connection may say nothing before its place is given to another."""
STALLED_SECONDS: Final = 10.0
"""How long a process may leave an answer unread before it is closed."""
READ: Final = 256 << 10
"""Bytes taken from one process before the others have their turn."""
ROUND_SECONDS: Final = 1.0

_NUDGE: Final = wire.framed(wire.Nudge())
_LEAVING: Final = wire.framed(wire.Leaving())


class _Client:
    """One connection. ``is_busy``: a frame of it is with the owner. ``is_paused``: its socket is not looked at until that is
    answered. ``rest``: what its socket did not take yet; the lock guards it, and every write."""

    __slots__ = (
        "buffer", "is_busy", "is_closed", "is_greeted", "is_nudged", "is_paused", "lock", "rest", "since", "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.lock = sock, threading.Lock()
        self.buffer, self.rest = bytearray(), memoryview(b"")
        self.is_greeted = self.is_busy = self.is_paused = self.is_closed = self.is_nudged = False
        self.since = time.monotonic()


class SocketServer:
    """Serves a ledger that this process owns, from :meth:`start` until :meth:`stop`."""

    def __init__(self, path: SocketPath, host: LocalHost) -> None:
        """Raises ``OSError`` where no socket can be made."""
        self._path, self._mailbox, self._living, self._owner = path, host.mailbox, host.mailbox.living, host.owner
        self._clients: dict[int, _Client] = {}
        self._room = bytearray(READ)  # made once: so much memory is new to the process each time it is asked for
        self._selector = not_for_children(selectors.DefaultSelector)
        self._listening, self._stat = path.listen()
        self._listening.setblocking(False)
        self._bell, self._ear = _pair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._calls: deque[_Client] = deque()
        self._came: deque[Sheet] = deque()
        self._is_stopping, self._is_accepting = False, True
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="agentbudget-door", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and remove the socket; the caller still holds the ledger's lock."""
        self._end(self._path.remove)

    def abandon(self) -> None:
        """Close every connection and leave the socket's file as it is: the lock has gone. Again: nothing."""
        self._end(lambda ours: None)

    def _end(self, remove: Callable[[os.stat_result], None]) -> None:
        self._is_stopping = True
        self._ring()
        if self._thread.is_alive():
            self._thread.join()
        remove(self._stat)  # while it still listens: until then its inode cannot be another's
        self._shut()

    def nudge(self) -> None:
        """Ask every process to beat now. From the owner's thread."""
        for client in list(self._clients.values()):
            with client.lock:
                if not client.is_greeted or client.is_closed:
                    continue
                if client.rest:
                    client.is_nudged = True  # behind what it has not read yet
                else:
                    self._write(client, _NUDGE)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._is_stopping:
            for key, events in self._selector.select(self._patience()):
                if key.fileobj is self._listening:
                    self._accept()
                elif key.fileobj is self._ear:
                    self._called()
                else:
                    self._attend(key.data, events)
            self._have_decided()
            self._look_round()

    def _have_decided(self) -> None:
        """What came in this round, in batches as large as one transaction takes."""
        while self._came:
            batch: list[Letter] = []
            room = MAX_BATCH
            while self._came and (room := room - len(self._came[0].requests)) >= 0:
                batch.append(("", self._came.popleft(), _nobody))
            self._mailbox.decide(batch)

    def _patience(self) -> float | None:
        """How long to wait; for ever while everybody has greeted, reads, and may come."""
        quiet = self._is_accepting and all(c.is_greeted and not c.rest for c in self._clients.values())
        return None if quiet else ROUND_SECONDS

    def _look_round(self) -> None:
        """Close who says nothing, and who does not read."""
        now = time.monotonic()
        for client in list(self._clients.values()):
            patience = STALLED_SECONDS if client.rest else GREETING_SECONDS
            if (client.rest or not client.is_greeted) and now - client.since > patience:
                self._close(client, "it does not read its answers" if client.rest else "it never said who it is")
        if not self._is_accepting:
            self._is_accepting = True
            self._selector.register(self._listening, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            sock = not_for_children(lambda: self._listening.accept()[0])
        except BlockingIOError:
            return
        except OSError:  # no file descriptor left: try again in a while instead of at once and for ever
            self._selector.unregister(self._listening)
            self._is_accepting = False
            return
        sock.setblocking(False)
        client = _Client(sock)
        if len(self._clients) >= MAX_CLIENTS:
            what = f"{MAX_CLIENTS} processes are connected to the ledger, which is the most it serves"
            self._refuse(client, wire.Refusal(what, self._owner, "end some, or share a Runtime between threads"))
            return sock.close()
        self._clients[sock.fileno()] = client
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _attend(self, client: _Client, events: int) -> None:
        """One client's turn; whatever it does to this code harms its own connection only."""
        if client.is_closed:  # in this very round
            return
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(client)
            if events & selectors.EVENT_READ and not client.is_closed:
                self._read(client)
        except wire.Garbage as error:
            self._close(client, f"it sent what is no message ({error})")
        except OSError as error:
            self._close(client, f"its connection broke ({error})")
        except Exception:
            _log.exception("a connection to the ledger's owner met a bug, and was closed")
            self._close(client, "a bug")

    def _read(self, client: _Client) -> None:
        if client.is_busy or client.rest:
            return self._pause(client)
        size = client.sock.recv_into(self._room)
        if not size:
            return self._close(client, "")
        client.buffer += memoryview(self._room)[:size]
        self._take(client)

    def _take(self, client: _Client) -> None:
        """Hand the frame that has come to the owner; one at a time."""
        buffer = client.buffer
        while len(buffer) >= wire.HEADER and not client.is_busy and not client.rest and not client.is_closed:
            size = int.from_bytes(buffer[: wire.HEADER], "big")
            if size > wire.MAX_FRAME:
                raise wire.Garbage(f"a frame of {size} bytes; the most is {wire.MAX_FRAME}")
            end = wire.HEADER + size
            if len(buffer) < end:
                client.is_paused = False
                return
            body = bytes(buffer[wire.HEADER : end])
            if len(buffer) == end:
                buffer.clear()
            else:
                client.is_paused = True  # before the owner can answer: then it calls this thread for the rest
                del buffer[:end]
            self._handle(client, wire.read_of_process(body))
        if client.is_paused:
            self._pause(client)

    def _handle(self, client: _Client, message: wire.FromProcess) -> None:
        if isinstance(message, wire.Hello):
            return self._greet(client, message)
        if not client.is_greeted:
            raise wire.Garbage("a batch before the greeting")
        if message.living or message.gone:
            self._living.change(client, message.living, message.gone)
        found = [(customer, wire.unpacked(data)) for customer, data in message.commands]
        requests: list[Request] = [(name, what) for name, what in found if not isinstance(what, InvalidRequest)]
        client.is_busy = True

        def done(replies: list[Reply] | None, beaten: Beaten | AgentBudgetError | None) -> None:
            self._answer(client, found, replies, beaten)

        self._came.append(Sheet(requests, done, message.beat, message.publish, message.sweep, message.traces))

    def _greet(self, client: _Client, hello: wire.Hello) -> None:
        if hello.version != wire.VERSION:
            what = f"the ledger's owner speaks version {wire.VERSION} of the messages, this process {hello.version}"
            advice = "run the same version of agentbudget in every process of the ledger"
            self._refuse(client, wire.Refusal(what, self._owner, advice))
            return self._close(client, f"it speaks version {hello.version}")
        with client.lock:
            self._write(client, wire.framed(wire.Welcome(wire.VERSION, self._owner)))
            client.is_greeted = True

    def _refuse(self, client: _Client, refusal: wire.Refusal) -> None:
        with contextlib.suppress(OSError):
            client.sock.send(wire.framed(refusal))

    # --- answering ----------------------------------------------------------------------------------------------------

    def _answer(
        self,
        client: _Client,
        found: list[tuple[str, Command | InvalidRequest]],
        replies: list[Reply] | None,
        beaten: Beaten | AgentBudgetError | None,
    ) -> None:
        """Write what became of a frame: on the owner's thread, which must not wait, and not die of it."""
        try:
            data = _LEAVING if replies is None else self._encoded(found, replies, beaten)
        except Exception as error:  # a bug: the process is told, and the owner lives
            _log.exception("an answer could not be written")
            bug = to_send(InvariantBroken("L4", f"an answer could not be written ({type(error).__name__})"))
            data = wire.framed(wire.Answers([bug] * len(found)))
        with client.lock:
            client.is_busy = False
            if not client.is_closed:
                self._write(client, data)
        if client.is_paused:
            self._call(client)

    def _encoded(
        self,
        found: list[tuple[str, Command | InvalidRequest]],
        replies: list[Reply],
        beaten: Beaten | AgentBudgetError | None,
    ) -> bytes:
        answers: list[Answer | AgentBudgetError] = list(replies)
        if len(replies) < len(found):
            came = iter(replies)
            answers = [what if isinstance(what, InvalidRequest) else next(came) for _, what in found]
        unheard = to_send(beaten) if isinstance(beaten, AgentBudgetError) else None
        rest = (None if isinstance(beaten, AgentBudgetError) else beaten, self._mailbox.catalog.ordinal, unheard)
        data = wire.framed(wire.Answers([to_send(answer) for answer in answers], *rest))
        if len(data) > wire.MAX_REPLY:
            data = wire.framed(wire.Answers([to_send(_fitting(answer)) for answer in answers], *rest))
        return data

    def _write(self, client: _Client, data: bytes) -> None:
        """With the client's lock held."""
        try:
            sent = 0 if client.rest else client.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # gone: its end of the connection is read as that by this server's thread
        if sent < len(data):
            client.rest = memoryview(bytes(client.rest) + data[sent:])
            client.since = time.monotonic()
            self._call(client)

    def _flush(self, client: _Client) -> None:
        with client.lock:
            try:
                client.rest = client.rest[client.sock.send(client.rest) :]
            except BlockingIOError:
                return
            client.since = time.monotonic()
            if not client.rest and client.is_nudged:
                client.is_nudged = False
                self._write(client, _NUDGE)
        if not client.rest:
            client.is_paused = False
            self._watch(client)
            self._take(client)

    # --- between the two threads --------------------------------------------------------------------------------------

    def _call(self, client: _Client) -> None:
        self._calls.append(client)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full: it is ringing anyway
            self._bell.send(b"!")

    def _called(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)
        while self._calls:
            client = self._calls.popleft()
            if client.is_closed:
                continue
            if client.rest:
                self._watch(client)
            elif not client.is_busy:
                self._resume(client)

    def _pause(self, client: _Client) -> None:
        """Look away until the owner has answered, or the socket has room; who floods waits for itself."""
        client.is_paused = True
        self._watch(client)
        if not client.is_busy and not client.rest:  # it was answered meanwhile
            self._call(client)

    def _resume(self, client: _Client) -> None:
        client.is_paused = False
        self._watch(client)
        try:
            self._take(client)
        except wire.Garbage as error:
            self._close(client, f"it sent what is no message ({error})")

    def _watch(self, client: _Client) -> None:
        events = (0 if client.is_paused else selectors.EVENT_READ) | (selectors.EVENT_WRITE if client.rest else 0)
        known = self._selector.get_map().get(client.sock)
        if known is not None and not events:
            self._selector.unregister(client.sock)
        elif known is not None and known.events != events:
            self._selector.modify(client.sock, events, client)
        elif known is None and events:
            self._selector.register(client.sock, events, client)

    def _close(self, client: _Client, why: str) -> None:
        if client.is_closed:
            return
        with client.lock:
            client.is_closed = True
            self._clients.pop(client.sock.fileno(), None)
            if client.sock in self._selector.get_map():
                self._selector.unregister(client.sock)
            client.sock.close()
        self._living.leave(client)
        if why:
            _log.warning("a process was disconnected from the ledger's owner: %s", why)

    def _shut(self) -> None:
        for client in list(self._clients.values()):
            client.sock.close()
        self._clients.clear()
        for sock in (self._listening, self._bell, self._ear):
            sock.close()
        self._selector.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    one, other = unforked(socket.socketpair)
    return not_for_children(lambda: one), not_for_children(lambda: other)


def _fitting(answer: Answer | AgentBudgetError) -> Answer | AgentBudgetError:
    """The answer, or why it cannot travel: the share of each in a frame is far above anything but a huge view."""
    if len(wire.framed(wire.Answers([to_send(answer)]))) <= wire.MAX_REPLY // wire.MAX_COMMANDS:
        return answer
    return InvalidRequest("this view is too large for one message; read it with read_only=True", "read")


def _nobody(answer: object) -> None:
    """A sheet is answered through its own ``done``."""
