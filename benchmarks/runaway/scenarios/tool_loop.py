"""The same tool with the same arguments, for ever."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Some turns of work, then one that never ends; when it is refused it saves what it has."""
    talk = Talk(task)
    for turn in range(task.rng.randrange(3, 9)):
        if not (yield from talk.turn(f"q{turn}", useful=1)).ok:
            yield from talk.summary()
            return None
    while (yield from talk.turn("the same question")).ok:
        pass
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="tool_loop", title="Tool loop",
    fault="An agent asks one tool the same question again and again; the context grows by each useless answer.",
    provenance="The most told story of a runaway: one incident of November 2025 is retold as 47,000 dollars in 11 days of two "
    "agents "
    "that answered each other. Sizes of prompts, replies and results are those of tau-bench's airline runs on gpt-4o.",
    grid=budgets("0.05", "0.02", "0.2"), program=program, budget=dollars, headline=True,
)  # fmt: skip
