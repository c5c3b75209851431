"""A process's line to the owner: everything that waits in the process goes into the next frame, one frame at a time.

Whoever has something to say sends the frame when none is under way; the thread that reads answers sends the next one. No
call here waits for a lock, so a finalizer may make it.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import logging
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from agentbudget.account.commands import Command
from agentbudget.account.decision import Done
from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.runtime import wire
from agentbudget.runtime.host import Beat, no_answer_within
from agentbudget.runtime.socket_path import SocketPath
from agentbudget.runtime.wire_answers import received

_log = logging.getLogger("agentbudget")

GREETING_SECONDS: Final = 5.0
"""How long the owner may take to say who it is: it may be busy with a large customer, or be a process that was stopped."""
ROUND_SECONDS: Final = 0.5
"""How often a silent line looks after what has waited too long, and says which steps live: below the least
``hold_ttl_seconds``."""
FULL_FRAME: Final = 96 << 10
"""Bytes of commands after which a frame is sent: it fits into an empty socket whole, so sending it never waits."""
BUFFER: Final = 256 << 10
MAX_LIVING: Final = 1_000
"""Steps that one frame says to live; the next says more."""

Said = Command | Beat | wire.Publish | str


class Call:
    """Something said, until it is answered. ``done`` is called once, whatever happens; a caller who stopped waiting takes it
    away."""

    __slots__ = ("customer", "data", "deadline", "done", "seconds", "what")

    def __init__(self, customer: str, what: Said, done: Callable[[Any], None], seconds: float) -> None:
        """Raises ``InvalidRequest`` for a command that cannot be written."""
        self.customer, self.what, self.seconds = customer, what, seconds
        self.done: Callable[[Any], None] | None = done
        self.deadline = time.monotonic() + seconds
        self.data = (
            what.document if isinstance(what, wire.Publish) else b"" if isinstance(what, _OTHERS) else wire.packed(what)
        )
        if len(self.data) > wire.MAX_COMMAND:
            raise InvalidRequest(f"{len(self.data)} bytes, and a message takes {wire.MAX_COMMAND}", type(what).__name__)

    def end(self, answer: Any) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(answer)


_OTHERS: Final = (Beat, wire.Publish, str)
Outbox = deque[Call]


class Line:
    """One connection, greeted. ``outbox`` belongs to the process and outlives the line; ``live`` are its steps."""

    def __init__(self, sock: socket.socket, owner: str, outbox: Outbox, live: set[str]) -> None:
        self.owner = owner
        self._sock, self._outbox, self._live = sock, outbox, live
        self._turn = threading.Lock()  # held while a frame is made, sent and not answered; never waited for
        self._flying: list[Call] = []
        self._is_sending = self._is_lost = self._is_closing = self._is_stuck = False
        self._living: set[str] = set()
        self._next_living = 0.0
        self._buffer, self._room = bytearray(), bytearray(BUFFER)
        self.on_nudge: Callable[[], None] = _nothing

    # --- any thread ---------------------------------------------------------------------------------------------------

    def kick(self) -> None:
        """Send what waits, unless a frame is under way: then it goes with the next."""
        while (self._outbox or self._is_due()) and not self._is_lost and self._turn.acquire(blocking=False):
            if self._send():
                return
            self._turn.release()

    def finish(self) -> None:
        """End when everything that waits is answered."""
        self._is_closing = True
        self.kick()
        self._end_if_idle()

    def break_off(self) -> None:
        """End now."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # --- sending, by whoever has the turn -----------------------------------------------------------------------------

    def _send(self) -> bool:
        """Make a frame of what waits and send it; whether there was one. An interrupt in here breaks the line, which heals
        everything."""
        self._is_sending = True
        try:
            frame = self._compose()
            if self._is_lost:
                self._take_back()
            elif frame is not None:
                self._put(frame)
                return True
            return False
        except BaseException:
            self.break_off()
            raise
        finally:
            self._is_sending = False

    def _compose(self) -> bytes | None:
        outbox, flying = self._outbox, self._flying
        commands: list[tuple[str, bytes]] = []
        beat: Beat | None = None
        publish: wire.Publish | None = None
        sweep, size = False, 0
        while outbox and len(flying) < wire.MAX_COMMANDS and size < FULL_FRAME:
            call = outbox[0]
            if call.done is not None:
                what = call.what
                if isinstance(what, Beat | wire.Publish) and (beat or publish):
                    break  # a frame has room for one of them, and they are rare
                flying.append(call)
                if isinstance(what, Beat):
                    beat = what
                elif isinstance(what, wire.Publish):
                    publish = what
                elif isinstance(what, str):
                    sweep = True
                else:
                    commands.append((call.customer, call.data))
                size += len(call.data)
            outbox.popleft()
        living, gone = self._changes() if self._is_due() else ([], [])
        if not (flying or living or gone):
            return None
        return wire.framed(wire.Batch(commands, beat, living, gone, publish, sweep))

    def _is_due(self) -> bool:
        return time.monotonic() >= self._next_living

    def _changes(self) -> tuple[list[str], list[str]]:
        """Which steps began and ended since it was last said."""
        live = self._live.copy()
        new, old = live - self._living, self._living - live
        living, gone = list(islice(new, MAX_LIVING)), list(islice(old, MAX_LIVING))
        self._living.update(living)
        self._living.difference_update(gone)
        is_all = len(new) + len(old) == len(living) + len(gone)
        self._next_living = time.monotonic() + (ROUND_SECONDS if is_all else 0.0)
        return living, gone

    def _put(self, frame: bytes) -> None:
        try:
            sent = self._sock.send(frame, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.break_off()  # the reader finds out
        if sent < len(frame):  # one huge command: the rest is waited with on a thread of its own
            _thread.start_new_thread(self._put_rest, (frame[sent:],))

    def _put_rest(self, rest: bytes) -> None:
        try:
            self._sock.sendall(rest)
        except OSError:
            self.break_off()

    def _take_back(self) -> None:
        """The line was lost meanwhile: what was taken waits again."""
        while self._flying:
            self._outbox.appendleft(self._flying.pop())

    # --- the reader ---------------------------------------------------------------------------------------------------

    def serve(self) -> list[Call]:
        """Read answers until the line is lost or finished; the calls that were under way then."""
        self.kick()
        try:
            while self._round():
                pass
        except OSError as error:
            _log.info("the connection to the ledger's owner broke: %s", error)
        except wire.Garbage as error:
            _log.warning("the ledger's owner sent what is no message: %s", error)
        self._is_lost = True
        while self._is_sending:  # it sees that the line is lost, or what it sent is lost
            time.sleep(0.0005)
        self._sock.close()
        lost, self._flying = self._flying, []
        return lost

    def _round(self) -> bool:
        body = self._frame()
        if body is None:
            self._look_round()
            return True
        if not body:
            return False
        match wire.read_of_owner(body):
            case wire.Answers() as answers:
                self._answered(answers)
            case wire.Leaving():
                self._take_back()
                return False
            case wire.Nudge():
                self.on_nudge()
            case wire.Refusal(what, owner, advice):
                _log.warning("the ledger's owner: %s", OwnerUnavailable(what, owner, advice))
                return False
        self._end_if_idle()
        return True

    def _answered(self, message: wire.Answers) -> None:
        if sum(type(call.what) not in _OTHERS for call in self._flying) != len(message.answers):
            raise wire.Garbage(f"{len(message.answers)} answers to another number of commands")
        calls, self._flying = self._flying, []
        answers = iter(message.answers)
        for call in calls:
            if isinstance(call.what, Beat):
                self._end(call, received(message.unheard) if message.unheard is not None else message.beaten)
            elif isinstance(call.what, wire.Publish):
                self._end(call, message.ordinal)
            elif isinstance(call.what, str):
                self._end(call, Done())
            else:
                self._end(call, received(next(answers)))
        self._turn.release()
        self.kick()

    def _end(self, call: Call, answer: Any) -> None:
        try:
            call.end(answer)
        except Exception:  # a caller's bug must not take the answers of the others away
            _log.exception("the callback of an answer raised")

    def _end_if_idle(self) -> None:
        if self._is_closing and not self._outbox and self._turn.acquire(blocking=False):
            self.break_off()

    def _look_round(self) -> None:
        """Twice a second while nothing comes."""
        end_overdue(self._flying, self.owner)
        end_overdue(self._outbox, self.owner)
        is_stuck = self._turn.locked() and not self._flying and not self._is_sending
        if is_stuck and self._is_stuck:
            self.break_off()  # an interrupt took the turn with it: the next line heals that
        self._is_stuck = is_stuck
        self.kick()

    def _frame(self) -> bytes | None:
        """The next frame; None when nothing came for a while, empty at the end of the line."""
        while True:
            buffer = self._buffer
            if len(buffer) >= wire.HEADER:
                size = int.from_bytes(buffer[: wire.HEADER], "big")
                if size > wire.MAX_REPLY:
                    raise wire.Garbage(f"a frame of {size} bytes")
                end = wire.HEADER + size
                if len(buffer) >= end:
                    body = bytes(buffer[wire.HEADER : end])
                    del buffer[:end]
                    return body
            came = _receive(self._sock, self._room)
            if not came:
                return None if came is None else b""
            buffer += memoryview(self._room)[:came]


def connect(path: SocketPath, process: str, outbox: Outbox, live: set[str]) -> Line:
    """A line to the owner behind the socket. Raises ``OwnerUnavailable``: nobody is there, or does not answer, or does not
    serve this process."""
    try:
        sock = path.connect(GREETING_SECONDS)
    except OSError as error:
        raise OwnerUnavailable(
            f"nobody serves the ledger at {path.path} ({error.strerror or error})",
            "",
            "send it again with the same key",
        ) from None
    try:
        return Line(sock, _greeted(sock, process, path), outbox, live)
    except BaseException:
        sock.close()
        raise


def _greeted(sock: socket.socket, process: str, path: SocketPath) -> str:
    """Say who we are; the owner's name."""
    try:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # refused unheard: what it said of that is to be read
            sock.sendall(wire.framed(wire.Hello(wire.VERSION, process)))
        size = int.from_bytes(_exactly(sock, wire.HEADER), "big")
        if size > wire.MAX_FRAME:
            raise wire.Garbage(f"a greeting of {size} bytes")
        greeting = wire.read_of_owner(_exactly(sock, size))
    except (OSError, wire.Garbage) as error:
        what = f"the owner behind {path.path} did not greet ({error})"
        raise OwnerUnavailable(what, "", "see whether its process is stopped; then send it again") from None
    if isinstance(greeting, wire.Refusal):
        raise OwnerUnavailable(greeting.what, greeting.owner, greeting.advice)
    if not isinstance(greeting, wire.Welcome):
        raise OwnerUnavailable(f"what listens at {path.path} is no owner of a ledger", "", "remove the file")
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    # A time-out of the kernel's: one system call for an answer, where Python's own would take two.
    seconds = struct.pack("ll", int(ROUND_SECONDS), round(ROUND_SECONDS % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    return greeting.owner


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError(errno.ECONNRESET, "it closed the connection")
        data += more
    return data


def _receive(sock: socket.socket, room: bytearray) -> int | None:
    """Bytes that came into the room: 0 at the end of the line, None when nothing came for a while."""
    try:
        return sock.recv_into(room)
    except (BlockingIOError, InterruptedError):  # the time-out
        return None


def end_overdue(calls: deque[Call] | list[Call], owner: str) -> None:
    """Answer those that have waited as long as they may. They stay where they are, and are passed over."""
    now = time.monotonic()
    for call in list(calls):
        if call.done is not None and call.deadline <= now:
            late = no_answer_within(call.seconds)
            call.end(OwnerUnavailable(late.what, owner, late.advice))


def _nothing() -> None:
    """Nobody wants to be nudged."""
