"""Alternatives in processes of their own that take turns, block by block; one that cannot be measured is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from msgspec import Struct

from benchmarks.peers.adapters import ACTUAL
from benchmarks.record import ROOT
from benchmarks.speed.measure import Row, figures

WARM_UP: Final = 250
FLOOR: Final = "a lock and two integers"
OURS: Final = "agentbudget: session.reserve, settle"
WHAT: Final = "0.001 held and 0.0007 settled, budget never short; each in a process of its own, one thread"


class Alternative(Struct, frozen=True):
    """opens: ``module:function`` of its adapter. distribution: its name on the package index; empty for ours. remark: what a
    reader must know to compare it."""

    label: str
    opens: str
    distribution: str = ""
    remark: str = ""


ALTERNATIVES: Final = (
    Alternative(FLOOR, "benchmarks.peers.adapters:floor"),
    Alternative(OURS, "benchmarks.peers.adapters:ours"),
    Alternative("token-budget-py", "benchmarks.peers.adapters:token_budget", "token-budget-py", "in memory only"),
    Alternative(
        "LiteLLM proxy key, fixed price", "benchmarks.peers.adapters:litellm_fixed_price", "litellm", "counters in memory"
    ),
    Alternative("LiteLLM proxy key, chat", "benchmarks.peers.adapters:litellm_chat", "litellm", "counters in memory"),
    Alternative(
        "cendor-tokenguard, a guarded call",
        "benchmarks.peers.adapters:tokenguard",
        "cendor-tokenguard",
        "cannot reserve: checks before, records after, holds nothing between",
    ),
    Alternative(
        "Pydantic AI UsageLimits",
        "benchmarks.peers.adapters:pydantic_ai",
        "pydantic-ai-slim",
        "cannot reserve: checks before, adds after, holds nothing between",
    ),
)  # fmt: skip


class Unmeasured(Exception):
    """An alternative that is not installed, or failed. The message says which and why."""


class Missing(Unmeasured):
    """Its package is not in the interpreter."""


class Turn:
    """The process of one alternative."""

    def __init__(self, alternative: Alternative, interpreter: Path) -> None:
        self.alternative, self.microseconds, self._pairs = alternative, list[float](), 0
        environment = dict(os.environ)
        if alternative.distribution:
            environment.pop("PYTHONPATH", None)  # ours must not stand before the peer's packages
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [str(interpreter), "-m", "benchmarks.peers.child", alternative.opens, alternative.distribution],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
        )  # fmt: skip

    def opened(self) -> dict[str, str]:
        """Its version and interpreter; raises Missing or Unmeasured."""
        answer: dict[str, str] = self._answer()
        if "missing" in answer:
            raise Missing(f"{self.alternative.label}: not measured, {answer['missing']}")
        return answer

    def run(self, pairs: int, *, keep: bool = True) -> None:
        """One block."""
        found: list[float] = self._ask(str(pairs))
        self._pairs += pairs
        self.microseconds += found if keep else []

    def finish(self) -> None:
        """Raises Unmeasured when it did not book what was settled: then it did another task."""
        booked, expected = float(self._ask("finish")), self._pairs * ACTUAL
        if abs(booked - expected) > expected * 1e-6:  # peers count in floats
            raise Unmeasured(f"{self.alternative.label}: booked {booked:.0f} of {expected} nanocredits, another task")

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone: reading says so, with what it said last
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise Unmeasured(f"{self.alternative.label}: failed, {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [line for line in self._said.read().splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self._process.returncode}"

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Its input ends, so it does."""
        self._process.communicate()
        self._said.close()


class Outcome(Struct, frozen=True):
    """peers: for each opened alternative its version, interpreter and remark. missing, failed: the others, and why."""

    row: Row
    peers: dict[str, dict[str, str]]
    missing: list[str]
    failed: list[str]

    def to_ours(self, label: str) -> float | None:
        """Median over ours; above 1 is slower than ours. None when ours was not measured."""
        medians = {figure.label: figure.median for figure in self.row.figures}
        return medians[label] / medians[OURS] if medians.get(OURS) else None


def measure(
    alternatives: Sequence[Alternative], interpreter: Path, *, pairs: int, block: int = 1_000, warm_up: int = WARM_UP
) -> Outcome:
    """Every round runs a block of each alternative, as ``taking_turns`` does. ``interpreter``: the peers'; ours has this one."""
    unmeasured: list[Unmeasured] = []
    with ExitStack() as stack:
        turns, peers = list[Turn](), dict[str, dict[str, str]]()
        for alternative in alternatives:
            python = interpreter if alternative.distribution else Path(sys.executable)
            turn = stack.enter_context(Turn(alternative, python))
            try:
                peers[alternative.label] = turn.opened() | {"remark": alternative.remark}
                turn.run(warm_up, keep=False)
                turns.append(turn)
            except Unmeasured as error:
                unmeasured.append(error)
        _take_turns(turns, pairs, block, unmeasured)
    found = figures({turn.alternative.label: turn.microseconds for turn in turns})
    floor = FLOOR if any(one.label == FLOOR for one in found) else None
    missing = [str(error) for error in unmeasured if isinstance(error, Missing)]
    failed = [str(error) for error in unmeasured if not isinstance(error, Missing)]
    row = Row("peers", WHAT, found, floor=floor, notes=[*_remarks(peers), *missing, *failed])
    return Outcome(row, peers, missing, failed)


def _take_turns(turns: list[Turn], pairs: int, block: int, unmeasured: list[Unmeasured]) -> None:
    sizes = [min(block, pairs - start) for start in range(0, pairs, block)]
    for size in (*sizes, 0):
        for turn in tuple(turns):
            try:
                turn.run(size) if size else turn.finish()
            except Unmeasured as error:
                unmeasured.append(error)
                turns.remove(turn)


def _remarks(peers: dict[str, dict[str, str]]) -> Iterable[str]:
    for label, told in peers.items():
        said = [told["version"], told["python"] if told["version"] else "", told["note"], told["remark"]]
        if any(said):
            yield f"{label}: {', '.join(filter(None, said))}"
