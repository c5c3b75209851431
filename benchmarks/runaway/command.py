"""``python -m benchmarks runaway``: plays the grid and writes what came of it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.runaway import grid, results
from benchmarks.runaway.catalogue import POLICIES, SCENARIOS, own, peers
from benchmarks.runaway.measures import Row, label

OURS: Final = ("agentbudget_strict", "agentbudget_leased")


def add(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser("runaway", help="the runaway lab: overspend and lost work by policy and fault")
    parser.add_argument("--scenario", action="append", choices=tuple(SCENARIOS), help="only this one; may be repeated")
    parser.add_argument("--policy", action="append", choices=tuple(POLICIES), help="only this one; may be repeated")
    parser.add_argument(
        "--seeds", type=int, help="runs a cell (default: 30, and 300 in the first cell of a headline's scenario)"
    )
    parser.add_argument(
        "--peers", action="store_true", help="the peers too, each in an environment that is made for it"
    )
    parser.add_argument("--parallel", choices=("processes", "ray"), default="processes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--default-only", action="store_true", help="only the first parameters of each scenario's grid")
    parser.add_argument("--smoke", action="store_true", help="3 seeds of each default: what a change must not break")
    parser.add_argument("--out", type=Path, help="folder of the results; a run in it is resumed")


def run(options: argparse.Namespace) -> int:
    """1 when agentbudget strict or leased broke a promise, else 0."""
    names = options.policy or [*own(), *(peer.name for peer in peers() if options.peers)]
    for peer in peers():
        if peer.name in names:
            peer.install()
    out: Path = options.out or Path(tempfile.mkdtemp(prefix="runaway-"))
    seeds = 3 if options.smoke and options.seeds is None else options.seeds
    wanted = grid.cells(
        options.scenario or list(SCENARIOS),
        names,
        seeds,
        only_default=options.smoke or options.default_only,
    )
    console = Console(file=sys.stderr)
    shelf = grid.Shelf(out)
    total = sum(cell.seeds for cell in wanted)
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("runs", total=total)
        bar.advance(task, sum(cell.seeds for cell in wanted if shelf.has(cell)))
        grid.run(
            wanted, shelf, workers=options.workers, parallel=options.parallel, on_block=lambda n: bar.advance(task, n)
        )
    summary = results.write(out, wanted, shelf)
    Console(width=150 if not sys.stdout.isatty() else None).print(table(summary))
    broken = broken_promises(results.load(out))
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    print(f"results: {out}", file=sys.stderr)
    return 1 if broken else 0


def broken_promises(rows: list[Row]) -> list[str]:
    """What agentbudget strict or leased may never do: overspend by a nanocredit where no call costs more than could be reckoned
    with, leave a hold, or book less than was billed or more than that and what it calls unknown."""
    found = []
    for row in rows:
        if row.policy not in OURS:
            continue
        run = f"{row.policy} in {row.scenario} ({row.params}) with seed {row.seed}"
        if SCENARIOS[row.scenario].within_estimate and row.overspend:
            found.append(f"{run} overspent by {row.overspend} nanocredits")
        if row.held:
            found.append(f"{run} leaves {row.held} nanocredits held")
        if not row.is_booked_right:
            found.append(f"{run} booked {row.booked} ({row.unknown} unknown) of {row.billed}")
    return found


COLUMNS: Final = (
    "scenario", "policy", "runs", "past the budget", "p99", "most", "useful/credit", "false stops", "waste", "us a decision",
)  # fmt: skip


def table(summary: list[dict[str, Any]]) -> Table:
    """The default parameters, as text."""
    made = Table(*COLUMNS)
    for line in summary:
        if line["params"] != label(SCENARIOS[line["scenario"]].grid[0]):
            continue
        mean, low, high, p99, most = (
            line[f"overspend_percent_{end}"] for end in ("mean", "low", "high", "p99", "most")
        )
        made.add_row(
            line["scenario"], line["policy"], str(line["runs"]), f"{mean:.2f} % [{low:.2f}, {high:.2f}]", f"{p99:.1f} %",
            f"{most:.1f} %", f"{line['useful_per_credit_mean']:.0f}", f"{line['false_stops']}/{line['runs']}",
            f"{line['waste_credits_mean']:.4f}", f"{line['decision_us']:.0f}",
        )  # fmt: skip
    return made
