"""One token more, and the whole call costs twice as much."""

from __future__ import annotations

from benchmarks.runaway.scenario import CREDIT, Scenario, Talk, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """A long document, and a context that grows past 200,000 tokens after a few turns."""
    talk = Talk(task, "gemini-2.5-pro", cap=2_000, estimate=task.params["estimate"])
    talk.hears(task.rng.randrange(150_000, 190_000))
    for turn in range(60):
        size = task.rng.randrange(3_000, 9_000)
        reply = yield from talk.turn(f"q{turn}", useful=1 if turn < 3 else 0, result=size, writes=1_200)
        if not reply.ok:
            break
    return None


SCENARIO = Scenario(
    name="tier_cliff", title="Price tier cliff",
    fault="Past 200,000 input tokens every token of the call, not only those beyond, is billed at twice the price.",
    provenance="gemini-2.5-pro's price list: 200,000 tokens cost 0.25 dollars, 200,001 cost 0.50. An average of the calls so far "
    "reckons with half of what the next one is billed.",
    grid=({"budget": "3", "estimate": "exact"}, {"budget": "3", "estimate": "bound"}), program=program, budget=dollars,
    usual_step=CREDIT // 4,
)  # fmt: skip
