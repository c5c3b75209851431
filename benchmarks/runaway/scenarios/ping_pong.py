"""Two agents that hand the same task to each other."""

from __future__ import annotations

from benchmarks.runaway import traffic
from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """A real exchange at first, then each says that the other should do it."""
    talks = [Talk(task, output=traffic.CONVERSATION_OUTPUT) for _ in range(2)]
    real = task.rng.randrange(2, 7)
    turn = 0
    while True:
        talk, other = talks[turn % 2], talks[(turn + 1) % 2]
        reply = yield talk.call(useful=1 if turn < real else 0)
        if not reply.ok:
            break
        talk.hears(reply.tokens)
        other.hears(reply.tokens)
        if not (yield talk.tool("hand_over", f"to {(turn + 1) % 2}")).ok:
            break
        turn += 1
    yield from talks[0].summary()
    return None


SCENARIO = Scenario(
    name="ping_pong", title="Ping-pong",
    fault="Two agents hand a task to each other; no call is the same as the one before, but every second one is.",
    provenance="Reports of the 47,000-dollar incident name two agents that asked each other for clarification. Replies have the "
    "lengths of Azure's conversation service (2023).",
    grid=budgets("0.05", "0.2"), program=program, budget=dollars,
)  # fmt: skip
