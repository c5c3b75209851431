"""The way between processes and the owner: messages are lost, doubled, late, out of order, or come after they were given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from agentbudget.account.commands import key_of
from agentbudget.clock import SECOND_US
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.host import Beat
from tests.sim.clockwork import Clockwork
from tests.sim.faults import Faults

MILLISECOND_US = SECOND_US // 1_000


class Node(Protocol):
    """Where messages go: the owner's machine."""

    def arrive(self, call: Call) -> None: ...


@dataclass
class Call:
    """One message and the answer to it. ``heard`` is told once: an answer (``left_us``: when that left), or that there was
    none."""

    what: Any
    sender: str
    heard: Callable[[Any], None]
    sent_us: int
    left_us: int = 0
    is_over: bool = False
    given_up: bool = False

    def end(self, answer: Any) -> None:
        if not self.is_over:
            self.is_over = True
            self.heard(answer)


class Network:
    """Carries calls by the chances of the run. ``cut_off``: senders that nothing comes from or goes to. ``asked_at``: how many
    entries there were when a key was first asked for."""

    def __init__(
        self, clockwork: Clockwork, faults: Faults, node: Callable[[], Node], written: Callable[[], int]
    ) -> None:
        self._clockwork, self._faults, self._node, self._written = clockwork, faults, node, written
        self.asked_at: dict[str, int] = {}
        self.cut_off: set[str] = set()
        self._last_us: dict[str, int] = {}
        self.sent = self.answers = 0

    def send(self, what: Any, sender: str, heard: Callable[[Any], None]) -> Call:
        """Hand a message over; if no answer comes in some seconds the connection counts as lost, and ``heard`` is told so."""
        work, faults = self._clockwork, self._faults
        call = Call(what, sender, heard, work.now_us)
        self.sent += 1
        self.asked_at.setdefault(named(what), self._written())
        work.after(self._patience_us(), lambda: self._give_up(call))
        if self._lost("request", sender):
            work.note(sender, "request lost:", what)
        else:
            work.after(self._way_us(sender), lambda: self._arrive(call))
        if faults.duplicate and work.happens(0.1):
            work.saw("duplicate")
            work.after(self._way_us(sender) + self._stray_us(), lambda: self._arrive(call))
        return call

    def answer(self, call: Call, answer: Any) -> None:
        """Send the owner's answer back."""
        self.answers += 1
        if self._lost("answer", call.sender):
            self._clockwork.note(call.sender, "answer lost:", answer)
        else:
            left_us = self._clockwork.now_us
            self._clockwork.after(self._way_us(f"to {call.sender}"), lambda: self._deliver(call, answer, left_us))

    def _arrive(self, call: Call) -> None:
        if call.given_up and not self._faults.ghost:
            return  # its connection is gone, and with it what was in it
        if call.given_up:
            self._clockwork.saw("ghost")
        self._node().arrive(call)

    def _deliver(self, call: Call, answer: Any, left_us: int) -> None:
        if not (call.sender in self.cut_off or call.is_over):
            call.left_us = left_us
            call.end(answer)

    def _give_up(self, call: Call) -> None:
        if not call.is_over:
            self._clockwork.saw("no answer")
            call.given_up = True
            call.end(OwnerUnavailable("the connection was lost", "sim", "send it again"))

    # --- chances ---

    def _lost(self, what: str, sender: str) -> bool:
        cut_off = sender in self.cut_off
        if cut_off or (self._faults.drop and self._clockwork.happens(0.08)):
            self._clockwork.saw(f"{what} lost")
            return True
        return False

    def _way_us(self, line: str) -> int:
        """How long a message is on its way: on one line they keep their order, unless the run reorders."""
        now_us = self._clockwork.now_us
        way_us = self._clockwork.between(100, 2_000)
        if self._faults.delay and self._clockwork.happens(0.08):
            way_us += self._clockwork.between(0, 2 * SECOND_US)
        if self._faults.reorder:
            return way_us + self._clockwork.between(0, 60 * MILLISECOND_US)
        at_us = max(now_us + way_us, self._last_us.get(line, 0))
        self._last_us[line] = at_us
        return at_us - now_us

    def _stray_us(self) -> int:
        return self._clockwork.between(0, 6 * SECOND_US if self._faults.ghost else 50 * MILLISECOND_US)

    def _patience_us(self) -> int:
        return self._clockwork.between(SECOND_US // 2, 2 * SECOND_US)


def named(what: Any) -> str:
    """The key that a message is about; empty for a beat and whatever else has none."""
    return "" if isinstance(what, Beat) else key_of(what) or ""
