"""The part of a machine's host that its thread shares: owner or client, whichever is possible, until it is closed."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from agentbudget.account.commands import ReleaseHold, SettleHold
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.store import Store
from agentbudget.runtime.host import Beaten, Slot, ignore, no_answer_within
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.calls import Call, Outbox, Said, end_overdue
from agentbudget.runtime.machine.client import Line, connect
from agentbudget.runtime.machine.descriptors import unforked
from agentbudget.runtime.machine.path import SocketPath
from agentbudget.runtime.machine.server import SocketServer
from agentbudget.runtime.owner import mailbox
from agentbudget.runtime.owner.living import Living
from agentbudget.runtime.owner.local_host import LocalHost, process_name
from agentbudget.runtime.owner.mailbox import Letter, Sheet
from agentbudget.runtime.owner.owner import again
from agentbudget.runtime.watching import traced

_log = logging.getLogger("agentbudget")

OPENING_SECONDS: Final = 5.0
"""How long opening waits for a process that has the lock and is not reached yet: it may be bringing the schema up to
date."""
FIRST_PAUSE: Final = 0.002
LAST_PAUSE: Final = 0.1
"""Seconds between tries to own or reach the ledger, growing by half: a takeover takes one or two, and a machine full of
waiting processes stays quiet."""
CLOSING_SECONDS: Final = 5.0
"""How long closing waits for answers that are under way."""


class Machine:
    """What the host and its thread share; the thread never holds the host, so that a forgotten one can be closed."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        path: SocketPath,
        new_local: Callable[[Store, Living, wire.Publish], LocalHost],
        timeout_seconds: float,
    ) -> None:
        self._open_store, self._path, self._new_local, self._seconds = open_store, path, new_local, timeout_seconds
        self.living, self.catalog = Living(), mailbox.NO_CATALOG
        self.nudges: list[Callable[[], None]] = []
        self._inherited: frozenset[str] = frozenset()
        self._is_closed, self._has_been_client = False, False
        self._born()
        if hasattr(os, "register_at_fork"):
            method = weakref.WeakMethod(self._forked)
            os.register_at_fork(after_in_child=lambda: _called(method))

    def _born(self) -> None:
        """As this process begins; again in a forked child."""
        self.outbox: Outbox = deque()
        self.local: LocalHost | None = None
        self._line: Line | None = None
        self._keeper: threading.Thread | None = None
        self._why: OwnerUnavailable | None = None
        self._waking, self._bell = threading.Lock(), threading.Event()

    def _forked(self) -> None:
        """In a forked child: everything is the parent's (``descriptors.py`` has closed our copies), also the steps."""
        self._inherited = frozenset(self.living.own) | self._inherited
        self.living.forked()
        self._born()

    # --- what the host asks -------------------------------------------------------------------------------------------

    @property
    def owner(self) -> str:
        local, line = self.local, self._line
        return local.owner if local is not None else line.owner if line is not None else ""

    def say(
        self, customer: str, what: Said, done: Callable[[Any], None], seconds: float, *, waits: bool = False
    ) -> Call | None:
        """Hand something to the owner, or keep it for the next one. Takes no lock, so a finalizer may call it. ``waits``: the
        caller goes on with :meth:`read_for` and the call."""
        if self._inherited and done is ignore and self._is_inherited(what):
            return None
        local = self.local
        if local is not None:
            try:
                local.mailbox.put((customer, what, traced(done)))
            except OwnerUnavailable:
                if local.mailbox.dead is None or self._is_closed:
                    raise  # full, or closed for good; else the next owner takes it
            else:
                return None
        if self._is_closed:
            raise self._closed()
        if len(self.outbox) >= mailbox.MAX_MAILBOX:
            raise OwnerUnavailable(
                f"{len(self.outbox)} commands are waiting", self.owner, "slow down, then send it again"
            )
        call = Call(customer, what, done, seconds)
        call.waits = waits
        self.outbox.append(call)
        self._move_on(waits=waits)
        return call

    def read_for(self, call: Call, seconds: float) -> None:
        """Read the answer of a call here, where that is possible now; for at most so long."""
        line = self._line
        if line is not None:
            line.read_for(call, seconds)

    def _is_inherited(self, what: Said) -> bool:
        """Whether it ends, without waiting, a step that was forgotten in a forked child: the parent still works on it."""
        return isinstance(what, SettleHold | ReleaseHold) and what.step in self._inherited

    def _move_on(self, *, waits: bool) -> None:
        """See that what waits is on its way, whatever this process is just now."""
        line, local = self._line, self.local
        if local is not None:
            self._deliver(local)
        elif line is not None:
            line.kick()
            if not waits:
                line.wake()
        elif self._is_closed:
            self._refuse_all(self._closed())
        elif self._keeper is None and self._waking.acquire(blocking=False):
            _thread.start_new_thread(self._wake, ())  # a forked child's first use; this thread may be a finalizer's

    def late(self, seconds: float) -> OwnerUnavailable:
        """Why no answer came: who owns the ledger, or why nobody does."""
        late, why = no_answer_within(seconds), self._why
        if self.owner or why is None:
            return OwnerUnavailable(late.what, self.owner, late.advice)
        return OwnerUnavailable(f"{late.what}: {why.what}", why.owner, why.advice or late.advice)

    def heard(self, beaten: Beaten) -> None:
        """Keep the newest catalog, and tell an owner that has an older one: it took over from one that had ours."""
        mine = self.catalog
        if beaten.catalog > mine.ordinal and beaten.document:
            self.catalog = wire.Publish(beaten.document, beaten.catalog)
        elif beaten.catalog < mine.ordinal:
            with contextlib.suppress(OwnerUnavailable):  # the next beat tries again
                self.say("", mine, _ignored, self._seconds)

    def close(self, *, waits: bool) -> None:
        """Answer what waits, as far as answers come, and give the ledger up."""
        self._is_closed = True
        self._bell.set()
        local, line, keeper = self.local, self._line, self._keeper
        if line is not None:
            line.finish()
        if local is not None:
            local.close() if waits else local.close_soon()
        if waits and keeper is not None and keeper is not threading.current_thread():
            keeper.join(CLOSING_SECONDS)
            if keeper.is_alive() and line is not None:
                line.break_off()
                keeper.join()
        if keeper is None:
            self._refuse_all(self._closed())

    def _closed(self) -> OwnerUnavailable:
        return OwnerUnavailable("the ledger is closed", "", "open the Runtime again")

    def _refuse_all(self, why: AgentBudgetError) -> None:
        while self.outbox:
            with contextlib.suppress(IndexError):
                self.outbox.popleft().end(again(why))

    # --- the thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin as owner or client; raises why neither is possible."""
        opened = Slot()
        self._waking.acquire()
        self._wake(opened)
        opened.wait(-1)
        if isinstance(opened.answer, BaseException):
            raise opened.answer

    def _wake(self, opened: Slot | None = None) -> None:
        self._keeper = threading.Thread(target=self._keep, args=(opened,), name="agentbudget-ledger", daemon=True)
        self._keeper.start()

    def _keep(self, opened: Slot | None) -> None:
        """Be owner or client until closed, and see to it that one of them is taken up again."""
        pause, deadline = FIRST_PAUSE, time.monotonic() + min(self._seconds, OPENING_SECONDS)
        while not self._is_closed:
            try:
                role = self._take_up()
            except AgentBudgetError as error:
                if opened is not None and (not _may_pass(error) or time.monotonic() >= deadline):
                    self._is_closed = True
                    return opened.put(error)
                self._no_role(error)
                self._bell.wait(pause)
                pause = min(pause * 1.5, LAST_PAUSE)
                continue
            if opened is not None:
                opened.put(None)
                opened = None
            began = time.monotonic()
            role()
            pause = FIRST_PAUSE if time.monotonic() - began > 1 else min(pause * 1.5, LAST_PAUSE)
        self._refuse_all(self._closed())
        if opened is not None:
            opened.put(self._closed())

    def _no_role(self, error: AgentBudgetError) -> None:
        """Nobody answers for now: callers wait for as long as they do; a ledger that is damaged they are told at once."""
        if isinstance(error, OwnerUnavailable):
            self._why = error
            end_overdue(self.outbox, error.owner)
        else:
            self._refuse_all(error)

    def _take_up(self) -> Callable[[], None]:
        """Own the ledger or reach its owner: what to do then, until that ends."""
        try:
            store = unforked(self._open_store)
        except OwnerUnavailable as taken:
            try:
                line = connect(self._path, process_name(), self.outbox, self.living.own)
            except OwnerUnavailable as unreached:
                if taken.owner:  # there is one: say what is wrong with reaching it
                    raise OwnerUnavailable(unreached.what, unreached.owner or taken.owner, unreached.advice) from None
                raise taken from None
            return lambda: self._be_client(line)
        except AgentBudgetError:
            raise
        except Exception as error:
            raise OwnerUnavailable(f"the ledger cannot be opened ({type(error).__name__}: {error})") from error
        return self._be_owner(store)

    def _be_owner(self, store: Store) -> Callable[[], None]:
        if self._has_been_client:
            self.living.took_over()
        local = self._new_local(store, self.living, self.catalog)  # it closes the store when it cannot claim it
        local.mailbox.on_nudge.append(self._nudged)
        local.mailbox.successor = self._inherit
        server = self._served(local)
        self.local = local
        self._deliver(local)
        return lambda: self._own(local, server)

    def _served(self, local: LocalHost) -> SocketServer | None:
        """Open the door to the other processes; None where no socket can be made."""
        try:
            server = SocketServer(self._path, local)
        except OSError as error:
            _log.warning("other processes cannot reach this ledger: no socket at %s (%s)", self._path.path, error)
            return None
        server.start()
        local.mailbox.on_nudge.append(server.nudge)
        local.mailbox.before_closing = server.stop
        return server

    def _own(self, local: LocalHost, server: SocketServer | None) -> None:
        if self._is_closed:
            local.close()
        local.mailbox.gone.wait()
        if server is not None:
            server.abandon()
        self.catalog = max(self.catalog, local.mailbox.catalog, key=lambda catalog: catalog.ordinal)
        self.local = None

    def _be_client(self, line: Line) -> None:
        self._has_been_client = True
        line.on_nudge = self._nudged
        self._line = line
        if self._is_closed:
            line.finish()
        lost = line.serve()
        self._line = None
        for call in reversed(lost):
            if not wire.may_be_sent_again(call.what):
                call.end(wire.may_have_been_carried_out(line.owner))
            else:
                self.outbox.appendleft(call)

    def _deliver(self, local: LocalHost) -> None:
        """What waited for an owner goes to the one that this process has become."""
        while self.outbox and local.mailbox.dead is None:
            with contextlib.suppress(IndexError):  # another thread does the same
                call = self.outbox.popleft()
                if call.done is not None:
                    local.mailbox.deliver((call.customer, call.what, call.end))

    def _inherit(self, letter: Letter) -> bool:
        """What an owner that is gone has not carried out waits for the next, unless this was to be the last."""
        customer, what, done = letter
        if self._is_closed or isinstance(what, Sheet):
            return False
        self.outbox.append(Call(customer, what, done, self._seconds))
        return True

    def _nudged(self) -> None:
        for callback in self.nudges:
            callback()


def _may_pass(error: AgentBudgetError) -> bool:
    """Whether somebody has the ledger, so that waiting a little may help."""
    return isinstance(error, OwnerUnavailable) and bool(error.owner)


def _called(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    call = method()
    if call is not None:
        call()


def _ignored(answer: object) -> None:
    """A catalog that was said again: the next beat shows whether it was taken."""
