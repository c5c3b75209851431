"""Calls that last longer than any time to live."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Join, Program, Spawn
from benchmarks.runaway.world import Task


def researcher(task: Task) -> Program:
    """Deep research: each call takes 20 to 40 minutes."""
    talk = Talk(task, cap=8_000)
    for turn in range(6):
        minutes = task.rng.randrange(20, 40)
        writes = task.rng.randrange(3_000, 8_000)
        reply = yield talk.call(writes=writes, takes_us=minutes * 60_000_000, useful=1 if turn < 2 else 0)
        if not reply.ok:
            return None
        talk.hears(reply.tokens)
    return True


def program(task: Task) -> Program:
    """Four of them side by side, on a budget for two."""
    children = []
    for _ in range(4):
        children.append((yield Spawn(researcher)))
    yield Join(tuple(children))
    return None


SCENARIO = Scenario(
    name="outlives_hold", title="Call that outlives its hold",
    fault="Calls last 20 to 40 minutes; a hold that lapses meanwhile lets others spend what is already on its way.",
    provenance="Background and deep-research modes answer after half an hour. LiteLLM renews leases for it; codex-lb #1600 "
    "undercharges "
    "what outlives its ceiling of a day.",
    grid=({"budget": "0.08"}, {"budget": "0.16"}), program=program, budget=dollars, usual_step=8_000_000,
)  # fmt: skip
