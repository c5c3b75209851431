"""Every cell of the part on the OpenAI Agents SDK in integrations/DENIALS.md: where a step is refused, and what its session's
``on_denied`` makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest
from agentbudget_openai_agents import guard_agent
from agents import Agent, ModelSettings, Runner, UserError, function_tool

from agentbudget import BudgetAbort, BudgetDenied, Credits, find_denied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.openai_agents.tests.adapter import Agents
from tests.denials import rows

__all__ = ["_applies", "ask", "customer", "provider", "session"]

CALLS: Final = Credits("0.01")
"""More than the calls of the model that fits cost."""

TEXT, CAUSE = "text for the model", "the cause of a UserError"


class Kit:
    """Agents of two models: ``fits`` is cheap, and its first reply asks for a tool; ``flat`` costs a credit, which nobody has."""

    def __init__(self, url: str, session: Any, provider: FakeProvider) -> None:
        self._url, self._session, self._provider = url, session, provider

    def agent(self, model: str = "flat", **more: Any) -> Any:
        served = Agents().model(Ask(session=self._session, url=self._url, model=model))
        settings = ModelSettings(max_tokens=10)
        return guard_agent(Agent("asker", model=served, model_settings=settings, **more), prices={"spend": 1})

    def fits(self, tool: str, arguments: Any, **more: Any) -> Any:
        self._provider.say(Reply(text="", tools=((tool, arguments),)))
        return self.agent("counted", **more)


@function_tool
async def spend() -> str:
    """Spends."""
    pytest.fail("a refused tool ran")


def streamed(agent: Any) -> Any:
    async def read() -> None:
        async for _ in Runner.run_streamed(agent, "hi").stream_events():
            pass

    return asyncio.run(read())


def handed_over(kit: Kit) -> Any:
    two = Agent("two", model=Agents().model(Ask(session=kit._session, url=kit._url, model="flat")))
    return Runner.run_sync(kit.fits("transfer_to_two", {}, handoffs=[two]), "hi")


def in_a_body(kit: Kit) -> Any:
    helper = kit.agent()

    @function_tool
    async def helped() -> str:
        """Asks a helper."""
        return str((await Runner.run(helper, "hi")).final_output)

    return Runner.run_sync(kit.fits("helped", {}, tools=[helped]), "hi")


def as_a_tool(kit: Kit) -> Any:
    tool = kit.agent().as_tool(tool_name="helper", tool_description="Helps.")
    return Runner.run_sync(kit.fits("helper", {"input": "hi"}, tools=[tool]), "hi")


Case = tuple[Callable[[Kit], Any], str | None]
CASES: dict[str, Case] = {  # what runs, what the caller gets (None: the refusal is raised)
    "OA-01": (lambda k: Runner.run_sync(k.agent(), "hi"), None),
    "OA-02": (lambda k: streamed(k.agent()), None),
    "OA-03": (handed_over, None),
    "OA-04": (lambda k: Runner.run_sync(k.fits("spend", {}, tools=[spend]), "hi"), CAUSE),
    "OA-05": (in_a_body, TEXT),
    "OA-06": (as_a_tool, TEXT),
}


def ends_with_a_refusal(run: Callable[[], Any], becomes: str | None) -> None:
    with pytest.raises((BudgetDenied, UserError)) as raised:
        run()
    error = raised.value
    if becomes == CAUSE:
        assert isinstance(error, UserError)
        assert isinstance(error.__cause__, BudgetDenied)
        assert find_denied(error) is error.__cause__
    else:
        assert type(error) is BudgetDenied


def nobody_paid(provider: FakeProvider) -> bool:
    """Whether no call was made of the model that does not fit."""
    return {call.asked.model for call in provider.calls} <= {"counted"}


@pytest.mark.parametrize("id", CASES)
def test_refuse(customer: Customer, provider: FakeProvider, id: str) -> None:
    run, becomes = CASES[id]
    with customer.session(budget="0.4") as session:
        kit = Kit(provider.url, session, provider)
        if becomes == TEXT:
            assert run(kit).final_output == Reply().text
            assert "error occurred" in str(provider.bodies[-1]["input"])
        else:
            ends_with_a_refusal(lambda: run(kit), becomes)
        status = session.status()
        assert (status.spent < CALLS, status.held, status.denials, nobody_paid(provider)) == (True, 0, 1, True)
        with session.step("tool", amount="0.3"):
            pass  # a smaller step may run
        with pytest.raises(BudgetDenied):
            session.raise_if_denied()


@pytest.mark.parametrize("id", CASES)
def test_stop(customer: Customer, provider: FakeProvider, id: str) -> None:
    """Where the refusal became text, the next call of the run is refused, also where it would fit."""
    run, becomes = CASES[id]
    with customer.session(budget="0.4", on_denied="stop") as session:
        kit = Kit(provider.url, session, provider)
        ends_with_a_refusal(lambda: run(kit), None if becomes == TEXT else becomes)
        with pytest.raises(BudgetDenied, match="circuit_open"):
            session.reserve("tool", amount="0.3")
        assert (session.status().spent < CALLS, nobody_paid(provider)) == (True, True)
    assert len(provider.calls) == (0 if id in ("OA-01", "OA-02") else 1)


@pytest.mark.parametrize("id", CASES)
def test_abort(customer: Customer, provider: FakeProvider, id: str) -> None:
    run = CASES[id][0]
    with customer.session(budget="0.4", on_denied="abort") as session:
        with pytest.raises(BudgetAbort):
            run(Kit(provider.url, session, provider))
        assert (session.status().spent < CALLS, session.status().held, nobody_paid(provider)) == (True, 0, True)


def test_the_table_has_these_rows_and_says_what_these_cases_say() -> None:
    found = rows("OA")
    assert [row[0] for row in found] == list(CASES)
    for id, _, refuse, stop, abort in found:
        becomes = CASES[id][1]
        assert ("raised" if becomes is None else becomes) in refuse, id
        assert stop.startswith(refuse), id
        assert ("next call is refused" in stop) is (becomes == TEXT), id
        assert ("latched" in stop, abort) == (True, "BudgetAbort"), id
