"""``python -m benchmarks.peers`` measures ours beside its peers, prints the table and records it in results/peers.json."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import record
from benchmarks.peers import environment
from benchmarks.peers.turns import ALTERNATIVES, Outcome, measure

HERE: Final = Path(__file__).parent
README: Final = HERE / "README.md"
RESULTS: Final = HERE.parent / "results" / "peers.json"
PAIRS: Final = 100_000
BLOCK: Final = 1_000


def main(arguments: list[str] | None = None) -> int:
    """0 when what could be run was measured, 1 when one failed; a peer that is not installed is named, and no failure."""
    options = _parser().parse_args(arguments)
    if options.table:
        return _show(options.results, write=options.write)
    try:
        python = environment.install() if options.install else environment.interpreter()
    except (environment.NoInterpreter, subprocess.CalledProcessError) as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return 2
    pairs = min(options.pairs, 100) if options.quick else options.pairs
    outcome = measure(ALTERNATIVES, python, pairs=pairs, block=min(BLOCK, max(1, pairs // 2)))
    print(record.report([outcome.row]), table(as_data(outcome)), sep="\n\n")
    _keep(options.results, outcome, pairs)
    return 1 if outcome.failed else 0


def _keep(results: Path, outcome: Outcome, pairs: int) -> None:
    """Only whole runs replace recorded figures."""
    why = [*outcome.failed, *outcome.missing, *([f"{pairs:,} pairs are fewer than {PAIRS:,}"] if pairs < PAIRS else [])]
    if why:
        hint = " To install the peers: python -m benchmarks.peers --install" if outcome.missing else ""
        print(f"\nNot recorded: {'; '.join(why)}.{hint}", file=sys.stderr)
        return
    results.parent.mkdir(exist_ok=True)
    kept = record.load(results) | {outcome.row.name: as_data(outcome)}
    results.write_bytes(msgspec.json.format(msgspec.json.encode(kept, order="sorted"), indent=1) + b"\n")


def as_data(outcome: Outcome) -> dict[str, Any]:
    """As ``record.as_data``, and each figure's ratio to ours, and what was measured in which version."""
    made = record.as_data(outcome.row)
    for figure in made["figures"]:
        figure["to_ours"] = outcome.to_ours(figure["label"])
    return made | {"peers": outcome.peers}


def table(row: Mapping[str, Any]) -> str:
    """Markdown: a line for each alternative."""
    lines = [
        "| alternative | version | median | min | p99 | to the floor | to ours |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for figure in row["figures"]:
        times = " | ".join(f"{figure[name]:,.3g}" if figure[name] < 100 else f"{figure[name]:,.0f}"
                           for name in ("median", "least", "p99"))  # fmt: skip
        ratios = " | ".join("" if figure[name] is None else _ratio(figure[name]) for name in ("ratio", "to_ours"))
        version = row["peers"][figure["label"]]["version"]
        lines.append(f"| {figure['label']} | {version} | {times} | {ratios} |")
    notes = [f"- {note}" for note in row["notes"]]
    place = f"us a pair, {row['figures'][0]['samples']:,} pairs each" if row["figures"] else "Nothing was measured"
    where = f"Measured {row['day']} at {row['commit']}: {place}. {row['machine'].partition(', load')[0]}."
    return "\n".join([*lines, "", *notes, "", where])


def _ratio(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number < 1 else f"{number:.1f}"


def _show(results: Path, *, write: bool) -> int:
    text = table(record.load(results)["peers"])
    record.put_table(README, text) if write else print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--install", action="store_true", help="first put the peers into an environment of their own")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of each alternative; fewer are not recorded")
    parser.add_argument("--quick", action="store_true", help="a hundred pairs, to see that it runs")
    parser.add_argument("--table", action="store_true", help="print the recorded table instead")
    parser.add_argument("--write", action="store_true", help="with --table: put it into README.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where figures are recorded")
    return parser


if __name__ == "__main__":
    sys.exit(main())
