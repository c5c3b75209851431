"""What a refusal becomes in this SDK, wherever it happens, and what stops the run all the same: the table of the README."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agentbudget_openai_agents import BudgetProvider, guard_agent, guard_tool
from agents import Agent, ModelSettings, MultiProvider, RunConfig, Runner, UserError, function_tool

from agentbudget import BudgetAbort, BudgetDenied, Session, find_denied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.openai_agents.tests.adapter import Agents, client_of

__all__ = ["_applies", "ask", "customer", "provider", "session"]

CALLS_TOOL = Reply(text="", tools=(("spend", {}),))
ONE = "1.5"
"""A budget for one call of ``flat``, not for two."""


@pytest.fixture
def flat(ask: Ask) -> Any:
    """What an agent is made of: a model at a credit a call."""
    return {"model": Agents().model(Ask(session=ask.session, url=ask.url, model="flat"))}


@function_tool
async def spend() -> str:
    """Spends."""
    return "spent"


def test_a_refused_model_call_comes_out_unchanged(customer: Customer, flat: Any, provider: FakeProvider) -> None:
    with customer.session(budget="0.5"), pytest.raises(BudgetDenied):
        Runner.run_sync(guard_agent(Agent("one", **flat)), "hi")
    assert provider.calls == []


def test_a_refused_call_of_a_streamed_run_comes_out_of_its_events(
    customer: Customer, flat: Any, provider: FakeProvider
) -> None:
    async def read() -> None:
        async for _ in Runner.run_streamed(guard_agent(Agent("one", **flat)), "hi").stream_events():
            pass

    with customer.session(budget="0.5"), pytest.raises(BudgetDenied):
        asyncio.run(read())
    assert provider.calls == []


def test_a_refused_call_of_an_agent_handed_over_to_comes_out_unchanged(
    customer: Customer, flat: Any, provider: FakeProvider
) -> None:
    provider.say(Reply(text="", tools=(("transfer_to_two", {}),)))
    agent = guard_agent(Agent("one", handoffs=[Agent("two", **flat)], **flat))
    with customer.session(budget=ONE) as small:
        with pytest.raises(BudgetDenied):
            Runner.run_sync(agent, "hi")
        assert small.status().spent == 1


def test_a_refused_tool_is_the_cause_of_a_user_error_and_does_not_run(
    customer: Customer, flat: Any, provider: FakeProvider
) -> None:
    ran = []

    @function_tool(name_override="spend")
    async def spending() -> str:
        """Spends."""
        ran.append(1)
        return "spent"

    provider.say(CALLS_TOOL)
    agent = guard_agent(Agent("one", tools=[spending], **flat), prices={"spend": 1})
    with customer.session(budget=ONE), pytest.raises(UserError) as refused:
        Runner.run_sync(agent, "hi")
    assert isinstance(refused.value.__cause__, BudgetDenied)
    assert find_denied(refused.value) is refused.value.__cause__
    assert ran == []


def swallowing(kind: str, flat: Any) -> Any:
    """An agent whose tool meets the refusal: in its body, or as an agent of its own."""
    helper = guard_agent(Agent("helper", **flat))
    if kind == "agent":
        return guard_agent(Agent("one", tools=[helper.as_tool(tool_name="spend", tool_description="Spends.")], **flat))

    @function_tool(name_override="spend")
    async def spending() -> str:
        """Spends."""
        return str((await Runner.run(helper, "hi")).final_output)

    return guard_agent(Agent("one", tools=[spending], **flat))


kinds = pytest.mark.parametrize("kind", ["body", "agent"])


def calls_tool(kind: str) -> Reply:
    return CALLS_TOOL if kind == "body" else Reply(text="", tools=(("spend", {"input": "hi"}),))


@kinds
def test_a_refusal_inside_a_tool_becomes_text_and_the_next_call_is_judged_anew(
    customer: Customer, flat: Any, provider: FakeProvider, kind: str
) -> None:
    provider.say(calls_tool(kind))
    with customer.session(budget=ONE) as small:
        with pytest.raises(BudgetDenied):
            Runner.run_sync(swallowing(kind, flat), "hi")
        assert small.status().spent == 1
        assert small.status().denials == 2  # the one that became text, and the next one of the agent


@kinds
def test_stop_ends_the_run_that_swallowed_a_refusal(
    customer: Customer, flat: Any, provider: FakeProvider, kind: str
) -> None:
    """Also where the next call would fit."""
    provider.say(calls_tool(kind))
    with customer.session(budget=ONE, on_denied="stop") as small:
        with pytest.raises(BudgetDenied):
            Runner.run_sync(swallowing(kind, flat), "hi")
        with pytest.raises(BudgetDenied):
            small.raise_if_denied()
    assert len(provider.calls) == 1


@kinds
def test_abort_passes_what_would_swallow_it(customer: Customer, flat: Any, provider: FakeProvider, kind: str) -> None:
    provider.say(calls_tool(kind))
    with customer.session(budget=ONE, on_denied="abort"), pytest.raises(BudgetAbort):
        Runner.run_sync(swallowing(kind, flat), "hi")


# --- the rest of what is guarded ----------------------------------------------------------------------------------------------


def test_a_provider_guards_every_named_model_of_a_run(ask: Ask, session: Session, provider: FakeProvider) -> None:
    """L11: also of an agent that is a tool, and that nobody guarded."""
    provider.say(calls_tool("agent"))
    tool = Agent("helper", model="counted").as_tool(tool_name="spend", tool_description="Spends.")
    config = RunConfig(model_provider=BudgetProvider(MultiProvider(openai_client=client_of(ask))))
    Runner.run_sync(Agent("one", model="counted", tools=[tool]), "hi", run_config=config)
    assert len(provider.calls) == 3
    assert session.status().spent.nano == provider.billed


def test_a_call_without_a_cap_gets_the_sessions(customer: Customer, ask: Ask, provider: FakeProvider) -> None:
    with customer.session(budget=5, max_output_tokens=321):
        Runner.run_sync(guard_agent(Agent("one", model=Agents().model(ask))), "hi")
    assert provider.bodies[0]["max_output_tokens"] == 321


def test_a_cap_is_clamped_to_what_fits(customer: Customer, ask: Ask, provider: FakeProvider) -> None:
    agent = Agent("one", model=Agents().model(ask), model_settings=ModelSettings(max_tokens=5_000))
    with customer.session(budget="0.002", on_short="clamp"):
        Runner.run_sync(guard_agent(agent), "hi")
    assert 100 < provider.bodies[0]["max_output_tokens"] < 200


def test_a_conversation_that_the_provider_keeps_holds_the_context_window(
    customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    agent = guard_agent(Agent("one", model=Agents().model(ask)))
    with customer.session(budget="0.15"), pytest.raises(BudgetDenied):
        Runner.run_sync(agent, "hi", previous_response_id="resp_0")
    assert provider.calls == []


def test_a_tool_is_guarded_once_and_agents_that_hand_over_to_each_other_are_copied_once() -> None:
    tool = guard_tool(spend)
    assert guard_tool(tool) is tool
    one, two = Agent("one"), Agent("two")
    one.handoffs, two.handoffs = [two], [one]
    copy: Any = guard_agent(one)
    assert copy.handoffs[0].handoffs[0] is copy
    assert one.handoffs == [two]
