"""How much one owner carries, found by simulating more and more processes."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from benchmarks.scale.constants import Constants
from benchmarks.scale.simulate import Load, Outcome, Simulation

MOST_BUSY: Final = 0.8
"""Beyond, waits grow faster than what is carried."""
MOST_STALLED: Final = 0.001


class Shape(Struct, frozen=True):
    """What a process does: so many sessions at once, each deciding ``pace`` steps a second."""

    name: str
    sessions: int
    pace: float


class Carried(Struct, frozen=True):
    shape: Shape
    processes: int
    outcome: Outcome


SHAPES: Final = (
    Shape("agents: a model call every 5 s", 100, 0.2),
    Shape("tools: 20 steps a second", 16, 20),
    Shape("loops: as fast as a core decides", 1, 20_000),
)


def carried(constants: Constants, shape: Shape, *, seconds: float = 2) -> Carried:
    """The largest number of such processes, to a sixteenth, that one owner serves without making them wait."""
    best, fits = _at(constants, shape, 1, seconds), 1
    fails = 2
    while _is_fine(tried := _at(constants, shape, fails, seconds)):
        best, fits, fails = tried, fails, 2 * fails
    while fails - fits > max(1, fits // 16):
        middle = (fits + fails) // 2
        tried = _at(constants, shape, middle, seconds)
        if _is_fine(tried):
            best, fits = tried, middle
        else:
            fails = middle
    return Carried(shape, fits, best)


def _is_fine(tried: Outcome) -> bool:
    return tried.busy <= MOST_BUSY and tried.stalled <= MOST_STALLED


def _at(constants: Constants, shape: Shape, processes: int, seconds: float) -> Outcome:
    return Simulation(constants, Load(processes, shape.sessions, shape.pace)).run(seconds=seconds)
