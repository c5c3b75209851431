"""Streams that never say what they cost."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """A loop of streamed calls whose last chunk has no usage."""
    talk = Talk(task)
    useful = task.rng.randrange(4, 9)
    for turn in range(500):
        if not (yield from talk.turn(f"q{turn}", useful=1 if turn < useful else 0, stream=True, reports=0)).ok:
            break
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="stream_without_usage", title="Stream without usage",
    fault="Replies are streamed, and no chunk reports usage: whoever waits for it books nothing.",
    provenance="langgraph #4848 and #5878, langchain-litellm #20 and #115, langchain-oracle #316: usage is left out of "
    "streams unless "
    "an option asks for it, and some servers never send it.",
    grid=budgets("0.05", "0.02"), program=program, budget=dollars,
)  # fmt: skip
