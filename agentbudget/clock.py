"""Time as a port: UTC microseconds since the epoch, and a monotonic clock for how long things last.

The account never asks what time it is; the owner does, once per batch, and hands it in.
"""

from __future__ import annotations

import time
from typing import Protocol

SECOND_US = 1_000_000


class Clock(Protocol):
    """What time it is. ``now_us`` may go back (an operator sets the clock); ``monotonic_us`` may not, and counts suspend."""

    def now_us(self) -> int: ...
    def monotonic_us(self) -> int: ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        return time.clock_gettime_ns(_MONOTONIC) // 1_000


_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class ManualClock:
    """A clock that stands still until it is moved: for tests and simulations."""

    def __init__(self, start_us: int = 1_767_225_600 * SECOND_US) -> None:  # 2026-01-01T00:00:00Z
        self._now_us, self._monotonic_us = start_us, 0

    def now_us(self) -> int:
        return self._now_us

    def monotonic_us(self) -> int:
        return self._monotonic_us

    def advance(self, seconds: int = 0, *, microseconds: int = 0) -> None:
        """Let time pass."""
        step_us = seconds * SECOND_US + microseconds
        self._now_us += step_us
        self._monotonic_us += step_us

    def set_us(self, now_us: int) -> None:
        """Set the wall clock only, backwards too: what an operator or NTP may do."""
        self._now_us = now_us
