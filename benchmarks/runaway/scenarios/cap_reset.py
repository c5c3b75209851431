"""Every sub-task gets the cap anew."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Join, Program, Spawn
from benchmarks.runaway.world import Task


def worker(task: Task) -> Program:
    """Two turns of use, and then a loop until it is stopped."""
    talk = Talk(task)
    for turn in range(30):
        if not (yield from talk.turn(f"q{turn}", useful=1 if turn < 2 else 0)).ok:
            return None
    return True


def program(task: Task) -> Program:
    """One sub-task after another, each with the whole budget as its own cap; where that is refused, with what there is."""
    for _ in range(task.params["tasks"]):
        child = (yield Spawn(worker, dollars(task.params))) or (yield Spawn(worker))
        if child is None:
            return None
        yield Join((child,))
    return None


SCENARIO = Scenario(
    name="cap_reset", title="Cap reset by sub-tasks",
    fault="A cap for each task, and a parent that starts ten tasks one after another when each is stopped.",
    provenance="LangChain's run_limit, OpenAI Agents' max_turns of `as_tool` and Pydantic AI's limits without a shared usage "
    "count "
    "for each run: 405 calls where 20 were meant, in this project's study of peers.",
    grid=({"budget": "0.05", "tasks": 10}, {"budget": "0.05", "tasks": 4}), program=program, budget=dollars, headline=True,
)  # fmt: skip
