"""The agent's process is killed while calls run, and started again."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Change, Pause, Program, Spawn
from benchmarks.runaway.world import Task


def worker(task: Task) -> Program:
    """Works on, usefully for a while."""
    talk = Talk(task, cap=1_500)
    for turn in range(100):
        if not (
            yield from talk.turn(f"q{turn}", useful=1 if turn < 4 else 0, writes=task.rng.randrange(200, 1_500))
        ).ok:
            return None
    return None


def program(task: Task) -> Program:
    """Three workers in a process that is killed every 40 seconds, at a moment when calls are under way."""
    for _ in range(task.params["crashes"]):
        for _ in range(3):
            yield Spawn(worker)
        yield Pause(30_000_000 + task.rng.randrange(20_000_000))
        yield Change("worker")
    return None


SCENARIO = Scenario(
    name="worker_crash", title="Worker crash",
    fault="The process is killed again and again with calls under way; the session goes on in the next one. Here its disk is "
    "lost too.",
    provenance="Out-of-memory kills and spot instances. Cycles CR-DURABLE-001 to 006 and otari #767 are the same question. "
    "Counters in "
    "memory begin at zero; agentbudget keeps what the dead process had leased until a day has passed, then books it as unknown.",
    grid=({"budget": "0.1", "crashes": 12}, {"budget": "0.1", "crashes": 5}),
    program=program, budget=dollars, needs=frozenset({"crash"}),
    usual_step=1_500_000,
)  # fmt: skip
