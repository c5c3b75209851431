"""One virtual clock, one queue of what is to happen, one source of chance, one trace: the same seed gives the same run."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from agentbudget.account.decision import Decision
from agentbudget.clock import SECOND_US, ManualClock
from tests.sim.broken import must

HOUR_US: Final = 3_600 * SECOND_US
MOST_EVENTS: Final = 60_000
"""Thirty times what a run takes."""
START_US: Final = 1_767_225_600 * SECOND_US + 9 * HOUR_US
"""2026-01-01T09:00:00Z; a run begins some seconds before an hour ends."""


class Clockwork:
    """Things happen one after another, each at its time; nothing happens while the clock moves."""

    def __init__(self, seed: int) -> None:
        self.seed, self.chance = seed, random.Random(seed)
        self.clock = ManualClock(START_US + HOUR_US - self.between(1, 14) * SECOND_US)
        self.reached: Counter[str] = Counter()
        self.trace: list[tuple[int, str, tuple[object, ...]]] = []
        self.events = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order, self._names = itertools.count(), itertools.count(1)

    @property
    def now_us(self) -> int:
        """By the monotonic clock, which starts at 0."""
        return self.clock.monotonic_us()

    def after(self, delay_us: int, what: Callable[[], None]) -> None:
        """Have something happen later; of two things due at once the one that was said first is first."""
        heapq.heappush(self._queue, (self.now_us + delay_us, next(self._order), what))

    def run(self, until_us: int, check: Callable[[], None]) -> None:
        """Let everything happen that is due before a time; ``check`` looks at the laws after each event."""
        queue = self._queue
        now_us = self.now_us
        while queue and queue[0][0] < until_us:
            due_us, _, what = heapq.heappop(queue)
            if due_us > now_us:
                self.clock.advance(microseconds=due_us - now_us)
                now_us = due_us
            self.events += 1
            must(self.events < MOST_EVENTS, "L5", "the run does not end")
            what()
            check()
        if until_us > self.now_us:
            self.clock.advance(microseconds=until_us - self.now_us)

    def note(self, who: str, *what: object) -> None:
        """A line of the trace; values are formatted when somebody reads it."""
        self.trace.append((self.now_us, who, what))

    def lines(self) -> list[str]:
        """The trace, for people."""
        return [f"{at_us:>12,} {who}: {' '.join(brief(one) for one in what)}" for at_us, who, what in self.trace]

    def saw(self, what: str) -> None:
        """Something interesting was reached (facts: T16)."""
        self.reached[what] += 1

    def between(self, least: int, most: int) -> int:
        """A whole number, both ends included (``randint`` costs five times as much)."""
        return least + int(self.chance.random() * (most - least + 1))

    def happens(self, probability: float) -> bool:
        return self.chance.random() < probability

    def new_id(self) -> str:
        """Ids that say in which order they were made, in place of the runtime's."""
        return f"x{next(self._names)}"


def brief(value: object) -> str:
    """A value without the fields that are at their defaults, and a refusal by its reason only."""
    if isinstance(value, Decision):
        return f"Decision({value.reason})" if not value.allowed else "Decision(allowed)"
    if isinstance(value, tuple | list):
        return f"({', '.join(brief(one) for one in value)})"
    if not isinstance(value, Struct):
        return str(value) if not isinstance(value, Exception) else repr(value)
    defaults = dict(zip(reversed(value.__struct_fields__), reversed(value.__struct_defaults__), strict=False))
    named = ((name, getattr(value, name)) for name in value.__struct_fields__)
    said = [f"{name}={brief(one)}" for name, one in named if name not in defaults or one != defaults[name]]
    return f"{type(value).__name__}({', '.join(said)})"
