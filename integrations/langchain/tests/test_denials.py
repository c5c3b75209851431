"""Every cell of integrations/DENIALS.md: where a step is refused, and what its session's ``on_denied`` makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from agentbudget_langchain import BudgetMiddleware, ScriptedChatModel, attach
from langchain.agents.middleware import ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy

from agentbudget import BudgetAbort, BudgetDenied, Credits, Session
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.support import ASK, CALL, agent_of, flat, search

CALLS = Credits("0.01")
"""More than the calls of the model that fits cost."""

TABLE = Path(__file__).parents[2] / "DENIALS.md"
TEXT, RETURNED, MESSAGE, INTERRUPT = "text", "returned", "a last message", "an interrupt"
THREAD: Any = {"configurable": {"thread_id": "1"}}
CALLING = AIMessage(content="", tool_calls=[{"name": "search", "args": {"query": "x"}, "id": "1"}])


class State(TypedDict):
    x: int


def graph(node: Any, **more: Any) -> Any:
    built: Any = StateGraph(State)
    built.add_node("ask", node, **more)
    built.add_edge(START, "ask")
    return built.compile()


def tool_node(**more: Any) -> Any:
    built: Any = StateGraph(MessagesState)
    built.add_node("tools", ToolNode([search], **more))
    built.add_edge(START, "tools")
    return built.compile().invoke({"messages": [CALLING]})["messages"][-1]


def parallel(model: Any) -> Any:
    built: Any = StateGraph(State)
    built.add_node("ask", lambda state: model.invoke("hi"))
    built.add_node("rest", lambda state: None)
    built.add_edge(START, "ask")
    built.add_edge(START, "rest")
    return built.compile().invoke({"x": 1})


def workflow(model: Any) -> Any:
    @task
    def draft() -> Any:
        return model.invoke("hi")

    @entrypoint()
    def work(given: int) -> Any:
        return draft().result()

    return work.invoke(1)


def node_of(model: Any) -> Callable[[Any], Any]:
    def node(state: Any) -> None:
        model.invoke("hi")

    return node


def retried_model(model: Any) -> Any:
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False, on_failure="continue")
    return agent_of(model, middleware=[retry, BudgetMiddleware()]).invoke(ASK)["messages"][-1]


def retried_tool(model: Any) -> Any:
    retry = ToolRetryMiddleware(max_retries=1, initial_delay=0, jitter=False, on_failure="continue")
    agent = agent_of(calling(), search, middleware=[retry, BudgetMiddleware()])
    return agent.invoke(ASK)["messages"][2]


def ended(model: Any) -> Any:
    agent = agent_of(model, middleware=[BudgetMiddleware(on_refused="end")])
    return agent.invoke(ASK)["messages"][-1]


def asked(model: Any) -> Any:
    agent = agent_of(model, middleware=[BudgetMiddleware(on_refused="ask")], checkpointer=InMemorySaver())
    return agent.invoke(ASK, THREAD)["__interrupt__"][0]


def calling(name: str = "search") -> ScriptedChatModel:
    """An agent's model that fits, and asks for a tool that does not."""
    return ScriptedChatModel(model="counted", replies=({**CALL, "tool": name}, "done"), max_tokens=10)


def in_a_loop(made: Any) -> Any:
    async def go() -> Any:
        return await made

    return asyncio.run(go())


Case = tuple[Callable[[Any], Any], str | None, int]
CASES: dict[str, Case] = {  # what runs, what the caller gets (None: the refusal is raised), how often it is refused
    "LC-01": (lambda m: m.invoke("hi"), None, 1),
    "LC-02": (lambda m: in_a_loop(m.ainvoke("hi")), None, 1),
    "LC-03": (lambda m: (RunnableLambda(str) | m).invoke("hi"), None, 1),
    "LC-04": (lambda m: search.invoke({"query": "x"}), None, 1),
    "LC-05": (lambda m: m.batch(["hi"], return_exceptions=True)[0], RETURNED, 1),
    "LC-06": (lambda m: m.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke("hi"), None, 2),
    "LC-07": (lambda m: m.with_fallbacks([flat()]).invoke("hi"), None, 2),
    "LC-08": (lambda m: agent_of(m).invoke(ASK), None, 1),
    "LC-09": (lambda m: agent_of(calling(), search).invoke(ASK), None, 1),
    "LC-10": (lambda m: agent_of(calling("helper"), free_tool(m)).invoke(ASK), None, 1),
    "LC-11": (retried_model, TEXT, 2),
    "LC-12": (retried_tool, TEXT, 2),
    "LC-13": (ended, MESSAGE, 1),
    "LG-01": (lambda m: graph(node_of(m)).invoke({"x": 1}), None, 1),
    "LG-02": (lambda m: in_a_loop(graph(node_of(m)).ainvoke({"x": 1})), None, 1),
    "LG-03": (parallel, None, 1),
    "LG-04": (lambda m: graph(graph(node_of(m))).invoke({"x": 1}), None, 1),
    "LG-05": (workflow, None, 1),
    "LG-06": (lambda m: graph(node_of(m), retry_policy=QUICK).invoke({"x": 1}), None, 2),
    "LG-07": (lambda m: tool_node(), None, 1),
    "LG-08": (lambda m: tool_node(handle_tool_errors=True), TEXT, 1),
    "LG-09": (asked, INTERRUPT, 1),
}
QUICK: Any = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=BudgetDenied)
LATER_REFUSED_UNDER_STOP = {"LC-12"}
"""The agent goes on with the text, and its next model call is refused."""


def free_tool(model: Any) -> Any:
    """A tool without a rate, so without a price: what it asks does not fit."""

    @tool("helper")
    def helper(query: str) -> str:
        """Ask a sub-agent."""
        return str(agent_of(model, middleware=[]).invoke(ASK))

    return helper


def run(case: Case, session: Session, model: Any) -> Any:
    with attach(session):
        return case[0](model)


def tells(result: Any, becomes: str) -> bool:
    """Whether the caller got what the table says."""
    if becomes == RETURNED:
        return isinstance(result, BudgetDenied)
    if becomes == INTERRUPT:
        return bool(result.value["kind"] == "agentbudget_approval")
    return "refused" in str(result.content)


@pytest.mark.parametrize("id", CASES)
def test_refuse(customer: Customer, id: str) -> None:
    case, model = CASES[id], flat()
    with customer.session(budget="0.4") as session:
        if case[1] is None:
            with pytest.raises(BudgetDenied):
                run(case, session, model)
        else:
            assert tells(run(case, session, model), case[1])
        status = session.status()
        assert (status.spent < CALLS, status.held, status.denials, model.received) == (True, 0, case[2], [])
        with session.step("tool", amount="0.3"):
            pass  # a smaller step may run
        with pytest.raises(BudgetDenied):
            session.raise_if_denied()


@pytest.mark.parametrize("id", CASES)
def test_stop(customer: Customer, id: str) -> None:
    case, model = CASES[id], flat()
    with customer.session(budget="0.4", on_denied="stop") as session:
        if case[1] is None or id in LATER_REFUSED_UNDER_STOP:
            with pytest.raises(BudgetDenied):
                run(case, session, model)
        else:
            assert tells(run(case, session, model), case[1])
        with pytest.raises(BudgetDenied, match="circuit_open"):
            session.reserve("tool", amount="0.3")
        assert (session.status().spent < CALLS, model.received) == (True, [])


@pytest.mark.parametrize("id", CASES)
def test_abort(customer: Customer, id: str) -> None:
    case, model = CASES[id], flat()
    with customer.session(budget="0.4", on_denied="abort") as session:
        with pytest.raises(BudgetAbort):
            run(case, session, model)
        assert (session.status().spent < CALLS, session.status().held, model.received) == (True, 0, [])


def test_the_table_has_these_rows_and_says_what_these_cases_say() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TABLE.read_text(encoding="utf-8").splitlines()
        if line.startswith(("| LC-", "| LG-"))
    ]
    assert [row[0] for row in rows] == list(CASES)
    for id, _, refuse, stop, abort in rows:
        becomes = CASES[id][1]
        said = "raised" if becomes is None else becomes
        assert said in refuse, id
        assert ("tried" in refuse) is (becomes is None and CASES[id][2] > 1), id
        assert stop.startswith(refuse.split(";")[0]), id
        assert ("latched" in stop, abort) == (True, "BudgetAbort"), id
