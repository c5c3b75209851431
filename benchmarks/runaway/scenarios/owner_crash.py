"""The keeper of the budget dies, and another one takes over."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Change, Join, Pause, Program, Spawn
from benchmarks.runaway.world import Task


def worker(task: Task) -> Program:
    """Works on, usefully for a while."""
    talk = Talk(task)
    for turn in range(100):
        if not (yield from talk.turn(f"q{turn}", useful=1 if turn < 4 else 0)).ok:
            return None
    return None


def program(task: Task) -> Program:
    """Three workers; every 20 seconds what keeps their budget starts again from what it wrote down."""
    children = []
    for _ in range(3):
        children.append((yield Spawn(worker)))
    for _ in range(task.params["crashes"]):
        yield Pause(10_000_000 + task.rng.randrange(20_000_000))
        yield Change("owner")
    yield Join(tuple(children))
    return None


SCENARIO = Scenario(
    name="owner_crash", title="Owner crash",
    fault="The budget's keeper (a counter in memory, an actor, a server) is killed every 20 seconds and started again.",
    provenance="A Ray actor that restarts, a proxy that is redeployed. Counters that are not written down begin at zero. Here "
    "the "
    "counter's holder dies, not the agents.",
    grid=({"budget": "0.05", "crashes": 12}, {"budget": "0.05", "crashes": 4}),
    program=program, budget=dollars, needs=frozenset({"crash"}),
)  # fmt: skip
