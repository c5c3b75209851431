"""One owner, and processes whose leases ask it for more: events in virtual time, no clock and no chance of its own.

A lease burns steps at its pace. It sends a message when little is left (for four round trips and one step), when 512 reports
wait, or when a second has passed, and asks for as many steps as lasted half a second to eight seconds (``leases/lease.py``).
A process has one call under way; what comes up meanwhile leaves with the next. The owner takes all calls that wait as one
batch. A lease whose steps run out before its answer stands still: that time is counted. A lease that is idle for two seconds is
given back, so a slow one (a step each some seconds) says two things a step: it asks, then reports and closes at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from msgspec import Struct

from agentbudget.clock import SECOND_US
from agentbudget.runtime.leases.lease import FEWEST, IDLE_US, LONG_US, MAX_REPORTS, MOST, SHORT_US
from benchmarks.scale.constants import Constants


class Load(Struct, frozen=True):
    """``processes`` with so many ``leases`` each, every one burning ``pace`` steps a second."""

    processes: int
    leases: int
    pace: float


class Outcome(Struct, frozen=True):
    """What came of it in the seconds that were watched. ``busy``: the owner's share of a core. ``stalled``: share of the
    leases' time in which they waited. ``wait_p99_us``: from a message's sending to its answer."""

    steps_per_second: float
    messages_per_second: float
    busy: float
    stalled: float
    wait_p99_us: float


class _Lease:
    __slots__ = (
        "asked_us", "at_us", "free", "is_slow", "is_waiting", "low", "pace", "process", "said", "sent_us", "times", "unreported",
    )  # fmt: skip

    def __init__(self, process: _Process, pace: float) -> None:
        self.process, self.pace = process, pace / SECOND_US
        self.at_us, self.free, self.unreported, self.low = 0.0, 0.0, 0.0, 1.0
        self.times, self.asked_us, self.sent_us, self.is_waiting, self.said = FEWEST, 0.0, 0.0, False, 0
        self.is_slow = self.pace * IDLE_US < 1

    def burn(self, now_us: float) -> tuple[float, float]:
        """Steps decided until now, and the time in which there was nothing left to decide on."""
        passed_us = now_us - self.at_us
        steps = min(self.free, passed_us * self.pace)
        self.free -= steps
        self.unreported += steps
        self.at_us = now_us
        return steps, passed_us - steps / self.pace

    def next_us(self, now_us: float) -> float:
        """When it will have something to say."""
        until_low = max(0.0, self.free - self.low) / self.pace
        until_full = max(0.0, MAX_REPORTS - self.unreported) / self.pace
        return now_us + min(until_low, until_full, float(SECOND_US))


class _Process:
    __slots__ = ("is_calling", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Lease] = []
        self.is_calling = False


class Simulation:
    """See the module. Runs ``warm_up`` seconds unwatched, then ``seconds``."""

    def __init__(self, constants: Constants, load: Load, *, seed: int = 1) -> None:
        self._constants, self._events, self._count = constants, list[tuple[float, int, Callable[[], None]]](), 0
        self._now_us, self._queue, self._is_serving = 0.0, list[tuple[_Process, list[tuple[_Lease, int]]]](), False
        self._steps = self._messages = 0.0
        self._busy_us = self._stalled_us = 0.0
        self._waits: list[float] = []
        chance = Random(seed)
        processes = [_Process() for _ in range(load.processes)]
        self._leases = [_Lease(process, load.pace) for process in processes for _ in range(load.leases)]
        for lease in self._leases:
            self._at(chance.uniform(0, max(SECOND_US, 1 / lease.pace)), lambda lease=lease: self._speak(lease))  # type: ignore[misc]

    def run(self, *, warm_up: float = 5, seconds: float = 2) -> Outcome:
        self._until(warm_up * SECOND_US)
        for lease in self._leases:
            self._burn(lease)
        self._steps = self._messages = self._busy_us = self._stalled_us = 0.0
        self._waits.clear()
        end_us = (warm_up + seconds) * SECOND_US
        self._until(end_us)
        for lease in self._leases:
            self._burn(lease)
        self._waits.sort()
        return Outcome(
            self._steps / seconds, self._messages / seconds,
            self._busy_us / SECOND_US / seconds, self._stalled_us / (len(self._leases) * seconds * SECOND_US),
            self._waits[len(self._waits) * 99 // 100] if self._waits else 0.0,
        )  # fmt: skip

    def _at(self, when_us: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when_us, self._count, what))

    def _until(self, end_us: float) -> None:
        while self._events and self._events[0][0] <= end_us:
            self._now_us, _, what = heapq.heappop(self._events)
            what()
        self._now_us = end_us

    def _burn(self, lease: _Lease) -> None:
        if lease.is_slow:
            return
        steps, stalled_us = lease.burn(self._now_us)
        self._steps += steps
        self._stalled_us += stalled_us

    def _speak(self, lease: _Lease) -> None:
        """A lease has something to say: it joins what its process sends next."""
        self._burn(lease)
        if lease.is_waiting:
            return
        lease.is_waiting, lease.sent_us = True, self._now_us
        lease.process.waiting.append(lease)
        if not lease.process.is_calling:
            self._call(lease.process)

    def _call(self, process: _Process) -> None:
        said, process.waiting, process.is_calling = process.waiting, [], True
        messages = []
        for lease in said:
            self._burn(lease)
            messages.append((lease, int(lease.unreported)))
            lease.unreported = 0.0
        self._at(self._now_us + self._constants.call_us / 2, lambda: self._arrive(process, messages))

    def _arrive(self, process: _Process, messages: list[tuple[_Lease, int]]) -> None:
        self._queue.append((process, messages))
        if not self._is_serving:
            self._serve()

    def _serve(self) -> None:
        calls, self._queue, self._is_serving = self._queue, [], True
        messages = sum(len(said) for _, said in calls)
        steps = sum(steps for _, said in calls for _, steps in said)
        took_us = self._constants.batch_us(messages, steps)
        self._busy_us += took_us
        self._messages += messages
        self._at(self._now_us + took_us, lambda: self._served(calls))

    def _served(self, calls: list[tuple[_Process, list[tuple[_Lease, int]]]]) -> None:
        self._is_serving = False
        for process, messages in calls:
            self._at(self._now_us + self._constants.call_us / 2, lambda p=process, m=messages: self._answer(p, m))  # type: ignore[misc]
        if self._queue:
            self._serve()

    def _answer(self, process: _Process, messages: list[tuple[_Lease, int]]) -> None:
        process.is_calling = False
        for lease, _ in messages:
            self._burn(lease)
            self._waits.append(self._now_us - lease.sent_us)
            lease.is_waiting = False
            if lease.is_slow:
                self._slowly(lease)
                continue
            if lease.free < lease.times:
                _grant(lease, self._now_us)
            self._at(lease.next_us(self._now_us), lambda lease=lease: self._speak(lease))  # type: ignore[misc]
        if process.waiting:
            self._call(process)

    def _slowly(self, lease: _Lease) -> None:
        """What was said was, in turn, an ask, and a report that closes."""
        said, lease.said = lease.said, (lease.said + 1) % 2
        if said == 0:
            lease.asked_us = lease.sent_us
            self._stalled_us += self._now_us - lease.sent_us
            self._steps += 1
            lease.unreported = 1
        next_us = lease.asked_us + 1 / lease.pace if said else self._now_us + SECOND_US
        self._at(max(self._now_us, next_us), lambda: self._speak(lease))


def _grant(lease: _Lease, now_us: float) -> None:
    """More steps, as many as the last asking's life suggests; and when to ask again."""
    if lease.asked_us:
        lasted_us = lease.sent_us - lease.asked_us
        if lasted_us < SHORT_US:
            lease.times = min(MOST, lease.times * 2)
        elif lasted_us > LONG_US:
            lease.times = max(FEWEST, lease.times // 2)
    lease.asked_us = lease.sent_us
    lease.free += lease.times
    trip_us = now_us - lease.sent_us
    left = 1 + 4 * lease.times * trip_us / max(now_us - lease.asked_us + SHORT_US, 1)
    lease.low = min(left, max(1, lease.times // 2))
