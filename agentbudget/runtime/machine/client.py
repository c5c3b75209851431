"""A process's line to the owner: everything that waits in the process goes into the next frame, one frame at a time.

Whoever has something to say sends the frame when none is under way; the thread that reads answers sends the next one. No
call that says something waits for a lock, so a finalizer may make it.

Who reads: one thread at a time. The line's own does, until it has answered a caller that was alone and waits; then it naps,
and the next one that waits reads its answer itself, which spares a change of threads. A caller that leaves wakes the line's
thread when something is still under way; so does whoever says something and does not wait for it.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from itertools import chain, islice
from typing import Any, Final

from agentbudget.account.decision import Done
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.host import Beat
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.answers import received
from agentbudget.runtime.machine.calls import OTHERS, Call, Outbox, end_overdue, traces_of
from agentbudget.runtime.machine.greeting import BUFFER, GREETING_SECONDS, ROUND_SECONDS, greeted
from agentbudget.runtime.machine.path import SocketPath

_log = logging.getLogger("agentbudget")

NAP_SECONDS: Final = 0.02
"""How long the line's thread leaves reading to callers before it looks whether any still does: so late may a nudge come
that nobody else reads."""
GONE_SECONDS: Final = 4 * ROUND_SECONDS
"""A caller that reads is seen at it once a round; after so long it is not there."""
FULL_FRAME: Final = 96 << 10
"""Bytes of commands after which a frame is sent: it fits into an empty socket whole, so sending it never waits."""
MAX_LIVING: Final = 1_000
"""Steps that one frame says to live; the next says more."""


class Line:
    """One connection, greeted. ``outbox`` belongs to the process and outlives the line; ``live`` are its steps."""

    def __init__(self, sock: socket.socket, owner: str, outbox: Outbox, live: set[str]) -> None:
        self.owner = owner
        self._sock, self._outbox, self._live = sock, outbox, live
        self._turn = threading.Lock()  # held while a frame is made, sent and not answered; never waited for
        self._flying: list[Call] = []
        self._landed: dict[int, list[Call]] = {}  # answered, and not all told yet: of each frame
        self._is_sending = self._is_lost = self._is_closing = self._is_stuck = False
        self._living: set[str] = set()
        self._next_living = 0.0
        self._buffer, self._room = bytearray(), bytearray(BUFFER)
        self._reading = threading.Lock()  # held by the thread that reads; only the line's own waits for it
        self._bell = threading.Lock()  # what that one naps on
        self._bell.acquire()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._is_over = False
        self._is_alone = False  # the last frame had one call, by a caller that waits: the next one may read for itself
        self._led = 0.0  # when a caller that reads was last seen at it
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
        self.wake()

    def wake(self) -> None:
        """Have the line's own thread read, unless somebody does."""
        with contextlib.suppress(RuntimeError):  # it is awake
            self._bell.release()

    def read_for(self, call: Call, seconds: float) -> None:
        """Read until the call is answered, unless another thread reads, or soon will: that one answers it then. At most so
        long."""
        if not self._is_alone or not self._reading.acquire(blocking=False):
            return
        until = time.monotonic() + seconds
        try:
            while not self._is_over and (call.done is not None or self._is_buffered()):
                self._led = time.monotonic()
                left = until - self._led
                if self._is_buffered() or (left > 0 and self._poll.poll(min(left, ROUND_SECONDS) * 1e3)):
                    self._read_here()
                elif left <= 0:
                    return
                else:
                    self._look_round()
        finally:
            self._reading.release()
            if self._flying or self._outbox or self._is_over:  # after the release: see _nap
                self.wake()

    def _read_here(self) -> None:
        """A frame, or a piece of one. An interrupt in here ends the line, whose state nobody knows then: the next one heals
        everything."""
        try:
            self._round()
        except BaseException as error:
            self._is_over = True
            self.break_off()
            if not isinstance(error, OSError | wire.Garbage):
                raise
            _said_why(error)

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
        return wire.framed(wire.Batch(commands, beat, living, gone, publish, sweep, traces_of(flying)))

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
        self._reading.acquire()
        try:
            while not self._is_over:
                self._round()
                if self._is_alone and not self._flying and not self._is_over:
                    self._nap()
        except (OSError, wire.Garbage) as error:
            _said_why(error)
        self._is_over = self._is_lost = True  # and nobody else reads from here on
        while self._is_sending:  # it sees that the line is lost, or what it sent is lost
            time.sleep(0.0005)
        self._sock.close()
        lost, self._flying = [*chain.from_iterable(self._landed.copy().values()), *self._flying], []
        return lost

    def _nap(self) -> None:
        """Leave reading to callers that wait, until none came for a while or one of them calls."""
        self._reading.release()
        look = time.monotonic() + ROUND_SECONDS
        woken = bool(self._flying)  # its caller may have found us reading, in this very moment
        while True:
            woken = self._bell.acquire(timeout=0 if woken else NAP_SECONDS) or woken
            now = time.monotonic()
            is_time = now >= look
            if (woken or is_time or now - self._led >= NAP_SECONDS) and self._reading.acquire(blocking=False):
                self._is_alone = False
                return self._look_round() if is_time else None
            if is_time and now - self._led > GONE_SECONDS:
                self._is_over = True  # an interrupt took the reading with it: the next line heals that
                return self.break_off()
            woken = False

    def _round(self) -> None:
        """Read what has come and act on it; a frame at a time."""
        body = self._frame()
        if body is None:
            return self._look_round()
        self._is_over = not body or not self._understood(wire.read_of_owner(body))
        if not self._is_over:
            self._end_if_idle()

    def _understood(self, message: wire.FromOwner) -> bool:
        """Whether the line goes on after it."""
        match message:
            case wire.Answers():
                self._answered(message)
            case wire.Leaving():
                self._take_back()
                return False
            case wire.Nudge():
                self.on_nudge()
            case wire.Refusal(what, owner, advice):
                _log.warning("the ledger's owner: %s", OwnerUnavailable(what, owner, advice))
                return False
        return True

    def _answered(self, message: wire.Answers) -> None:
        if sum(type(call.what) not in OTHERS for call in self._flying) != len(message.answers):
            raise wire.Garbage(f"{len(message.answers)} answers to another number of commands")
        calls, answers = self._flying, iter(message.answers)
        self._is_alone = len(calls) == 1 and calls[0].waits
        self._landed[id(calls)], self._flying = calls, []
        self._turn.release()
        self.kick()  # first: the owner is at the next frame while the callers of this one are woken
        for call in calls:
            if isinstance(call.what, Beat):
                self._end(call, received(message.unheard) if message.unheard is not None else message.beaten)
            elif isinstance(call.what, wire.Publish):
                self._end(call, message.ordinal)
            elif isinstance(call.what, str):
                self._end(call, Done())
            else:
                self._end(call, received(next(answers)))
        del self._landed[id(calls)]  # an interrupt before leaves them to the next line, which passes over the ended

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

    def _is_buffered(self) -> bool:
        """Whether a whole frame is here already."""
        size = len(self._buffer) - wire.HEADER
        return size >= 0 and size >= int.from_bytes(self._buffer[: wire.HEADER], "big")

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


def _said_why(error: Exception) -> None:
    if isinstance(error, OSError):
        _log.info("the connection to the ledger's owner broke: %s", error)
    else:
        _log.warning("the ledger's owner sent what is no message: %s", error)


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
        return Line(sock, greeted(sock, process, path), outbox, live)
    except BaseException:
        sock.close()
        raise


def _receive(sock: socket.socket, room: bytearray) -> int | None:
    """Bytes that came into the room: 0 at the end of the line, None when nothing came for a while."""
    try:
        return sock.recv_into(room)
    except (BlockingIOError, InterruptedError):  # the time-out
        return None


def _nothing() -> None:
    """Nobody wants to be nudged."""
