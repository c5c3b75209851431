"""Is the difference larger than the noise? Pure arithmetic on the costs of blocks; nothing here runs or times anything.

A **round** is four blocks, each a process of its own: base, head, head, base (or the other way round in every second round, so
that whatever only depends on the turn cancels). Of its four logarithms two numbers are made:

- the **difference**, head less base: a steady drift of the machine cancels in it;
- the **control**, first less second run of the same commit: nothing but noise, for both sides are the same commit.

Both weigh four blocks by a half, so noise that strikes blocks alike spreads them alike. Means are trimmed: the most extreme
fifth of the rounds at either end does not count, for a busy machine makes single blocks many times slower (Tukey and
McLaughlin's trimmed t, whose spread is that of the rounds with the extremes pulled in). The standard error of a difference is the
larger of its own and the control's: what a commit differs from itself is never taken for a change. Student's t on it, Holm's
correction over all figures, and a smallest change worth naming decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import mean, stdev
from typing import Final

from msgspec import Struct

ALPHA: Final = 0.05
"""Most often that a whole comparison of a commit with itself names any figure at all."""
SMALLEST: Final = 0.05
"""A change below this share is not named, however certain it is: nobody would act on it."""
POWER: Final = 0.8
"""How often a change of the size called visible would have been named, were the noise just as this run estimates it."""
LEAST_ROUNDS: Final = 4
TRIMMED: Final = 0.2
"""The share of the rounds at either end that does not count."""
_NOTHING: Final = 1e-9
"""Logarithms closer than this are equal: figures are recorded with five digits."""


class Round(Struct, frozen=True):
    """The costs (more is worse, above 0) of the first and second block of each commit."""

    base: tuple[float, float]
    head: tuple[float, float]


class Sample(Struct, frozen=True):
    """Differences of logarithms, head less base, over all rounds. ``error``: the standard error of ``change``; ``control`` is
    the mean of the controls, whose truth is 0. ``freedom``: degrees, of Student's t."""

    change: float
    control: float
    error: float
    freedom: int

    @property
    def p(self) -> float:
        """How often noise alone would differ so much."""
        return two_sided(self.change, self.error, self.freedom)

    @property
    def control_p(self) -> float:
        """The same for the commits against themselves."""
        return two_sided(self.control, self.error, self.freedom)


class Change(StrEnum):
    """What is said of a figure."""

    WORSE = "worse"
    BETTER = "better"
    UNSEEN = "no difference seen"


class Judged(Struct, frozen=True):
    """A figure's verdict. ``ratio``: head's cost over base's, ``low`` to ``high`` with all figures' intervals right at
    once; ``visible``: the ratio from which on a change would have been named, with ``POWER``."""

    change: Change
    ratio: float
    low: float
    high: float
    p: float
    visible: float
    is_alarm: bool
    """The control was named too: noise of this run looks like changes."""


def sample(rounds: Sequence[Round]) -> Sample:
    """Sum up a figure's rounds. Raises ``ValueError`` below ``LEAST_ROUNDS``, or for a cost that has no logarithm."""
    if len(rounds) < LEAST_ROUNDS:
        raise ValueError(f"{len(rounds)} rounds are too few to tell noise from change: {LEAST_ROUNDS} at least")
    logs = [(*map(math.log, one.base), *map(math.log, one.head)) for one in rounds]
    changes = [(h1 + h2 - b1 - b2) / 2 for b1, b2, h1, h2 in logs]
    controls = [(b1 - b2 - h1 + h2) / 2 for b1, b2, h1, h2 in logs]
    change, own = trimmed(changes)
    control, noise = trimmed(controls)
    return Sample(change, control, max(own, noise), len(rounds) - 2 * cut(len(rounds)) - 1)


def cut(many: int) -> int:
    """How many of so many do not count at either end."""
    return int(TRIMMED * many)


def trimmed(numbers: Sequence[float]) -> tuple[float, float]:
    """The trimmed mean and its standard error."""
    ordered, many = sorted(numbers), len(numbers)
    off = cut(many)
    kept = ordered[off : many - off]
    pulled_in = [kept[0]] * off + kept + [kept[-1]] * off
    return mean(kept), stdev(pulled_in) / (len(kept) / many) / math.sqrt(many)


def judge(samples: Sequence[Sample], *, alpha: float = ALPHA, smallest: float = SMALLEST) -> list[Judged]:
    """A verdict for each figure of one comparison, in their order: at most ``alpha`` of the comparisons in which nothing changed
    name any figure."""
    adjusted = holm([one.p for one in samples])
    controls = holm([one.control_p for one in samples])
    least = math.log1p(smallest)
    found = []
    for one, p, control_p in zip(samples, adjusted, controls, strict=True):
        half = quantile(1 - alpha / len(samples) / 2, one.freedom) * one.error
        is_named = p <= alpha and abs(one.change) >= least
        change = Change.UNSEEN if not is_named else Change.WORSE if one.change > 0 else Change.BETTER
        found.append(
            Judged(
                change=change,
                ratio=math.exp(one.change),
                low=math.exp(one.change - half),
                high=math.exp(one.change + half),
                p=p,
                visible=math.exp(max(least, half + quantile(POWER, one.freedom) * one.error)),
                is_alarm=control_p <= alpha and abs(one.control) >= least,
            )
        )
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: whoever is named at ``alpha`` by these is so with at most ``alpha`` for all together."""
    order = sorted(range(len(ps)), key=lambda n: ps[n])
    found, most = [1.0] * len(ps), 0.0
    for place, n in enumerate(order):
        most = max(most, min(1.0, (len(ps) - place) * ps[n]))
        found[n] = most
    return found


# --- Student's t, so that this needs no library --------------------------------------------------------------------------------


def two_sided(value: float, error: float, freedom: int) -> float:
    """How often a mean with this standard error is as far from 0."""
    if error < _NOTHING:  # a figure without noise: a count
        return 1.0 if abs(value) < _NOTHING else 0.0
    return 2 * (1 - cumulative(abs(value) / error, freedom))


def cumulative(t: float, freedom: int) -> float:
    """The share of Student's t with so many degrees of freedom below ``t``: exact, by its finite series."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    is_odd = freedom % 2 == 1
    term = math.cos(angle) if is_odd else 1.0
    total, first = 0.0, (3 if is_odd else 2)
    for n in range(first, freedom + 1, 2):
        total += term
        term *= square * (n - 1) / n
    if is_odd:
        return 0.5 + (angle + sine * total) / math.pi
    return 0.5 + sine * total / 2


def quantile(share: float, freedom: int) -> float:
    """The ``t`` below which that share lies, by halving."""
    low, high = -1.0, 1.0
    while cumulative(high, freedom) < share:
        high *= 2
    while cumulative(low, freedom) > share:
        low *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if cumulative(middle, freedom) < share else (low, middle)
    return (low + high) / 2
