"""The command: check out, run in turns, judge, report."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.compare import blocks
from benchmarks.compare.comparison import Compared, LeftOut, Result, Turn, is_rate, result
from benchmarks.compare.statistics import ALPHA, LEAST_ROUNDS, POWER, SMALLEST, Change
from benchmarks.compare.trees import BadInput, Commit, Tree, checked_out, commit, differs, working_tree
from benchmarks.record import ROOT, machine, short

DEFAULT: Final = ("decide", "lease", "renew", "step", "verify", "import")
"""Rows that need no server, cluster or framework and are done in seconds."""
ROUNDS: Final = 12
INTERRUPTED: Final = 130

Run = Callable[[Tree, str, tuple[int, int, int]], blocks.Block]


def add(commands: Any) -> None:
    """Put the command into the parser."""
    compare = commands.add_parser("compare", help="the rows of two commits: slower, faster, or no difference seen")
    compare.add_argument("base", metavar="BASE", help="the commit to compare with")
    compare.add_argument(
        "head", metavar="HEAD", nargs="?", help="the commit that is judged (default: the working tree)"
    )
    compare.add_argument("--row", action="append", help=f"may be repeated (default: {', '.join(DEFAULT)})")
    compare.add_argument("--rounds", type=int, default=ROUNDS, help=f"even, at least {LEAST_ROUNDS} (default {ROUNDS})")
    compare.add_argument("--dirty", action="store_true", help="the working tree as it is, uncommitted changes included")
    compare.add_argument("--json", action="store_true", help="print the verdicts as data")


def run(options: argparse.Namespace, *, repository: Path = ROOT) -> int:
    """0 when no figure is worse, 1 when one is or a row is broken, 2 for what cannot be compared, 130 when interrupted."""
    try:
        with _interruptible():
            base, head = _commits(options, repository)
            with checked_out(repository, {"base": base, "head": head}) as trees:
                found = measured(trees, options.row or DEFAULT, options.rounds, say=_say)
            notes = [*_notes(repository, base, head), *_alarm(found)]
    except BadInput as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("compare: interrupted; nothing was judged, and both work trees are gone", file=sys.stderr)
        return INTERRUPTED
    print(as_json(found, base, head, options.rounds, notes) if options.json else report(found, base, head, notes))
    return 1 if found.is_regression else 0


def _commits(options: argparse.Namespace, repository: Path) -> tuple[Commit, Commit]:
    if options.rounds < LEAST_ROUNDS or options.rounds % 2:
        raise BadInput(f"--rounds is {options.rounds}: an even number, {LEAST_ROUNDS} at least, so that turns cancel")
    if options.head is not None and options.dirty:
        raise BadInput("--dirty means the working tree, so name no HEAD with it")
    base = commit(repository, options.base)
    if options.head is not None:
        return base, commit(repository, options.head)
    return base, working_tree(repository, is_dirty_allowed=options.dirty)


@contextmanager
def _interruptible() -> Iterator[None]:
    """A termination ends like Ctrl-C: with the work trees and the processes gone."""

    def interrupt(*about: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- running -------------------------------------------------------------------------------------------------------------------


def measured(
    trees: Sequence[Tree], wanted: Sequence[str], rounds: int, *, run: Run = blocks.run, say: Callable[[str], None]
) -> Result:
    """Each row of both trees in turns, and what came of it. Raises :class:`BadInput` for a row that neither has, or if nothing is
    left to compare."""
    base, head = trees
    wanted = list(dict.fromkeys(wanted))
    left_out = _missing(trees, wanted)
    missing = {one.row for one in left_out}
    for row in (row for row in wanted if row not in missing):
        say(f"{row}: tried in both")
        left_out += _tried(trees, row, run)
    turns: dict[str, list[Turn]] = {row: [] for row in wanted if row not in {one.row for one in left_out}}
    for n in range(rounds):
        for row in list(turns):
            say(f"round {n + 1} of {rounds}: {row}")
            try:
                turns[row].append(_turn(base, head, row, n, run))
            except _Broken as error:
                left_out.append(error.left_out)
                del turns[row]
    if not turns and not any(one.is_broken for one in left_out):
        raise BadInput("nothing is left to compare: " + "; ".join(f"{one.row}: {one.why}" for one in left_out))
    return result(turns, left_out)


def _missing(trees: Sequence[Tree], wanted: Sequence[str]) -> list[LeftOut]:
    """Rows that only one of the commits has."""
    try:
        known = {tree.role: blocks.rows(tree) for tree in trees}
    except blocks.Failed as error:
        raise BadInput(f"the rows of a commit cannot be listed: {error}") from error
    found = []
    for row in wanted:
        without = [role for role, names in known.items() if row not in names]
        if len(without) == len(known):
            every = dict.fromkeys(name for names in known.values() for name in names)
            raise BadInput(f"no row is called {row!r}: {', '.join(every)}")
        found += [LeftOut(row, "", f"{role} has no such row") for role in without]
    return found


def _tried(trees: Sequence[Tree], row: str, run: Run) -> list[LeftOut]:
    """A short run of each, so that both have compiled their modules; and the reason if one cannot."""
    base, head = trees
    for tree in (base, head):
        try:
            run(tree, row, blocks.BRIEF)
        except blocks.Failed as error:
            return [_failed(tree, row, error)]
    return []


class _Broken(Exception):
    def __init__(self, left_out: LeftOut) -> None:
        super().__init__(left_out.why)
        self.left_out = left_out


def _turn(base: Tree, head: Tree, row: str, number: int, run: Run) -> Turn:
    """Base, head, head, base; and the other way round in every second round."""
    order = (base, head, head, base) if number % 2 == 0 else (head, base, base, head)
    found: dict[str, list[blocks.Block]] = {base.role: [], head.role: []}
    for tree in order:
        try:
            found[tree.role].append(run(tree, row, blocks.EFFORT))
        except blocks.Failed as error:
            raise _Broken(_failed(tree, row, error)) from error
    (b1, b2), (h1, h2) = found[base.role], found[head.role]
    return Turn((b1, b2), (h1, h2))


def _failed(tree: Tree, row: str, error: blocks.Failed) -> LeftOut:
    return LeftOut(row, "", f"it fails in {tree.role}: {error}", is_broken=tree.role == "head")


# --- telling -------------------------------------------------------------------------------------------------------------------


def report(found: Result, base: Commit, head: Commit, notes: Sequence[str]) -> str:
    """Text for a terminal."""
    lines = [
        f"base {base.name}, head {head.name}; {machine()}",
        "Medians of base -> head; the change of the cost by the row's floor (* as measured), and where it lies for sure.",
    ]
    row = None
    for one in found.figures:
        if one.row != row:
            row = one.row
            lines += ["", row]
        lines.append(_line(one))
    if found.left_out:
        lines += ["", "not compared"]
        lines += [f"  {one.row}{', ' if one.label else ''}{one.label}: {one.why}" for one in found.left_out]
    return "\n".join([*lines, "", *notes, _summary(found)])


def _line(one: Compared) -> str:
    judged = one.judged
    numbers = f"{short(one.base)} -> {short(one.head)} {one.unit}"
    said = (
        f"{_share(judged.ratio)}{' ' if one.floor is not None else '*'} ({_share(judged.low)} to {_share(judged.high)})"
    )
    if judged.change is Change.UNSEEN:
        verdict = f"{one.word}; {_share(judged.visible)} would have been"
    else:
        verdict = one.word.upper() if judged.change is Change.WORSE else one.word
    return f"  {one.label:<56} {numbers:<32} {said:<30} {verdict}"


def _share(ratio: float) -> str:
    """A change in words: in per cent, or as a factor from the double on."""
    return f"{ratio - 1:+.1%}" if ratio < 2 else f"x {ratio:.3g}"


def _notes(repository: Path, base: Commit, head: Commit) -> list[str]:
    if not differs(repository, base, head, "benchmarks/speed"):
        return []
    return ["The rows' own code (benchmarks/speed) is not the same in both: a figure may differ for what it measures."]


def _alarm(found: Result) -> list[str]:
    if not found.alarms:
        return []
    names = ", ".join(f"{one.row}: {one.label}" for one in found.alarms)
    return [f"A commit seemed to differ from itself ({names}): run it again on a quieter machine."]


def _summary(found: Result) -> str:
    worse = [one for one in found.figures if one.judged.change is Change.WORSE]
    better = [one for one in found.figures if one.judged.change is Change.BETTER]
    broken = [one for one in found.left_out if one.is_broken]
    return (
        f"{len(found.figures)} figures: {len(worse)} worse, {len(better)} better, the others without a difference seen; "
        f"{len(broken)} broken. Named: p <= {ALPHA:g} after Holm's correction, and {SMALLEST:.0%} or more."
    )


def as_json(found: Result, base: Commit, head: Commit, rounds: int, notes: Sequence[str]) -> str:
    """The same as data."""
    data = {
        "base": base,
        "head": head,
        "machine": machine(),
        "rounds": rounds,
        "alpha": ALPHA,
        "smallest": SMALLEST,
        "power": POWER,
        "is_regression": found.is_regression,
        "figures": [
            {**msgspec.to_builtins(one), "word": one.word, "is_rate": is_rate(one.unit)} for one in found.figures
        ],
        "left_out": found.left_out,
        "notes": notes,
    }
    return msgspec.json.format(msgspec.json.encode(data), indent=1).decode()
