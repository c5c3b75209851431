"""The promises, through LangChain: a race admits exactly what fits, a stubborn agent gets nothing, a parent's budget
binds."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, ScriptedChatModel
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import agentbudget
from agentbudget import BudgetDenied, Session
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.default import close_default

CALLERS, FIT = 64, 20
MODEL_SECONDS = 0.2  # what makes the callers overlap: a model that takes its time, as real ones do
ASK = {"messages": [("user", "hi")]}


def slow() -> ScriptedChatModel:
    return ScriptedChatModel(model="flat", max_tokens=5, latency=MODEL_SECONDS)


def by_handler(model: ScriptedChatModel, session: Session) -> tuple[Callable[[], Any], Callable[[], Any]]:
    config: Any = {"callbacks": [BudgetCallbackHandler(session)]}
    return lambda: model.invoke("hi", config), lambda: model.ainvoke("hi", config)


def by_middleware(model: ScriptedChatModel, session: Session) -> tuple[Callable[[], Any], Callable[[], Any]]:
    agent = create_agent(model, [], middleware=[BudgetMiddleware(session)])
    return lambda: agent.invoke(ASK), lambda: agent.ainvoke(ASK)  # type: ignore[arg-type]


def by_both(model: ScriptedChatModel, session: Session) -> tuple[Callable[[], Any], Callable[[], Any]]:
    agent = create_agent(model, [], middleware=[BudgetMiddleware(session)])
    config: Any = {"callbacks": [BudgetCallbackHandler(session)]}
    return lambda: agent.invoke(ASK, config), lambda: agent.ainvoke(ASK, config)  # type: ignore[arg-type]


routes = pytest.mark.parametrize("route", [by_handler, by_middleware, by_both])


@routes
def test_exactly_20_of_64_threads_reach_the_model(customer: Customer, route: Any) -> None:
    """L3, L9: budget for 20 calls, hold = cost, all released together."""
    model, refused, together = slow(), [], threading.Barrier(CALLERS)
    with customer.session(budget=FIT) as session:
        call, _ = route(model, session)

        def caller() -> None:
            together.wait()
            try:
                call()
            except BudgetDenied as error:
                refused.append(error)

        threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = session.status()
    assert (len(model.received), len(refused)) == (FIT, CALLERS - FIT)
    assert (status.spent, status.held, status.denials) == (FIT, 0, CALLERS - FIT)


@routes
def test_exactly_20_of_64_tasks_reach_the_model(customer: Customer, route: Any) -> None:
    model = slow()

    async def go() -> None:
        async with customer.session(budget=FIT) as session:
            _, acall = route(model, session)
            ends = await asyncio.gather(*(acall() for _ in range(CALLERS)), return_exceptions=True)
            refused = [end for end in ends if isinstance(end, BudgetDenied)]
            status = await session.astatus()
            assert (len(model.received), len(refused)) == (FIT, CALLERS - FIT)
            assert (status.spent, status.held) == (FIT, 0)

    asyncio.run(go())


STUBBORN = 200


def test_an_agent_that_swallows_200_refusals_gets_no_step_past_its_budget(customer: Customer) -> None:
    model = ScriptedChatModel(model="flat", max_tokens=5)
    with customer.session(budget=3) as session:
        for _ in range(STUBBORN + 3):
            try:
                model.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
            except Exception:
                continue
        status = session.status()
        with pytest.raises(BudgetDenied):
            session.raise_if_denied()
    assert (len(model.received), status.spent, status.held, status.denials) == (3, 3, 0, STUBBORN)


def test_a_retry_middleware_that_swallows_200_refusals_gets_no_step_past_the_budget(customer: Customer) -> None:
    model = ScriptedChatModel(model="flat")
    retry = ModelRetryMiddleware(max_retries=STUBBORN - 1, initial_delay=0, jitter=False, on_failure="continue")
    with customer.session(budget="0.5") as session:
        answer = create_agent(model, [], middleware=[retry, BudgetMiddleware()]).invoke(ASK)  # type: ignore[arg-type]
        status = session.status()
    assert "refused" in str(answer["messages"][-1].content)
    assert (len(model.received), status.spent, status.denials) == (0, 0, STUBBORN)


def test_a_tool_node_that_turns_200_refusals_into_text_runs_no_tool(customer: Customer) -> None:
    ran: list[str] = []

    @tool
    def search(query: str) -> str:
        """Search."""
        ran.append(query)
        return query

    def call_again(state: MessagesState) -> Any:
        call = {"name": "search", "args": {"query": str(len(state["messages"]))}, "id": str(len(state["messages"]))}
        return {"messages": [AIMessage(content="", tool_calls=[call])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("agent", call_again)
    graph.add_node("tools", ToolNode([search], handle_tool_errors=True))
    graph.add_edge(START, "agent")
    graph.add_edge("agent", "tools")
    graph.add_conditional_edges("tools", lambda state: "agent" if len(state["messages"]) < 2 * STUBBORN else END)
    with customer.session(budget="1.1") as session:
        config = {"callbacks": [BudgetCallbackHandler()], "recursion_limit": 3 * STUBBORN}
        graph.compile().invoke(ASK, config)
        status = session.status()
    assert len(ran) == 2
    assert (status.spent, status.held, status.denials) == (1, 0, STUBBORN - 2)


def test_the_first_ten_minutes_need_no_customer_no_catalog_and_no_cap() -> None:
    """gpt-5, no max_tokens, one dollar, the bundled catalog: the agent runs."""

    @tool
    def look(query: str) -> str:
        """Look."""
        return "seen"

    model = ScriptedChatModel(model="gpt-5", replies=[{"tool": "look", "args": {"query": "x"}}, "done"])
    agent = create_agent(model, [look], middleware=[BudgetMiddleware()])
    with (
        pytest.warns(UserWarning, match="memory") if not _has_said() else _quiet(),
        agentbudget.session(budget=1) as session,
    ):
        assert agent.invoke(ASK)["messages"][-1].content == "done"  # type: ignore[arg-type]
        assert session.status().steps == 3
    close_default()


def _has_said() -> bool:
    from agentbudget.runtime import default

    return default._default.has_said


def _quiet() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_of_nested_agents_5_by_4_by_20_the_parents_budget_binds(customer: Customer) -> None:
    """L12: 20 agents at once, two levels down, want 400 calls; the budget two levels up allows 50, and 50 are made."""
    wanted, children, grandchildren, budget = 20, 5, 4, 50
    model = ScriptedChatModel(model="flat", replies=[{"tool": "look", "args": {"query": "x"}}])

    @tool
    def look(query: str) -> str:
        """Look."""
        return "seen"

    agent = create_agent(model, [look], middleware=[BudgetMiddleware()])

    def leaf(parent: Session) -> None:
        with parent.child():
            try:
                agent.invoke(ASK, {"recursion_limit": 2 * wanted})  # type: ignore[arg-type]
            except (BudgetDenied, RecursionError):
                return  # the sub-agent hides it from the agent above

    with customer.session(budget=budget) as session, ThreadPoolExecutor(children * grandchildren) as pool:
        waiting = []
        for _ in range(children):
            middle = session.child().open()
            waiting += [pool.submit(contextvars.copy_context().run, leaf, middle) for _ in range(grandchildren)]
        for future in waiting:
            future.result()
        status = session.status()
    assert len(model.received) == budget
    assert (status.spent, status.held, status.remaining) == (budget, 0, 0)


def test_what_a_call_cost_beyond_its_hold_is_booked_and_stops_the_session(customer: Customer) -> None:
    """L11: the provider ignores the cap and states three times what was held."""
    usage = {"input_tokens": 0, "output_tokens": 300_000, "total_tokens": 300_000}
    model = ScriptedChatModel(
        model="counted", max_tokens=100_000, replies=[AIMessage(content="x", usage_metadata=usage)]
    )
    agent = create_agent(model, [], middleware=[BudgetMiddleware()])
    with customer.session(budget=2) as session:
        agent.invoke(ASK)  # type: ignore[arg-type]
        assert session.status().spent == 3
        with pytest.raises(BudgetDenied):
            agent.invoke(ASK)  # type: ignore[arg-type]
        assert session.status().spent == 3
    assert len(model.received) == 1


def test_a_context_that_grows_is_refused_before_the_call_that_no_longer_fits(customer: Customer) -> None:
    """L3: each call is held by the messages that it really sends, so a loop that carries all of them along ends in time."""

    @tool
    def look(query: str) -> str:
        """Look."""
        return "seen " * 40_000

    model = ScriptedChatModel(model="counted", max_tokens=10, replies=[{"tool": "look", "args": {"query": "x"}}])
    agent = create_agent(model, [look], middleware=[BudgetMiddleware()])
    with customer.session(budget="0.7") as session:
        with pytest.raises(BudgetDenied):
            agent.invoke(ASK)  # type: ignore[arg-type]
        status = session.status()
    assert 1 < len(model.received) < 6
    assert status.spent < status.budget


def test_after_a_huge_tool_result_the_next_call_is_refused_before_it_is_made(customer: Customer) -> None:
    @tool
    def look(query: str) -> str:
        """Look."""
        return "seen " * 20_000

    model = ScriptedChatModel(model="counted", max_tokens=10, replies=[{"tool": "look", "args": {"query": "x"}}])
    agent = create_agent(model, [look], middleware=[BudgetMiddleware()])
    with customer.session(budget="0.05") as session:
        with pytest.raises(BudgetDenied):
            agent.invoke(ASK)  # type: ignore[arg-type]
        assert session.status().held == 0
    assert len(model.received) == 1
