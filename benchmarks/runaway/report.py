"""``python -m benchmarks report``: a results folder as one self-contained HTML page, PNG pictures, and the README's table."""

from __future__ import annotations

import argparse
import base64
import csv
import html
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.runaway import results
from benchmarks.runaway.catalogue import POLICIES, SCENARIOS
from benchmarks.runaway.measures import label

CAPTIONS: Final = {
    "overspend": "Overspend by policy, over the faults that all of them can express.",
    "frontier": "Overspend against useful work: up and to the left is better.",
    "survival": "Survival of healthy sessions against their budget.",
    "session": "One session, step by step.",
}
SHOWN: Final = ("none", "step_count", "post_hoc", "check_then_act", "soft_alert", "agentbudget_leased")
FIRST: Final = ("tool_loop", "race", "low_estimates", "healthy_bursty")
"""What the README shows of it: two faults that we win, one that nobody wins, and honest work that we stop."""
BESIDE, ABREAST = ("none", "agentbudget_leased"), 9
"""What stands in each table of peers, and how many of them do."""
STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;"
    "font-size:12px}td,th{border-bottom:1px solid #ddd;padding:.15rem .5rem;text-align:right;white-space:nowrap}th{white-space:"
    "normal;vertical-align:bottom}td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}img{max-width:100%}div{overflow-x:auto}"
    "td:nth-child(2){position:sticky;left:0;background:#fff}"
    "code{background:#f3f3f3}"
)
COLUMNS: Final = (
    ("parameters", "params"), ("policy", "policy"), ("runs", "runs"), ("past the budget, %", "overspend_percent*"),
    ("p99", "overspend_percent_p99"), ("most", "overspend_percent_most"), ("credits past it", "overspend_credits*"),
    ("runs past it", "over_runs/"), ("useful", "useful"), ("useful a credit", "useful_per_credit*"), ("finished", "completed"),
    ("false stops", "false_stops/"), ("false denials", "false_denials"), ("affordable, refused", "affordable"),
    ("lag, steps", "lag_steps*"), ("lag, credits", "lag_credits*"), ("waste, credits", "waste_credits*"),
    ("runs that leave a hold", "held_runs/"), ("wrong books", "wrong_books/"), ("booked less billed", "difference_credits"),
    ("past it, less leased's", "overspend_vs_leased*"), ("useful, less leased's", "useful_vs_leased*"),
    ("waste, less leased's", "waste_vs_leased*"), ("us a decision", "decision_us"), ("slowest, us", "slowest_us"),
    ("ms a run", "run_ms"),
)  # fmt: skip
"""Heading and column of summary.csv. ``*``: a mean with its interval; ``/``: a count with its bounds, in per cent of the runs."""


def add(commands: Any) -> None:
    parser = commands.add_parser("report", help="pictures and one HTML page of what the runaway lab found")
    parser.add_argument("folder", type=Path, help="what --out named")
    parser.add_argument("--readme", type=Path, help="also put the headline table between this file's markers")
    parser.add_argument("--keep", type=Path, help="also copy the summary and the pictures to this folder")


def run(options: argparse.Namespace) -> int:
    """0; 2 when there are no results, or no matplotlib."""
    folder: Path = options.folder
    if not (folder / results.RUNS).exists():
        print(
            f"benchmarks report: no results in {folder}: python -m benchmarks runaway --out {folder}", file=sys.stderr
        )
        return 2
    try:
        from benchmarks.runaway.plots import draw
    except ModuleNotFoundError as error:
        print(f"benchmarks report: {error}: pip install 'agentbudget-runtime[bench]'", file=sys.stderr)
        return 2
    pictures = draw(results.load(folder), folder)
    with (folder / results.SUMMARY).open(newline="", encoding="utf-8") as file:
        summary = list(csv.DictReader(file))
    (folder / "report.html").write_text(page(summary, results.place(folder), pictures), "utf-8")
    print(folder / "report.html")
    if options.readme is not None:
        put(options.readme, headline(summary, results.place(folder)))
    if options.keep is not None:
        keep(folder, options.keep)
    return 0


def put(readme: Path, table: str, name: str = "runaway") -> None:
    """The table in the place of the last one. Raises ValueError where no place is marked."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = readme.read_text("utf-8").partition(start)
    if not found:
        raise ValueError(f"{readme} has no {start}")
    readme.write_text(f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}", "utf-8")


def keep(folder: Path, kept: Path) -> None:
    """What the table rests on, beside the other recorded results."""
    kept.mkdir(parents=True, exist_ok=True)
    for name in (results.SUMMARY, results.PLACE, *(f"{stem}.png" for stem in CAPTIONS)):
        if (folder / name).exists():
            shutil.copyfile(folder / name, kept / name)


def headline(summary: Sequence[dict[str, str]], place: dict[str, Any]) -> str:
    """Markdown: what is billed beyond the budget by policy; of honest work, what is stopped wrongly."""
    cells = {(line["scenario"], line["policy"]): line for line in summary if _is_default(line)}
    runs = max(int(line["runs"]) for line in cells.values())
    what = f"billed beyond the budget: mean (most) of {runs} seeds at {place['commit']}"
    there = [policy for policy in POLICIES if any(key[1] == policy for key in cells)]
    peers = [policy for policy in there if POLICIES[policy].family == "peer"]
    if not peers:
        return _table(what, cells, [policy for policy in SHOWN if policy in there], FIRST)
    beside = [policy for policy in BESIDE if policy in there]
    parts = [peers[first : first + ABREAST] for first in range(0, len(peers), ABREAST)]
    return "\n\n".join(_table(what, cells, [*beside, *part], SCENARIOS) for part in parts)


def _table(
    what: str, cells: dict[tuple[str, str], dict[str, str]], names: Sequence[str], scenarios: Iterable[str]
) -> str:
    lines = [f"| {what} | {' | '.join(POLICIES[name].title for name in names)} |", f"|---|{'---:|' * len(names)}"]
    for scenario in (SCENARIOS[name] for name in scenarios):
        if any((scenario.name, name) in cells for name in names):
            shown = [_shown(cells.get((scenario.name, name)), honest=scenario.honest) for name in names]
            times = scenario.grid[0].get("times")
            words = (
                f"{scenario.title} at {times} x its cost: **stopped wrongly**" if scenario.honest else scenario.title
            )
            lines.append(f"| {words} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _is_default(line: dict[str, str]) -> bool:
    return line["params"] == label(SCENARIOS[line["scenario"]].grid[0])


def _shown(line: dict[str, str] | None, *, honest: bool) -> str:
    if line is None:
        return "left out"
    if honest:
        return f"{100 * int(line['false_stops']) / int(line['runs']):.0f} %"
    if not int(line["over_runs"]):
        return "0"
    return f"{_percent(line['overspend_percent_mean'])} ({_percent(line['overspend_percent_most'])})"


def _percent(text: str) -> str:
    number = float(text)
    return f"{number:,.0f} %" if number >= 10 else f"{number:.1f} %"


def page(summary: Sequence[dict[str, str]], place: dict[str, Any], pictures: Sequence[Path]) -> str:
    """Everything in one file."""
    parts = [
        f"<!doctype html><meta charset=utf-8><title>The runaway lab</title><style>{STYLE}</style><h1>The runaway lab</h1>"
    ]
    where = html.escape(f"version {place['version']}, commit {place['commit']}; {place['machine']}")
    parts.append(f"<p>{place['runs']} runs; {where}.")
    for path in pictures:
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f"<h2>{CAPTIONS[path.stem]}</h2><img alt='{path.stem}' src='data:image/png;base64,{data}'>")
    parts.append(
        "<h2>Scenarios</h2><p>A line a cell, with intervals of 95 % (of a count: in per cent of the runs); <i>less "
        "leased's</i>: the paired difference to agentbudget leased. All of it is in summary.csv, each run in runs.csv.</p>"
    )
    for name in dict.fromkeys(line["scenario"] for line in summary):
        parts.append(_section(name, [line for line in summary if line["scenario"] == name]))
    return "".join([*parts, "\n"])


def _section(name: str, lines: Sequence[dict[str, str]]) -> str:
    """A scenario: what goes wrong, where it was seen, and its cells."""
    scenario = SCENARIOS[name]
    words = html.escape(f"{scenario.fault} {scenario.provenance}").replace("**", "")
    parts = [f"<h3>{html.escape(scenario.title)} <code>{name}</code></h3><p>{words}</p><div><table><tr>"]
    parts += [f"<th>{heading}</th>" for heading, _ in COLUMNS]
    for line in lines:
        parts.append(f"<tr>{''.join(f'<td>{_cell(line, column)}</td>' for _, column in COLUMNS)}")
    return "".join([*parts, "</table></div>"])


def _cell(line: dict[str, str], column: str) -> str:
    if column.endswith("*"):
        mean, low, high = (_short(line[f"{column[:-1]}_{end}"]) for end in ("mean", "low", "high"))
        return mean if low == high else f"{mean} [{low}, {high}]"
    if column.endswith("/"):
        name = column[:-1]
        low, high = (f"{100 * float(line[f'{name}_{end}']):.3g}" for end in ("low", "high"))
        return f"{line[name]} ({low} to {high} %)"
    return _short(line[column])


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return html.escape(text)
