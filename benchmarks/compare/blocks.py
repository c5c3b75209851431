"""One block: a row of a tree, in a process of its own with that tree's modules alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.compare.trees import Tree

SECONDS: Final = 600
"""A block that takes longer hangs."""
SECONDS_TO_END: Final = 10
"""For the processes and servers that a row has started; then they are killed."""
EFFORT: Final = (6, 1_000, 10_000)
"""Rounds, "many" and entries of a block: a second or two, for many short processes tell more than one long one. What a
row says of 100,000 customers is not compared."""
BRIEF: Final = (2, 300, 2_000)

_CHILD: Final = """
import sys
from pathlib import Path
import msgspec
import agentbudget
from benchmarks import speed
from benchmarks.speed.measure import Effort
here = Path.cwd()
for module in (agentbudget, speed):
    if here not in Path(module.__file__).resolve().parents:
        raise SystemExit(f"{module.__name__} is not this commit's: {module.__file__}")
out, name, *effort = sys.argv[1:]
if name:
    rounds, many, entries = map(int, effort)
    said = speed.ROWS[name](Effort(rounds=rounds, many=many, entries=entries))
else:
    said = list(speed.ROWS)
Path(out).write_bytes(msgspec.json.encode(said))
"""


class Measured(Struct, frozen=True):
    """A figure of a block, as far as it is compared."""

    label: str
    unit: str
    median: float


class Block(Struct, frozen=True):
    """A row's figures in one process."""

    figures: list[Measured]
    floor: str | None = None
    floors: list[str] = []

    def find(self, label: str) -> Measured | None:
        """None where the row has no such figure."""
        return next((one for one in self.figures if one.label == label), None)


class Failed(Exception):
    """The block did not come to its end; the message is the last thing that it said."""


def rows(tree: Tree) -> list[str]:
    """The names of the rows that a commit has. Raises :class:`Failed`."""
    return msgspec.json.decode(_said(tree, ""), type=list[str])


def run(tree: Tree, row: str, effort: tuple[int, int, int] = EFFORT) -> Block:
    """Run a row once. Raises :class:`Failed`."""
    return msgspec.json.decode(_said(tree, row, *map(str, effort)), type=Block)


def _said(tree: Tree, *arguments: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="agentbudget-block-") as folder:
        out = Path(folder) / "out"
        with (Path(folder) / "errors").open("w+b") as errors:
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(out), *arguments],
                cwd=tree.folder.resolve(),
                env=_environment(tree),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # so that it can be ended with all that it started
            )
            try:
                code = child.wait(SECONDS)
            except subprocess.TimeoutExpired:
                raise Failed(f"it was not done after {SECONDS} s") from None
            finally:
                _end(child)
            if code or not out.exists():
                raise Failed(_last_line(errors) or f"it ended with {code}")
        return out.read_bytes()


def _environment(tree: Tree) -> dict[str, str]:
    """This one's, with the tree's modules before those that are installed."""
    folder = tree.folder.resolve()
    places = [folder, *sorted(path for path in folder.glob("integrations/*") if path.is_dir())]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONHASHSEED": "random"}


def _end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt what still runs, so that a row stops its servers; then nothing of it is left."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # then it is killed with the others
            child.wait(SECONDS_TO_END)
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(errors: Any) -> str:
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
