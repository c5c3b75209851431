"""From the blocks of two commits to a verdict for each figure, and to what could not be compared and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from benchmarks.compare.blocks import Block, Measured
from benchmarks.compare.statistics import Change, Judged, Round, judge, sample

RATES: Final = ("/s",)
"""Units of which more is better; and a gain, ``x``."""


class Turn(Struct, frozen=True):
    """A round of one row: its blocks in the order in which each commit ran them."""

    base: tuple[Block, Block]
    head: tuple[Block, Block]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (*self.base, *self.head)


class Compared(Struct, frozen=True):
    """A figure with its verdict. ``base`` and ``head``: medians over all blocks, as measured. ``floor``: by which both were
    divided; None for the floor itself, and where they were compared as measured."""

    row: str
    label: str
    unit: str
    base: float
    head: float
    floor: str | None
    judged: Judged

    @property
    def word(self) -> str:
        """What happened to it."""
        times = self.unit.startswith(("us", "ms", "s")) and not self.unit.startswith("st")
        worse, better = ("slower", "faster") if times or is_rate(self.unit) else ("more", "less")
        return {Change.WORSE: worse, Change.BETTER: better, Change.UNSEEN: Change.UNSEEN.value}[self.judged.change]


class LeftOut(Struct, frozen=True):
    """What was not compared. ``is_broken``: it runs in base and not in head, or was exact in base and is not in head."""

    row: str
    label: str
    why: str
    is_broken: bool = False


class Result(Struct, frozen=True):
    """A comparison."""

    figures: list[Compared]
    left_out: list[LeftOut]

    @property
    def is_regression(self) -> bool:
        return any(one.judged.change is Change.WORSE for one in self.figures) or any(
            one.is_broken for one in self.left_out
        )

    @property
    def alarms(self) -> list[Compared]:
        """Figures by which a commit seemed to differ from itself."""
        return [one for one in self.figures if one.judged.is_alarm]


class _Pair(Struct, frozen=True):
    """A figure that both commits have in every block."""

    row: str
    measured: Measured
    floor: str | None
    turns: Sequence[Turn]

    def rounds(self, floor: str | None) -> list[Round]:
        return [
            Round(
                (cost(turn.base[0], self.measured.label, floor), cost(turn.base[1], self.measured.label, floor)),
                (cost(turn.head[0], self.measured.label, floor), cost(turn.head[1], self.measured.label, floor)),
            )
            for turn in self.turns
        ]


def result(turns: Mapping[str, Sequence[Turn]], left_out: Sequence[LeftOut] = ()) -> Result:
    """Every figure of every row. One whose row's floor is itself named as changed is compared as measured: the floor does not
    tell the machine's noise then, or the row has none but one of ours."""
    pairs, missing = list[_Pair](), list(left_out)
    for row, its in turns.items():
        for label in dict.fromkeys(one.label for turn in its for block in turn.blocks for one in block.figures):
            found = _paired(row, label, its)
            pairs.append(found) if isinstance(found, _Pair) else missing.append(found)
    floors = [pair.floor for pair in pairs]
    judged = _judged(pairs, floors)
    moved = {
        (pair.row, pair.measured.label)
        for pair, one in zip(pairs, judged, strict=True)
        if one.change is not Change.UNSEEN
    }
    if any((pair.row, pair.floor) in moved for pair in pairs):
        floors = [None if (pair.row, pair.floor) in moved else pair.floor for pair in pairs]
        judged = _judged(pairs, floors)
    return Result(
        [_compared(pair, floor, one) for pair, floor, one in zip(pairs, floors, judged, strict=True)], missing
    )


def _judged(pairs: Sequence[_Pair], floors: Sequence[str | None]) -> list[Judged]:
    return judge([sample(pair.rounds(floor)) for pair, floor in zip(pairs, floors, strict=True)]) if pairs else []


def _paired(row: str, label: str, turns: Sequence[Turn]) -> _Pair | LeftOut:
    base = [block.find(label) for turn in turns for block in turn.base]
    head = [block.find(label) for turn in turns for block in turn.head]
    if None in base or None in head:
        return LeftOut(row, label, f"{'base' if None in base else 'head'} has no such figure")
    units = {one.unit for one in (*base, *head) if one is not None}
    if len(units) > 1:
        return LeftOut(row, label, f"its unit is not the same: {' and '.join(sorted(units))}")
    numbers = [[one.median for one in side if one is not None] for side in (base, head)]
    if min(min(side) for side in numbers) <= 0:
        return _without_ratio(row, label, numbers[0], numbers[1])
    first = base[0]
    assert first is not None
    return _Pair(row, first, _floor(first, turns), turns)


def _without_ratio(row: str, label: str, base: Sequence[float], head: Sequence[float]) -> LeftOut:
    """A figure that may be 0 has no ratio; a count that always was 0 must stay so."""
    if any(base):
        return LeftOut(row, label, "it is not above 0 everywhere, so there is no ratio")
    if any(head):
        return LeftOut(row, label, f"always 0 in base, up to {max(head, key=abs):g} in head", is_broken=True)
    return LeftOut(row, label, "always 0 in both")


def _floor(measured: Measured, turns: Sequence[Turn]) -> str | None:
    """What it is divided by: the floor that both commits name, where it has the same unit and is not the figure itself."""
    blocks = [block for turn in turns for block in turn.blocks]
    for label in (blocks[0].floor, *blocks[0].floors):
        if label is None or not all(label in (block.floor, *block.floors) for block in blocks):
            continue
        if all((one := block.find(label)) and one.unit == measured.unit and one.median > 0 for block in blocks):
            return label if label != measured.label else None
    return None


def cost(block: Block, label: str, floor: str | None = None) -> float:
    """A figure of a block as a number of which more is worse, by the floor of the same block where there is one."""
    measured = _found(block, label)
    value = measured.median / _found(block, floor).median if floor is not None else measured.median
    return 1 / value if is_rate(measured.unit) else value


def is_rate(unit: str) -> bool:
    """Whether more is better."""
    return unit.endswith(RATES) or unit == "x"


def _found(block: Block, label: str) -> Measured:
    found = block.find(label)
    if found is None:
        raise KeyError(label)
    return found


def _compared(pair: _Pair, floor: str | None, judged: Judged) -> Compared:
    base = median([_found(block, pair.measured.label).median for turn in pair.turns for block in turn.base])
    head = median([_found(block, pair.measured.label).median for turn in pair.turns for block in turn.head])
    return Compared(pair.row, pair.measured.label, pair.measured.unit, base, head, floor, judged)
