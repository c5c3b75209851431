"""What is guarded beside the calls that the suite makes: named models, caps, stored conversations, tools once."""

from __future__ import annotations

from typing import Any

import pytest
from agentbudget_openai_agents import BudgetProvider, guard_agent, guard_tool
from agents import Agent, ModelSettings, MultiProvider, RunConfig, Runner, function_tool

from agentbudget import BudgetDenied, Session
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.openai_agents.tests.adapter import Agents, client_of

__all__ = ["_applies", "ask", "customer", "provider", "session"]


@function_tool
async def spend() -> str:
    """Spends."""
    return "spent"


def test_a_provider_guards_every_named_model_of_a_run(ask: Ask, session: Session, provider: FakeProvider) -> None:
    """L11: also of an agent that is a tool, and that nobody guarded."""
    provider.say(Reply(text="", tools=(("spend", {"input": "hi"}),)))
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
