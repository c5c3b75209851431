"""A process's line to one owner on Ray: everything that waits in the process goes into the next call, one call at a time.

One thread says and hears; callers only append to a queue and ring, so a finalizer may (Ray's own calls take locks). A call costs
about a millisecond whatever it carries, and the next one carries all that came meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from agentbudget.account.decision import Done
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.shards import shard_of
from agentbudget.runtime.host import Beat
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.answers import received
from agentbudget.runtime.machine.calls import Call, Outbox, end_overdue, traces_of
from agentbudget.runtime.on_ray import wire as ray_wire
from agentbudget.runtime.on_ray.shared import Seat, Shared
from agentbudget.runtime.owner.owner import again

_log = logging.getLogger("agentbudget")

ROUND_SECONDS: Final = 0.25
"""How often a line that waits for an answer looks after callers who have waited long enough."""
PING_SECONDS: Final = 1.5
"""A process that works on steps says something so often: longer than a heartbeat, so that one is enough where there is one."""
LIVING_SECONDS: Final = 0.5
"""How soon the owner hears which steps began and ended: below the least ``hold_ttl_seconds``."""
FULL_MESSAGE: Final = 80 << 10
"""Bytes of commands after which a message is sent: Ray passes up to 100 KiB along with the call, and stores what is more."""
MAX_LIVING: Final = 1_000
FIRST_PAUSE: Final = 0.005
LAST_PAUSE: Final = 0.25
"""Seconds between tries to reach an owner that is not there, growing by half."""
STARTING_SECONDS: Final = 60.0
"""How long opening waits for an owner's actor: a node that is busy starts one in seconds."""
REFUSED_SECONDS: Final = 5.0
"""How long opening waits while another process has the ledger: it may be about to give it up."""
CLOSING_SECONDS: Final = 5.0
"""How long closing waits for answers that are under way."""


class Line:
    """``seat``: the owner's. ``gone``: the error that says that it is not there."""

    def __init__(self, seat: Seat, gone: type[Exception], shared: Shared) -> None:
        self._seat, self._gone, self._shared = seat, gone, shared
        self.outbox: Outbox = deque()
        self.owner = ""
        self.why: AgentBudgetError | None = None
        self._bell: queue.SimpleQueue[object] = queue.SimpleQueue()  # put() takes no lock: finalizers may call it
        self._flying: list[Call] = []
        self._said: tuple[Any, list[str], list[str]] | None = None  # of those that fly, where it was said already
        self._living: set[str] = set()
        self._news, self._said_at = 0, 0.0
        self._is_listening = self._is_deaf = self._is_over = self._is_refused = self._is_lost = False
        self._thread = threading.Thread(target=self._run, name=f"agentbudget-{seat.name}", daemon=True)

    @property
    def name(self) -> str:
        return self._seat.name

    # --- any thread -----------------------------------------------------------------------------------------------------------

    def put(self, call: Call) -> None:
        """Have it said. Takes no lock."""
        self.outbox.append(call)
        self._bell.put(None)
        if self._is_over:  # the thread may have gone between the check of the caller and the append
            self._refuse_all()

    def ring(self) -> None:
        """Look at what has changed."""
        self._bell.put(None)

    def open(self) -> None:
        """Reach the owner, and then begin. Raises why that is not possible: at once, where waiting does not help."""
        began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                self._exchange(began + STARTING_SECONDS)
                return self.begin()
            except AgentBudgetError as error:
                patience = min(self._shared.seconds, REFUSED_SECONDS) if self._is_refused else STARTING_SECONDS
                if not _may_pass(error) or time.monotonic() >= began + patience:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, LAST_PAUSE)

    def begin(self) -> None:
        """Say what waits from now on."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, which :attr:`Shared.is_closed` and a ring bring; not for ever."""
        if self._thread is threading.current_thread() or not self._thread.is_alive():
            return
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            self._shared.is_broken = True
            self._thread.join()

    # --- the thread -----------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not (self._shared.is_closed and not self.outbox and not self._flying) and not self._shared.is_broken:
            if not self._flying:
                self._wait_for_work()
                self._listen()
                self._compose()
            if not self._flying and not self._has_to_speak():
                continue
            try:
                self._exchange(None)
                pause = FIRST_PAUSE
                continue
            except AgentBudgetError as error:
                self._not_served(error)
            except (
                Exception
            ) as error:  # a reply that is none, or a bug: whoever waits must be told, so this thread lives
                _log.exception("the line to the owner %s met a bug; it goes on", self.name)
                self._not_served(OwnerUnavailable(f"{type(error).__name__}: {error}", self.owner, "report this"))
            time.sleep(pause)
            pause = min(pause * 1.5, LAST_PAUSE)
        self._end()

    def _wait_for_work(self) -> None:
        """Until somebody rings, or it is time to say which steps are worked on."""
        if not self.outbox and not self._shared.is_closed:
            self._take(self._bell.get, timeout=LIVING_SECONDS)
        self._hear_bell()

    def _hear_bell(self) -> None:
        while self._take(self._bell.get_nowait):
            continue

    def _take(self, get: Callable[..., object], **how: float) -> bool:
        try:
            rung = get(**how)
        except queue.Empty:
            return False
        if isinstance(rung, _News):
            self._hear_news(rung)
        return True

    def _has_to_speak(self) -> bool:
        live, silent = self._shared.live, time.monotonic() - self._said_at
        return (
            silent >= (PING_SECONDS if live.copy() == self._living else LIVING_SECONDS)
            if live or self._living
            else False
        )

    def _compose(self) -> None:
        """Take what waits, as far as one message carries it."""
        outbox, flying, size, has_other = self.outbox, self._flying, 0, False
        while outbox and len(flying) < wire.MAX_COMMANDS and size < FULL_MESSAGE:
            call = outbox[0]
            if call.done is not None:
                if isinstance(call.what, Beat | wire.Publish):
                    if has_other:
                        break  # a message has room for one of them, and they are rare
                    has_other = True
                flying.append(call)
                size += len(call.data)
            outbox.popleft()

    def _exchange(self, deadline: float | None) -> None:
        """Say what was taken, and end it as it was answered. Raises why it was not, and then it is still taken."""
        said, self._said = self._said, None
        try:
            answer, living, gone = said or self._say()
            reply = self._reply(answer, deadline)
        except self._gone as error:
            self._is_lost = bool(error.for_good)  # type: ignore[attr-defined]
            raise error.why from None  # type: ignore[attr-defined]
        self._is_refused = isinstance(reply, ray_wire.Refused)
        if isinstance(reply, ray_wire.Refused):
            raise ray_wire.why(reply)
        self.why, self._said_at, self._is_deaf = None, time.monotonic(), False
        if reply.owner == self.owner:
            self._living.update(living)
            self._living.difference_update(gone)
        else:  # another incarnation, or the first: it knows of no step of ours but those just said
            self.owner, self._news, self._living = reply.owner, reply.news, set(living) if self.owner == "" else set()
            self._bell.put(None)
        self._answered(reply, goes_on=deadline is None)

    def _say(self) -> tuple[Any, list[str], list[str]]:
        """The answer to come, and which steps were said to have begun and ended. Raises ``Gone``."""
        message, living, gone = self._message(leaving=False)
        return self._seat.send(message), living, gone

    def _say_more(self) -> None:
        """What waits already, before the callers of the last answer are woken: the owner is at it meanwhile."""
        self._hear_bell()
        self._listen()
        self._compose()
        if self._flying:
            with contextlib.suppress(self._gone):  # it is said again, and then seen
                self._said = self._say()

    def _message(self, *, leaving: bool) -> tuple[bytes, list[str], list[str]]:
        batch = _Batched()
        for call in self._flying:
            batch.add(call)
        live = self._shared.live.copy()
        living = [] if leaving else list(islice(live - self._living, MAX_LIVING))
        gone = list(islice(self._living - live, MAX_LIVING))
        said = ray_wire.Said(
            ray_wire.VERSION, self._shared.process, batch.sealed(living, gone, traces_of(self._flying)), leaving
        )
        return ray_wire.encode(said), living, gone

    def _reply(self, answer: Any, deadline: float | None) -> ray_wire.FromOwner:
        while (reply := self._seat.wait(answer, ROUND_SECONDS)) is None:
            self._look_round()
            if self._shared.is_broken or (deadline is not None and time.monotonic() >= deadline):
                raise OwnerUnavailable("the owner does not answer", self.owner or self.name, "look at its node")
        return ray_wire.read_reply(reply)  # type: ignore[no-any-return]

    def _answered(self, reply: ray_wire.Served, *, goes_on: bool) -> None:
        """Every call has its answer; those of a shard that is elsewhere go there."""
        count = sum(not isinstance(call.what, Beat | wire.Publish | str) for call in self._flying)
        if count != len(reply.answers.answers):
            raise OwnerUnavailable(
                f"{len(reply.answers.answers)} answers to {count} commands", self.owner, "report this"
            )
        calls, self._flying = self._flying, []
        moved, told = dict(reply.moved), reply.answers
        for shard, name in moved.items():
            self._shared.moved(shard, name)
        try:
            if goes_on and self.outbox:
                self._say_more()
        finally:
            self._end_all(calls, told, moved)
        if reply.news > self._news:
            self._news = reply.news
            self._shared.nudge()

    def _end_all(self, calls: list[Call], told: wire.Answers, moved: dict[int, str]) -> None:
        answers = iter(told.answers)
        for call in calls:
            if isinstance(call.what, Beat):
                self._beaten(call, told)
            elif isinstance(call.what, wire.Publish):
                _end(call, told.ordinal)
            elif isinstance(call.what, str):
                _end(call, Done())
            else:
                answer = received(next(answers))
                if moved and shard_of(call.customer) in moved:
                    self._shared.resend(call)
                else:
                    _end(call, answer)

    def _beaten(self, call: Call, told: wire.Answers) -> None:
        if told.unheard is not None:
            return _end(call, received(told.unheard))
        if told.beaten is not None:
            self._shared.heard(self, told.beaten)
        _end(call, told.beaten)

    # --- nobody answers -------------------------------------------------------------------------------------------------------

    def _not_served(self, error: AgentBudgetError) -> None:
        """Callers wait for as long as they do, and what was taken is said again; a ledger that is damaged they are told at
        once."""
        self.why = error
        self._look_round()
        self._flying = [call for call in self._flying if call.done is not None]
        if self._is_lost and self._shared.lost(self):
            return self._hand_over(error)
        if not isinstance(error, OwnerUnavailable):
            calls, self._flying = self._flying, []
            for call in calls:
                _end(call, again(error))

    def _hand_over(self, error: AgentBudgetError) -> None:
        """The owner has gone for good: whoever the ledger names now is asked instead."""
        self._is_lost, self.owner, self.why = False, "", None
        self._living = set()
        calls, self._flying = [*self._flying, *self.outbox], []
        self.outbox.clear()
        for call in calls:
            if isinstance(call.what, Beat | wire.Publish | str):
                _end(call, again(error))
            else:
                self._shared.resend(call)

    def _look_round(self) -> None:
        """End what has waited for as long as it may."""
        owner = self.owner or self.name
        end_overdue(self._flying, owner)
        end_overdue(self.outbox, owner)

    def _end(self) -> None:
        """Say that this process works on nothing any more, and answer whoever is left."""
        if not self._shared.is_broken and self.owner:
            try:
                self._seat.leave(self._message(leaving=True)[0])
            except self._gone:
                _log.debug("the owner %s was gone before this process left", self.name)
        self.outbox.extend(self._flying)
        self._is_over = True
        self._refuse_all()

    def _refuse_all(self) -> None:
        while self.outbox:
            with contextlib.suppress(IndexError):  # another thread does the same
                _end(self.outbox.popleft(), self._shared.closed())

    # --- news -----------------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Be told when something is asked back, if anybody here wants to know. An owner that could not be listened to must first
        answer again: one that is gone would be asked thousands of times a second."""
        if not self._shared.nudges or not self.owner or self._shared.is_closed or self._is_listening or self._is_deaf:
            return
        bell = self._bell  # called by a thread of Ray's, which must not wait: it only rings
        self._is_listening = True
        try:
            self._seat.listen(self.owner, self._news, lambda told: bell.put(_News(told)))
        except self._gone:
            self._is_listening, self._is_deaf = False, True

    def _hear_news(self, news: _News) -> None:
        self._is_listening, self._is_deaf = False, news.told is None
        if isinstance(news.told, tuple):
            owner, number = news.told
            if owner == self.owner and number > self._news:
                self._news = number
                self._shared.nudge()
            elif owner != self.owner:  # a new incarnation: whatever it asks back is said at the next beat
                self._shared.nudge()


class _News:
    """What a call that waited for news was answered: (owner, number), or None."""

    __slots__ = ("told",)

    def __init__(self, told: object) -> None:
        self.told = told


class _Batched:
    """What calls say, put together."""

    def __init__(self) -> None:
        self._commands: list[tuple[str, bytes]] = []
        self._beat: Beat | None = None
        self._publish: wire.Publish | None = None
        self._sweep = False

    def add(self, call: Call) -> None:
        what = call.what
        if isinstance(what, Beat):
            self._beat = what
        elif isinstance(what, wire.Publish):
            self._publish = what
        elif isinstance(what, str):
            self._sweep = True
        else:
            self._commands.append((call.customer, call.data))

    def sealed(self, living: list[str], gone: list[str], traces: list[str]) -> wire.Batch:
        return wire.Batch(self._commands, self._beat, living, gone, self._publish, self._sweep, traces)


def _end(call: Call, answer: Any) -> None:
    try:
        call.end(answer)
    except Exception:  # a caller's bug must not take the answers of the others away
        _log.exception("the callback of an answer raised")


def _may_pass(error: AgentBudgetError) -> bool:
    """Whether somebody has the ledger, or the owner is being started, so that waiting a little may help."""
    return isinstance(error, OwnerUnavailable) and bool(error.owner)
