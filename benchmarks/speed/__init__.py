"""The rows of the speed table. Each is imported when it is run: one row's imports must not weigh on another's figures."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from benchmarks.speed.measure import Effort, Row


def _of(module: str, function: str) -> Callable[[Effort], Row]:
    def run(effort: Effort) -> Row:
        row: Row = getattr(import_module(f"{__name__}.{module}"), function)(effort)
        return row

    return run


ROWS: Final[dict[str, Callable[[Effort], Row]]] = {
    "decide": _of("decide", "pairs"),
    "lease": _of("leased", "lease"),
    "threads": _of("leased", "threads"),
    "sessions": _of("leased", "sessions"),
    "telemetry": _of("watched", "telemetry_row"),
    "drain": _of("drain", "drain"),
    "renew": _of("renewals", "renew"),
    "step": _of("owner", "one_caller"),
    "callers": _of("owner", "many_callers"),
    "socket": _of("sockets", "one_caller"),
    "processes": _of("sockets", "many_callers"),
    "verify": _of("reading", "verify_and_fold_entries"),
    "restart": _of("reading", "restart"),
    "growth": _of("growth", "growth"),
    "idle": _of("reading", "idle_customers"),
    "handler": _of("handler", "added_to_an_invoke"),
    "postgres": _of("postgres", "many_rows"),
    "postgres-commit": _of("postgres", "one_row"),
    "postgres-callers": _of("postgres", "many_callers"),
    "import": _of("imports", "import_time"),
    "ray": _of("on_ray", "on_ray"),
    "ray-drain": _of("fleet", "drain"),
    "customers": _of("fleet", "customers"),
    "race": _of("race", "steps_past_the_budget"),
}
