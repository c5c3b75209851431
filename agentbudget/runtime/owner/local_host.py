"""The local host: the owner is a thread of this process, and its mailbox a queue.

The thread takes everything that waits (at most ``MAX_BATCH`` commands) into one transaction, so callers share commits. A
caller waits on a lock of its own, which the thread releases: one wake-up each way, nothing polls. What other processes of
the machine send comes as a sheet for each of their frames (``machine/server.py``), into the same mailbox while the owner is
busy; else the thread that read them decides them itself. One of the two at a time."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer, Done
from agentbudget.clock import Clock
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.loading import fenced
from agentbudget.ledger.store import Store
from agentbudget.runtime.host import Beat, Beaten, OnAnswer, Slot, no_answer_within
from agentbudget.runtime.machine.wire import Publish, may_be_sent_again, may_have_been_carried_out
from agentbudget.runtime.owner.living import Living
from agentbudget.runtime.owner.mailbox import CLOSE, NO_CATALOG, OTHERS, SWEEP, Letter, Mailbox, Sheet, weakly
from agentbudget.runtime.owner.owner import MAX_BATCH, Owner, Reply, Request, again
from agentbudget.runtime.owner.recalls import Recalls

_log = logging.getLogger("agentbudget")

BEAT_SECONDS: Final = 2.0
"""How long a heartbeat waits for its answer: the next is due after a second, and other things wait behind it."""
TICK_SECONDS: Final = 1.0
"""How often overdue holds and idle customers are looked at while a customer is loaded (DESIGN.md §4: heartbeat)."""
_FENCED: Final = fenced(1, "").what


class _Fenced(Exception):
    """Another owner has taken the ledger over; this one's last transaction was refused whole."""

    def __init__(self, refusal: OwnerUnavailable) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class LocalHost:
    """The owner of a ledger, on a daemon thread of this process. See :class:`agentbudget.runtime.host.Host`.

    The journal is written by that thread only, and closed by it. ``living``: which steps are worked on, here and in
    other processes; ``catalog``: the newest that was published; ``new_owner`` makes the owner (``partial(Owner, on_lapse=...)``);
    ``at_exit``: close when the interpreter ends. Raises what ``journal.claim`` raises.
    """

    is_owner = True  # its thread is of this process

    def __init__(
        self,
        journal: Store,
        clock: Clock,
        *,
        timeout_seconds: float = 30.0,
        living: Living | None = None,
        catalog: Publish = NO_CATALOG,
        new_owner: Callable[..., Owner] = Owner,
        at_exit: bool = True,
    ) -> None:
        self.timeout_seconds, self._pid = timeout_seconds, os.getpid()
        self.mailbox = Mailbox(living if living is not None else Living(), catalog)
        self.live = self.mailbox.living.own
        self.mailbox.name = process_name()
        started = Slot()
        self._thread = threading.Thread(
            target=_serve,
            args=(self.mailbox, journal, clock, new_owner, started),
            name="agentbudget-owner",
            daemon=True,
        )
        self._thread.start()
        started.wait(-1)
        if isinstance(started.answer, AgentBudgetError):
            self._thread.join()
            raise started.answer
        self._finalizer = weakref.finalize(self, _close, self.mailbox, self._thread, self._pid, weakref.ref(self))
        self._finalizer.atexit = at_exit

    @property
    def owner(self) -> str:
        """This process as others are told of it."""
        return self.mailbox.name

    def late(self, seconds: float) -> OwnerUnavailable:
        return no_answer_within(seconds, self.owner)

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        slot = Slot()
        self.submit(customer, command, slot.put)
        answer: Answer = self._waited(slot, self.timeout_seconds if timeout_seconds is None else timeout_seconds)
        return answer

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        self._post((customer, command, done))

    def beat(self, beat: Beat) -> Beaten:
        beaten: Beaten = self._asked(beat, BEAT_SECONDS)
        return beaten

    def publish_catalog(self, document: bytes) -> int:
        """Tell every process of the ledger of a new catalog; its ordinal. They hear it at their next beat."""
        ordinal: int = self._asked(Publish(document))
        return ordinal

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Call this, from any thread, when the owner has something to ask back, so that a beat is due at once. It must
        not block, and a method does not keep its object alive."""
        self.mailbox.on_nudge.append(weakly(callback))

    def sweep(self) -> None:
        self._asked(SWEEP)

    def close(self) -> None:
        self._finalizer()

    def close_soon(self) -> None:
        """Begin to close, and do not wait for it."""
        self.mailbox.letters.put(("", CLOSE, _no_answer))

    def _asked(self, what: Beat | Publish | str, most_seconds: float = math.inf) -> Any:
        slot = Slot()
        self._post(("", what, slot.put))
        return self._waited(slot, min(self.timeout_seconds, most_seconds))

    def _waited(self, slot: Slot, seconds: float) -> Any:
        if not slot.wait(seconds):
            raise self.late(seconds)
        if isinstance(slot.answer, AgentBudgetError):
            raise slot.answer
        return slot.answer

    def _post(self, letter: Letter) -> None:
        if os.getpid() != self._pid:
            raise OwnerUnavailable(
                "this process was forked from the owner's", self.owner, "open a Runtime of its own after the fork"
            )
        self.mailbox.put(letter)


def process_name() -> str:
    """This process, for people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _close(mailbox: Mailbox, thread: threading.Thread, pid: int, host: weakref.ref[LocalHost]) -> None:
    """Run by ``close()``, at exit, or when the host was forgotten; then it must not wait, since the collector may have
    interrupted a thread that holds what the owner needs."""
    if os.getpid() != pid:  # a forked child has no thread to stop and no ledger to give up
        return
    mailbox.letters.put(("", CLOSE, _no_answer))
    if host() is not None and thread is not threading.current_thread():
        thread.join()


def _no_answer(answer: object) -> None:
    """For the letter that closes: its sender waits for the thread instead."""


def _serve(mailbox: Mailbox, journal: Store, clock: Clock, new_owner: Callable[..., Owner], started: Slot) -> None:
    """The owner thread: claim the ledger, serve until closed, and answer every caller whatever happens."""
    try:
        owner = new_owner(journal, clock, name=mailbox.name, live=mailbox.living)
    except BaseException as error:
        journal.close()
        what = f"the ledger cannot be claimed ({type(error).__name__}: {error})"
        return started.put(error if isinstance(error, AgentBudgetError) else OwnerUnavailable(what))
    desk = _Desk(mailbox, owner)
    mailbox.desk = desk.attempt
    started.put(Done())
    why = OwnerUnavailable("the ledger is closed", mailbox.name, "open the Runtime again")
    try:
        desk.serve()
    except _Fenced as error:
        why = error.refusal
    except BaseException as error:
        _log.exception("the ledger's owner met a bug and gave the ledger up; the next one reads it from the journal")
        what = f"the owner died ({type(error).__name__}: {error})"
        why = OwnerUnavailable(what, mailbox.name, "send it again with the same key, or open the Runtime again")
    finally:
        mailbox.dead = why
        _leave(mailbox, owner, why)


def _leave(mailbox: Mailbox, owner: Owner, why: OwnerUnavailable) -> None:
    """Answer what waits, let the other processes go, and only then give the ledger up: the next owner is one of them."""
    try:
        mailbox.refuse_all(why)
        if mailbox.before_closing is not None:
            mailbox.before_closing()
        with contextlib.suppress(Exception):  # snapshots only save reading, and the lock is given up all the same
            owner.close()
    finally:
        mailbox.refuse_all(why)
        mailbox.gone.set()


def _is_no_sheet(letter: Letter) -> bool:
    return type(letter[1]) is not Sheet


class _Desk:
    """Where letters are decided: by the owner's thread in a loop, by another that has some when it finds nobody here.
    ``_turn`` is held by who decides; the owner's thread waits for it, nobody else does."""

    __slots__ = (
        "_error", "_is_closing", "_is_wanted", "_letters", "_mailbox", "_next_tick", "_open", "_over", "_owner",
        "_recalls", "_turn",
    )  # fmt: skip

    def __init__(self, mailbox: Mailbox, owner: Owner) -> None:
        self._mailbox, self._letters, self._owner = mailbox, mailbox.letters, owner
        self._next_tick = time.monotonic() + TICK_SECONDS
        self._is_closing, self._recalls = False, Recalls()
        self._over: Letter | None = None
        self._open: list[Letter] = []
        self._turn, self._is_wanted = threading.Lock(), False
        self._error: BaseException | None = None

    def serve(self) -> None:
        """Until the letter that closes has come; everything before it is answered. Raises the refusal when another
        owner has taken the ledger over, and whatever else ended the owner."""
        while not self._round():
            pass

    def attempt(self, letters: list[Letter]) -> bool:
        """Decide these letters now, on this thread; False, and nothing is done, while another thread decides or others
        waited before. Never raises: what ends the owner ends its own thread."""
        if self._is_wanted or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._is_closing or self._error is not None or not self._letters.empty():
                return False
            had_customers = self._owner.has_customers
            self._settle(letters)
            if not had_customers:
                self._letters.put(("", SWEEP, _no_answer))  # the owner's thread sleeps without a tick
        except BaseException:
            self._letters.put(("", SWEEP, _no_answer))  # it finds the error
        finally:
            self._turn.release()
        return True

    def _round(self) -> bool:
        """One transaction and what else has come; whether it is time to close."""
        letters = self._gather()
        self._is_wanted = True
        with self._turn:
            self._is_wanted = False
            if self._error is not None:
                self._put_back(letters)
                raise self._error
            self._settle(letters)
            if time.monotonic() >= self._next_tick:
                self._tick()
            return self._is_closing and self._over is None

    def _settle(self, letters: list[Letter]) -> None:
        """Decide and answer, with the turn. What this raises has ended the owner."""
        letters.sort(key=_is_no_sheet)  # what is in one batch is concurrent, and commands of sheets need no checking
        self._open = letters[::-1]  # popped from its end, one by one, as they are answered
        try:
            self._answer(letters)
        except BaseException as error:
            self._error = error
            self._give_up(error)
            raise

    def _tick(self) -> None:
        self._next_tick = time.monotonic() + TICK_SECONDS
        try:
            self._owner.tick()
        except BaseException as error:
            self._error = error  # before anybody else has the turn
            raise

    def _put_back(self, letters: list[Letter]) -> None:
        """Nobody has begun with these; who gives the ledger up answers them."""
        for letter in (*letters, *([] if self._over is None else [self._over])):
            self._letters.put(letter)

    def _gather(self) -> list[Letter]:
        """Everything that waits, as far as one transaction takes it; blocks for the first letter, or until the next
        tick."""
        patience = max(self._next_tick - time.monotonic(), 0) if self._owner.has_customers else None
        letter, self._over = self._over, None
        batch: list[Letter] = []
        room = MAX_BATCH
        try:
            letter = letter if letter is not None else self._letters.get(timeout=patience)
            while True:
                what = letter[1]
                room -= len(what.requests) if type(what) is Sheet else 1
                if room < 0 and batch:
                    self._over = letter
                    return batch
                batch.append(letter)
                letter = self._letters.get_nowait()
        except queue.Empty:
            return batch

    def _answer(self, letters: list[Letter]) -> None:
        replies = iter(self._decide(letters))
        for _, what, done in letters:
            if type(what) is Sheet:
                answers = [next(replies) for _ in what.requests]
                beaten = self._other(what)
                self._open.pop()
                what.done(answers, beaten)
            else:
                answer = self._said(what) if type(what) in OTHERS else next(replies)
                self._open.pop()
                done(answer)

    def _decide(self, letters: list[Letter]) -> list[Reply]:
        requests: list[Request] = []
        checked = 0
        for customer, what, _ in letters:
            if type(what) is Sheet:
                requests += what.requests
                checked = len(requests)
            elif type(what) not in OTHERS:
                requests.append((customer, what))  # type: ignore[arg-type]
        if not requests:
            return []
        replies = self._owner.handle(requests, checked=range(checked))
        first = replies[0]
        if isinstance(first, OwnerUnavailable) and first.what == _FENCED:
            raise _Fenced(first)
        if self._recalls.are_in(requests, replies):
            self._tell()
        return replies

    def _said(self, what: Any) -> Any:
        """The answer to what is no command."""
        match what:
            case Beat():
                return self._beaten(what)
            case Publish():
                ordinal = self._mailbox.publish(what)
                self._tell()
                return ordinal
            case "sweep":
                self._owner.tick()
            case "close":
                self._is_closing = True
        return Done()

    def _other(self, sheet: Sheet) -> Beaten | AgentBudgetError | None:
        """What a frame says beside its commands."""
        if sheet.publish is not None:
            self._said(sheet.publish)
        if sheet.sweep:
            self._owner.tick()
        return self._beaten(sheet.beat) if sheet.beat is not None else None

    def _beaten(self, beat: Beat) -> Beaten | AgentBudgetError:
        """The owner's word, and the newest catalog for a process that has an older one."""
        try:
            beaten = self._owner.beat(beat)
        except OwnerUnavailable as error:
            return again(error)
        newest = self._mailbox.catalog
        document = newest.document if newest.ordinal > beat.catalog else b""
        return replace(beaten, catalog=newest.ordinal, document=document)

    def _tell(self) -> None:
        for callback in self._mailbox.on_nudge:
            callback()

    def _give_up(self, error: BaseException) -> None:
        """What was taken and not answered. A refused transaction did nothing; else nobody knows what was done: what may be
        said twice goes to the next owner, and another process learns by the end of its connection."""
        what = f"the owner died ({type(error).__name__}: {error})"
        why = OwnerUnavailable(what, self._mailbox.name, "send it again with the same key")
        for letter in reversed(self._open):
            if isinstance(error, _Fenced):
                self._mailbox.refuse(letter, error.refusal)
            elif isinstance(letter[1], Sheet):
                continue
            elif may_be_sent_again(letter[1]):
                self._mailbox.refuse(letter, why)
            else:
                letter[2](may_have_been_carried_out(self._mailbox.name))
