"""Streams: settled eagerly, counted, and charged for what came when they are left early."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from agentbudget import Credits, Runtime, Session, Usage
from agentbudget.runtime.customer import Customer
from tests.runtime.support import PREPAID, nothing_is_open

WORDS = ["one", "two", "three"]
INPUT = Credits("0.01")
"""Of 10 input tokens; each output token costs 0.002."""
END = Usage(input_tokens=10, output_tokens=50)


@pytest.fixture
def customer(quick: Runtime) -> Customer:
    quick.reload_catalog(PREPAID)
    found = quick.customers.create("bolt", plan="prepaid")
    found.wallet.grant(100, key="welcome")
    return found


@pytest.fixture
def session(customer: Customer) -> Session:
    return customer.session(budget=50).open()


CALL = {"model": "m-1", "input_tokens": 10, "max_output_tokens": 1000}


def usage_of(item: object) -> Usage | None:
    return item if isinstance(item, Usage) else None


def reply(*, with_usage: bool = True, then: BaseException | None = None) -> Iterator[object]:
    yield from WORDS
    if then is not None:
        raise then
    if with_usage:
        yield END


async def areply() -> AsyncIterator[object]:
    for item in reply():
        yield item


def test_a_stream_is_settled_before_its_last_item_is_passed_on(session: Session) -> None:
    with session.step("llm", **CALL) as step:  # type: ignore[arg-type]
        for item in step.wrap(reply(), usage_of):
            if item is END:
                assert step.state == "settled"
    assert step.settle().charged == Credits("0.11")


def test_a_stream_that_states_no_usage_books_the_hold(session: Session) -> None:
    with session.step("llm", **CALL) as step:  # type: ignore[arg-type]
        assert list(step.wrap(reply(with_usage=False), usage_of)) == WORDS
    assert step.settle().charged == Credits("2.01")


def test_a_stream_left_early_charges_its_input_and_what_came(session: Session, customer: Customer) -> None:
    with session.step("llm", **CALL) as step:  # type: ignore[arg-type]
        for _ in zip(range(2), step.wrap(reply(), usage_of), strict=False):
            pass
    assert step.state == "unknown"
    assert step.settle().charged == INPUT + Credits("0.004")
    assert nothing_is_open(customer)


@pytest.mark.parametrize(("counted", "charged"), [(3, "0.026"), (90_000, "2.01")])
def test_a_stream_left_after_part_of_its_usage_is_guessed_within_its_hold(
    session: Session, customer: Customer, counted: int, charged: str
) -> None:
    """Law L11: what is counted here is a guess, which a true usage corrects; it never takes more than is held."""
    early = Usage(input_tokens=20, output_tokens=1)  # of 20 input tokens, though 10 were stated
    items = iter([early, "two", "three"])
    with session.step("llm", **CALL) as step:  # type: ignore[arg-type]
        for _ in zip(range(2), step.wrap(items, usage_of, lambda item: counted if item == "two" else 0), strict=False):
            pass
    assert step.state == "unknown"
    assert step.settle().charged == Credits(charged)
    assert nothing_is_open(customer)


def test_a_stream_that_breaks_charges_its_input_and_what_came(session: Session) -> None:
    with pytest.raises(ConnectionResetError), session.step("llm", **CALL) as step:  # type: ignore[arg-type]
        list(step.wrap(reply(then=ConnectionResetError()), usage_of))
    assert (step.state, step.settle().charged) == ("unknown", INPUT + Credits("0.006"))


def test_a_stream_that_nobody_iterates_charges_its_input(quick: Runtime, session: Session, customer: Customer) -> None:
    """L5, L11: found by the collector."""
    step = session.reserve("llm", **CALL)  # type: ignore[arg-type]
    stream = step.wrap(reply(), usage_of)
    del step, stream
    gc.collect()
    quick.sweep()
    assert nothing_is_open(customer)
    assert customer.wallet.balance().consumed == INPUT


def test_a_stream_whose_usage_cannot_be_read_is_charged(session: Session) -> None:
    def broken(item: object) -> Usage | None:
        raise KeyError("usage")

    with pytest.raises(KeyError), session.step("llm", **CALL) as step:  # type: ignore[arg-type]
        list(step.wrap(reply(), broken))
    assert step.state == "unknown"


def test_chunks_may_be_counted_by_hand(session: Session) -> None:
    step = session.reserve("llm", dispatched=True, **CALL)  # type: ignore[arg-type]
    step.count(5)
    assert step.fail(TimeoutError()).charged == INPUT + Credits("0.01")


def test_the_usage_that_comes_after_all_corrects_what_the_policy_charged_once(session: Session) -> None:
    """L11, L4."""
    step = session.reserve("llm", dispatched=True, **CALL)  # type: ignore[arg-type]
    step.count(5)
    step.fail(TimeoutError())
    corrected = step.settle(END)
    assert (corrected.state, corrected.charged, step.state) == ("corrected", Credits("0.11"), "corrected")
    assert step.settle(Usage(input_tokens=999)) == corrected


def test_an_asynchronous_stream_does_the_same(session: Session, customer: Customer) -> None:
    async def whole() -> None:
        async with session.step("llm", **CALL) as step:  # type: ignore[arg-type]
            items = [item async for item in step.awrap(areply(), usage_of)]
        assert (items, step.state) == ([*WORDS, END], "settled")

    async def left() -> None:
        async with session.step("llm", **CALL) as step:  # type: ignore[arg-type]
            async for _ in step.awrap(areply(), usage_of):
                break
        assert (step.state, (await step.asettle()).charged) == ("unknown", INPUT + Credits("0.002"))

    async def cancelled() -> None:
        step = await session.areserve("llm", **CALL)  # type: ignore[arg-type]
        started = asyncio.Event()

        async def endless() -> AsyncIterator[object]:
            yield "one"
            started.set()
            await asyncio.Event().wait()

        async def consume() -> None:
            async for _ in step.awrap(endless(), usage_of):
                pass

        task = asyncio.create_task(consume())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (step.state, (await step.asettle()).charged) == ("unknown", INPUT + Credits("0.002"))

    for run in (whole, left, cancelled):
        asyncio.run(run())
    assert nothing_is_open(customer)


def test_a_stream_that_is_closed_ends_its_step_at_once(quick: Runtime, session: Session, customer: Customer) -> None:
    """L5: while somebody still holds the step, and without waiting for anybody."""
    step = session.reserve("llm", dispatched=True, **CALL)  # type: ignore[arg-type]
    stream = step.wrap(reply(), usage_of)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    quick.sweep()
    assert nothing_is_open(customer)
    assert step.settle().state == "unknown"


def test_a_stream_of_a_cancelled_task_is_charged_once(session: Session, customer: Customer) -> None:
    """The body's end and the generator's both end the step; the first one counts (L5)."""
    step = session.reserve("llm", dispatched=True, **CALL)  # type: ignore[arg-type]
    stream = step.wrap(reply(), usage_of)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert step.fail(RuntimeError()).charged == INPUT + Credits("0.002")
    assert customer.wallet.balance().consumed == INPUT + Credits("0.002")
