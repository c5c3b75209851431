"""The whole runtime on one thread and a clock that stands still: the real owner, holder, sessions and steps, without the
owner's thread and without the keeper's, so that the same seed gives the same run.

What is left out is time that passes by itself: :meth:`Inline.until` lets it pass, and does what the threads do once a
second."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from agentbudget import Catalog, Runtime
from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer, Recalling
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.store import Store
from agentbudget.runtime import host as host_module
from agentbudget.runtime.host import Beat, Beaten, OnAnswer
from agentbudget.runtime.leases.holder import Holder
from agentbudget.runtime.owner.owner import Owner
from agentbudget.runtime.settings import settings_from
from agentbudget.testing import ManualClock, MemoryJournal

CATALOG: Final = Catalog.bundled()
WAIT_US: Final = 100_000
"""How much time passes while a caller that was told to wait asks again: as long as ``link.gave_back`` waits at most."""


class _Waiting:
    """What stands for ``time`` where the runtime waits: a clock that is moved, in place of a thread that sleeps."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def sleep(self, seconds: float) -> None:
        self._clock.advance(microseconds=round(seconds * SECOND_US))


@contextmanager
def waiting_on(clock: ManualClock) -> Iterator[None]:
    """Let the runtime's short waits pass on the clock. Of the whole process, so only where nothing else runs."""
    module = cast("Any", host_module)
    module.time = _Waiting(clock)
    try:
        yield
    finally:
        module.time = time


class InlineHost:
    """A ``Host`` whose owner decides on the caller's thread. ``holders``: the processes that live and hear a nudge."""

    is_owner, timeout_seconds = True, 30.0

    def __init__(self, journal: Store, clock: ManualClock) -> None:
        self.journal, self.clock, self.live = journal, clock, set[str]()
        self.holders: list[Holder] = []
        self._letters, self._is_serving = deque[tuple[str, Command, OnAnswer]](), False
        self._said, self._owner = 0, Owner(journal, clock, name="lab", live=self.live)

    @property
    def owner(self) -> str:
        return self._owner.name

    def restart(self) -> None:
        """The owner dies and another one takes the ledger over: it knows what the journal says."""
        self._owner = Owner(self.journal, self.clock, name="lab", live=self.live)

    def late(self, seconds: float) -> OwnerUnavailable:
        return OwnerUnavailable(f"no answer within {seconds:g} s", self.owner)

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        answer: Any = self._owner.handle([(customer, command)])[0]
        if self._owner.has_recalls():
            for holder in tuple(self.holders):
                holder.beat()
        if isinstance(answer, AgentBudgetError):
            raise answer
        self._said = self._said + 1 if isinstance(answer, Recalling) else 0
        if self._said > 1:
            self.clock.advance(microseconds=WAIT_US)
        return answer  # type: ignore[no-any-return]

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        self._letters.append((customer, command, done))
        if self._is_serving:  # as in a mailbox: what an answer brings about comes after what waits already
            return
        self._is_serving = True
        try:
            while self._letters:
                customer, command, done = self._letters.popleft()
                done(self._owner.handle([(customer, command)])[0])
        finally:
            self._is_serving = False

    def beat(self, beat: Beat) -> Beaten:
        return self._owner.beat(beat)

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Holders are told by :meth:`ask`."""

    def publish_catalog(self, document: bytes) -> int:
        return 1

    def sweep(self) -> None:
        self._owner.tick()

    def close(self) -> None:
        self._owner.close()


class Inline:
    """A ledger in memory, its owner, and a process that uses it; more processes by :meth:`process`."""

    def __init__(self, clock: ManualClock, catalog: Catalog = CATALOG) -> None:
        self.clock, self.catalog = clock, catalog
        self.journal = MemoryJournal()
        self.host = InlineHost(self.journal, clock)
        self._pulsed_us = clock.now_us()

    def process(self) -> Runtime:
        """A process of its own: its leases end with it, unless it goes on to be pulsed."""
        runtime = Runtime(
            self.host, self.journal, self.catalog, self.clock, settings_from(ledger="memory://", host="local")
        )
        holder = runtime.holder
        assert holder is not None
        holder._keeper = threading.current_thread()  # there is one: pulse() is called from here
        holder._finalizer.detach()
        self.host.holders.append(holder)
        return runtime

    def kill(self, runtime: Runtime) -> None:
        """The process is gone, with what was in its memory: it is heard of no more."""
        assert runtime.holder is not None
        self.host.holders.remove(runtime.holder)

    def until(self, now_us: int) -> None:
        """Let time pass; once a second holders say that they live, and the owner ends what is overdue."""
        while (second_us := self._pulsed_us + SECOND_US) <= now_us:
            self._pulsed_us = second_us
            self._pass(second_us)
            for holder in tuple(self.host.holders):
                holder.run_errands()
                holder.pulse()
            self.host.sweep()
        self._pass(now_us)

    def _pass(self, now_us: int) -> None:
        left_us = now_us - self.clock.now_us()
        if left_us > 0:
            self.clock.advance(microseconds=left_us)

    def leap(self, microseconds: int) -> None:
        """Let a long time pass in which nothing runs."""
        self._pass(self.clock.now_us() + microseconds)
        self._pulsed_us = self.clock.now_us()
        for _ in range(2):  # what one ends, the other may have to hear of
            for holder in tuple(self.host.holders):
                holder.run_errands()
                holder.pulse()
            self.host.sweep()
