"""What is written at the end: every run, every cell, and where it was measured."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.record import commit, machine
from benchmarks.runaway.grid import Cell, Shelf
from benchmarks.runaway.measures import Row, Timing
from benchmarks.runaway.scenario import CREDIT
from benchmarks.runaway.statistics import mean_of, paired, share_of

RUNS, TIMINGS, SUMMARY, PLACE = "runs.csv", "timings.csv", "summary.csv", "environment.json"
REFERENCE: Final = "agentbudget_leased"


def write(out: Path, wanted: Sequence[Cell], shelf: Shelf) -> list[dict[str, Any]]:
    """Every file of a results folder; the summary is returned."""
    rows, timings = list[Row](), list[Timing]()
    for cell in wanted:
        part = shelf.read(cell)
        assert part is not None, cell.name
        rows += part.rows
        timings += part.timings
    _csv(out / RUNS, rows)
    _csv(out / TIMINGS, timings)
    found = summary(rows, timings)
    _table(out / SUMMARY, [_short(line) for line in found])
    cpu_seconds = round(sum(timing.cpu_ns for timing in timings) / 1e9)
    place = {
        "commit": commit(), "version": shelf.version, "machine": machine(), "runs": len(rows), "cpu_seconds": cpu_seconds
    }  # fmt: skip
    (out / PLACE).write_bytes(msgspec.json.format(msgspec.json.encode(place), indent=1) + b"\n")
    return found


def load(out: Path) -> list[Row]:
    """The rows of a results folder."""
    with (out / RUNS).open(newline="", encoding="utf-8") as file:
        plain = list(csv.DictReader(file))
    for row in plain:
        for name in ("completed", "stopped", "false_stop", "is_booked_right"):
            row[name] = row[name] == "True"
    return msgspec.convert(plain, list[Row], strict=False)


def load_timings(out: Path) -> list[Timing]:
    with (out / TIMINGS).open(newline="", encoding="utf-8") as file:
        return msgspec.convert(list(csv.DictReader(file)), list[Timing], strict=False)


def place(out: Path) -> dict[str, Any]:
    return msgspec.json.decode((out / PLACE).read_bytes())  # type: ignore[no-any-return]


def _csv(path: Path, rows: Sequence[Row] | Sequence[Timing]) -> None:
    _table(path, [msgspec.to_builtins(row) for row in rows])


def _table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _short(line: dict[str, Any]) -> dict[str, Any]:
    """Six digits of each quotient: more would say more than the runs do."""
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()}


def by_cell(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """(scenario, parameters, policy) -> its runs, by seed."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.scenario, row.params, row.policy), []).append(row)
    return found


def summary(rows: Sequence[Row], timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """One line a cell; see README.md for what the columns mean."""
    cells = by_cell(rows)
    slow: dict[tuple[str, str, str], list[Timing]] = {}
    for timing in timings:
        slow.setdefault((timing.scenario, timing.params, timing.policy), []).append(timing)
    return [_line(key, runs, cells.get((*key[:2], REFERENCE)), slow[key]) for key, runs in cells.items()]


_ENDS: Final = ("mean", "low", "high", "p99", "most")
PAIRED: Final = ("overspend_percent", "useful", "waste")
"""What is compared with agentbudget leased, seed by seed."""


def _line(
    key: tuple[str, str, str], runs: list[Row], reference: list[Row] | None, timings: list[Timing]
) -> dict[str, Any]:
    count = len(runs)
    line: dict[str, Any] = dict(zip(("scenario", "params", "policy"), key, strict=True)) | {"runs": count}
    for name, each in _measured(runs).items():
        line |= _named(name, each, _ENDS)
    line |= _bounded("over_runs", sum(row.overspend > 0 for row in runs), count)
    line["useful"] = sum(row.useful for row in runs) / count
    line |= _named("useful_per_credit", [row.useful_per_credit for row in runs], _ENDS[:3])
    line["completed"] = sum(row.completed for row in runs)
    line |= _bounded("false_stops", sum(row.false_stop for row in runs), count)
    for name in ("false_denials", "affordable"):
        line[name] = sum(getattr(row, name) for row in runs) / count
    line["affordable_credits"] = sum(row.affordable_credits for row in runs) / count / CREDIT
    line |= _bounded("held_runs", sum(row.held > 0 for row in runs), count)
    line |= _bounded("wrong_books", sum(not row.is_booked_right for row in runs), count)
    line["difference_credits"] = sum(row.difference for row in runs) / count / CREDIT
    is_paired = reference is not None and [row.seed for row in reference] == [row.seed for row in runs]
    for name in PAIRED:
        line |= _against(name, runs, reference if is_paired else None)
    line["decision_us"] = sorted(timing.decision_ns for timing in timings)[count // 2] / 1e3
    line["slowest_us"] = max(timing.slowest_ns for timing in timings) / 1e3
    line["run_ms"] = sum(timing.run_ns for timing in timings) / count / 1e6
    return line


def _measured(runs: list[Row]) -> dict[str, list[float]]:
    """What is shown with its interval, 99th percentile and largest value."""
    return {
        "overspend_percent": [row.overspend_percent for row in runs],
        "overspend_credits": [row.overspend / CREDIT for row in runs],
        "lag_steps": [row.lag_steps for row in runs],
        "lag_credits": [row.lag / CREDIT for row in runs],
        "waste_credits": [row.waste / CREDIT for row in runs],
    }


def _named(name: str, values: Sequence[float], ends: Sequence[str]) -> dict[str, float]:
    found = mean_of(values)
    return {f"{name}_{end}": getattr(found, end) for end in ends}


def _bounded(name: str, count: int, runs: int) -> dict[str, float]:
    share = share_of(count, runs)
    return {name: count, f"{name}_low": share.low, f"{name}_high": share.high}


def _against(name: str, runs: list[Row], reference: list[Row] | None) -> dict[str, Any]:
    named, ends = f"{name.partition('_')[0]}_vs_leased", _ENDS[:3]
    if reference is None:
        return {f"{named}_{end}": "" for end in ends}
    unit = CREDIT if name == "waste" else 1
    found = paired(*([getattr(row, name) / unit for row in each] for each in (runs, reference)))
    return {f"{named}_{end}": getattr(found, end) for end in ends}
