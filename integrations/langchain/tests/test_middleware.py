"""``BudgetMiddleware`` in real agents of langchain v1, alone and together with the callback handler."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, ScriptedChatModel
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.tools import tool
from pydantic import BaseModel

from agentbudget import BudgetDenied, Credits
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.support import ASK, CALL, FOR_EVER, agent_of, books, flat, run, search


@pytest.mark.parametrize("how", ["sync", "async"])
def test_every_model_call_and_every_tool_call_is_held_and_settled(customer: Customer, how: str) -> None:
    with customer.session(budget=10) as session:
        run(agent_of(flat(CALL, CALL, "done"), search), how)
        assert books(session) == (4, 0)
        assert session.status().steps == 5


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_refused_model_call_leaves_the_agent_as_it_was_raised(customer: Customer, how: str) -> None:
    model = flat(CALL)
    with customer.session(budget="2.9") as session:
        with pytest.raises(BudgetDenied) as refused:
            run(agent_of(model, search), how)
        assert books(session) == (Credits("2.5"), 0)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "session_budget"
    assert len(model.received) == 2


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_refused_tool_call_does_not_run_the_tool(customer: Customer, how: str) -> None:
    ran: list[str] = []

    @tool("search")
    def noted(query: str) -> str:
        """Search."""
        ran.append(query)
        return query

    with customer.session(budget="1.2") as session:
        with pytest.raises(BudgetDenied):
            run(agent_of(flat(CALL), noted), how)
        assert books(session) == (1, 0)
    assert ran == []


def test_without_a_session_the_agent_is_refused(customer: Customer) -> None:
    model = flat()
    with pytest.raises(BudgetDenied) as refused:
        agent_of(model).invoke(ASK)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "no_session"
    assert model.received == []


# --- output caps -------------------------------------------------------------------------------------------------


def test_a_call_without_a_cap_gets_the_sessions(customer: Customer) -> None:
    model = ScriptedChatModel(model="gpt-5")
    with customer.session(budget=1, max_output_tokens=777):
        agent_of(model).invoke(ASK)
    assert model.caps == [777]


def test_a_cap_that_somebody_chose_is_kept(customer: Customer) -> None:
    model = ScriptedChatModel(model="gpt-5", max_tokens=99)
    with customer.session(budget=1):
        agent_of(model).invoke(ASK)
    assert model.caps == [99]


def test_clamp_lowers_the_cap_to_what_fits(customer: Customer) -> None:
    """The hold is lowered only together with the request."""
    model = ScriptedChatModel(model="counted", max_tokens=100_000, replies=["x" * 1_000_000])
    with customer.session(budget="0.5", on_short="clamp") as session:
        agent_of(model).invoke(ASK)
        assert books(session)[0] <= Credits("0.5")
        assert books(session)[1] == 0
    assert 40_000 < (model.caps[0] or 0) < 50_000


def test_two_calls_of_gpt_5_fit_where_the_model_maximum_would_not(customer: Customer) -> None:
    """The first ten minutes: gpt-5 without max_tokens under a budget of one dollar runs its steps."""

    @tool
    def look(query: str) -> str:
        """Look (no rate, so free)."""
        return "seen"

    call = {"tool": "look", "args": {"query": "x"}}
    model = ScriptedChatModel(model="gpt-5", replies=[call, call, "done"])
    with customer.session(budget=1) as session:
        answer = agent_of(model, look).invoke(ASK)
        assert answer["messages"][-1].content == "done"
        assert 0 < session.status().spent.nano < Credits("0.2").nano


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(("status", "spent"), [(429, 0), (529, 0), (408, 1), (502, 1), (None, 1)])
def test_only_a_providers_own_refusal_gives_the_hold_back(
    customer: Customer, how: str, status: int | None, spent: int
) -> None:
    class Refused(Exception):
        status_code = status

    with customer.session(budget=5) as session:
        with pytest.raises(Refused):
            run(agent_of(flat(Refused())), how)
        assert books(session) == (spent, 0)


def test_an_error_before_the_model_was_reached_gives_the_hold_back(customer: Customer) -> None:
    class Unbindable(ScriptedChatModel):
        def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
            raise TypeError("this tool cannot be bound")

    with customer.session(budget=5) as session:
        with pytest.raises(TypeError):
            agent_of(Unbindable(model="flat"), search).invoke(ASK)
        assert books(session) == (0, 0)


def test_a_tool_that_fails_is_charged_also_when_its_error_becomes_text(customer: Customer) -> None:
    """L11. The default of an agent's tool node hands a failed tool's message to the model."""

    @tool("search", parse_docstring=False)
    def broken(query: str) -> str:
        """Search."""
        raise RuntimeError("the index is gone")

    with customer.session(budget=5) as session:
        with pytest.raises(RuntimeError):
            agent_of(flat(CALL, "sorry"), broken).invoke(ASK)
        assert books(session) == (Credits("1.5"), 0)


def test_a_call_of_an_unknown_tool_holds_nothing(customer: Customer) -> None:
    with customer.session(budget=5) as session:
        agent_of(flat({"tool": "unheard_of"}, "done"), search).invoke(ASK)
        assert books(session) == (2, 0)
        assert session.status().steps >= 2


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_parsing_error_after_a_paid_reply_is_charged_by_the_reply(customer: Customer, how: str) -> None:
    """L11: the middleware never sees this reply, but the run inside it reported its usage."""

    class Answer(BaseModel):
        number: int

    usage = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    call = {"name": "Answer", "args": {"number": "many"}, "id": "1"}
    model = ScriptedChatModel(model="counted", replies=[AIMessage(content="", tool_calls=[call], usage_metadata=usage)])
    agent = agent_of(model, response_format=ToolStrategy(Answer, handle_errors=False))
    with customer.session(budget=5) as session:
        with pytest.raises(Exception, match="Answer"):
            run(agent, how)
        assert books(session) == (Credits("0.002"), 0)


@pytest.mark.parametrize("with_handler", ["parser", "structured"])
def test_a_parser_that_fails_behind_a_handler_leaves_the_reply_booked(customer: Customer, with_handler: str) -> None:
    class Answer(BaseModel):
        number: int

    call = {"name": "Answer", "args": {"number": "many"}, "id": "1"}
    model = flat("not json") if with_handler == "parser" else flat(AIMessage(content="", tool_calls=[call]))
    chain = model | JsonOutputParser() if with_handler == "parser" else model.with_structured_output(Answer)
    with customer.session(budget=5) as session:
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the parser raises
            chain.invoke("hi", config={"callbacks": [BudgetCallbackHandler(assume_max_output_tokens=10)]})
        assert books(session) == (1, 0)


# --- cancellation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "timeout", "aclose"])
def test_a_cancelled_agent_leaves_no_hold(customer: Customer, how: str) -> None:
    async def go() -> None:
        started = asyncio.Event()
        agent = agent_of(flat(latency=FOR_EVER, on_call=lambda _: started.set()))

        async def consume() -> None:
            async for _ in agent.astream(ASK):
                pass

        async with customer.session(budget=5) as session:
            if how == "timeout":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(agent.ainvoke(ASK), 0.05)
            else:
                task = asyncio.create_task(agent.ainvoke(ASK) if how == "cancel" else consume())
                await started.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            status = await session.astatus()
            assert (status.spent, status.held) == (1, 0)

    asyncio.run(go())


def test_an_agent_whose_stream_is_left_settles_the_step_that_ran(customer: Customer) -> None:
    with customer.session(budget=5) as session:
        for _ in agent_of(flat(CALL, "done"), search).stream(ASK):
            break
        gc.collect()
        assert books(session)[1] == 0
        assert books(session)[0] >= 1


# --- beside other middleware -------------------------------------------------------------------------------------


class Flaky(Exception):
    """A failure that does not prove that nothing was billed."""


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("place", ["innermost", "outermost"])
def test_each_attempt_of_a_retry_is_held_wherever_the_budget_stands(customer: Customer, how: str, place: str) -> None:
    """Innermost, the middleware holds each attempt itself; outside the retry, the net inside it holds the further
    ones."""
    model = flat(Flaky(), Flaky(), "done")
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    order = [retry, BudgetMiddleware()] if place == "innermost" else [BudgetMiddleware(), retry]
    with customer.session(budget=10) as session:
        run(agent_of(model, middleware=order), how)
        assert len(model.received) == 3
        assert books(session) == (3, 0)
        assert session.status().steps == 3


def test_a_fallback_model_is_held_at_its_own_price(customer: Customer) -> None:
    first, other = flat(Flaky()), ScriptedChatModel(model="gpt-5", replies=["done"])
    order = [ModelFallbackMiddleware(other), BudgetMiddleware()]
    with customer.session(budget=10) as session:
        agent_of(first, middleware=order).invoke(ASK)
        assert 1 < books(session)[0] < Credits("1.01")


def test_a_middleware_that_answers_itself_costs_nothing(customer: Customer) -> None:
    class Canned(AgentMiddleware):  # type: ignore[type-arg]
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return AIMessage(content="canned")

    model = flat()
    with customer.session(budget=10) as session:
        agent_of(model, middleware=[BudgetMiddleware(), Canned()]).invoke(ASK)
        assert books(session) == (0, 0)
    assert model.received == []


# --- the package ------------------------------------------------------------------------------------------


def test_without_langchain_the_handler_works_and_the_middleware_says_what_to_install() -> None:
    code = """
import sys
sys.modules["langchain"] = None
import agentbudget_langchain
agentbudget_langchain.BudgetCallbackHandler()
try:
    agentbudget_langchain.BudgetMiddleware
except ImportError as error:
    assert "agentbudget-langchain[middleware]" in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_importing_the_package_imports_no_framework() -> None:
    frameworks = "[name for name in sys.modules if name.startswith(('langchain', 'langgraph'))]"
    code = f"import sys, agentbudget_langchain; assert not {frameworks}"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
