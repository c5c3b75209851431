"""A refusal is caught, and the step is tried again."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Works, and takes every refusal for a passing error."""
    talk = Talk(task)
    useful = task.rng.randrange(4, 12)
    turn = 0
    while True:
        reply = yield from talk.turn(f"q{turn}", useful=1 if turn < useful else 0)
        turn += reply.ok


SCENARIO = Scenario(
    name="swallowed_refusal", title="Swallowed refusal",
    fault="The agent's code catches every exception and tries again, a hundred times.",
    provenance="`except Exception: continue` around a model call, as in many agent loops. In this project's own study of "
    "peers 200 "
    "such attempts brought three libraries to ten times the budget, since they drop the cost that raised.",
    grid=budgets("0.05", "0.02"), program=program, budget=dollars, headline=True,
)  # fmt: skip
