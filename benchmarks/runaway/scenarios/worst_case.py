"""Calls whose worst case is hundreds of times their usual cost."""

from __future__ import annotations

from typing import Any

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Every call states a cap of 32,000 tokens; most replies are short, one in eight is long, and that one is no use."""
    talk = Talk(task, cap=task.params["cap"])
    for turn in range(300):
        is_long = turn % 8 == 7
        what: dict[str, Any] = {"writes": task.rng.randrange(8_000, task.params["cap"])} if is_long else {}
        if not (yield from talk.turn(f"q{turn}", useful=0 if is_long else 1, **what)).ok:
            break
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="worst_case", title="Unaffordable worst case",
    fault="Each call may write 32,000 tokens and usually writes 50; near the end of the budget the worst case does not fit.",
    provenance="LiteLLM trims such a reservation to what is left and lets the call go: 495 % past the budget in this "
    "project's study. "
    "Whoever refuses stops early, and whoever clamps the cap pays for a part. **We lose work here**: a fifth of the budget "
    "stays.",
    grid=({"budget": "0.3", "cap": 32_000}, {"budget": "0.3", "cap": 16_000}), program=program, budget=dollars,
)  # fmt: skip
