"""A context that grows by each turn, and is paid for again at each."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Reads one file after another into the context; after a while nothing new is learnt from it."""
    talk = Talk(task, estimate=task.params["estimate"])
    useful = task.rng.randrange(6, 14)
    for turn in range(200):
        size = task.rng.randrange(1_500, 6_000)
        reply = yield from talk.turn(f"file {turn}", useful=1 if turn < useful else 0, result=size, name="read_file")
        if not reply.ok:
            break
        if talk.prompt.tokens > 250_000:
            break
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="context_snowball", title="Context snowball",
    fault="Every turn adds a file to the context and pays for all files before it: the cost of a step grows with its number.",
    provenance="Published accounts of coding agents put 87 % of a session's cost on reading again what was read before. Files of "
    "1,500 to 6,000 tokens are ordinary source files of 6 to 25 KB.",
    grid=({"budget": "0.2", "estimate": "bound"}, {"budget": "0.2", "estimate": "exact"}, {"budget": "1", "estimate": "bound"}),
    program=program, budget=dollars, headline=True,
)  # fmt: skip
