"""Cached input and hidden output: the price is not the count times a number."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """A loop on a reasoning model: most of the input was sent before, most of the output is never shown."""
    talk = Talk(task, "gpt-5", cap=4_000)
    useful = task.rng.randrange(3, 8)
    sent = 0
    for turn in range(300):
        writes = task.rng.randrange(400, 4_000)
        before, sent = sent, talk.prompt.tokens
        reply = yield from talk.turn(
            f"q{turn}", useful=1 if turn < useful else 0, writes=writes, reasoning=writes * 3 // 4, cached_prefix=before
        )
        if not reply.ok:
            break
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="cached_reasoning", title="Cached and reasoning tokens",
    fault="Nine tenths of the input cost a tenth, three quarters of the output are hidden and cost in full.",
    provenance="OpenAI forum 1344907 (400 of 400 output tokens billed, none shown) and the price lists' cached classes. "
    "Counting cached "
    "input in full, or reasoning twice or never, are the ways to be wrong.",
    grid=budgets("0.5", "0.2"), program=program, budget=dollars, usual_step=15_000_000,
)  # fmt: skip
