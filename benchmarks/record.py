"""Figures on disk: each row with the machine, the commit and the day it was measured on; and the table made of them."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.speed import ROWS
from benchmarks.speed.measure import Figure, Row

START, END = "<!-- table -->", "<!-- /table -->"
ROOT = Path(__file__).resolve().parents[1]


def keep(path: Path, row: Row) -> None:
    """Put a row's figures in the place of its last ones."""
    rows = load(path)
    rows[row.name] = as_data(row)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows, order="sorted"), indent=1) + b"\n")


def load(path: Path) -> dict[str, Any]:
    """Row name -> its data; empty when nothing was recorded."""
    return msgspec.json.decode(path.read_bytes()) if path.exists() else {}


def as_data(row: Row) -> dict[str, Any]:
    """The row, its verdict, and where it was measured."""
    made: dict[str, Any] = msgspec.to_builtins(row)
    made["figures"] = [msgspec.to_builtins(figure) | {"ratio": row.ratio(figure)} for figure in row.figures]
    return made | {"day": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "machine": machine()}


def machine() -> str:
    """Processor, cores, system, interpreter, and how busy it was: in words, without its name."""
    load = os.getloadavg()[0]
    parts = (
        f"{os.cpu_count()} x {_processor()}",
        f"{platform.system()} {platform.release().split('-')[0]}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        f"load {load:.1f}",
    )
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """The commit of this checkout, or unknown."""
    try:
        ask = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def report(rows: Sequence[Row]) -> str:
    """The rows as text for a terminal."""
    return "\n\n".join("\n".join(_lines(row)) for row in rows)


def _lines(row: Row) -> list[str]:
    verdict = {True: "kept", False: "MISSED", None: "no target"}[row.is_met]
    lines = [f"{row.name}: {row.what}", f"  target: {row.target or '-'}: {verdict}"]
    for figure in row.figures:
        ratio = row.ratio(figure)
        lines.append(
            f"  {figure.label:<44} {short(figure.median):>9} {figure.unit:<10}"
            f" (min {short(figure.least)}, p99 {short(figure.p99)}, n {figure.samples})"
            + (f"  {ratio:.2f} x floor" if ratio is not None else "")
        )
    return [*lines, *(f"  {note}" for note in row.notes)]


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: the figures of each row, and below it where and when each was measured, and what was not."""
    lines = ["| row | figure | median | min | p99 | ratio | target |", "|---|---|---:|---:|---:|---:|---|"]
    for name, row in _in_order(rows):
        for place, together in enumerate(_in_lines(row["figures"])):
            first = (f"`{name}`", f"{row['target']}{_mark(row['is_met'])}") if place == 0 else ("", "")
            columns = zip(*map(_cells, together), strict=True)
            cells = (first[0], *("<br>".join(column) if any(column) else "" for column in columns), first[1])
            lines.append(f"| {' | '.join(cells)} |")
    missing = ", ".join(f"`{name}`" for name in ROWS if name not in rows)
    return "\n".join([*lines, "", *_places(rows), *([f"Not recorded yet: {missing}."] if missing else [])])


SHORT: Final = 40
"""Characters of a label that does not wrap, so that the cells of figures in one line stay side by side."""


def _in_lines(figures: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Figures by line of the table: those with short labels share one, and numbers that have no spread."""

    def line(one: Mapping[str, Any]) -> str:
        return "short" if len(one["label"]) <= SHORT else "count" if one["samples"] == 1 else one["label"]

    return [list(some) for _, some in groupby(figures, key=line)]


def _cells(data: Mapping[str, Any]) -> tuple[str, ...]:
    figure = msgspec.convert({k: v for k, v in data.items() if k != "ratio"}, Figure)
    ratio = "" if data["ratio"] is None else f"{data['ratio']:.2f}"
    spread = (short(figure.least), short(figure.p99)) if figure.samples > 1 else ("", "")
    return figure.label, f"{short(figure.median)} {figure.unit}".strip(), *spread, ratio


def _in_order(rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, rows[name]) for name in ROWS if name in rows]


def _mark(met: bool | None) -> str:
    return {True: ": kept", False: ": **missed**", None: ""}[met]


def _places(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each machine: what was measured on it when, at which commit."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, row in _in_order(rows):
        where, when = row["machine"].partition(", load")[0], f"{row['day']} at {row['commit']}"
        found.setdefault(where, {}).setdefault(when, []).append(name)
    return [
        f"Measured on {where}: " + "; ".join(f"{', '.join(names)} {when}" for when, names in times.items()) + "."
        for where, times in found.items()
    ]


def put_table(readme: Path, text: str) -> None:
    """Replace what stands between the markers."""
    before, _, rest = readme.read_text("utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{text}\n{END}{after}", "utf-8")


def short(number: float) -> str:
    """Three significant digits, in full."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
