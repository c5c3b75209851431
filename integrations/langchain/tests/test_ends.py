"""Every run ends (L5): calls that are cancelled, batches that break, and what LangChain never
reports."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, ScriptedChatModel
from agentbudget_langchain.runs import OPEN
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langgraph.errors import GraphInterrupt

from agentbudget import BudgetDenied, Credits
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.support import FOR_EVER, books, config, counted, flat

# --- cancellation: what LangChain never reports ------------------------------------------------------------------


async def _cancelled(start: Callable[[asyncio.Event], Any]) -> None:
    """Run it in a task, cancel it once it is under way, and wait for its end."""
    started = asyncio.Event()
    task = asyncio.create_task(start(started))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task


@pytest.mark.parametrize("policy", ["charge", "release"])
def test_a_cancelled_ainvoke_is_ended_by_policy_though_langchain_says_nothing(customer: Customer, policy: Any) -> None:
    async def go() -> None:
        with customer.session(budget=5, on_unknown=policy) as session:
            await _cancelled(
                lambda started: flat(latency=FOR_EVER, on_call=lambda _: started.set()).ainvoke("hi", config())
            )
            assert books(session) == ((1, 0) if policy == "charge" else (0, 0))

    asyncio.run(go())


def test_a_timeout_inside_a_task_that_goes_on_is_ended_too(customer: Customer) -> None:
    """No task ends here: the id of the run does."""

    async def go() -> None:
        with customer.session(budget=5) as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await flat(latency=FOR_EVER).ainvoke("hi", config())
            await asyncio.sleep(0)  # the loop itself still knows the cancelled call until its next turn
            gc.collect()
            assert books(session) == (1, 0)

    asyncio.run(go())


def test_a_wait_for_the_rate_limiter_that_is_cancelled_is_ended(customer: Customer) -> None:
    class Closed(BaseRateLimiter):
        def __init__(self, started: asyncio.Event) -> None:
            self.started = started

        def acquire(self, *, blocking: bool = True) -> bool:
            return False

        async def aacquire(self, *, blocking: bool = True) -> bool:
            self.started.set()
            await asyncio.sleep(FOR_EVER)
            return True

    async def go() -> None:
        with customer.session(budget=5) as session:
            await _cancelled(lambda started: flat(rate_limiter=Closed(started)).ainvoke("hi", config()))
            assert books(session) == (1, 0)

    asyncio.run(go())


def test_a_cancelled_retriever_is_ended(customer: Customer) -> None:
    class Slow(BaseRetriever):
        started: Any

        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return []

        async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            self.started.set()
            await asyncio.sleep(FOR_EVER)
            return []

    async def go() -> None:
        with customer.session(budget=5) as session:
            await _cancelled(lambda started: Slow(name="library", started=started).ainvoke("x", config()))
            assert books(session) == (1, 0)

    asyncio.run(go())


def test_a_cancelled_tool_is_ended(customer: Customer) -> None:
    async def go() -> None:
        def start(started: asyncio.Event) -> Any:
            @tool
            async def search(query: str) -> str:
                """Search."""
                started.set()
                await asyncio.sleep(FOR_EVER)
                return ""

            return search.ainvoke("x", config=config())

        with customer.session(budget=5) as session:
            await _cancelled(start)
            assert books(session) == (Credits("0.5"), 0)

    asyncio.run(go())


def test_a_sibling_that_is_cancelled_because_another_failed_is_ended(customer: Customer) -> None:
    async def go() -> None:
        started = asyncio.Event()

        async def fail() -> None:
            await started.wait()
            raise RuntimeError("a sibling failed")

        with customer.session(budget=5) as session:
            with pytest.raises(ExceptionGroup):  # noqa: PT012 - the group is one statement
                async with asyncio.TaskGroup() as group:
                    group.create_task(flat(latency=FOR_EVER, on_call=lambda _: started.set()).ainvoke("hi", config()))
                    group.create_task(fail())
            assert books(session) == (1, 0)

    asyncio.run(go())


def test_a_handler_that_raises_after_ours_held_leaves_no_hold(customer: Customer) -> None:
    """The call is not made, and LangChain fires no event for it: the end of the run's id is the only sign."""

    class Later(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise PermissionError("not on a Sunday")

    model = flat()
    with customer.session(budget=5, on_unknown="release") as session:
        with pytest.raises(PermissionError):
            model.invoke("hi", {"callbacks": [BudgetCallbackHandler(), Later()]})
        gc.collect()
        assert books(session) == (0, 0)
    assert model.received == []


def test_an_interrupt_in_the_model_ends_the_run(customer: Customer) -> None:
    with customer.session(budget=5) as session:
        with pytest.raises(KeyboardInterrupt):
            flat(KeyboardInterrupt()).invoke("hi", config())
        assert books(session) == (1, 0)


# --- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["generate", "agenerate"])
def test_a_generate_whose_third_prompt_is_refused_makes_no_call_and_holds_nothing(customer: Customer, how: str) -> None:
    model, handler = flat(), BudgetCallbackHandler()
    prompts = [model._convert_input(text).to_messages() for text in "abc"]
    with customer.session(budget=2) as session:
        with pytest.raises(BudgetDenied):  # noqa: PT012 - the branches are the test's parameter
            if how == "generate":
                model.generate(prompts, callbacks=[handler])
            else:
                asyncio.run(model.agenerate(prompts, callbacks=[handler]))
        assert books(session) == (0, 0)
    assert model.received == []


def test_a_generate_that_fails_midway_charges_what_was_made_and_gives_back_the_rest(customer: Customer) -> None:
    """a was made and paid though its reply is lost, b is unknown, c was never made; LangChain reports only b."""
    model = flat("a", RuntimeError("the connection broke"), "c")
    prompts = [model._convert_input(text).to_messages() for text in "abc"]
    with customer.session(budget=5) as session:
        with pytest.raises(RuntimeError):
            model.generate(prompts, callbacks=[BudgetCallbackHandler()])
        assert books(session) == (2, 0)
    assert len(model.received) == 2


def test_an_agenerate_that_fails_in_one_prompt_settles_the_others(customer: Customer) -> None:
    model = flat("a", RuntimeError("the connection broke"), "c")
    prompts = [model._convert_input(text).to_messages() for text in "abc"]

    async def go() -> None:
        with customer.session(budget=5) as session:
            with pytest.raises(RuntimeError):
                await model.agenerate(prompts, callbacks=[BudgetCallbackHandler()])
            assert books(session) == (3, 0)

    asyncio.run(go())


def test_a_batch_whose_third_call_is_refused_makes_and_settles_two(customer: Customer) -> None:
    model = flat()
    with customer.session(budget=2) as session:
        with pytest.raises(BudgetDenied):
            model.batch(["a", "b", "c"], config(), max_concurrency=1)  # type: ignore[arg-type]
        assert books(session) == (2, 0)
    assert len(model.received) == 2


def test_an_abatch_whose_third_call_is_refused_leaves_no_hold(customer: Customer) -> None:
    """Siblings of the refused call go on, or are cancelled without an event."""
    model = flat(latency=0.01)

    async def go() -> None:
        with customer.session(budget=2) as session:
            with pytest.raises(BudgetDenied):
                await model.abatch(["a", "b", "c"], config())
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)  # type: ignore[arg-type]
            gc.collect()
            assert books(session) == (2, 0)

    asyncio.run(go())


# --- the cache, the graph, the id --------------------------------------------------------------------------------


def test_a_reply_from_langchains_cache_costs_nothing(customer: Customer) -> None:
    model = counted(cache=InMemoryCache())
    with customer.session(budget=5) as session:
        model.invoke("hi", config())
        paid = session.status().spent
        assert model.invoke("hi", config()).content == "ok"
        assert books(session) == (paid, 0)
    assert len(model.received) == 1


def test_an_interrupt_of_the_graph_in_a_tool_gives_the_hold_back(customer: Customer) -> None:
    """On resume the tool starts again, and is held again."""

    @tool
    def search(query: str) -> str:
        """Search."""
        raise GraphInterrupt

    with customer.session(budget=5) as session:
        with pytest.raises(GraphInterrupt):
            search.invoke("x", config=config())
        assert books(session) == (0, 0)


def test_two_candidates_of_one_call_are_one_usage(customer: Customer) -> None:
    """Each candidate repeats the usage of the call: the maximum counts, not the sum."""
    usage = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}

    class Twice(ScriptedChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            said = [AIMessage(content=text, usage_metadata=usage) for text in "ab"]
            return ChatResult(generations=[ChatGeneration(message=message) for message in said])

    with customer.session(budget=5) as session:
        Twice(model="counted", max_tokens=1000).invoke("hi", config(), n=2)
        assert books(session) == (Credits("0.001") + Credits("0.005"), 0)


def test_runs_do_not_pile_up(customer: Customer) -> None:
    with customer.session(budget=100) as session:
        for _ in range(50):
            flat().invoke("hi", config())
        assert len(OPEN) == 0
        assert session.status().spent == 50


def test_a_run_in_a_thread_of_its_own_is_not_seen_unless_the_context_goes_along(customer: Customer) -> None:
    """A bare thread has no context: with ``session=None`` the call there is refused, never free (L8)."""
    model, errors = flat(), []

    def call() -> None:
        try:
            model.invoke("hi", config())
        except BudgetDenied as error:
            errors.append(error)

    with customer.session(budget=5):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert errors[0].decision.reason == "no_session"
    assert model.received == []
