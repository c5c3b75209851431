"""Every cell of the part on Pydantic AI in integrations/DENIALS.md: where a step is refused, and what its session's ``on_denied``
makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest
from agentbudget_pydantic_ai import BudgetCapability, BudgetModel, guard_agent
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.capabilities import Hooks, ModelFallback
from pydantic_ai.direct import model_request_stream_sync, model_request_sync
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.fallback import FallbackModel

from agentbudget import BudgetAbort, BudgetDenied, Credits, find_denied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.pydantic_ai.tests.adapter import Chat
from tests.denials import rows

__all__ = ["_applies", "ask", "customer", "provider", "session"]

CALLS: Final = Credits("0.01")
"""More than the calls of the model that fits cost."""

TEXT, FOR_THE_MODEL, GROUP = "text in the reply", "text for the model", "an exception group"


class Kit:
    """Agents of two models: ``fits`` is cheap, and its first reply asks for the tools; ``flat`` costs a credit, which nobody
    has."""

    def __init__(self, url: str, session: Any, provider: FakeProvider) -> None:
        self._url, self._session, self._provider = url, session, provider
        self.flat = self.model("flat")

    def model(self, name: str) -> Any:
        return Chat().model(Ask(session=self._session, url=self._url, model=name))

    def fits(self, *tools: str) -> Any:
        if tools:
            self._provider.say(Reply(text="", tools=tuple((name, {}) for name in tools)))
        return self.model("counted")

    def agent(self, model: Any, *others: Any, **more: Any) -> Any:
        budget = BudgetCapability(prices={"spend": 1})
        return Agent(model, capabilities=[budget, *others], model_settings={"max_tokens": 10}, **more)

    def with_sub_agent(self, *others: Any) -> Any:
        helper = self.agent(self.flat)

        async def helped() -> str:
            """Asks a sub-agent."""
            return str((await helper.run("hi")).output)

        return self.agent(self.fits("helped"), *others, tools=[helped])


def spend() -> str:
    """Spends."""
    pytest.fail("a refused tool ran")


def free() -> str:
    """Costs nothing."""
    return "done"


ASKED: Final = [ModelRequest.user_text_prompt("hi")]


def streamed(agent: Any) -> Any:
    async def read() -> None:
        async with agent.run_stream("hi") as run:
            async for _ in run.stream_text():
                pass

    return asyncio.run(read())


def events_of(agent: Any) -> Any:
    async def read() -> None:
        async with agent.run_stream_events("hi") as events:
            async for _ in events:
                pass

    return asyncio.run(read())


def streamed_directly(kit: Kit) -> Any:
    with model_request_stream_sync(BudgetModel(kit.flat), ASKED) as events:
        return list(events)


def at_the_second_call(kit: Kit) -> Any:
    """An output that is refused is asked for again: another call, of a model that does not fit."""
    agent = kit.agent(kit.fits(), ModelAfterFirst(kit.flat))

    @agent.output_validator
    def never(output: str) -> str:
        raise ModelRetry("again")

    return agent.run_sync("hi")


class ModelAfterFirst(Hooks[Any]):
    """Sends every request but the first to another model."""

    def __init__(self, other: Any) -> None:
        super().__init__(before_model_request=self._choose)
        self._other, self._seen = other, 0

    def _choose(self, ctx: Any, request_context: Any) -> Any:
        self._seen += 1
        if self._seen > 1:
            request_context.model = self._other
        return request_context


def recovering_model() -> Any:
    async def recover(ctx: Any, *, request_context: Any, error: Exception) -> ModelResponse:
        return ModelResponse(parts=[TextPart(f"refused: {error}")])

    return Hooks(model_request_error=recover)


def recovering_tool() -> Any:
    async def recover(ctx: Any, *, call: Any, tool_def: Any, args: Any, error: Exception) -> str:
        return f"refused: {error}"

    return Hooks(tool_execute_error=recover)


def every(kit: Kit) -> Any:
    return FallbackModel(kit.flat, kit.model("flat-2"), fallback_on=(Exception,))


Case = tuple[Callable[[Kit], Any], str | None, int]
CASES: dict[str, Case] = {  # what runs, what the caller gets (None: the refusal is raised), how often it is refused
    "PA-01": (lambda k: k.agent(k.flat).run_sync("hi"), None, 1),
    "PA-02": (lambda k: asyncio.run(guard_agent(Agent(k.flat)).run("hi")), None, 1),
    "PA-03": (lambda k: streamed(k.agent(k.flat)), None, 1),
    "PA-04": (lambda k: events_of(k.agent(k.flat)), None, 1),
    "PA-05": (lambda k: model_request_sync(BudgetModel(k.flat), ASKED), None, 1),
    "PA-06": (streamed_directly, None, 1),
    "PA-07": (at_the_second_call, None, 1),
    "PA-08": (lambda k: k.agent(k.fits("spend"), tools=[spend]).run_sync("hi"), None, 1),
    "PA-09": (lambda k: k.agent(k.fits("free", "spend"), tools=[spend, free]).run_sync("hi"), None, 1),
    "PA-10": (lambda k: k.with_sub_agent().run_sync("hi"), None, 1),
    "PA-11": (lambda k: k.agent(FallbackModel(k.flat, k.fits())).run_sync("hi"), None, 1),
    "PA-12": (lambda k: k.agent(every(k)).run_sync("hi"), GROUP, 2),
    "PA-13": (lambda k: k.agent(k.flat, ModelFallback(k.fits())).run_sync("hi"), None, 1),
    "PA-14": (lambda k: k.agent(k.flat, recovering_model()).run_sync("hi"), TEXT, 1),
    "PA-15": (lambda k: k.with_sub_agent(recovering_tool()).run_sync("hi"), FOR_THE_MODEL, 1),
}
LATER_REFUSED_UNDER_STOP: Final = {"PA-15"}
"""The agent goes on with the text, and its next model call is refused."""


def ends_with_a_refusal(run: Callable[[], Any], becomes: str | None) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is what is looked at
        run()
    if becomes == GROUP:
        assert isinstance(raised.value, ExceptionGroup)
        assert find_denied(raised.value) is not None
    else:
        assert type(raised.value) is BudgetDenied


def nobody_paid(provider: FakeProvider) -> bool:
    """Whether no call was made of a model that does not fit."""
    return {call.asked.model for call in provider.calls} <= {"counted"}


@pytest.mark.parametrize("id", CASES)
def test_refuse(customer: Customer, provider: FakeProvider, id: str) -> None:
    run, becomes, denials = CASES[id]
    with customer.session(budget="0.4") as session:
        kit = Kit(provider.url, session, provider)
        if becomes in (None, GROUP):
            ends_with_a_refusal(lambda: run(kit), becomes)
        else:
            result = run(kit)
            said = result.output if becomes == TEXT else str(provider.bodies[-1]["messages"])
            assert "refused" in said
        status = session.status()
        assert (status.spent < CALLS, status.held, status.denials, nobody_paid(provider)) == (True, 0, denials, True)
        with session.step("tool", amount="0.3"):
            pass  # a smaller step may run
        with pytest.raises(BudgetDenied):
            session.raise_if_denied()


@pytest.mark.parametrize("id", CASES)
def test_stop(customer: Customer, provider: FakeProvider, id: str) -> None:
    run, becomes, _ = CASES[id]
    with customer.session(budget="0.4", on_denied="stop") as session:
        kit = Kit(provider.url, session, provider)
        if becomes in (None, GROUP) or id in LATER_REFUSED_UNDER_STOP:
            ends_with_a_refusal(lambda: run(kit), becomes)
        else:
            assert "refused" in run(kit).output
        with pytest.raises(BudgetDenied, match="circuit_open"):
            session.reserve("tool", amount="0.3")
        assert (session.status().spent < CALLS, nobody_paid(provider)) == (True, True)


@pytest.mark.parametrize("id", CASES)
def test_abort(customer: Customer, provider: FakeProvider, id: str) -> None:
    run = CASES[id][0]
    with customer.session(budget="0.4", on_denied="abort") as session:
        with pytest.raises(BudgetAbort):
            run(Kit(provider.url, session, provider))
        assert (session.status().spent < CALLS, session.status().held, nobody_paid(provider)) == (True, 0, True)


def test_the_table_has_these_rows_and_says_what_these_cases_say() -> None:
    found = rows("PA")
    assert [row[0] for row in found] == list(CASES)
    for id, _, refuse, stop, abort in found:
        becomes, denials = CASES[id][1:]
        assert ("raised" if becomes is None else becomes) in refuse, id
        assert ("tried" in refuse) is (denials > 1), id
        assert stop.startswith(refuse.split(";")[0]), id
        assert ("next call is refused" in stop) is (id in LATER_REFUSED_UNDER_STOP), id
        assert ("latched" in stop, abort) == (True, "BudgetAbort"), id
