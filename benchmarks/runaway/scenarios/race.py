"""Many callers ask at the same moment."""

from __future__ import annotations

from benchmarks.runaway import traffic
from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Join, Program, Spawn
from benchmarks.runaway.world import Task


def caller(task: Task) -> Program:
    """One call, of use."""
    talk = Talk(task, prompt=traffic.CODE_CONTEXT, output=traffic.CODE_OUTPUT, estimate="exact", cap=200)
    reply = yield talk.call(useful=1)
    return reply.ok


def program(task: Task) -> Program:
    """Threads of one agent, all within the time of one model call."""
    children = []
    for _ in range(task.params["callers"]):
        children.append((yield Spawn(caller, thread=True)))
    yield Join(tuple(children))
    return None


SCENARIO = Scenario(
    name="race", title="Check-then-act race",
    fault="64 callers share a budget for a third of them and ask within one model call's time.",
    provenance="LiteLLM #34732 and #40095 and this project's study: whoever checks first and adds later lets all 64 through. "
    "Sizes "
    "are those of Azure's code service (2023), whose busiest second had requests 40 ms apart.",
    grid=({"budget": "0.02", "callers": 64}, {"budget": "0.01", "callers": 32}), program=program, budget=dollars, headline=True,
)  # fmt: skip
