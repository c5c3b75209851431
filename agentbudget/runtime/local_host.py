"""The local host: the owner is a thread of this process, and its mailbox a queue.

The thread takes everything that waits (at most ``MAX_BATCH``) into one transaction, so callers share commits. A caller
waits on a lock of its own, which the thread releases: one wake-up each way, nothing polls."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
import weakref
from typing import Final

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer, Done
from agentbudget.clock import Clock
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.store import Store
from agentbudget.runtime.host import OnAnswer, no_answer_within
from agentbudget.runtime.owner import MAX_BATCH, Owner, again

MAX_MAILBOX: Final = 10_000
"""Commands that may wait: at 5,000 a second two seconds of work; beyond that a quick refusal serves callers better."""
TICK_SECONDS: Final = 1.0
"""How often overdue holds and idle customers are looked at while a customer is loaded (DESIGN.md §4: heartbeat)."""

_Letter = tuple[str, Command | None, OnAnswer]
_CLOSE: Final = "close"
_SWEEP: Final = "sweep"
"""Letters without a command are to the thread itself; these stand where the customer would."""


class _Slot:
    """Where one blocked caller finds its answer."""

    __slots__ = ("_lock", "answer")

    def __init__(self) -> None:
        self.answer: Answer | AgentBudgetError | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def put(self, answer: Answer | AgentBudgetError) -> None:
        self.answer = answer
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)


class _Mailbox:
    """What callers and the owner thread share. The thread holds this and never the host, so a forgotten host can be
    closed."""

    __slots__ = ("dead", "letters", "live", "name")

    def __init__(self) -> None:
        self.letters: queue.SimpleQueue[_Letter] = queue.SimpleQueue()  # put() takes no lock: finalizers may call it
        self.live: set[str] = set()
        self.dead: OwnerUnavailable | None = None
        self.name = ""

    def put(self, letter: _Letter) -> None:
        if self.letters.qsize() >= MAX_MAILBOX:
            raise OwnerUnavailable(f"{MAX_MAILBOX} commands are waiting", self.name, "slow down, then send it again")
        self.letters.put(letter)
        if self.dead is not None:  # the thread may have gone between the check of the caller and the put
            self.refuse_all(self.dead)

    def refuse_all(self, why: OwnerUnavailable) -> None:
        """Answer everything that waits; callers and the dying thread may do it at once, each letter is taken once."""
        while True:
            try:
                _, _, done = self.letters.get_nowait()
            except queue.Empty:
                return
            done(again(why))


class LocalHost:
    """The owner of a ledger, on a daemon thread of this process. See :class:`agentbudget.runtime.host.Host`.

    The journal is written by that thread only, and closed by it. Raises what ``journal.claim`` raises.
    """

    def __init__(self, journal: Store, clock: Clock, *, timeout_seconds: float = 30.0) -> None:
        self.timeout_seconds = timeout_seconds
        self._mailbox, self._pid = _Mailbox(), os.getpid()
        self.live = self._mailbox.live
        self._mailbox.name = f"process {self._pid} on {socket.gethostname()}"
        started = _Slot()
        self._thread = threading.Thread(
            target=_serve, args=(self._mailbox, journal, clock, started), name="agentbudget-owner", daemon=True
        )
        self._thread.start()
        started.wait(-1)
        if isinstance(started.answer, AgentBudgetError):
            self._thread.join()
            raise started.answer
        self._finalizer = weakref.finalize(self, _close, self._mailbox, self._thread, self._pid, weakref.ref(self))

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        slot = _Slot()
        self.submit(customer, command, slot.put)
        seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        if not slot.wait(seconds):
            raise no_answer_within(seconds)
        answer = slot.answer
        if isinstance(answer, AgentBudgetError):
            raise answer
        assert answer is not None  # the slot was filled before it was opened
        return answer

    def submit(self, customer: str, command: Command | None, done: OnAnswer) -> None:
        if self._mailbox.dead is not None:
            raise again(self._mailbox.dead)
        if os.getpid() != self._pid:
            raise OwnerUnavailable(
                "this process was forked from the owner's",
                self._mailbox.name,
                "open a Runtime of its own after the fork",
            )
        self._mailbox.put((customer, command, done))

    def sweep(self) -> None:
        slot = _Slot()
        self.submit(_SWEEP, None, slot.put)
        if not slot.wait(self.timeout_seconds):
            raise no_answer_within(self.timeout_seconds)
        if isinstance(slot.answer, AgentBudgetError):
            raise slot.answer

    def close(self) -> None:
        self._finalizer()


def _close(mailbox: _Mailbox, thread: threading.Thread, pid: int, host: weakref.ref[LocalHost]) -> None:
    """Run by ``close()``, at exit, or when the host was forgotten; then it must not wait, since the collector may have
    interrupted a thread that holds what the owner needs."""
    if os.getpid() != pid:  # a forked child has no thread to stop and no ledger to give up
        return
    mailbox.letters.put((_CLOSE, None, _no_answer))
    if host() is not None and thread is not threading.current_thread():
        thread.join()


def _no_answer(answer: Answer | AgentBudgetError) -> None:
    """For the letter that closes: its sender waits for the thread instead."""


def _serve(mailbox: _Mailbox, journal: Store, clock: Clock, started: _Slot) -> None:
    """The owner thread: claim the ledger, serve until closed, and answer every caller whatever happens."""
    try:
        owner = Owner(journal, clock, name=mailbox.name, live=mailbox.live)
    except BaseException as error:
        journal.close()
        what = f"the ledger cannot be claimed ({type(error).__name__}: {error})"
        return started.put(error if isinstance(error, AgentBudgetError) else OwnerUnavailable(what))
    started.put(Done())
    why = OwnerUnavailable("the ledger is closed", mailbox.name, "open the Runtime again")
    try:
        _Desk(mailbox, owner).serve()
        owner.close()
    except BaseException as error:
        why = OwnerUnavailable(
            f"the owner died ({type(error).__name__}: {error})", mailbox.name, "open the Runtime again"
        )
    finally:
        mailbox.dead = why
        mailbox.refuse_all(why)


class _Desk:
    """The owner thread's loop."""

    __slots__ = ("_letters", "_next_tick", "_owner")

    def __init__(self, mailbox: _Mailbox, owner: Owner) -> None:
        self._letters, self._owner = mailbox.letters, owner
        self._next_tick = time.monotonic() + TICK_SECONDS

    def serve(self) -> None:
        """Until the letter that closes has come; everything before it is answered."""
        while True:
            letters = self._gather()
            self._answer([letter for letter in letters if letter[1] is not None])
            for what, command, done in letters:
                if command is None and what == _SWEEP:
                    self._owner.tick()
                    done(Done())
            if any(command is None and what == _CLOSE for what, command, _ in letters):
                return
            if time.monotonic() >= self._next_tick:
                self._owner.tick()
                self._next_tick = time.monotonic() + TICK_SECONDS

    def _gather(self) -> list[_Letter]:
        """Everything that waits, as far as one transaction takes it; blocks for the first letter, or until the next
        tick."""
        patience = max(self._next_tick - time.monotonic(), 0) if self._owner.has_customers else None
        try:
            batch = [self._letters.get(timeout=patience)]
        except queue.Empty:
            return []
        more = min(self._letters.qsize(), MAX_BATCH - 1)
        batch.extend(self._letters.get_nowait() for _ in range(more))
        return batch

    def _answer(self, letters: list[_Letter]) -> None:
        if not letters:
            return
        answers = self._owner.handle([(customer, command) for customer, command, _ in letters if command is not None])
        for (_, _, done), answer in zip(letters, answers, strict=True):
            done(answer)
