"""Sub-agents that start sub-agents."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Join, Program, Spawn
from benchmarks.runaway.world import Task


def agent(depth: int, width: int) -> object:
    """An agent that does one turn and asks as many others to do the same; only the first generation is of use."""

    def program(task: Task) -> Program:
        talk = Talk(task)
        if not (yield from talk.turn("plan", useful=1 if depth >= 3 else 0)).ok:
            return None
        children = []
        for _ in range(width if depth else 0):
            children.append((yield Spawn(agent(depth - 1, width))))  # type: ignore[arg-type]
        yield Join(tuple(children))
        yield from talk.turn("merge")
        return None

    return program


def program(task: Task) -> Program:
    return agent(4, task.params["width"])(task)  # type: ignore[operator,no-any-return]


SCENARIO = Scenario(
    name="fan_out", title="Fan-out storm",
    fault="Each agent starts more agents, down to the fifth generation; all of them work at once.",
    provenance="Issues of claude-code tell of 188 agents in a minute, of 361, of 905, and of 600 dollars (#68110, #69332, "
    "#72566, "
    "#69395, #72732). Here it is 121 or 341 agents within a minute of virtual time.",
    grid=({"budget": "0.02", "width": 3}, {"budget": "0.02", "width": 4}), program=program, budget=dollars,
)  # fmt: skip
