"""``python -m benchmarks speed`` runs the rows and prints the table; ``table`` prints what is recorded; ``scale``
simulates fleets from it; ``compare`` judges two commits; ``runaway`` is the lab of runaway agents."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import record
from benchmarks.compare import command as compare
from benchmarks.runaway import command as runaway
from benchmarks.runaway import replay
from benchmarks.runaway import report as runaway_report
from benchmarks.scale.constants import measured
from benchmarks.scale.report import report
from benchmarks.speed import ROWS
from benchmarks.speed.measure import FULL, QUICK, Row

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed.json"
README = HERE / "README.md"
SCALE = HERE.parent / "docs" / "scale.md"


def main(arguments: list[str] | None = None) -> int:
    """0 when every row that was run keeps its target, 1 otherwise."""
    options = parser().parse_args(arguments)
    if options.command == "runaway":
        return runaway.run(options)
    if options.command == "replay":
        return replay.run(options)
    if options.command == "report":
        return runaway_report.run(options)
    if options.command == "compare":
        return compare.run(options)
    if options.command == "table":
        text = record.table(record.load(options.results))
        record.put_table(README, text) if options.write else print(text)
        return 0
    if options.command == "scale":
        text = report(measured(record.load(options.results)), seconds=options.seconds)
        record.put_table(SCALE, text) if options.write else print(text)
        return 0
    rows = [_run(name, quick=options.quick, results=options.results) for name in options.row or ROWS]
    print(json.dumps([record.as_data(row) for row in rows], indent=1) if options.json else record.report(rows))
    return 0 if all(row.is_met is not False for row in rows) else 1


def _run(name: str, *, quick: bool, results: Path) -> Row:
    print(f"{name} ...", file=sys.stderr, flush=True)
    row = ROWS[name](QUICK if quick else FULL)
    if not quick:
        record.keep(results, row)
    return row


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed", help="run the rows of the speed table")
    speed.add_argument("--row", action="append", choices=tuple(ROWS), help="only this row; may be repeated")
    speed.add_argument("--json", action="store_true", help="print the figures as data")
    speed.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; nothing is recorded")
    table = commands.add_parser("table", help="print the recorded table")
    table.add_argument("--write", action="store_true", help="put it into README.md")
    scale = commands.add_parser("scale", help="simulate what owners carry and what fleets need")
    scale.add_argument("--write", action="store_true", help="put it into docs/scale.md")
    scale.add_argument("--seconds", type=float, default=2, help="of virtual time that are watched")
    compare.add(commands)
    runaway.add(commands)
    replay.add(commands)
    runaway_report.add(commands)
    for command in (speed, table, scale):
        command.add_argument("--results", type=Path, default=RESULTS, help="where figures are recorded")
    return parser


if __name__ == "__main__":
    sys.exit(main())
