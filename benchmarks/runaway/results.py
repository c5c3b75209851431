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
    _table(out / SUMMARY, found)
    place = {"commit": commit(), "version": shelf.version, "machine": machine(), "runs": len(rows)}
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


def _line(
    key: tuple[str, str, str], runs: list[Row], reference: list[Row] | None, timings: list[Timing]
) -> dict[str, Any]:
    count = len(runs)
    line: dict[str, Any] = dict(zip(("scenario", "params", "policy"), key, strict=True)) | {"runs": count}
    over = mean_of([row.overspend_percent for row in runs])
    passed = share_of(sum(row.overspend > 0 for row in runs), count)
    false_stops = share_of(sum(row.false_stop for row in runs), count)
    useful = mean_of([row.useful_per_credit for row in runs])
    line |= _named("overspend_percent", over) | {
        "overspend_credits": mean_of([row.overspend / 1e9 for row in runs]).mean
    }
    line |= {"over_runs": passed.count, "over_share_low": passed.low, "over_share_high": passed.high}
    line |= {"useful": sum(row.useful for row in runs) / count, "useful_per_credit": useful.mean}
    line |= {"useful_per_credit_low": useful.low, "useful_per_credit_high": useful.high}
    line |= {"completed": sum(row.completed for row in runs), "false_stops": false_stops.count}
    line |= {"false_stop_low": false_stops.low, "false_stop_high": false_stops.high}
    for name in ("false_denials", "affordable", "lag_steps"):
        line[name] = sum(getattr(row, name) for row in runs) / count
    for name in ("lag", "waste", "affordable_credits"):
        line[f"{name.removesuffix('_credits')}_credits"] = sum(getattr(row, name) for row in runs) / count / 1e9
    line |= {
        "held_runs": sum(row.held > 0 for row in runs),
        "wrong_books": sum(not row.is_booked_right for row in runs),
    }
    line["difference_credits"] = sum(row.difference for row in runs) / count / 1e9
    if reference is not None and [row.seed for row in reference] == [row.seed for row in runs]:
        line |= _named("overspend_vs_leased", _against(runs, reference, "overspend_percent"))
        line |= _named("useful_vs_leased", _against(runs, reference, "useful"))
    else:
        line |= dict.fromkeys((f"{what}_vs_leased_{end}" for what in ("overspend", "useful") for end in _ENDS), "")
    line["decision_us"] = sorted(timing.decision_ns for timing in timings)[count // 2] / 1e3
    line["run_ms"] = sum(timing.run_ns for timing in timings) / count / 1e6
    return line


_ENDS: Final = ("mean", "low", "high", "p99", "most")


def _named(name: str, mean: Any) -> dict[str, float]:
    return {f"{name}_{end}": getattr(mean, end) for end in _ENDS}


def _against(runs: list[Row], reference: list[Row], name: str) -> Any:
    return paired([getattr(row, name) for row in runs], [getattr(row, name) for row in reference])
