"""An administrator changes the budget while the agent runs."""

from __future__ import annotations

from benchmarks.runaway.scenario import CREDIT, Scenario, Talk, dollars
from benchmarks.runaway.steps import Change, Join, Pause, Program, Spawn
from benchmarks.runaway.world import Task


def worker(task: Task) -> Program:
    """Works on, and tries again every ten seconds when it is refused."""
    talk = Talk(task)
    for turn in range(200):
        reply = yield from talk.turn(f"q{turn}", useful=1 if turn < 12 else 0)
        if reply.refused:
            yield Pause(10_000_000)
    return None


def program(task: Task) -> Program:
    """Half as much again after a minute; after three minutes it is cut below what is spent."""
    child = yield Spawn(worker)
    yield Pause(60_000_000)
    yield Change("fund", dollars(task.params) // 2)
    yield Pause(120_000_000)
    yield Change("cut", task.params["cut"])
    yield Join((child,))
    return None


SCENARIO = Scenario(
    name="topup_cut", title="Mid-run top-up and cut",
    fault="A budget is raised by half after a minute, and cut below what is spent after three; the agent goes on asking.",
    provenance="What finance does on the day of an incident. A policy that read its budget at the start sees neither; "
    "overspend counts "
    "from what was spent and under way at the cut.",
    grid=({"budget": "0.1", "cut": CREDIT // 50}, {"budget": "0.05", "cut": CREDIT // 50}),
    program=program, budget=dollars, needs=frozenset({"change"}),
)  # fmt: skip
