"""How rows are measured: alternatives take turns in one run, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct


class Effort(Struct, frozen=True):
    """How much a row does. rounds: turns of each alternative; many: what "many" means; entries: of a long ledger."""

    rounds: int
    many: int
    entries: int


FULL = Effort(rounds=40, many=100_000, entries=1_000_000)
QUICK = Effort(rounds=2, many=300, entries=2_000)


class Figure(Struct, frozen=True):
    """One measured thing: the least, the median and the 99th percentile of its samples."""

    label: str
    unit: str
    least: float
    median: float
    p99: float
    samples: int


class Row(Struct, frozen=True):
    """A row of the table. ``floor``: label of the figure that ratios refer to; ``floors``: those of figures with other units.
    ``is_met``: None where there is no target."""

    name: str
    what: str
    figures: list[Figure]
    target: str = ""
    is_met: bool | None = None
    floor: str | None = None
    notes: list[str] = []
    floors: list[str] = []

    def __getitem__(self, label: str) -> Figure:
        return next(figure for figure in self.figures if figure.label == label)

    def ratio(self, figure: Figure) -> float | None:
        """Median over that of the floor with its unit; None where there is none."""
        named = [self[label] for label in (self.floor, *self.floors) if label is not None]
        floor = next((one.median for one in named if one.unit == figure.unit), 0)
        return figure.median / floor if floor else None


def figure(label: str, unit: str, samples: Iterable[float]) -> Figure:
    """Samples summed up."""
    ordered = sorted(samples)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return Figure(label, unit, _rounded(ordered[0]), _rounded(statistics.median(ordered)), _rounded(p99), len(ordered))


def count(label: str, number: float, unit: str = "") -> Figure:
    """A number that has no spread."""
    same = _rounded(number)
    return Figure(label, unit, same, same, same, 1)


def _rounded(number: float) -> float:
    """Five significant digits: no run repeats more."""
    return float(f"{number:.5g}")


def taking_turns(
    runs: Mapping[str, Callable[[], object]], *, rounds: int, block: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Microseconds of each call: every round runs a block of calls of each alternative."""
    for run in runs.values():
        for _ in range(warm_up):
            run()
    found: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(rounds):
        for label, run in runs.items():
            found[label] += [elapsed_us(run) for _ in range(block)]
    return found


def elapsed_us(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e3


def figures(found: Mapping[str, Sequence[float]], unit: str = "us") -> list[Figure]:
    """A figure for each alternative."""
    return [figure(label, unit, samples) for label, samples in found.items()]
