"""``with attach(session):`` covers every runnable of the block, without touching any of them, and each call once."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, attach
from langchain_core.documents import Document
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool

import agentbudget
from agentbudget import BudgetDenied, Credits, InvalidRequest, Runtime, current_session
from agentbudget.catalog import Catalog
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.conftest import CATALOG
from integrations.langchain.tests.support import ASK, CALL, agent_of, books, flat, run, search


class Library(BaseRetriever):
    """Brings three documents (a tenth of a credit each)."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(page_content=query)] * 3


def test_an_agent_that_knows_nothing_of_budgets_is_held_and_refused(customer: Customer) -> None:
    """L3: the refusal reaches the caller of the untouched agent, before the model."""
    model = flat(CALL, "done")
    with customer.session(budget=2) as session, attach(session):
        with pytest.raises(BudgetDenied):
            agent_of(model, search, middleware=[]).invoke(ASK)
        assert books(session) == (Credits("1.5"), 0)
    assert len(model.received) == 1


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "events"])
def test_every_way_to_call_a_runnable_is_covered(customer: Customer, how: str) -> None:
    chain: Any = RunnableLambda(lambda text: f"about {text}") | flat("seven words to stream in two chunks")

    async def later() -> None:
        if how == "ainvoke":
            await chain.ainvoke("x")
        elif how == "abatch":
            await chain.abatch(["x"])
        else:
            async for _ in chain.astream("x") if how == "astream" else chain.astream_events("x", version="v2"):
                pass

    with customer.session(budget=10) as session, attach(session):
        if how == "invoke":
            chain.invoke("x")
        elif how == "batch":
            chain.batch(["x"])
        elif how == "stream":
            list(chain.stream("x"))
        else:
            asyncio.run(later())
        assert books(session) == (1, 0)


def test_plain_llms_tools_and_retrievers_of_the_block_are_held_too(customer: Customer) -> None:
    with customer.session(budget=10) as session, attach(session):
        search.invoke({"query": "x"})
        Library(name="library").invoke("x")
        assert books(session) == (Credits("0.8"), 0)
        with pytest.raises(BudgetDenied):
            FakeListLLM(responses=["ok"]).invoke("hi")  # a model without a price or a ceiling is refused
        assert session.status().steps == 2


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_sub_agent_in_a_tool_is_covered(customer: Customer, how: str) -> None:
    inner = agent_of(flat(CALL, "found"), search, middleware=[])

    @tool("search")
    def ask(query: str) -> str:
        """Ask the other agent."""
        return str(inner.invoke(ASK)["messages"][-1].content)

    with customer.session(budget=10) as session, attach(session):
        run(agent_of(flat(CALL, "done"), ask, middleware=[]), how)
        assert books(session) == (Credits("5"), 0)  # 2 + 2 model calls, 1 + 1 tools
        assert session.status().steps == 6


@pytest.mark.parametrize("also", ["handler on the model", "handler in the config", "middleware", "attached twice"])
def test_what_is_attached_elsewhere_as_well_is_charged_once(customer: Customer, also: str) -> None:
    mine = [BudgetCallbackHandler()]
    model = flat(max_tokens=5, callbacks=mine if also == "handler on the model" else None)
    agent = agent_of(model, middleware=[BudgetMiddleware()] if also == "middleware" else [])
    config: Any = {"callbacks": mine} if also == "handler in the config" else None
    with customer.session(budget=10) as session, attach(session):
        if also == "attached twice":
            with attach():
                agent.invoke(ASK)
        else:
            agent.invoke(ASK, config)
        assert books(session) == (1, 0)


def test_the_session_is_current_in_the_block_and_only_there(customer: Customer) -> None:
    session, model = customer.session(budget=10), flat(max_tokens=5)
    with attach(session):
        assert current_session() is session
        model.invoke("hi")  # opens the session
    assert current_session() is None
    model.invoke("hi")
    assert books(session) == (1, 0)
    session.close()


def test_without_a_session_the_block_refuses(customer: Customer) -> None:
    """L8."""
    model = flat()
    with attach(), pytest.raises(BudgetDenied) as refused:
        model.invoke("hi")
    assert refused.value.decision is not None
    assert (refused.value.decision.reason, model.received) == ("no_session", [])


def test_a_child_of_the_session_pays_for_its_part(customer: Customer) -> None:
    """L12: the child's budget is carved out of the attached session's, so both bind."""
    model = flat(max_tokens=5)
    with customer.session(budget=10) as session, attach(session):
        with session.child(budget=1) as child:
            model.invoke("hi")
            with pytest.raises(BudgetDenied):
                model.invoke("hi")
            assert books(child) == (1, 0)
        with session.child(budget=1) as second, attach(second):
            model.invoke("hi")
        assert books(session) == (2, 0)


def test_a_block_is_not_handed_to_another_session(customer: Customer) -> None:
    with customer.session(budget=1) as one, customer.session(budget=1) as other, attach(one):
        with pytest.raises(InvalidRequest, match="attached"), attach(other):
            pass
        assert current_session() is one


@pytest.mark.parametrize("pool", ["thread", "executor", "map"])
def test_threads_have_it_by_the_carrier(customer: Customer, pool: str) -> None:
    model = flat(max_tokens=5)

    @agentbudget.carry
    def work(text: str) -> None:
        model.invoke(text)

    with customer.session(budget=10) as session, attach(session):
        carried = agentbudget.carry(model.invoke)
        if pool == "thread":
            thread = threading.Thread(target=carried, args=("hi",))
            thread.start()
            thread.join()
        else:
            with ThreadPoolExecutor(2) as executor:
                if pool == "executor":
                    executor.submit(carried, "hi").result()
                else:
                    list(executor.map(carried, ["hi"]))
        assert books(session) == (1, 0)
    work("hi")  # carried from outside the block, so it runs as there: without a budget
    assert len(model.received) == 2


def test_branches_and_tasks_of_the_block_have_it(customer: Customer) -> None:
    """LangChain's own threads, and asyncio tasks, copy the context."""
    model = flat(max_tokens=5)

    async def tasks() -> None:
        await asyncio.gather(*(model.ainvoke("hi") for _ in range(3)))

    with customer.session(budget=10) as session, attach(session):
        RunnableParallel(a=model, b=model).invoke("hi")
        asyncio.run(tasks())
        assert books(session) == (5, 0)


def test_a_block_left_in_another_context_harms_nobody(customer: Customer) -> None:
    """A web framework may enter a dependency in one thread and leave it in another."""
    block = attach(customer.session(budget=10))
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current_session() is None


def _in_another_process(handle: Any) -> Any:
    with handle.join() as session, attach(session):
        flat(max_tokens=5).invoke("hi")
        return session.status().spent


def test_another_process_joins_and_attaches(tmp_path: Path) -> None:
    with Runtime.open(f"sqlite:///{tmp_path}/budget.db", Catalog.loads(CATALOG)) as runtime:
        acme = runtime.customers.create("acme", plan="open")
        with acme.session(budget=10, id="shared") as session:
            with attach(session):
                flat(max_tokens=5).invoke("hi")
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.apply(_in_another_process, (session.handle(),)) == 2
            assert books(session) == (2, 0)
        assert acme.ledger.verify().ok
