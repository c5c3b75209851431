"""Answers that are lost after the work, and asked for again."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk, budgets, dollars
from benchmarks.runaway.steps import Pause, Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Work goes well for a while; then nine of ten answers time out after they were written, and each call is tried nine
    times."""
    talk = Talk(task)
    well = task.rng.randrange(4, 10)
    for turn in range(200):
        is_ill = turn >= well
        for attempt in range(9):
            fails = is_ill and task.rng.randrange(10) > 0
            reply = yield talk.call(useful=0 if is_ill else 1, failure="lost" if fails else "")
            if reply.refused:
                return (yield from talk.summary()) and None
            if reply.ok:
                talk.hears(reply.tokens)
                break
            yield Pause(500_000 << attempt)
        yield talk.tool("search", f"q{turn}", serves=not is_ill)
        talk.hears(160)
    return None


SCENARIO = Scenario(
    name="retry_storm", title="Retry storm",
    fault="Nine of ten answers are lost after the provider wrote and billed them; each is asked for nine times.",
    provenance="Three attempts of an SDK times three of a framework (Qwen-Agent #594, trpc-agent-go #2114). A timeout after "
    "sending is "
    "billed and brings no usage, so whoever books usage books nothing.",
    grid=budgets("0.05", "0.02"), program=program, budget=dollars,
)  # fmt: skip
