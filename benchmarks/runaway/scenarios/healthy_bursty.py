"""Control: bursts of work at once, all affordable."""

from __future__ import annotations

from benchmarks.runaway import traffic
from benchmarks.runaway.scenario import Scenario, Talk
from benchmarks.runaway.steps import Join, Pause, Program, Spawn
from benchmarks.runaway.world import Task


def reader(task: Task) -> Program:
    """A short call on a long text."""
    talk = Talk(
        task, prompt=traffic.CODE_CONTEXT, output=traffic.CODE_OUTPUT, cap=300, estimate=task.params["estimate"]
    )
    return (yield talk.call(useful=1)).ok


def program(task: Task) -> Program:
    """Three bursts of eight to twelve readers, twenty seconds apart."""
    whole = True
    for _ in range(3):
        children = []
        for _ in range(task.rng.randrange(8, 13)):
            children.append((yield Spawn(reader)))
        answers = yield Join(tuple(children))
        whole = whole and None not in children and all(answers)
        yield Pause(20_000_000)
    return whole


SCENARIO = Scenario(
    name="healthy_bursty", title="Healthy bursty session",
    fault="None: thirty short calls in three bursts. The budget is 1, 1.25, 1.5, 2 or 4 times their true cost.",
    provenance="Sizes are those of Azure's code service (2023), where bursts of a dozen requests within a second are ordinary.",
    grid=(
        {"times": 1.25, "estimate": "bound"}, {"times": 1, "estimate": "bound"}, {"times": 1.5, "estimate": "bound"},
        {"times": 2, "estimate": "bound"}, {"times": 4, "estimate": "bound"},
    ),
    program=program, honest=True, headline=True,
)  # fmt: skip
