"""Streams whose reader goes away."""

from __future__ import annotations

from typing import Any

from benchmarks.runaway import traffic
from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Most replies are left after the first lines; they are billed for what was written, and report nothing."""
    talk = Talk(task, output=traffic.CONVERSATION_OUTPUT)
    useful = task.rng.randrange(4, 9)
    for turn in range(500):
        leaves: dict[str, Any] = {"leaves_after": 16 + task.rng.randrange(48)} if turn % 4 else {}
        if not (yield from talk.turn(f"q{turn}", useful=1 if turn < useful else 0, stream=True, **leaves)).ok:
            break
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="abandoned_stream", title="Abandoned stream",
    fault="Three of four streams are closed by their reader after a few lines: no usage ever comes, and the bill does.",
    provenance="openai-openapi #539, pollinations #5594, litellm #30630, #33736 and #36008: a client that disconnects leaves "
    "the call "
    "unbooked. Lengths of replies are those of Azure's conversation service (2023).",
    grid=budgets("0.05", "0.02"), program=program, budget=dollars,
)  # fmt: skip
