"""The provider says no before it does anything."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk
from benchmarks.runaway.steps import Pause, Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Twenty turns of honest work through a provider that refuses two of three requests with 429."""
    talk = Talk(task)
    for turn in range(20):
        while True:
            failure = "refused" if task.rng.randrange(3) else ""
            reply = yield talk.call(useful=1, failure=failure)
            if reply.refused:
                return None
            if reply.ok:
                break
            yield Pause(2_000_000)
        talk.hears(reply.tokens)
        if not (yield talk.tool("search", f"q{turn}", serves=True)).ok:
            return None
        talk.hears(160)
    return True


SCENARIO = Scenario(
    name="early_error", title="Early provider error",
    fault="Two of three requests are refused unread by the provider (429) and cost nothing; whoever charges or counts them "
    "stops honest "
    "work.",
    provenance="Rate limits at peak hours. LiteLLM's release paths exist for it (#27639 tells of holds that stay after errors "
    "and of "
    "phantom `budget exceeded`).",
    grid=({"times": 1.5}, {"times": 2}), program=program, honest=True,
)  # fmt: skip
