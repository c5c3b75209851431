"""OpenAI Agents' max_turns, by its own Runner.

Each caller is a run of a real ``Agent`` whose model asks the lab: ``get_response`` says that the turn has come to its model, and
waits until the lab tells what came of the call; it then answers with a tool call, so that the runner goes on to its next turn.
MaxTurnsExceeded ends the run; whoever goes on runs the agent again. A failed or cancelled call is tried again within its turn, as
the client's own retries do. Money is nothing that it counts, and its hooks are the user's own budget, not this."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any


class MaxTurns:
    """As documented: ``max_turns`` of half as many again as healthy work takes; a sub-agent is a run with a maximum
    of its own, as ``as_tool(max_turns=...)`` has it, in proportion to its budget."""

    def __init__(self, budget: float, usual_calls: int, loop: Any = None) -> None:
        self.agents: Any = import_module("agents")
        self.loop = asyncio.new_event_loop() if loop is None else loop
        self.budget, self.usual_calls = budget, usual_calls
        self.runs, self.counted = dict[str, _Caller](), set[int]()

    def before(self, step: dict[str, Any]) -> str:
        if not step["is_model"]:
            return ""
        caller = self.runs.get(step["scope"])
        if caller is None:
            caller = self.runs[step["scope"]] = _Caller(self.agents, self.loop, self.usual_calls * 3 // 2)
        refused = caller.turn()
        if refused:
            del self.runs[step["scope"]]
        return refused

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        if step["is_model"] and not told["failure"] and step["id"] not in self.counted and step["scope"] in self.runs:
            self.counted.add(step["id"])
            self.runs[step["scope"]].has_answer = True
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        """The turn goes on."""

    def child(self, budget: float | None) -> Any:
        part = 1.0 if budget is None else min(1.0, budget / self.budget)
        return type(self)(self.budget * part, max(2, round(self.usual_calls * part)), self.loop)

    def ended(self) -> None:
        """Nothing is given back."""

    def books(self) -> tuple[float, float]:
        """It keeps none. The lab's run is over, so that every run here is."""
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(_all(left))
        self.loop.close()
        return 0.0, 0.0


class _Caller:
    """A run at work, between two questions of the lab."""

    def __init__(self, agents: Any, loop: Any, most: int) -> None:
        self.loop, self.has_answer = loop, False
        self.asked: asyncio.Future[None] = loop.create_future()
        self.told: asyncio.Future[None] = loop.create_future()
        agent = agents.Agent(name="agent", model=_model(agents, self), tools=[_tool(agents)])
        config = agents.RunConfig(tracing_disabled=True)
        self.run = loop.create_task(agents.Runner.run(agent, "go", max_turns=most, run_config=config))

    def turn(self) -> str:
        """Let the runner go on until its model is asked, or the run is over; why it is over."""
        if self.asked.done() and not self.has_answer:  # the last call failed: the same turn
            return ""
        if self.has_answer:
            told, self.has_answer = self.told, False
            self.asked, self.told = self.loop.create_future(), self.loop.create_future()
            told.set_result(None)
        self.loop.run_until_complete(asyncio.wait((self.run, self.asked), return_when=asyncio.FIRST_COMPLETED))
        return "" if self.asked.done() else type(self.run.exception()).__name__

    async def reply(self) -> None:
        """The runner's turn has come to its model, which waits for the lab."""
        self.asked.set_result(None)
        await self.told


async def _all(tasks: Any) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _tool(agents: Any) -> Any:
    async def search() -> str:
        return ""

    return agents.function_tool(search)


def _model(agents: Any, caller: _Caller) -> Any:
    items: Any = import_module("openai.types.responses")

    class Model(agents.Model):  # type: ignore[misc]
        turns = 0

        async def get_response(self, *_: Any, **__: Any) -> Any:
            await caller.reply()
            self.turns += 1
            call = items.ResponseFunctionToolCall(
                name="search", arguments="{}", call_id=f"c{self.turns}", type="function_call"
            )
            return agents.ModelResponse(output=[call], usage=agents.Usage(requests=1), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> Any:
            raise TypeError("the lab asks for whole responses: a stream is a turn like any other")

    return Model()
