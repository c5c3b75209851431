"""A retrieval that brings a book."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """A few turns of work; then every search returns 60,000 to 150,000 tokens, and the agent goes on with all of them."""
    talk = Talk(task)
    for turn in range(task.rng.randrange(4, 10)):
        if not (yield from talk.turn(f"q{turn}", useful=1)).ok:
            break
    for turn in range(20):
        found = yield from talk.turn(f"all of it {turn}", result=task.rng.randrange(60_000, 150_000), name="retrieve")
        if not found.ok or talk.prompt.tokens > 350_000:
            break
    while (yield talk.call()).ok:
        pass
    return None


SCENARIO = Scenario(
    name="huge_retrieval", title="Huge retrieval",
    fault="A tool returns a whole book into the context; every call after it costs fifty times the one before.",
    provenance="Retrieval without a limit on its result: a table dump, a log file, a web page with its scripts. 60,000 to "
    "150,000 tokens "
    "are 0.3 to 0.6 MB of text; the cost of the call after it is what nobody's average holds.",
    grid=budgets("0.1", "0.5"), program=program, budget=dollars,
)  # fmt: skip
