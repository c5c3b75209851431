"""LangGraph: parallel nodes, failures and cancellation, subgraphs, pauses, retries, threads that outlive their process."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from agentbudget_langchain import BudgetMiddleware, ScriptedChatModel, attach, retry_unless_refused, thread_session
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt

import agentbudget
from agentbudget import BudgetDenied, InvalidRequest, KeyConflict, Runtime
from agentbudget.catalog import Catalog
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.default import close_default
from integrations.langchain.tests.conftest import CATALOG
from integrations.langchain.tests.support import ASK, CALL, agent_of, books, flat, search

ROOT = Path(__file__).parents[3]
THREAD: Any = {"configurable": {"thread_id": "1"}}
both_ways = pytest.mark.parametrize("how", ["sync", "async"])


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def graph_of(nodes: dict[str, Any], edges: list[tuple[str, str]], **more: Any) -> Any:
    """A graph of nodes, each a function or (function, arguments of ``add_node``)."""
    built: Any = StateGraph(State)
    for name, node in nodes.items():
        function, arguments = node if isinstance(node, tuple) else (node, {})
        built.add_node(name, function, **arguments)
    for begin, end in edges:
        built.add_edge(begin, end)
    return built.compile(**more)


def asks(model: Any) -> Any:
    """A node that asks a model, in both worlds."""

    def node(state: Any) -> Any:
        return {"said": [str(model.invoke("hi").content)]}

    return node


def run(graph: Any, how: str, given: Any = None, config: Any = None) -> Any:
    given = {"said": []} if given is None else given
    return graph.invoke(given, config) if how == "sync" else asyncio.run(graph.ainvoke(given, config))


# --- parallel nodes ----------------------------------------------------------------------------------------------


@both_ways
def test_of_parallel_nodes_those_that_fit_run_and_the_refusal_surfaces(customer: Customer, how: str) -> None:
    """L3, with ten nodes at once and room for four."""
    model, refused = flat(max_tokens=5), []

    def node(state: Any) -> Any:
        try:
            model.invoke("hi")
        except BudgetDenied as error:
            refused.append(error)
            raise
        return {"said": ["x"]}

    names = [f"n{n}" for n in range(10)]
    graph = graph_of(dict.fromkeys(names, node), [(START, name) for name in names])
    with customer.session(budget=4) as session, attach(session):
        with pytest.raises(BudgetDenied):
            run(graph, how)
        assert session.status().held == 0
        assert books(session) == (len(model.received), 0)
    assert len(model.received) <= 4
    assert len(model.received) + len(refused) <= 10
    assert refused


def test_nodes_that_are_sent_out_are_each_held(customer: Customer) -> None:
    model = flat(max_tokens=5)
    built: Any = StateGraph(State)
    built.add_node("ask", asks(model))
    built.add_conditional_edges(START, lambda state: [Send("ask", {"said": []}) for _ in range(7)], ["ask"])
    with customer.session(budget=10) as session, attach(session):
        assert built.compile().invoke({"said": []})["said"] == ["ok"] * 7
        assert books(session) == (7, 0)


def test_when_a_sibling_fails_a_synchronous_node_finishes_and_is_charged(customer: Customer) -> None:
    begun = threading.Event()
    model = flat(max_tokens=5, on_call=lambda _: begun.set(), latency=0.1)

    def fails(state: Any) -> Any:
        begun.wait()
        raise ValueError("no")

    graph = graph_of({"ask": asks(model), "fail": fails}, [(START, "ask"), (START, "fail")])
    with customer.session(budget=10) as session, attach(session):
        with pytest.raises(ValueError, match="no"):
            graph.invoke({"said": []})
        assert books(session) == (1, 0)


@pytest.mark.parametrize("on_unknown", ["charge", "release"])
@pytest.mark.parametrize("by", ["attach", "middleware"])
def test_when_a_sibling_fails_an_asynchronous_node_is_cancelled_and_ended_by_policy(
    customer: Customer, on_unknown: Any, by: str
) -> None:
    """L5: LangChain reports nothing of the cancelled call."""

    async def go() -> None:
        begun = asyncio.Event()
        model = flat(max_tokens=5, on_call=lambda _: begun.set(), latency=60)
        agent = agent_of(model, middleware=[BudgetMiddleware()])

        async def slow(state: Any) -> Any:
            await (agent.ainvoke(ASK) if by == "middleware" else model.ainvoke("hi"))

        async def fails(state: Any) -> Any:
            await begun.wait()
            raise ValueError("no")

        graph = graph_of({"ask": slow, "fail": fails}, [(START, "ask"), (START, "fail")])
        async with customer.session(budget=10, on_unknown=on_unknown) as session:
            block = attach(session) if by == "attach" else contextlib.nullcontext()
            with block, pytest.raises(ValueError, match="no"):
                await graph.ainvoke({"said": []})
            await asyncio.sleep(0)
            status = await session.astatus()
            assert (status.spent, status.held) == (1 if on_unknown == "charge" else 0, 0)

    asyncio.run(go())


def test_a_cancelled_graph_leaves_no_hold(customer: Customer) -> None:
    async def go() -> None:
        begun = asyncio.Event()
        model = flat(max_tokens=5, on_call=lambda _: begun.set(), latency=60)

        async def slow(state: Any) -> Any:
            await model.ainvoke("hi")

        graph = graph_of({"a": slow, "b": slow}, [(START, "a"), (START, "b")])
        async with customer.session(budget=10) as session:
            with attach(session):
                running = asyncio.create_task(graph.ainvoke({"said": []}))
                await begun.wait()
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
            status = await session.astatus()
            assert (status.held, status.spent) == (0, len(model.received))

    asyncio.run(go())


# --- subgraphs ---------------------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("as_node", [True, False])
def test_what_runs_in_a_subgraph_is_held_once(customer: Customer, how: str, as_node: bool) -> None:
    model = flat(max_tokens=5)
    inner = graph_of({"ask": asks(model)}, [(START, "ask"), ("ask", END)])

    def calls(state: Any) -> Any:
        return {"said": inner.invoke({"said": []})["said"]}

    outer = graph_of({"ask": asks(model), "sub": inner if as_node else calls}, [(START, "ask"), ("ask", "sub")])
    with customer.session(budget=10) as session, attach(session):
        run(outer, how)
        assert books(session) == (2, 0)


def test_an_agent_as_a_subgraph_with_its_own_middleware_is_charged_once(customer: Customer) -> None:
    agent = agent_of(flat(CALL, "done"), search)
    built: Any = StateGraph(dict)
    built.add_node("agent", lambda state: agent.invoke(ASK))
    built.add_edge(START, "agent")
    with customer.session(budget=10) as session, attach(session):
        built.compile().invoke({})
        assert books(session) == (agentbudget.Credits("2.5"), 0)


# --- pauses ------------------------------------------------------------------------------------------------------


@both_ways
def test_a_node_that_is_replayed_after_an_interrupt_spends_again(customer: Customer, how: str) -> None:
    """L11: the calls before the interrupt are really made again."""
    model = flat(max_tokens=5)

    def node(state: Any) -> Any:
        said = str(model.invoke("before").content)
        return {"said": [said, interrupt("may I?"), str(model.invoke("after").content)]}

    graph = graph_of({"ask": node}, [(START, "ask")], checkpointer=InMemorySaver())
    with customer.session(budget=10) as session, attach(session):
        run(graph, how, config=THREAD)
        assert books(session) == (1, 0)
        assert run(graph, how, Command(resume="yes"), THREAD)["said"] == ["ok", "yes", "ok"]
        assert books(session) == (3, 0)
    assert len(model.received) == 3


@both_ways
def test_a_finished_task_of_a_workflow_is_not_made_or_charged_again_on_resume(customer: Customer, how: str) -> None:
    model = flat(max_tokens=5)

    @task
    def draft() -> str:
        return str(model.invoke("draft").content)

    @entrypoint(checkpointer=InMemorySaver())
    def workflow(given: str) -> str:
        first = draft().result()
        return first + str(interrupt("good?")) + str(model.invoke("final").content)

    with customer.session(budget=10) as session, attach(session):
        if how == "sync":
            workflow.invoke("x", THREAD)
            workflow.invoke(Command(resume="yes"), THREAD)
        else:
            asyncio.run(workflow.ainvoke("x", THREAD))
            asyncio.run(workflow.ainvoke(Command(resume="yes"), THREAD))
        assert books(session) == (2, 0)


def test_a_node_out_of_langgraphs_cache_costs_nothing(customer: Customer) -> None:
    model = flat(max_tokens=5)
    node = (asks(model), {"cache_policy": CachePolicy()})
    graph = graph_of({"ask": node}, [(START, "ask")], cache=InMemoryCache())
    with customer.session(budget=10) as session, attach(session):
        assert graph.invoke({"said": []}) == graph.invoke({"said": []})
        assert books(session) == (1, 0)


def test_a_pause_between_nodes_holds_nothing(customer: Customer) -> None:
    model = flat(max_tokens=5)
    nodes = {"one": asks(model), "two": asks(model)}
    edges = [(START, "one"), ("one", "two")]
    graph = graph_of(nodes, edges, checkpointer=InMemorySaver(), interrupt_before=["two"])
    with customer.session(budget=10) as session, attach(session):
        graph.invoke({"said": []}, THREAD)
        assert books(session) == (1, 0)
        graph.invoke(None, THREAD)
        assert books(session) == (2, 0)


# --- retries -----------------------------------------------------------------------------------------------------

QUICK: Any = {"initial_interval": 0.0, "jitter": False}


@both_ways
def test_every_attempt_of_a_retry_policy_is_spend_of_its_own(customer: Customer, how: str) -> None:
    model, broken = flat(max_tokens=5), [1, 1]

    def node(state: Any) -> Any:
        model.invoke("hi")
        if broken:
            broken.pop()
            raise ConnectionError("after the call")
        return {"said": ["done"]}

    graph = graph_of({"ask": (node, {"retry_policy": RetryPolicy(max_attempts=3, **QUICK)})}, [(START, "ask")])
    with customer.session(budget=10) as session, attach(session):
        run(graph, how)
        assert books(session) == (3, 0)


def test_a_refused_node_that_is_retried_costs_nothing_each_time(customer: Customer) -> None:
    model = flat(max_tokens=5)
    node = (asks(model), {"retry_policy": RetryPolicy(max_attempts=4, **QUICK)})
    with customer.session(budget="0.5") as session, attach(session):
        with pytest.raises(BudgetDenied):
            graph_of({"ask": node}, [(START, "ask")]).invoke({"said": []})
        status = session.status()
        assert (status.denials, status.spent, status.held, model.received) == (4, 0, 0, [])


def test_a_retry_policy_can_be_told_to_leave_refusals_alone(customer: Customer) -> None:
    policy, attempts = RetryPolicy(max_attempts=3, retry_on=retry_unless_refused, **QUICK), []
    model = flat(max_tokens=5)

    def breaks(state: Any) -> Any:
        attempts.append(1)
        raise ConnectionError("no")

    refused = graph_of({"ask": (asks(model), {"retry_policy": policy})}, [(START, "ask")])
    broken = graph_of({"ask": (breaks, {"retry_policy": policy})}, [(START, "ask")])
    with customer.session(budget="0.5") as session, attach(session):
        with pytest.raises(BudgetDenied):
            refused.invoke({"said": []})
        assert session.status().denials == 1
        with pytest.raises(ConnectionError):
            broken.invoke({"said": []})
    assert len(attempts) == 3


def test_an_abort_is_not_retried(customer: Customer) -> None:
    node = (asks(flat()), {"retry_policy": RetryPolicy(max_attempts=4, **QUICK)})
    with customer.session(budget="0.5", on_denied="abort") as session, attach(session):
        with pytest.raises(agentbudget.BudgetAbort):
            graph_of({"ask": node}, [(START, "ask")]).invoke({"said": []})
        assert session.status().denials == 1


# --- threads -----------------------------------------------------------------------------------------------------


def test_the_second_turn_of_a_thread_joins_the_first_ones_session(customer: Customer) -> None:
    graph = graph_of({"ask": asks(flat(max_tokens=5))}, [(START, "ask")], checkpointer=InMemorySaver())
    other: Any = {"configurable": {"thread_id": "2"}}
    for turn in (1, 2):
        with thread_session(THREAD, customer, budget=2) as session, attach(session):
            graph.invoke({"said": []}, THREAD)
            assert books(session) == (turn, 0)
    with thread_session(other, customer, budget=2) as session, attach(session):
        graph.invoke({"said": []}, other)
        assert books(session) == (1, 0)
    with thread_session(THREAD, customer) as session, attach(session), pytest.raises(BudgetDenied):
        graph.invoke({"said": []}, THREAD)
    session.fund(5)
    with thread_session(THREAD, customer, budget=2) as session, attach(session):  # as the first turn stated it
        graph.invoke({"said": []}, THREAD)
    with pytest.raises(KeyConflict):
        thread_session(THREAD, customer, budget=3).open()
    session.close()
    with pytest.raises(BudgetDenied, match="session_closed"):
        thread_session(THREAD, customer).open()


def test_a_thread_without_a_name_is_refused_and_any_name_is_taken(customer: Customer) -> None:
    for nameless in ({}, {"configurable": {}}, {"configurable": {"thread_id": ""}}, ""):
        with pytest.raises(InvalidRequest, match="thread_id"):
            thread_session(nameless, customer)
    with pytest.raises(InvalidRequest, match="leave it out"):
        thread_session(THREAD, customer, id="mine")
    names = ["1", "x" * 500, "x" * 501, "line\nbreak", "ü"]
    assert len({thread_session(name, customer).open().id for name in names}) == len(names)
    assert thread_session({"configurable": {"thread_id": 1}}, customer).id == thread_session("1", customer).id


def test_without_a_customer_the_local_one_pays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    close_default()
    monkeypatch.setenv("AGENTBUDGET_LEDGER", f"sqlite:///{tmp_path}/budget.db")
    with thread_session(THREAD, budget=2) as session, attach(session):
        ScriptedChatModel(model="gpt-5-mini").invoke("hi")
        assert session.link.customer == "local"
        assert session.status().steps == 1
    close_default()


TURN = """
import sys
from typing import Any
from agentbudget import Catalog, Credits, Runtime
from agentbudget_langchain import BudgetMiddleware, ScriptedChatModel, thread_session
from langchain.agents import create_agent
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

folder, answer, catalog = sys.argv[1:4]
config: Any = {"configurable": {"thread_id": "1"}}
model = ScriptedChatModel(model="flat", max_tokens=10)
with Runtime.open(f"sqlite:///{folder}/budget.db", Catalog.loads(catalog)) as runtime, \\
        SqliteSaver.from_conn_string(f"{folder}/threads.db") as saver:
    acme = runtime.customers.create("acme", plan="open")
    agent = create_agent(model, [], middleware=[BudgetMiddleware(on_refused="ask")], checkpointer=saver)
    with thread_session(config, acme, budget=2) as session:
        asked = [one.value["approve"] for one in agent.get_state(config).interrupts]
        given = Command(resume=asked[0]) if answer == "approve" else {"messages": [("user", answer)]}
        state = agent.invoke(given, config)
        if answer == "die":
            import os
            os.kill(os.getpid(), 9)
        status = session.status()
        print(len(state["messages"]), status.spent, status.budget, len(state.get("__interrupt__", ())))
"""


def test_a_threads_budget_survives_its_processes(tmp_path: Path) -> None:
    """L1: each turn is a process of its own, one of them killed after its call; the third turn finds two credits spent,
    asks, and a fourth process approves."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "integrations" / "langchain")])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AGENTBUDGET_")}

    def turn(answer: str) -> tuple[int, list[str], str]:
        done = subprocess.run(
            [sys.executable, "-c", TURN, str(tmp_path), answer, CATALOG], env={**kept, "PYTHONPATH": paths},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.split(), done.stderr

    assert turn("one")[:2] == (0, ["2", "1", "2", "0"])
    assert turn("die")[0] == -9
    code, said, errors = turn("three")
    assert (code, said) == (0, ["5", "2", "2", "1"]), errors
    code, said, errors = turn("approve")
    assert (code, said) == (0, ["6", "3", "3", "0"]), errors
    with Runtime.open(f"sqlite:///{tmp_path}/budget.db", Catalog.loads(CATALOG)) as runtime:
        acme = runtime.customer("acme")
        assert acme.ledger.verify().ok
        assert acme.ledger.reconcile() == []
        assert acme.wallet.balance().held == 0
