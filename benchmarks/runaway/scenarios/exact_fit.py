"""A budget that ends on a nanocredit."""

from __future__ import annotations

from typing import Final

from benchmarks.runaway.scenario import Scenario, Talk, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task

PRICE: Final = 2_500_000
"""Nanocredits a call, known beforehand. Twenty of them are 0.05 credits."""


def program(task: Task) -> Program:
    """Asks a paid tool again and again; twenty answers are of use."""
    talk = Talk(task)
    for turn in range(200):
        reply = yield talk.tool("lookup", f"q{turn}", price=PRICE, useful=1 if turn < 20 else 0)
        if not reply.ok:
            return None
    return None


SCENARIO = Scenario(
    name="exact_fit", title="Budget that ends on a nanocredit",
    fault="A loop of paid calls of one price, whose budget is one nanocredit short of the twentieth, or just pays for it.",
    provenance="In floats twenty times 0.05 are 1.0000000000000002, so ledgers in floats refuse a twentieth call that fits (this "
    "project's study of peers: 19 of 20), and one that compares loosely pays for a call that does not. Nobody's traffic: the "
    "price is chosen so that the sum meets the budget.",
    grid=({"budget": "0.049999999"}, {"budget": "0.05"}), program=program, budget=dollars, usual_step=PRICE,
)  # fmt: skip
