"""What the simulation rests on: medians that the speed rows recorded, in microseconds of one core."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

_ROWS: Final = {
    "pair": ("lease", "reserve + settle, a stated price"),
    "message": ("renew", "a message of 1 steps"),
    "step": ("renew", "a step, of 512 in a message"),
    "commits": ("step", "two bare commits of its rows"),
    "call": ("socket", "socket echo of its frame"),
}


class Constants(Struct, frozen=True):
    """``pair_us``: a step in its process. ``message_us``, ``step_us``: the owner's time for a message of a lease, and for each
    step that it reports. ``commit_us``: one transaction. ``call_us``: a round trip to the owner, whatever it carries."""

    pair_us: float
    message_us: float
    step_us: float
    commit_us: float
    call_us: float

    def batch_us(self, messages: int, steps: int) -> float:
        """The owner's time for one batch: all that waited, in one transaction."""
        return self.commit_us + messages * self.message_us + steps * self.step_us


def measured(recorded: dict[str, Any]) -> Constants:
    """From the recorded rows. Raises ``SystemExit`` that names a row which was not run."""
    found = {name: _median(recorded, row, label) for name, (row, label) in _ROWS.items()}
    return Constants(found["pair"], found["message"], found["step"], found["commits"] / 2, found["call"])


def _median(recorded: dict[str, Any], row: str, label: str) -> float:
    for figure in recorded.get(row, {}).get("figures", ()):
        if figure["label"] == label:
            return float(figure["median"])
    raise SystemExit(f"no figure {label!r} of row {row!r} is recorded: run python -m benchmarks speed --row {row}")
