"""The host of a ledger file: the first process of the machine that opens it owns it, and serves the others.

Who has the file's lock is the owner (``owner/local_host.py`` and a socket, ``server.py``); everybody else has a line to it
(``client.py``). When the owner goes, each of the others tries at once to take the lock, else to reach whoever got
it. What waited, and what was under way and may be said twice, goes to the next owner byte for byte (law L4); the epoch in
the database fences an owner that came too late.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer
from agentbudget.clock import Clock
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.store import Store
from agentbudget.runtime.host import Beat, Beaten, OnAnswer, Slot
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.calls import Said
from agentbudget.runtime.machine.machine import Machine
from agentbudget.runtime.machine.path import SocketPath
from agentbudget.runtime.owner.living import Living
from agentbudget.runtime.owner.local_host import BEAT_SECONDS, LocalHost
from agentbudget.runtime.owner.mailbox import SWEEP, weakly
from agentbudget.runtime.owner.owner import Owner


class MachineHost:
    """Owner or client of a ledger file, whichever it can be, and the other when that changes. See
    :class:`agentbudget.runtime.host.Host`.

    ``open_store`` opens the ledger to write it and takes its lock, or raises ``OwnerUnavailable`` naming who has it; it is
    called again at each takeover. ``new_owner`` makes the owner: see ``LocalHost``. Raises what ``open_store`` raises when
    nobody else can be reached either. In a forked child it begins anew by itself, at the first use.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        database_path: str,
        clock: Clock,
        *,
        timeout_seconds: float = 30.0,
        new_owner: Callable[..., Owner] = Owner,
    ) -> None:
        self._machine = Machine(
            open_store,
            SocketPath(database_path),
            partial(_new_local, clock, timeout_seconds, new_owner),
            timeout_seconds,
        )
        self.timeout_seconds, self.live = timeout_seconds, self._machine.living.own
        self._machine.start()
        self._finalizer = weakref.finalize(self, _close, self._machine, weakref.ref(self))

    @property
    def owner(self) -> str:
        """Who owns the ledger now, for people; empty while nobody does."""
        return self._machine.owner

    @property
    def is_owner(self) -> bool:
        """Whether this process owns the ledger now."""
        return self._machine.local is not None

    @property
    def depth(self) -> int:
        """Commands that wait here: in the mailbox of the owner, where this process is it, else to be sent."""
        local = self._machine.local
        return len(self._machine.outbox) if local is None else local.depth

    def late(self, seconds: float) -> OwnerUnavailable:
        return self._machine.late(seconds)

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        answer: Answer = self._asked(customer, command, timeout_seconds)
        return answer

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        self._machine.say(customer, command, done, self.timeout_seconds)

    def beat(self, beat: Beat) -> Beaten:
        beaten: Beaten = self._asked("", beat, min(self.timeout_seconds, BEAT_SECONDS))
        self._machine.heard(beaten)
        return beaten

    def publish_catalog(self, document: bytes) -> int:
        """Tell every process of the ledger of a new catalog, now and after a takeover; its ordinal. They hear it at their
        next beat, which is asked for at once."""
        ordinal: int = self._asked("", wire.Publish(document, seen=self._machine.catalog.ordinal))
        self._machine.heard(Beaten(catalog=ordinal, document=document))
        return ordinal

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Call this, from any thread, when the owner has something to ask back, so that a beat is due at once. It must not
        block. A method does not keep its object alive."""
        self._machine.nudges.append(weakly(callback))

    def sweep(self) -> None:
        self._asked("", SWEEP)

    def close(self) -> None:
        self._finalizer()

    def _asked(self, customer: str, what: Said, timeout_seconds: float | None = None) -> Any:
        seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        slot, until = Slot(), time.monotonic() + seconds
        call = self._machine.say(customer, what, slot.put, seconds, waits=True)
        if call is not None:
            self._machine.read_for(call, seconds)
        if not slot.wait(max(until - time.monotonic(), 0)):
            if call is not None:
                call.done = None  # nobody waits: what was not sent yet is not sent
            raise self.late(seconds)
        if isinstance(slot.answer, AgentBudgetError):
            raise slot.answer
        return slot.answer


def _close(machine: Machine, host: weakref.ref[MachineHost]) -> None:
    """Run by ``close()``, at exit, or when the host was forgotten; then it must not wait (see ``local_host._close``)."""
    machine.close(waits=host() is not None)


def _new_local(
    clock: Clock, seconds: float, new_owner: Callable[..., Owner], store: Store, living: Living, catalog: wire.Publish
) -> LocalHost:
    """``at_exit`` False: the machine's host closes it, and nobody takes over from a process that ends."""
    return LocalHost(
        store, clock, timeout_seconds=seconds, living=living, catalog=catalog, new_owner=new_owner, at_exit=False
    )
