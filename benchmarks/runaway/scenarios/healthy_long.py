"""Control: a long session that is worth its money."""

from __future__ import annotations

from benchmarks.runaway import traffic
from benchmarks.runaway.scenario import Scenario, Talk
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Three to five tasks of tau-bench's length in one session; some tools are asked the same question again, honestly."""
    talk = Talk(task, estimate=task.params.get("estimate", "bound"))
    for job in range(task.rng.randrange(3, 6)):
        for turn in range(traffic.draw(task.rng, traffic.AGENT_TURNS)):
            question = "status" if turn % 3 == 2 else f"q{job}.{turn}"
            reply = yield from talk.turn(question, useful=1)
            if not reply.ok:
                return (yield from talk.summary()) and None
    return True


SCENARIO = Scenario(
    name="healthy_long", title="Healthy long session",
    fault="None: 30 to 60 turns, all of use, with honest repeats. The budget is 1, 1.25, 1.5, 2 or 4 times its true cost.",
    provenance="Lengths of turns, replies and results are those of 100 airline runs of tau-bench on gpt-4o, 8 of which ask a "
    "tool "
    "the same thing more than once. **We lose it at 1 and 1.25 times**: a hold is an upper bound, so the last steps do not fit.",
    grid=(
        {"times": 1.25, "estimate": "bound"}, {"times": 1, "estimate": "bound"}, {"times": 1.5, "estimate": "bound"},
        {"times": 2, "estimate": "bound"}, {"times": 4, "estimate": "bound"}, {"times": 1.25, "estimate": "exact"},
    ),
    program=program, honest=True, headline=True,
)  # fmt: skip
