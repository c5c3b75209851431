"""Sessions of one customer that together want more than it has."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """One of six sessions: useful for a while, then a loop."""
    talk = Talk(task)
    useful = task.rng.randrange(5, 12)
    for turn in range(300):
        if not (yield from talk.turn(f"q{turn}", useful=1 if turn < useful else 0)).ok:
            break
    return None


SCENARIO = Scenario(
    name="shared_wallet", title="Shared wallet under contention",
    fault="Six sessions, each within its own budget, on a wallet that pays for a third of them.",
    provenance="A team's month on one key. Budgets by session cannot see it; Langfuse's and LiteLLM's key budgets see it "
    "after the calls "
    "that are under way. Lengths are those of tau-bench's runs.",
    grid=({"budget": "0.05", "sessions": 5}, {"budget": "0.05", "sessions": 11}),
    program=program, budget=dollars, needs=frozenset({"sessions"}),
    wallet=lambda budget: 2 * budget, sessions=lambda params: params["sessions"],
)  # fmt: skip
