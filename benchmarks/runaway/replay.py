"""``python -m benchmarks replay PATH``: real traffic under every policy, at 1 to 4 times its true cost.

Two formats. ``.jsonl``: a line a run of an agent, ``{"task", "trial", "reward", "steps": [...]}``; a step is ``{"kind": "llm",
"context_bytes", "output_bytes", "tool_calls": [{"tool", "arguments_sha"}]}``, ``{"kind": "tool", "tool", "result_bytes"}`` or
``{"kind": "user", "bytes"}``. ``.csv``: ``TIMESTAMP,ContextTokens,GeneratedTokens``, a line a request of a service; each
minute is a run, whose requests are threads of one session. Bytes count as four a token where only they are known, and tokens
as four bytes.

Everything in such a run is honest work, so whoever stops it within its cost was wrong."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.runaway import traffic
from benchmarks.runaway.catalogue import POLICIES, own
from benchmarks.runaway.guard import Policy
from benchmarks.runaway.measures import Row, play
from benchmarks.runaway.provider import MESSAGE_BYTES, MESSAGE_TOKENS, Prompt
from benchmarks.runaway.scenario import Scenario
from benchmarks.runaway.steps import Call, Join, Pause, Program, Spawn, Tool
from benchmarks.runaway.world import Task

TIMES: Final = (1, 1.25, 1.5, 2, 4)
BYTES_A_TOKEN: Final = 4
CAP: Final = 1_024
MINUTE_US: Final = 60_000_000


def scenarios(path: Path, most: int, estimate: str = "bound") -> list[Scenario]:
    """A scenario for each of the first ``most`` runs of the file. Raises ValueError for a file of neither format."""
    if path.suffix == ".jsonl":
        lines = path.read_text("utf-8").splitlines()[:most]
        programs: list[Callable[[Task], Program]] = [
            _agent(msgspec.json.decode(line)["steps"], estimate) for line in lines
        ]
        return [_scenario(f"{path.stem}-{at}", program, "gpt-4o") for at, program in enumerate(programs)]
    if path.suffix == ".csv":
        minutes = list(_minutes(path))[:most]
        return [
            _scenario(f"{path.stem}-{at}", _service(minute, estimate), "gpt-5-mini")
            for at, minute in enumerate(minutes)
        ]
    raise ValueError(f"{path.name} is neither .jsonl nor .csv: see python -m benchmarks replay --help")


def _scenario(name: str, program: Callable[[Task], Program], model: str) -> Scenario:
    return Scenario(
        name=name, title=name, fault="None.", provenance=f"Sizes and order of a recorded run, billed as {model}.",
        grid=tuple({"times": times} for times in TIMES), program=program, honest=True,
    )  # fmt: skip


def _prompt(tokens: int, size: int) -> Prompt:
    return Prompt((), tokens + 2 * MESSAGE_TOKENS, size + MESSAGE_BYTES)


def _agent(steps: Sequence[dict[str, Any]], estimate: Any) -> Callable[[Task], Program]:
    def program(task: Task) -> Program:
        arguments: list[str] = []
        for step in steps:
            match step["kind"]:
                case "llm":
                    writes = -(-step["output_bytes"] // BYTES_A_TOKEN)
                    arguments = [call["arguments_sha"] for call in step["tool_calls"]]
                    prompt = _prompt(step["context_bytes"] // BYTES_A_TOKEN, step["context_bytes"])
                    takes_us = traffic.reply_us(task.rng, writes)
                    reply = yield Call(
                        "gpt-4o", prompt, writes, max(CAP, writes), takes_us, useful=1, estimate=estimate
                    )
                case "tool":
                    asked = arguments.pop(0) if arguments else ""
                    reply = yield Tool(
                        step["tool"], asked, 0, traffic.draw(task.rng, traffic.TOOL_MS) * 1_000, serves=True
                    )
                case _:
                    yield Pause(20_000_000)
                    continue
            if not reply.ok:
                return None
        return True

    return program


Request = tuple[int, int, int]
"""Microseconds since the minute began, input tokens, output tokens."""


def _minutes(path: Path) -> Iterator[list[Request]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            (datetime.fromisoformat(row["TIMESTAMP"][:26]), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    found: dict[int, list[Request]] = {}
    for when, tokens, written in rows:
        minute, passed_us = divmod((when - rows[0][0]) // datetime.resolution, MINUTE_US)
        found.setdefault(minute, []).append((passed_us, tokens, written))
    yield from (found[minute] for minute in sorted(found))


def _service(requests: Sequence[Request], estimate: Any) -> Callable[[Task], Program]:
    def one(tokens: int, written: int) -> Callable[[Task], Program]:
        def program(task: Task) -> Program:
            prompt, takes_us = _prompt(tokens, tokens * BYTES_A_TOKEN), traffic.reply_us(task.rng, written)
            return (
                yield Call("gpt-5-mini", prompt, written, max(CAP, written), takes_us, useful=1, estimate=estimate)
            ).ok

        return program

    def program(task: Task) -> Program:
        begun_us, threads = task.lab.now_us, []
        for passed_us, tokens, written in requests:
            yield Pause(max(0, begun_us + passed_us - task.lab.now_us))
            threads.append((yield Spawn(one(tokens, written), thread=True)))
        return None not in threads and all((yield Join(tuple(threads))))

    return program


# --- the command ----------------------------------------------------------------------------------------------------


def add(commands: Any) -> None:
    parser = commands.add_parser("replay", help="real traffic under every policy, at 1 to 4 times its true cost")
    parser.description, parser.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    parser.add_argument("path", type=Path)
    parser.add_argument("--policy", action="append", choices=tuple(POLICIES), help="only this one; may be repeated")
    parser.add_argument("--runs", type=int, default=100, help="how many runs of the file, or minutes of it")
    parser.add_argument(
        "--estimate", choices=("bound", "exact"), default="bound", help="what callers know of their input"
    )
    parser.add_argument("--out", type=Path, help="write a line a run to this .csv")


def run(options: argparse.Namespace) -> int:
    """0; 2 for a file of neither format."""
    try:
        found = scenarios(options.path, options.runs, options.estimate)
    except ValueError as error:
        print(f"benchmarks replay: {error}", file=sys.stderr)
        return 2
    names = options.policy or own()
    console = Console(file=sys.stderr)
    rows: dict[tuple[str, float], list[Row]] = {}
    for scenario in track(found, "runs", console=console):
        for name in names:
            for params in scenario.grid:
                rows.setdefault((name, params["times"]), []).append(replayed(scenario, params["times"], POLICIES[name]))
    Console(width=150 if not sys.stdout.isatty() else None).print(table(rows, options.path.name))
    if options.out is not None:
        _write(options.out, [row for each in rows.values() for row in each])
    return 0


def replayed(scenario: Scenario, times: float, policy: Policy) -> Row:
    """One run at so many times its true cost."""
    return play(scenario, {"times": times}, policy, 0).row


def table(rows: dict[tuple[str, float], list[Row]], name: str) -> Table:
    """Runs finished, and the share of the work that was done; at 4 times its cost nobody has a reason to stop a run."""
    made = Table(
        "policy",
        *(f"at {times:g} x" for times in TIMES),
        title=f"{name}: runs finished (share of the work done; past the budget)",
    )
    for policy in dict.fromkeys(policy for policy, _ in rows):
        made.add_row(policy, *(_cell(rows[policy, times], rows) for times in TIMES))
    return made


def _cell(runs: Sequence[Row], rows: dict[tuple[str, float], list[Row]]) -> str:
    finished = sum(row.completed for row in runs)
    whole = max(sum(row.useful for row in each) for each in rows.values())
    over = 100 * sum(row.overspend for row in runs) / sum(row.budget for row in runs)
    return f"{finished}/{len(runs)} ({100 * sum(row.useful for row in runs) / whole:.1f} %; {over:.2f} %)"


def _write(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Row.__struct_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(msgspec.to_builtins(row) for row in rows)
