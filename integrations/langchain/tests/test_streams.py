"""Streams: settled by their last word, charged for what came when they are left, never counted twice (L5, L11)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, ScriptedChatModel
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from agentbudget import BudgetDenied, Credits
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.support import ASK, FOR_EVER, FULL, MANY_WORDS, agent_of, books, config, counted


def test_a_stream_is_settled_by_what_its_last_chunk_states(customer: Customer) -> None:
    with customer.session(budget=5) as session:
        chunks = list(counted(replies=[MANY_WORDS]).stream("hi", config()))
        usage = chunks[-1].usage_metadata or chunks[-2].usage_metadata
        assert usage is not None
        assert books(session) == (
            Credits("0.000001") * usage["input_tokens"] + Credits("0.00001") * usage["output_tokens"],
            0,
        )


@pytest.mark.parametrize("leave", ["close", "garbage", "aclose", "acancel"])
def test_a_stream_that_is_left_is_charged_its_input_and_what_came(customer: Customer, leave: str) -> None:
    """More than nothing, less than the whole: exactly one settlement, the rest given back."""
    with customer.session(budget=5) as session:
        _leave_stream(counted(replies=[MANY_WORDS]), leave)
        spent, held = books(session)
    assert held == 0
    assert 0 < spent.nano < FULL.nano // 4


class OpensEmpty(ScriptedChatModel):
    """Its stream begins with a piece that brings nothing, as providers' streams do."""

    def _stream(self, *args: Any, **more: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=""))
        yield from super()._stream(*args, **more)


def test_a_stream_that_is_left_before_anything_came_is_charged_all_that_it_held(customer: Customer) -> None:
    """L11: nobody knows what the model had thought, and the provider billed, until then."""
    with customer.session(budget=5) as session:
        stream = OpensEmpty(model="counted", max_tokens=1000, replies=[MANY_WORDS]).stream("hi", config())
        next(stream)
        stream.close()
        spent, held = books(session)
    assert held == 0
    assert spent > FULL


def _leave_stream(model: ScriptedChatModel, leave: str) -> None:
    async def aclose() -> None:
        stream = model.astream("hi", config())
        await anext(stream)
        await stream.aclose()

    async def acancel() -> None:
        async def read() -> None:
            async for _ in model.astream("hi", config()):
                started.set()
                await asyncio.sleep(FOR_EVER)

        started = asyncio.Event()
        reader = asyncio.create_task(read())
        await started.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    if leave in ("aclose", "acancel"):
        asyncio.run(aclose() if leave == "aclose" else acancel())
        return
    stream = model.stream("hi", config())
    next(stream)
    if leave == "close":
        stream.close()
    else:
        circle: list[Any] = [stream]
        circle.append(circle)
        del stream, circle
        gc.collect()


def test_a_stream_left_after_its_last_word_is_charged_exactly(customer: Customer) -> None:
    """Settled eagerly, when the usage is seen: the consumer may never come back after the last chunk."""
    model = counted(replies=[MANY_WORDS])
    with customer.session(budget=5) as session:
        for chunk in model.stream("hi", config()):
            if chunk.usage_metadata:
                usage = chunk.usage_metadata
                break
        assert books(session) == (
            Credits("0.000001") * usage["input_tokens"] + Credits("0.00001") * usage["output_tokens"],
            0,
        )


def test_a_stream_without_usage_is_charged_the_whole_hold(customer: Customer) -> None:
    class Silent(ScriptedChatModel):
        def _stated(self, message: AIMessage, *rest: Any) -> AIMessage:
            return message

    with customer.session(budget=5) as session:
        list(Silent(model="counted", max_tokens=1000).stream("hi", config()))
        assert books(session)[0] > FULL


def test_usage_that_each_chunk_repeats_as_a_running_total_is_not_added_up(customer: Customer) -> None:
    """LangChain adds what chunks state; of running totals the largest is right (L11)."""
    with customer.session(budget=5) as session:
        list(Chunked(model="counted", max_tokens=1000, totals=[(100, 10), (100, 20), (100, 30)]).stream("hi", config()))
        assert books(session) == (Credits("0.0001") + Credits("0.0003"), 0)


def test_usage_that_chunks_state_piece_by_piece_is_added_up(customer: Customer) -> None:
    with customer.session(budget=5) as session:
        list(Chunked(model="counted", max_tokens=1000, totals=[(100, 10), (0, 10), (0, 10)]).stream("hi", config()))
        assert books(session) == (Credits("0.0001") + Credits("0.0003"), 0)


class Chunked(ScriptedChatModel):
    """States usage in every chunk, as it is told."""

    totals: list[tuple[int, int]]

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for into, out in self.totals:
            usage = {"input_tokens": into, "output_tokens": out, "total_tokens": into + out}
            yield ChatGenerationChunk(message=AIMessageChunk(content="word", usage_metadata=usage))


def test_a_handler_that_cuts_a_stream_ends_the_run(customer: Customer) -> None:
    class Cut(BaseCallbackHandler):
        raise_error = True

        def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
            raise ValueError("enough")

    with customer.session(budget=5) as session:
        with pytest.raises(ValueError, match="enough"):
            list(counted(replies=[MANY_WORDS]).stream("hi", {"callbacks": [BudgetCallbackHandler(), Cut()]}))
        spent, held = books(session)
    assert held == 0
    assert 0 < spent.nano < FULL.nano // 4


def test_the_event_stream_of_version_3_is_settled(customer: Customer) -> None:
    with customer.session(budget=5) as session:
        stream = counted(replies=[MANY_WORDS]).stream_events("hi", config(), version="v3")
        assert str(stream.text).startswith("word")
        spent, held = books(session)
    assert held == 0
    assert 0 < spent.nano < FULL.nano


class Overflowing(ScriptedChatModel):
    """Ignores its cap, and says nothing of its usage."""

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for _ in range(4_000):
            yield ChatGenerationChunk(message=AIMessageChunk(content="word"))

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(*args, **kwargs):
            yield chunk


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("route", ["handler", "middleware"])
def test_a_stream_that_passes_its_cap_is_cut_before_it_passes_the_budget(
    customer: Customer, how: str, route: str
) -> None:
    """L3: more is held as it comes; what cannot be held is not passed on."""
    budget, seen = Credits("0.02"), list[Any]()
    model = Overflowing(model="counted", max_tokens=1000)
    runs: Any = model if route == "handler" else agent_of(model)
    asked: Any = "hi" if route == "handler" else ASK
    more: Any = {} if route == "handler" else {"stream_mode": "messages"}

    async def read() -> None:
        async for chunk in runs.astream(asked, config() if route == "handler" else None, **more):
            seen.append(chunk)

    def read_now() -> None:
        for chunk in runs.stream(asked, config() if route == "handler" else None, **more):
            seen.append(chunk)

    with customer.session(budget=budget) as session:
        with pytest.raises(BudgetDenied):
            read_now() if how == "sync" else asyncio.run(read())
        spent, held = books(session)
    assert held == 0
    assert FULL < spent <= budget
    assert 1_000 < len(seen) < 4_000
