"""One reply that asks for many paid tools at once."""

from __future__ import annotations

from benchmarks.runaway.scenario import CREDIT, Scenario, Talk, dollars
from benchmarks.runaway.steps import Program
from benchmarks.runaway.world import Task


def program(task: Task) -> Program:
    """Each turn asks for ``width`` searches at half a cent; of each turn only the first two are of use."""
    talk = Talk(task)
    for turn in range(40):
        reply = yield talk.call(useful=1)
        if not reply.ok:
            break
        talk.hears(reply.tokens)
        tools = [
            talk.tool("web_search", f"{turn}.{n}", price=CREDIT // 200, useful=1 if n < 2 else 0)
            for n in range(task.params["width"])
        ]
        found = yield tools
        if not any(one.ok for one in found):
            break
        for one in found:
            talk.hears(150 if one.ok else 0)
    yield from talk.summary()
    return None


SCENARIO = Scenario(
    name="parallel_tools", title="Parallel tools",
    fault="A reply asks for 16 paid searches at once, turn after turn; the budget ends in the middle of such a turn.",
    provenance="Parallel tool calls are the default of today's model APIs. Half a cent is the list price of a web search call at "
    "several providers. LangChain's tool limit and Pydantic AI end the whole batch or let it pass (peers' study).",
    grid=({"budget": "0.15", "width": 16}, {"budget": "0.15", "width": 4}), program=program, budget=dollars,
    usual_step=5_000_000,
)  # fmt: skip
