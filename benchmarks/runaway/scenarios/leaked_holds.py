"""Calls that are cancelled, so that no callback tells of their end."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Every third call is cancelled by a timeout of its caller, and billed all the same."""
    talk = Talk(task)
    useful = task.rng.randrange(6, 14)
    for turn in range(500):
        is_cancelled = turn % 3 == 2
        is_useful = turn < useful and not is_cancelled
        reply = yield talk.call(useful=int(is_useful), failure="cancelled" if is_cancelled else "")
        if reply.refused:
            break
        talk.hears(reply.tokens)
        yield talk.tool("search", f"q{turn}", serves=turn < useful)
        talk.hears(160)
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="leaked_holds", title="Leaked holds",
    fault="Every third call is cancelled while it runs: neither an end nor an error is reported, and the provider bills it.",
    provenance="`asyncio.wait_for` around LangChain's ainvoke fires on_llm_start only (measured by this project). Holds that "
    "leak this way "
    "are LiteLLM #27639, #36926 and #40050; costs that leak are nobody's issue.",
    grid=budgets("0.05", "0.02"), program=program, budget=dollars,
)  # fmt: skip
