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
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import track
from rich.table import Table

from agentbudget.catalog.terms import Breaker
from benchmarks.record import commit, machine
from benchmarks.runaway import traffic
from benchmarks.runaway.catalogue import POLICIES, own
from benchmarks.runaway.grid import processes, version
from benchmarks.runaway.guard import Policy, Setting
from benchmarks.runaway.measures import Row, play
from benchmarks.runaway.ours import OursPolicy
from benchmarks.runaway.provider import MESSAGE_BYTES, MESSAGE_TOKENS, Prompt
from benchmarks.runaway.report import put
from benchmarks.runaway.results import PLACE
from benchmarks.runaway.scenario import Scenario
from benchmarks.runaway.statistics import share_of
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


# --- what came of it ------------------------------------------------------------------------------------------------


def _repeats(most: int, setting: Setting) -> dict[str, Any]:
    return {"breaker": Breaker(repeat=(most, 10))}


REPEATS: Final = {
    f"repeat_{most}": OursPolicy(
        f"repeat_{most}", f"agentbudget, breaker at {most} of the same in 10", partial(_repeats, most)
    )
    for most in (2, 3, 4, 5)
}
"""Loop breakers of four severities, for traces that name the arguments of tools: what they stop of honest work."""
LARGEST: Final = TIMES[-1]


class Tally(Struct, frozen=True):
    """What a policy did to the runs of a file at so many times their true cost. ``work``: the share of the useful work that
    was done; ``over``: what was billed beyond the budgets, both in per cent; ``low``, ``high``: exact bounds of the share of
    runs that were not finished."""

    policy: str
    times: float
    runs: int
    finished: int
    low: float
    high: float
    work: float
    over: float


@cache
def _known(path: Path, most: int, estimate: str) -> list[Scenario]:
    return scenarios(path, most, estimate)


def play_run(path: Path, most: int, estimate: str, at: int, names: Sequence[str]) -> list[tuple[str, Row]]:
    """A run of the file under each policy at each budget; breakers at the largest one, where nothing else has a reason to stop
    it."""
    scenario = _known(path, most, estimate)[at]
    found = [(name, replayed(scenario, times, POLICIES[name])) for name in names for times in TIMES]
    if path.suffix == ".jsonl":
        found += [(name, replayed(scenario, LARGEST, policy)) for name, policy in REPEATS.items()]
    return found


def replayed(scenario: Scenario, times: float, policy: Policy) -> Row:
    """One run at so many times its true cost."""
    return play(scenario, {"times": times}, policy, 0).row


def tallied(rows: Iterable[tuple[str, Row]]) -> list[Tally]:
    """By policy and budget, in the order in which they came."""
    cells: dict[tuple[str, float], list[Row]] = {}
    for name, row in rows:
        cells.setdefault((name, float(row.params.partition("=")[2])), []).append(row)
    whole = max(sum(row.useful for row in each) for each in cells.values())
    found = []
    for (name, times), runs in cells.items():
        finished = sum(row.completed for row in runs)
        stopped = share_of(len(runs) - finished, len(runs))
        work = 100 * sum(row.useful for row in runs) / whole
        over = 100 * sum(row.overspend for row in runs) / sum(row.budget for row in runs)
        found.append(
            Tally(
                name,
                times,
                len(runs),
                finished,
                round(stopped.low, 4),
                round(stopped.high, 4),
                round(work, 1),
                round(over, 2),
            )
        )
    return found


def title(name: str) -> str:
    return (POLICIES.get(name) or REPEATS[name]).title


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
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="write a line a run to this .csv")
    parser.add_argument("--keep", type=Path, help="write a line a policy and budget to a .csv in this folder")
    parser.add_argument("--readme", type=Path, help="put what the folder of --keep has between this file's markers")


def run(options: argparse.Namespace) -> int:
    """0; 2 for a file of neither format."""
    path, most, estimate = options.path, options.runs, options.estimate
    try:
        count = len(_known(path, most, estimate))
    except ValueError as error:
        print(f"benchmarks replay: {error}", file=sys.stderr)
        return 2
    ask = partial(play_run, path, most, estimate, names=options.policy or own())
    console = Console(file=sys.stderr)
    rows: list[tuple[str, Row]] = []
    for some in track(_played(ask, count, options.workers), "runs", total=count, console=console):
        rows += some
    tallies = tallied(rows)
    Console(width=150 if not sys.stdout.isatty() else None).print(table(tallies, path.name))
    if options.out is not None:
        _write(options.out, [msgspec.to_builtins(row) for _, row in rows])
    if options.keep is not None:
        _keep(options.keep, path.stem if estimate == "bound" else f"{path.stem}-{estimate}", tallies)
        if options.readme is not None:
            put(options.readme, markdown(options.keep), "replay")
    return 0


def _keep(folder: Path, name: str, tallies: Sequence[Tally]) -> None:
    """The tallies, and where they were played."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.csv", [msgspec.to_builtins(tally) for tally in tallies])
    path = folder / PLACE
    places = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    places[name] = {"commit": commit(), "version": version(), "machine": machine()}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(places, order="sorted"), indent=1) + b"\n")


def _played(ask: Callable[..., list[tuple[str, Row]]], count: int, workers: int) -> Iterator[list[tuple[str, Row]]]:
    if workers <= 1:
        yield from map(ask, range(count))
        return
    with processes(workers) as pool:
        yield from pool.map(ask, range(count))


def table(tallies: Sequence[Tally], name: str) -> Table:
    """Runs finished, and the share of the work that was done; at 4 times its cost nobody has a reason to stop a run."""
    made = Table(
        "policy",
        *(f"at {times:g} x" for times in TIMES),
        title=f"{name}: runs finished (share of the work done; past the budget)",
    )
    for policy in dict.fromkeys(tally.policy for tally in tallies):
        by_times = {tally.times: tally for tally in tallies if tally.policy == policy}
        made.add_row(policy, *(_cell(by_times.get(times)) for times in TIMES))
    return made


def _cell(tally: Tally | None) -> str:
    return "" if tally is None else f"{tally.finished}/{tally.runs} ({tally.work:.1f} %; {tally.over:.2f} %)"


def markdown(folder: Path) -> str:
    """Each kept file: policies that did the same are one line."""
    lines = [
        f"| traffic | policy | {' | '.join(f'{times:g} x' for times in TIMES)} |",
        f"|---|---|{'---:|' * len(TIMES)}",
    ]
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            tallies = msgspec.convert(list(csv.DictReader(file)), list[Tally], strict=False)
        same: dict[tuple[str, ...], list[str]] = {}
        for policy in dict.fromkeys(tally.policy for tally in tallies):
            by_times = {tally.times: tally for tally in tallies if tally.policy == policy}
            cells = tuple(_brief(by_times.get(times)) for times in TIMES)
            same.setdefault(cells, []).append(title(policy))
        first = f"`{path.stem}`, {tallies[0].runs} runs"
        for cells, titles in same.items():
            lines.append(f"| {first} | {_together(titles)} | {' | '.join(cells)} |")
            first = ""
    return "\n".join(lines)


def _brief(tally: Tally | None) -> str:
    if tally is None:
        return ""
    over = f", +{tally.over:.1f} %" if tally.over >= 0.05 else ""
    return f"{100 * tally.finished / tally.runs:.0f} % ({tally.work:.0f} %{over})"


def _together(titles: Sequence[str]) -> str:
    """Names, a family's once."""
    families: dict[str, list[str]] = {}
    for one in titles:
        family, _, rest = one.partition(", ")
        families.setdefault(family, []).append(rest)
    return "; ".join(f"{family}: {', '.join(rests)}" if rests[0] else family for family, rests in families.items())


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
