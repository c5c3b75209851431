"""Calls that cost more than anybody reckoned with."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """The caller sends no cap and reckons with 150 tokens, as replies usually have; a fault makes them 500 to 12,000."""
    talk = Talk(task, cap=150, estimate="exact")
    useful = task.rng.randrange(3, 9)
    for turn in range(200):
        writes = task.rng.randrange(20, 150) if turn < useful else task.rng.randrange(500, 12_000)
        reply = yield from talk.turn(f"q{turn}", useful=1 if turn < useful else 0, writes=writes, states_cap=False)
        if not reply.ok:
            break
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="low_estimates", title="Low estimates",
    fault="No cap is sent, and replies are up to eighty times as long as the estimate.",
    provenance="Reserving by an average is what LiteLLM and Cycles do when a request has no cap. Nobody can keep such a run "
    "within "
    "its budget; the question is how far it goes beyond. **We lose it too**: the last call is paid, by whatever it costs.",
    grid=budgets("0.05", "0.02"), program=program, budget=dollars, within_estimate=False, headline=True,
)  # fmt: skip
