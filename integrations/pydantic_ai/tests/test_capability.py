"""Agents: tools and their prices, what leaves a tool undone, sub-agents, parallel tools, cancelled runs, limits beside it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final

import pytest
from agentbudget_pydantic_ai import BudgetCapability, BudgetModel, guard_agent
from pydantic_ai import Agent, ApprovalRequired, CallDeferred, DeferredToolRequests, ModelRetry, UsageLimitExceeded
from pydantic_ai.capabilities import AbstractCapability, BatchModelRequests, Hooks, ModelFallback
from pydantic_ai.exceptions import SkipToolExecution
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.usage import UsageLimits

from agentbudget import BudgetDenied, Credits, Session, current_session
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.integration_suite.world import drained
from agentbudget.testing.provider import FakeProvider, Reply
from agentbudget.testing.provider.words import OUTPUT
from integrations.pydantic_ai.tests.adapter import Chat, Responses

__all__ = ["_applies", "ask", "customer", "provider", "session"]

CALLS_TOOL: Final = Reply(text="", tools=(("spend", {}),))
CREDIT: Final = 1_000_000_000


def agent_of(ask: Ask, *tools: Callable[..., Any], budget: BudgetCapability | None = None, **more: Any) -> Any:
    capabilities = [budget or BudgetCapability(prices={"spend": 1}), *more.pop("capabilities", ())]
    return Agent(Chat().model(ask), capabilities=capabilities, tools=tools, model_settings={"max_tokens": 100}, **more)


def spend() -> str:
    """Spends."""
    return "spent"


def spent_on_tools(session: Session, provider: FakeProvider) -> int:
    return session.status().spent.nano - provider.billed


def settle_tools(provider: FakeProvider, customer: Customer) -> None:
    """The tools' price is no bill of the provider's: take it out of what the suite compares."""
    provider.calls[0].output_tokens += (customer.wallet.balance().consumed.nano - provider.billed) // OUTPUT


@pytest.fixture
def priced(provider: FakeProvider, customer: Customer) -> Any:
    """For tests of tools that have a price."""
    yield
    settle_tools(provider, customer)


def test_each_attempt_of_a_request_is_held_by_itself(ask: Ask, session: Session, provider: FakeProvider) -> None:
    """L4, L11: at the price of the model that makes it; a step of the run that is tried again is two of ours."""
    flat = Chat().model(Ask(session=ask.session, url=ask.url, model="flat"))
    provider.say(Reply(status=500))
    agent_of(ask, capabilities=[ModelFallback(flat)]).run_sync("hi")
    assert [call.asked.model for call in provider.calls] == ["counted", "flat"]
    assert (session.status().spent, session.status().steps) == (1, 2)


@pytest.mark.usefixtures("priced")
def test_a_tool_is_held_and_costs_its_price(ask: Ask, session: Session, provider: FakeProvider) -> None:
    provider.say(CALLS_TOOL)
    assert agent_of(ask, spend).run_sync("hi").output == Reply().text
    assert spent_on_tools(session, provider) == CREDIT
    assert session.status().steps == 3


@pytest.mark.usefixtures("priced")
def test_a_tool_of_an_agent_that_is_guarded_twice_is_charged_once(
    ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """L4."""
    provider.say(CALLS_TOOL)
    twice = BudgetCapability(prices={"spend": 1})
    guard_agent(agent_of(ask, spend, capabilities=[twice]), prices={"spend": 1}).run_sync("hi")
    assert spent_on_tools(session, provider) == CREDIT


@pytest.mark.parametrize("undone", [ApprovalRequired, CallDeferred])
def test_a_tool_that_is_deferred_or_waits_for_an_approval_gives_its_hold_back(
    ask: Ask, session: Session, provider: FakeProvider, undone: type[Exception]
) -> None:
    """L5."""

    def spend() -> str:
        """Spends."""
        raise undone

    provider.say(CALLS_TOOL)
    waiting = agent_of(ask, spend, output_type=[str, DeferredToolRequests]).run_sync("hi").output
    assert isinstance(waiting, DeferredToolRequests)
    assert (spent_on_tools(session, provider), session.status().held) == (0, 0)


def test_a_tool_that_a_hook_skips_costs_nothing(ask: Ask, session: Session, provider: FakeProvider) -> None:
    def skip(ctx: Any, *, call: Any, tool_def: Any, args: Any) -> Any:
        raise SkipToolExecution("known already")

    provider.say(CALLS_TOOL)
    agent_of(ask, spend, capabilities=[Hooks(before_tool_execute=skip)]).run_sync("hi")
    assert "known already" in str(provider.bodies[-1]["messages"])
    assert (spent_on_tools(session, provider), session.status().held) == (0, 0)


@pytest.mark.usefixtures("priced")
def test_a_tool_that_fails_is_charged_each_time_it_ran(ask: Ask, session: Session, provider: FakeProvider) -> None:
    """L11: what it had done by then nobody knows."""
    runs: list[int] = []

    def spend() -> str:
        """Spends."""
        runs.append(1)
        if len(runs) == 1:
            raise ModelRetry("again")
        return "spent"

    provider.say(CALLS_TOOL, CALLS_TOOL)
    agent_of(ask, spend).run_sync("hi")
    assert spent_on_tools(session, provider) == 2 * CREDIT


@pytest.mark.usefixtures("priced")
def test_of_parallel_tools_no_more_run_than_fit(customer: Customer, ask: Ask, provider: FakeProvider) -> None:
    """L3."""
    runs: list[int] = []

    async def spend() -> str:
        """Spends."""
        runs.append(1)
        return "spent"

    provider.say(Reply(text="", tools=(("spend", {}),) * 8))
    with customer.session(budget="3.5") as small:
        with pytest.raises(BudgetDenied):
            agent_of(ask, spend).run_sync("hi")
        drained(customer)
        assert len(runs) == 3
        assert 3 <= small.status().spent < Credits("3.5")


def test_a_sub_agent_has_the_session_by_the_context(ask: Ask, session: Session, provider: FakeProvider) -> None:
    """L12: also where the tool opens a child session for it, whose smaller budget binds."""
    helper, seen = agent_of(ask), []

    async def spend() -> str:
        """Asks a helper."""
        with session.child(budget="0.0001"), pytest.raises(BudgetDenied):
            await helper.run("hi")
        seen.append(current_session() is session)
        return str((await helper.run("hi")).output)

    provider.say(CALLS_TOOL)
    agent_of(ask, spend, budget=BudgetCapability()).run_sync("hi")
    assert (len(provider.calls), seen) == (3, [True])
    assert session.status().spent.nano == provider.billed


def test_a_synchronous_tool_has_the_session_too(ask: Ask, session: Session, provider: FakeProvider) -> None:
    seen = []

    def spend() -> str:
        """Looks."""
        seen.append(current_session() is session)
        return "seen"

    provider.say(CALLS_TOOL)
    agent_of(ask, spend, budget=BudgetCapability()).run_sync("hi")
    assert seen == [True]


class Watching(AbstractCapability[Any]):
    """Notes what is held when ``wrap_run`` is left."""

    def __init__(self, session: Session) -> None:
        self.session, self.held = session, [Credits(0)]

    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
        try:
            return await handler()
        finally:
            self.held.append(self.session.status().held)


def test_a_cancelled_run_ends_its_step_though_its_run_is_left_before(
    ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    """L5, L11: the run's own hook is left first, so a session that was closed there would be closed below a step."""
    provider.say(Reply(stalls=True))
    watching = Watching(session)

    async def cancelled() -> None:
        task = asyncio.create_task(agent_of(ask, capabilities=[watching]).run("hi"))
        await asyncio.to_thread(provider.wait_for, lambda fake: len(fake.calls) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    drained(customer)
    assert watching.held[-1] > 0
    assert session.status().spent.nano >= provider.billed > 0
    session.reserve("tool", amount=1).release()  # the session goes on


def test_usage_limits_are_looked_at_when_the_money_is_spent(
    ask: Ask, customer: Customer, provider: FakeProvider
) -> None:
    limits = UsageLimits(output_tokens_limit=1)
    with customer.session(budget=1) as enough:
        with pytest.raises(UsageLimitExceeded):
            agent_of(ask).run_sync("hi", usage_limits=limits)
        assert enough.status().spent.nano == provider.billed > 0
    with customer.session(budget="0.0001"), pytest.raises(BudgetDenied):
        agent_of(ask).run_sync("hi", usage_limits=limits)
    assert len(provider.calls) == 1


def test_without_a_session_nothing_runs(ask: Ask, provider: FakeProvider) -> None:
    """L8."""
    with pytest.raises(BudgetDenied, match="no_session"):
        contextvars.Context().run(agent_of(ask).run_sync, "hi")
    assert provider.calls == []


def test_a_session_that_is_given_pays(ask: Ask, customer: Customer, provider: FakeProvider) -> None:
    with customer.session(budget=1) as other:
        given = customer.session(budget=1)
        agent_of(ask, budget=BudgetCapability(given)).run_sync("hi")
        assert (given.status().spent.nano, other.status().spent.nano) == (provider.billed, 0)
        given.close()


def test_guarding_leaves_the_agent_as_it_was(ask: Ask, customer: Customer, provider: FakeProvider) -> None:
    agent: Any = Agent(Chat().model(ask), name="asker", model_settings={"max_tokens": 100})
    guarded = guard_agent(agent)
    with customer.session(budget="0.0001"):
        with pytest.raises(BudgetDenied):
            guarded.run_sync("hi")
        assert guarded.name == agent.name
        assert agent.run_sync("hi").output == Reply().text
    provider.calls.clear()  # nobody held it


def test_a_model_is_guarded_once_and_outside_of_what_goes_past_it(ask: Ask) -> None:
    """L4, and L8: a batch asks the model that it wraps for another method."""
    model = Responses().model(ask)
    assert BudgetCapability().get_wrapper_model(ConcurrencyLimitedModel(BudgetModel(model), 1)) is None
    agent: Any = Agent(model, capabilities=[BatchModelRequests(), BudgetCapability()])
    outer = agent.root_capability.get_wrapper_model(model)
    assert isinstance(outer, BudgetModel)
    assert type(outer.wrapped).__name__ == "BatchedModel"
