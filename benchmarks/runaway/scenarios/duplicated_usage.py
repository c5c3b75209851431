"""Usage that is told three times."""

from __future__ import annotations

from benchmarks.runaway.scenario import Scenario, Talk
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Thirty turns of honest work, whose usage comes with three chunks or by three handlers."""
    talk = Talk(task)
    for turn in range(30):
        if not (yield from talk.turn(f"q{turn}", useful=1, reports=3)).ok:
            return None
    return True


SCENARIO = Scenario(
    name="duplicated_usage", title="Duplicated usage",
    fault="Each call's usage is reported three times; whoever adds it up stops honest work at a third of its budget.",
    provenance="langchain #30429, databricks #638, langchainjs #8266 (24,803 output tokens counted for 1,698), LiteLLM "
    "#35569: cumulative "
    "usage in chunks, and handlers that are registered twice.",
    grid=({"times": 1.5}, {"times": 4}), program=program, honest=True,
)  # fmt: skip
