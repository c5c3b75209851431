"""Handler and middleware together, inside tools, and in graphs: each piece of work is charged once, by itself."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from agentbudget import BudgetDenied, Credits, find_denied
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.support import ASK, CALL, agent_of, books, flat, run, search

# --- handler and middleware together -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("where", ["config", "model", "both", "two objects"])
def test_handler_and_middleware_together_charge_each_call_once(customer: Customer, how: str, where: str) -> None:
    one, two = BudgetCallbackHandler(), BudgetCallbackHandler()
    on_model = {"config": None, "model": [one], "both": [one], "two objects": [two]}[where]
    config = None if where == "model" else {"callbacks": [one]}
    with customer.session(budget=10) as session:
        run(agent_of(flat(CALL, "done", callbacks=on_model), search), how, config)
        assert books(session) == (Credits("2.5"), 0)
        assert session.status().steps == 3


@pytest.mark.parametrize("handlers", [1, 2])
def test_one_call_is_charged_once_however_many_handlers_see_it(customer: Customer, handlers: int) -> None:
    one = BudgetCallbackHandler()
    other = one if handlers == 1 else BudgetCallbackHandler()
    with customer.session(budget=10) as session:
        flat(max_tokens=5, callbacks=[one]).invoke("hi", config={"callbacks": [other]})
        assert books(session) == (1, 0)


def test_a_callers_own_step_around_a_call_is_that_call(customer: Customer) -> None:
    """The first run inside is the step's; a second one is work of its own."""
    model, config = flat(max_tokens=5), {"callbacks": [BudgetCallbackHandler()]}
    with customer.session(budget=10) as session:
        with session.step("llm", model="flat", max_output_tokens=5) as step:
            reply = model.invoke("hi", config=config)
            step.settle(reply)
        assert books(session) == (1, 0)
        with session.step("llm", model="flat", max_output_tokens=5) as step:
            model.invoke("hi", config=config)
            model.invoke("hi", config=config)
        assert books(session) == (3, 0)


def test_a_stream_left_open_does_not_hide_the_next_call(customer: Customer) -> None:
    """An open run of a handler is no step around later code: only what really encloses a call may stand for it."""
    model, config = flat(max_tokens=5), {"callbacks": [BudgetCallbackHandler()]}
    with customer.session(budget=10) as session:
        stream = model.stream("hi", config)
        next(stream)
        model.invoke("hi", config=config)
        list(stream)
        assert books(session) == (2, 0)


# --- inside tools ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("inner_budget", [True, False])
def test_a_sub_agent_in_a_tool_is_charged_by_itself_and_once(customer: Customer, how: str, inner_budget: bool) -> None:
    """A model call inside a tool's step is no attempt of that step; also where the sub-agent has no middleware of its
    own."""
    inner = agent_of(flat(max_tokens=5), middleware=[BudgetMiddleware()] if inner_budget else [])

    @tool("search")
    def ask(query: str) -> str:
        """Ask the other agent."""
        return str(inner.invoke(ASK)["messages"][-1].content)

    with customer.session(budget=10) as session:
        run(agent_of(flat(CALL, "done"), ask), how)
        assert books(session) == (Credits("3.5"), 0)
        assert session.status().steps == 4


def test_a_refusal_inside_a_tool_reaches_the_caller(customer: Customer) -> None:
    inner = flat(max_tokens=5)

    @tool("search")
    def ask(query: str) -> str:
        """Ask the other model."""
        return str(inner.invoke("hi").content)

    with customer.session(budget="1.6") as session:
        with pytest.raises(BudgetDenied) as refused:
            agent_of(flat(CALL, "done"), ask).invoke(ASK)
        assert find_denied(refused.value) is refused.value
        assert books(session) == (Credits("1.5"), 0)
    assert inner.received == []


@pytest.mark.parametrize("carrier", ["same thread", "context executor", "bare thread", "bare executor"])
def test_models_in_threads_of_a_tool_are_seen_where_the_context_goes_along(customer: Customer, carrier: str) -> None:
    """A bare thread has no context, so nothing sees its calls there: give the handler to the model, and it refuses
    them."""
    inner, guarded = flat(max_tokens=5), flat(max_tokens=5, callbacks=[BudgetCallbackHandler()])
    refused: list[BaseException] = []

    def call(model: Any) -> None:
        try:
            model.invoke("hi")
        except BudgetDenied as error:
            refused.append(error)

    def carry(model: Any) -> None:
        if carrier == "same thread":
            call(model)
        elif carrier == "bare thread":
            thread = threading.Thread(target=call, args=(model,))
            thread.start()
            thread.join()
        else:
            with (ContextThreadPoolExecutor if carrier == "context executor" else ThreadPoolExecutor)() as pool:
                pool.submit(call, model).result()

    @tool("search")
    def ask(query: str) -> str:
        """Ask the other models."""
        carry(inner)
        carry(guarded)
        return "asked"

    with customer.session(budget=10) as session:
        agent_of(flat(CALL, "done"), ask).invoke(ASK)
        seen = carrier in ("same thread", "context executor")
        assert books(session) == (Credits("4.5") if seen else Credits("2.5"), 0)
    assert len(refused) == (0 if seen else 1)


def test_embeddings_have_no_callback_so_a_step_is_opened_by_hand(customer: Customer) -> None:
    class Fake(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[0.0] for _ in texts]

        def embed_query(self, text: str) -> list[float]:
            return [0.0]

    with customer.session(budget=1) as session:
        with session.step("embedding", model="text-embedding-3-small", request=["hi"]):
            Fake().embed_documents(["hi"])
        assert session.status().steps == 1


# --- graphs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_tool_that_asks_a_human_gives_its_hold_back_and_is_held_again_on_resume(customer: Customer, how: str) -> None:
    @tool("search")
    def ask(query: str) -> str:
        """Ask a human."""
        return str(interrupt("may I?"))

    agent = agent_of(flat(CALL, "done"), ask, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with customer.session(budget=10) as session:
        paused = run(agent, how, config)
        assert "__interrupt__" in paused
        assert books(session) == (1, 0)
        resume = Command(resume="yes")
        agent.invoke(resume, config) if how == "sync" else asyncio.run(agent.ainvoke(resume, config))
        assert books(session) == (Credits("2.5"), 0)


def test_parallel_tool_calls_are_each_held_and_none_goes_over(customer: Customer) -> None:
    calls = [{"name": "search", "args": {"query": str(n)}, "id": str(n)} for n in range(5)]
    with customer.session(budget="2.2") as session:
        with pytest.raises(BudgetDenied):
            agent_of(flat(AIMessage(content="", tool_calls=calls)), search).invoke(ASK)
        assert books(session) == (2, 0)
