"""Time as a port: the real clock says what the machine says; the manual one stands still until it is moved."""

from __future__ import annotations

import time
from itertools import pairwise

from agentbudget.clock import SECOND_US, Clock, ManualClock, SystemClock


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(5)
    assert (clock.now_us(), clock.monotonic_us()) == (5, 0) == (clock.now_us(), clock.monotonic_us())
    clock.advance(2, microseconds=3)
    assert (clock.now_us(), clock.monotonic_us()) == (5 + 2 * SECOND_US + 3, 2 * SECOND_US + 3)


def test_setting_the_wall_clock_back_leaves_the_monotonic_one_alone() -> None:
    clock = ManualClock(1_000)
    clock.advance(1)
    clock.set_us(10)
    assert (clock.now_us(), clock.monotonic_us()) == (10, SECOND_US)


def test_the_system_clock_counts_microseconds_since_1970() -> None:
    clock = SystemClock()
    before, now, after = time.time_ns() // 1_000, clock.now_us(), time.time_ns() // 1_000
    assert before <= now <= after
    assert isinstance(now, int)


def test_the_system_clock_never_runs_backwards_between_two_monotonic_reads() -> None:
    clock: Clock = SystemClock()
    reads = [clock.monotonic_us() for _ in range(1_000)]
    assert all(earlier <= later for earlier, later in pairwise(reads))
