"""What the simulation rests on: medians that the speed rows recorded, in microseconds of one core."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

_ROWS: Final = {
    "pair_us": ("lease", "reserve + settle, a stated price"),
    "message_us": ("renew", "a message of 1 steps"),
    "step_us": ("renew", "a step, of 512 in a message"),
    "commit_us": ("postgres-commit", "journal.commit"),
    "answer_us": ("ray", "a bare actor's answer of the same bytes, with a bare commit before it"),
    "bare_commits_us": ("step", "two bare commits of its rows"),
    "rows_per_second": ("postgres", "journal, by COPY"),
}


class Constants(Struct, frozen=True):
    """``pair_us``: a step in its process. ``message_us``, ``step_us``: the owner's time for a message of a lease, and for each
    step that it reports. ``commit_us``: one transaction. ``call_us``: a round trip to the owner, whatever it carries.
    ``rows_per_second``: entries that one database takes."""

    pair_us: float
    message_us: float
    step_us: float
    commit_us: float
    call_us: float
    rows_per_second: float

    def batch_us(self, messages: int, steps: int) -> float:
        """The owner's time for one batch: all that waited, in one transaction."""
        return self.commit_us + messages * self.message_us + steps * self.step_us


def measured(recorded: dict[str, Any]) -> Constants:
    """From the recorded rows. Raises ``SystemExit`` that names a row which was not run."""
    found = {name: _median(recorded, row, label) for name, (row, label) in _ROWS.items()}
    call_us = found.pop("answer_us") - found.pop("bare_commits_us") / 2
    return Constants(**found, call_us=call_us)


def _median(recorded: dict[str, Any], row: str, label: str) -> float:
    for figure in recorded.get(row, {}).get("figures", ()):
        if figure["label"] == label:
            return float(figure["median"])
    raise SystemExit(f"no figure {label!r} of row {row!r} is recorded: run python -m benchmarks speed --row {row}")
