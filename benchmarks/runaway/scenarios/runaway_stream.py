"""A stream that says the same thing until its cap."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Every third reply does not end by itself; nobody reads it."""
    talk = Talk(task, cap=task.params["cap"])
    for turn in range(60):
        is_runaway = turn % 3 == 2
        what = {"writes": task.params["cap"]} if is_runaway else {}
        reply = yield from talk.turn(f"q{turn}", useful=0 if is_runaway else 1, stream=True, **what)
        if reply.refused:
            break
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="runaway_stream", title="Runaway stream",
    fault="A streamed reply falls into repetition and fills its cap of 16,000 tokens.",
    provenance="Repetition until the cap is a known failure of sampling. cendor-tokenguard and Pydantic AI look at streams while "
    "they run; a hold that covers the cap cannot be passed, and is large.",
    grid=({"budget": "0.1", "cap": 16_000}, {"budget": "0.1", "cap": 4_000}), program=program, budget=dollars,
)  # fmt: skip
