"""What many runs of a cell come to: means with bootstrap intervals, exact bounds of shares, differences of pairs. Standard
library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import exp, lgamma, log
from random import Random
from typing import Final

from msgspec import Struct

RESAMPLES: Final = 500
LEVEL: Final = 0.95


class Mean(Struct, frozen=True):
    """A mean with the interval that 95 % of resampled means lie in; the 99th percentile and the largest value."""

    mean: float
    low: float
    high: float
    p99: float
    most: float


class Share(Struct, frozen=True):
    """``count`` of ``runs``, with the Clopper-Pearson interval of 95 %: for 0 of 300 its upper end is 1.2 %."""

    count: int
    runs: int
    low: float
    high: float


def mean_of(values: Sequence[float]) -> Mean:
    """Resampled with a seed of its own, so that the same values give the same interval."""
    ordered, count = sorted(values), len(values)
    middle = sum(ordered) / count
    p99 = ordered[min(count - 1, -(-count * 99 // 100) - 1)]
    if ordered[0] == ordered[-1]:
        return Mean(ordered[0], ordered[0], ordered[0], ordered[0], ordered[0])
    rng = Random(count)
    means = sorted(sum(rng.choices(values, k=count)) / count for _ in range(RESAMPLES))
    tail = round(RESAMPLES * (1 - LEVEL) / 2)
    return Mean(middle, means[tail], means[-tail - 1], p99, ordered[-1])


def paired(values: Sequence[float], others: Sequence[float]) -> Mean:
    """The mean difference of runs that share a seed."""
    return mean_of([value - other for value, other in zip(values, others, strict=True)])


@cache
def share_of(count: int, runs: int) -> Share:
    """Exact (Clopper and Pearson 1934), by halving the interval of the binomial's tail."""
    tail = (1 - LEVEL) / 2
    low = 0.0 if count == 0 else _root(lambda p: 1 - _up_to(count - 1, runs, p), tail)
    high = 1.0 if count == runs else _root(lambda p: 1 - _up_to(count, runs, p), 1 - tail)
    return Share(count, runs, low, high)


def _root(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return low


def _up_to(count: int, runs: int, p: float) -> float:
    """The chance of at most ``count`` of ``runs``."""
    if p <= 0 or p >= 1:
        return 1.0 if p <= 0 or count >= runs else 0.0
    logs = (
        lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1) + k * log(p) + (runs - k) * log(1 - p)
        for k in range(count + 1)
    )
    return min(1.0, sum(exp(value) for value in logs))
