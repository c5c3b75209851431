"""``BudgetCallbackHandler`` on models, tools and retrievers that come back."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, ScriptedChatModel
from agentbudget_langchain.runs import current_task
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langchain_core.tracers.context import register_configure_hook

from agentbudget import (
    BudgetAbort,
    BudgetDenied,
    Catalog,
    Credits,
    InvalidRequest,
    OwnerUnavailable,
    Runtime,
    current_session,
)
from agentbudget.runtime.customer import Customer


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


class Library(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if query == "fail":
            raise RuntimeError("the library is closed")
        return [Document(page_content=query)] * 3


class Witness(BaseCallbackHandler):
    """Notes which events reach it, without taking part."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append("llm_error")

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append("tool_error")


def flat(**more: Any) -> ScriptedChatModel:
    return ScriptedChatModel(**{"model": "flat", "max_tokens": 10, **more})


def test_a_call_that_fits_is_held_made_and_settled(customer: Customer) -> None:
    model = flat()
    with customer.session(budget=5) as session:
        model.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
        status = session.status()
    assert (status.spent, status.held, status.steps) == (1, 0, 1)


@pytest.mark.parametrize("how", ["invoke", "stream", "batch", "ainvoke", "astream", "abatch"])
def test_a_refused_call_does_not_reach_the_model_on_any_path(customer: Customer, how: str) -> None:
    """L3: also where LangChain would swallow what a handler raises."""
    model, config = flat(), {"callbacks": [BudgetCallbackHandler()]}
    with customer.session(budget="0.5") as session:
        with pytest.raises(BudgetDenied) as refused:
            _call(model, how, config)
        assert session.status().spent == 0
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "session_budget"
    assert model.received == []


def _call(model: ScriptedChatModel, how: str, config: Any) -> None:
    async def astream() -> None:
        async for _ in model.astream("hi", config):
            pass

    calls = {
        "invoke": lambda: model.invoke("hi", config),
        "stream": lambda: list(model.stream("hi", config)),
        "batch": lambda: model.batch(["hi"], config),
        "ainvoke": lambda: asyncio.run(model.ainvoke("hi", config)),
        "astream": lambda: asyncio.run(astream()),
        "abatch": lambda: asyncio.run(model.abatch(["hi"], config)),
    }
    calls[how]()


def test_the_handler_is_synchronous_inline_and_raises() -> None:
    """The two attributes without which LangChain makes the call all the same, or in another thread."""
    handler = BudgetCallbackHandler()
    assert handler.raise_error
    assert handler.run_inline
    assert not isinstance(handler, AsyncCallbackHandler)


def test_under_ainvoke_it_runs_in_the_task_of_the_call(customer: Customer) -> None:
    class Spy(BudgetCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            seen.append((threading.current_thread(), current_task()))
            super().on_chat_model_start(*args, **kwargs)

    async def go() -> None:
        with customer.session(budget=5):
            await flat().ainvoke("hi", config={"callbacks": [Spy()]})
        assert seen == [(threading.current_thread(), asyncio.current_task())]

    seen: list[Any] = []
    asyncio.run(go())


def test_a_refusal_fires_no_error_event_and_holds_nothing(customer: Customer) -> None:
    witness = Witness()
    callbacks = {"callbacks": [BudgetCallbackHandler(), witness]}
    with customer.session(budget="0.1") as session:
        with pytest.raises(BudgetDenied):
            flat().invoke("hi", config=callbacks)
        with pytest.raises(BudgetDenied):
            search.invoke("x", config=callbacks)
        assert session.status().held == 0
    assert witness.events == []


def test_abort_passes_every_except_exception(customer: Customer) -> None:
    session = customer.session(budget="0.5", on_denied="abort")
    with session, pytest.raises(BudgetAbort):  # noqa: PT012 - the except clause is the point
        try:
            flat().invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
        except Exception:
            pytest.fail("an agent's own except clause swallowed the abort")


def test_without_a_session_the_call_is_refused(customer: Customer) -> None:
    model = flat()
    with pytest.raises(BudgetDenied) as refused:
        model.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "no_session"
    assert model.received == []


def test_a_given_session_pays_wherever_the_call_runs(customer: Customer) -> None:
    session = customer.session(budget=5)
    handler = BudgetCallbackHandler(session)
    thread = threading.Thread(target=lambda: flat().invoke("hi", config={"callbacks": [handler]}))
    thread.start()
    thread.join()
    assert session.status().spent == 1
    session.close()


def test_a_current_child_of_the_given_session_pays_once(customer: Customer) -> None:
    """The child's budget is carved out of the parent's, so its step already binds both (L12)."""
    with customer.session(budget=5) as parent, parent.child(budget=2) as child:
        flat().invoke("hi", config={"callbacks": [BudgetCallbackHandler(parent)]})
        assert child.status().spent == 1
        assert parent.status().spent == 1


def test_a_bare_handler_without_a_cap_says_why_and_how(customer: Customer) -> None:
    """gpt-5 may give 128,000 tokens, which cost more than the budget: the refusal says so, and how to set a cap."""
    model = ScriptedChatModel(model="gpt-5")
    with customer.session(budget=1), pytest.raises(BudgetDenied) as refused:
        model.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
    said = str(refused.value)
    assert "model's maximum of 128000 tokens" in said
    assert "max_tokens" in said
    assert "BudgetMiddleware" in said
    assert "assume_max_output_tokens" in said


def test_an_assumed_cap_lets_a_call_without_one_run_and_books_the_overrun(customer: Customer) -> None:
    """L11: beyond what was assumed, every credit is booked."""
    model = ScriptedChatModel(model="counted", replies=["x" * 4000])
    with customer.session(budget="0.01") as session:
        model.invoke("hi", config={"callbacks": [BudgetCallbackHandler(assume_max_output_tokens=10)]})
        spent = session.status().spent
    assert spent > Credits("0.01")


def test_a_bound_cap_is_what_the_call_holds(customer: Customer) -> None:
    """``.bind(max_tokens=7)`` and per-call caps are reflected in what LangChain tells the handler."""
    seen: list[Any] = []
    model = ScriptedChatModel(model="counted", on_call=lambda _: seen.append(current_session().status().held))  # type: ignore[union-attr]
    with customer.session(budget=5):
        for cap in (7, 1000):
            model.bind(max_tokens=cap).invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
    assert seen[1] - seen[0] == Credits("0.00001") * (1000 - 7)


def test_tools_bound_to_the_model_are_part_of_the_hold(customer: Customer) -> None:
    seen: list[Any] = []
    model = ScriptedChatModel(
        model="counted", max_tokens=10, on_call=lambda _: seen.append(current_session().status().held)
    )  # type: ignore[union-attr]
    with customer.session(budget=5):
        for bare_or_not in (model, model.bind_tools([search])):
            bare_or_not.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
    assert seen[1] > seen[0]


def test_the_usage_of_the_reply_is_what_is_charged(customer: Customer) -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 100_000, "total_tokens": 1_100_000}
    model = ScriptedChatModel(
        model="counted", max_tokens=100_000, replies=[AIMessage(content="x", usage_metadata=usage)]
    )
    with customer.session(budget=5) as session:
        model.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
        assert session.status().spent == 2


def test_a_reply_without_usage_is_charged_what_was_held(customer: Customer) -> None:
    """Never 0, for a provider that does not report is not a provider that does not bill."""

    class Silent(ScriptedChatModel):
        def _stated(self, message: AIMessage, *rest: Any) -> AIMessage:
            return message

    with customer.session(budget=5) as session:
        Silent(model="counted", max_tokens=100_000).invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
        assert session.status().spent > 1


def test_a_tool_is_priced_by_its_rate_before_it_runs(customer: Customer) -> None:
    with customer.session(budget=1) as session:
        for _ in range(2):
            search.invoke("x", config={"callbacks": [BudgetCallbackHandler()]})
        with pytest.raises(BudgetDenied):
            search.invoke("x", config={"callbacks": [BudgetCallbackHandler()]})
        assert session.status().spent == 1


def test_the_same_tool_with_the_same_arguments_opens_the_circuit(customer: Customer) -> None:
    from agentbudget import Breaker

    with customer.session(budget=100, breaker=Breaker(repeat=(3, 10))):
        config = {"callbacks": [BudgetCallbackHandler()]}
        for query in ("a", "b", "same", "same"):
            search.invoke(query, config=config)
        with pytest.raises(BudgetDenied) as refused:  # noqa: PT012 - which of them opens it is the breaker's affair
            for _ in range(2):
                search.invoke("same", config=config)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "circuit_open"


def test_a_retriever_is_charged_by_the_documents_it_brought(customer: Customer) -> None:
    library = Library(name="library")
    with customer.session(budget=5) as session:
        library.invoke("cats", config={"callbacks": [BudgetCallbackHandler()]})
        assert session.status().spent == Credits("0.3")
        asyncio.run(library.ainvoke("dogs", config={"callbacks": [BudgetCallbackHandler()]}))
        assert session.status().spent == Credits("0.6")


def test_a_refused_retriever_does_not_run_and_a_failed_one_is_charged(customer: Customer) -> None:
    """L11: a failure after dispatch is not free."""
    library = Library(name="library")
    with customer.session(budget="1.5") as session:
        with pytest.raises(RuntimeError):
            library.invoke("fail", config={"callbacks": [BudgetCallbackHandler()]})
        assert session.status().spent == 1
        with pytest.raises(BudgetDenied):
            library.invoke("cats", config={"callbacks": [BudgetCallbackHandler()]})
        assert session.status().spent == 1


def test_a_plain_llm_is_held_prompt_by_prompt(customer: Customer) -> None:
    """``generate`` of a plain LLM announces each prompt as a run of its own; the refusal of the last stops the
    batch."""

    class Flat(FakeListLLM):
        @property
        def _identifying_params(self) -> dict[str, Any]:
            return {"model_name": "flat"}

    llm = Flat(responses=["a", "b", "c"])
    with customer.session(budget=3) as session:
        llm.generate(["1", "2"], callbacks=[BudgetCallbackHandler()])
        assert session.status().spent == 2
        with pytest.raises(BudgetDenied):
            llm.generate(["1", "2"], callbacks=[BudgetCallbackHandler()])
        assert (session.status().spent, session.status().held) == (2, 0)


def test_every_failed_attempt_of_a_retry_is_an_attempt_of_its_own(customer: Customer) -> None:
    """``with_retry``: each attempt has its own run, so each is held; a provider's own refusal is given back."""

    class Overloaded(Exception):
        status_code = 529

    model = flat(replies=[Overloaded(), RuntimeError("the connection broke"), "ok"])
    with customer.session(budget=10) as session:
        model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False).invoke(
            "hi", config={"callbacks": [BudgetCallbackHandler()]}
        )
        status = session.status()
    assert len(model.received) == 3
    assert (status.steps, status.spent) == (3, 2)  # one was given back, and is a step all the same


def test_a_refusal_that_is_retried_is_refused_each_time_and_costs_nothing(customer: Customer) -> None:
    """``with_retry`` and ``with_fallbacks`` take a refusal for a failure: it is cheap, and no attempt gets through."""
    model, other = flat(), flat()
    config = {"callbacks": [BudgetCallbackHandler()]}
    with customer.session(budget="0.5") as session:
        with pytest.raises(BudgetDenied):
            model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False).invoke("hi", config=config)
        with pytest.raises(BudgetDenied):
            model.with_fallbacks([other]).invoke("hi", config=config)
        assert (session.status().spent, session.status().denials) == (0, 5)
    assert model.received == other.received == []


def test_an_owner_that_does_not_answer_in_time_stops_the_call(customer: Customer) -> None:
    """L8. The owner's thread is kept busy by another caller's letter while the handler waits."""
    model, busy, waiting = flat(), threading.Event(), threading.Event()
    with customer.session(budget=5) as session:

        def occupy(_: object) -> None:
            waiting.set()
            busy.wait()

        from agentbudget.account.commands import Read

        session.link.host.submit("acme", Read("customer"), occupy)
        waiting.wait()
        with pytest.raises(OwnerUnavailable):
            model.invoke("hi", config={"callbacks": [BudgetCallbackHandler(handler_timeout=0.01)]})
        busy.set()
        assert model.received == []
        assert (session.status().spent, session.status().held) == (0, 0)


def test_a_bad_timeout_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="handler_timeout"):
        BudgetCallbackHandler(handler_timeout=0)


def test_a_dead_owner_does_not_take_the_paid_reply_from_the_caller(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    """A reply that was paid for is the caller's, also when the ledger is gone by then; the hold then ends by its time
    to live."""
    runtime = Runtime.open(ledger="memory://", catalog=catalog)
    session = runtime.customers.create("acme", plan="open").session(budget=5).open()
    model = flat(on_call=lambda _: runtime.close())
    with caplog.at_level(logging.WARNING, "agentbudget.langchain"):
        assert model.invoke("hi", config={"callbacks": [BudgetCallbackHandler(session)]}).content == "ok"
    assert "could not be ended" in caplog.text


def test_a_handler_can_be_installed_by_context_alone(customer: Customer) -> None:
    """LangChain's configure hooks put a handler on every run without touching the code that makes it."""
    from agentbudget_langchain import around

    assert any(hook[0] is around._net for hook in _hooks())
    with customer.session(budget=5) as session:
        token = around._net.set(BudgetCallbackHandler())
        flat().invoke("hi")
        around._net.reset(token)
        flat().invoke("hi")
        assert session.status().spent == 1


def _hooks() -> list[Any]:
    from langchain_core.tracers import context

    assert register_configure_hook is context.register_configure_hook
    return context._configure_hooks
