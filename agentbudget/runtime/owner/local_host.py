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
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer, Done
from agentbudget.clock import Clock
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.store import Store
from agentbudget.runtime.host import Beat, Beaten, OnAnswer, Slot, no_answer_within
from agentbudget.runtime.machine.wire import Publish
from agentbudget.runtime.owner.desk import Desk, Fenced, no_answer
from agentbudget.runtime.owner.living import Living
from agentbudget.runtime.owner.mailbox import (
    CLOSE,
    NO_CATALOG,
    SWEEP,
    Letter,
    Mailbox,
    weakly,
)
from agentbudget.runtime.owner.owner import Owner
from agentbudget.runtime.watching import traced

_log = logging.getLogger("agentbudget")

BEAT_SECONDS: Final = 2.0
"""How long a heartbeat waits for its answer: the next is due after a second, and other things wait behind it."""


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

    @property
    def depth(self) -> int:
        """Commands that wait in its mailbox."""
        return self.mailbox.letters.qsize()

    def late(self, seconds: float) -> OwnerUnavailable:
        return no_answer_within(seconds, self.owner)

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        slot = Slot()
        self.submit(customer, command, slot.put)
        answer: Answer = self._waited(slot, self.timeout_seconds if timeout_seconds is None else timeout_seconds)
        return answer

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        self._post((customer, command, traced(done)))

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
        self.mailbox.letters.put(("", CLOSE, no_answer))

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
    mailbox.letters.put(("", CLOSE, no_answer))
    if host() is not None and thread is not threading.current_thread():
        thread.join()


def _serve(mailbox: Mailbox, journal: Store, clock: Clock, new_owner: Callable[..., Owner], started: Slot) -> None:
    """The owner thread: claim the ledger, serve until closed, and answer every caller whatever happens."""
    try:
        owner = new_owner(journal, clock, name=mailbox.name, live=mailbox.living)
    except BaseException as error:
        journal.close()
        what = f"the ledger cannot be claimed ({type(error).__name__}: {error})"
        return started.put(error if isinstance(error, AgentBudgetError) else OwnerUnavailable(what))
    desk = Desk(mailbox, owner)
    mailbox.desk = desk.attempt
    started.put(Done())
    why = OwnerUnavailable("the ledger is closed", mailbox.name, "open the Runtime again")
    try:
        desk.serve()
    except Fenced as error:
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
