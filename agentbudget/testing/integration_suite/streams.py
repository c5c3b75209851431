"""Streams: charged by their last word, or for what came; cut before they pass what can be held; never left open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agentbudget import Session, find_denied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite.adapter import Adapter, Ask, How
from agentbudget.testing.integration_suite.calls import booked, how
from agentbudget.testing.integration_suite.world import drained
from agentbudget.testing.provider import FakeProvider, Reply, bill
from agentbudget.testing.provider.words import OUTPUT

LONG = "word " * 400
MOST = 5_000_000
"""Nanocredits: far more than a short call costs, less than the hold of one with a cap of a thousand tokens."""
LEAVES_SECONDS = 3.0
"""A framework that waits for its request when its stream is left (LangGraph's blocking streams do) waits for the HTTP client's
timeout: the fake says no more."""


def read(adapter: Adapter, how: How, ask: Ask, most: int | None = None) -> list[Any]:
    """The items of a stream, or the first ``most`` of them, after which it is closed."""
    if how not in adapter.streams:
        pytest.skip(f"{adapter.name} has no {how} streams")
    return list(_some(adapter, ask, most)) if how == "sync" else asyncio.run(_asome(adapter, ask, most))


def _some(adapter: Adapter, ask: Ask, most: int | None) -> Iterator[Any]:
    stream = adapter.stream(ask)
    for number, item in enumerate(stream, 1):
        yield item
        if number == most:
            stream.close()  # type: ignore[attr-defined]
            return


async def _asome(adapter: Adapter, ask: Ask, most: int | None) -> list[Any]:
    stream, items = adapter.astream(ask), []
    async for item in stream:
        items.append(item)
        if len(items) == most:
            await stream.aclose()  # type: ignore[attr-defined]
            break
    return items


@how
@pytest.mark.parametrize("usage", ["once", "twice"])
def test_a_stream_is_charged_what_it_was_billed(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider, usage: Any
) -> None:
    """L4, L11: whether its usage is stated once or twice."""
    provider.say(Reply(text="a stream of several words", usage=usage, cached_tokens=1, reasoning_tokens=3))
    assert read(adapter, how, ask)
    assert booked(session) == provider.billed > 0


@how
def test_a_stream_that_states_running_totals_is_charged_the_last(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """L11: never the first, never their sum."""
    provider.say(Reply(text="a stream of several words", usage="running"))
    assert read(adapter, how, ask)
    assert booked(session) == provider.billed > 0


@how
def test_a_stream_is_settled_before_its_last_item_is_passed_on(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """L11: a consumer may never come back after the last item."""
    items = read(adapter, how, ask)
    assert read(adapter, how, ask, most=len(items)) is not None
    assert booked(session) == provider.billed


@how
def test_a_stream_that_states_no_usage_is_never_free(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    if adapter.api == "anthropic":
        pytest.skip("Anthropic always states it")
    provider.say(Reply(usage="never"))
    read(adapter, how, ask)
    assert booked(session) >= provider.billed > 0


@how
def test_a_stream_that_is_left_is_charged_its_input_and_what_came(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    """L5, L11: more than nothing, less than the whole, settled once."""
    provider.say(Reply(text=LONG, stalls_after=2))
    read(adapter, how, replace(ask, max_output_tokens=1_000, timeout_seconds=LEAVES_SECONDS), most=1)
    drained(customer)
    assert 0 < booked(session) < MOST


def test_a_stream_that_the_collector_finds_is_charged(
    adapter: Adapter, ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    if "sync" not in adapter.streams:
        pytest.skip(f"{adapter.name} has no sync streams")
    provider.say(Reply(text=LONG, stalls_after=2))
    stream = adapter.stream(replace(ask, max_output_tokens=1_000, timeout_seconds=LEAVES_SECONDS))
    next(stream)
    del stream
    gc.collect()
    drained(customer)
    assert 0 < booked(session) < MOST


def test_a_stream_that_nobody_iterates_holds_nothing(adapter: Adapter, ask: Ask, customer: Customer) -> None:
    """L5."""
    if "sync" not in adapter.streams:
        pytest.skip(f"{adapter.name} has no sync streams")
    stream = adapter.stream(ask)
    del stream
    drained(customer)


def test_a_cancelled_stream_is_charged_its_input_and_what_came(
    adapter: Adapter, ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    """L5, L11."""
    if "async" not in adapter.streams:
        pytest.skip(f"{adapter.name} has no async streams")
    provider.say(Reply(text=LONG, stalls_after=2))

    async def cancelled() -> None:
        started = asyncio.Event()

        async def consume() -> None:
            async for _ in adapter.astream(replace(ask, max_output_tokens=1_000)):
                started.set()

        task = asyncio.create_task(consume())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    drained(customer)
    assert 0 < booked(session) < MOST


@how
def test_a_stream_that_breaks_off_is_charged_its_input_and_what_came(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    provider.say(Reply(text=LONG, breaks_after=2))
    with pytest.raises(Exception):  # noqa: B017, PT011 - the SDK's or the HTTP client's error
        read(adapter, how, replace(ask, max_output_tokens=1_000))
    drained(customer)
    assert 0 < booked(session) < MOST


@how
def test_a_stream_that_passes_its_cap_extends_its_hold(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """A model that ignores its cap: where the budget allows it, more is held as it comes, and all of it is booked."""
    provider.say(Reply(text=LONG, obeys_cap=False))
    read(adapter, how, ask)
    assert provider.calls[0].output_tokens == 400
    assert booked(session) == provider.billed


@how
def test_a_stream_is_cut_before_it_passes_what_can_be_held(
    adapter: Adapter, how: How, customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    """L3: the consumer gets the refusal, the connection is closed, what came is charged, and the budget is not passed."""
    if how not in adapter.streams:
        pytest.skip(f"{adapter.name} has no {how} streams")
    provider.say(Reply(text=LONG, obeys_cap=False, stalls_after=150))
    budget = 1_500_000  # nanocredits: the hold of 100 tokens fits, 150 tokens do not
    with customer.session(budget="0.0015") as small:
        with pytest.raises(BaseException) as cut:  # noqa: PT011 - however the framework wraps it
            read(adapter, how, replace(ask, session=small, timeout_seconds=5.0))
        assert find_denied(cut.value) is not None, f"not a refusal: {cut.value!r}"
        drained(customer)
        spent = booked(small)
        assert 1_000_000 < spent <= budget
    (call,) = provider.calls
    provider.wait_for(lambda fake: bool(fake.calls[0].end))
    # What was on its way when the stream was cut never came to anybody who could have stopped it.
    call.output_tokens = min(call.output_tokens, (spent - bill(ask.model, call.asked.input_tokens, 0)) // OUTPUT)
