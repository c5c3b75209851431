"""Whole calls: refused before they are made, charged what they were billed, never free when nobody knows."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from agentbudget import BudgetAbort, BudgetDenied, Session, find_denied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite.adapter import Adapter, Ask, How
from agentbudget.testing.integration_suite.world import drained
from agentbudget.testing.provider import FakeProvider, Reply

how = pytest.mark.parametrize("how", ["sync", "async"])
TOGETHER, FITTING, TRIES = 8, 3, 20
NEVER_BILLED = (400, 401, 403, 404, 409, 422, 429, 500, 503)


def make(adapter: Adapter, how: How, ask: Ask) -> Any:
    """One call, as the adapter can; skips what it cannot."""
    if how not in adapter.calls:
        pytest.skip(f"{adapter.name} makes no {how} calls")
    return adapter.call(ask) if how == "sync" else asyncio.run(adapter.acall(ask))


def is_refused(run: Callable[[], Any]) -> bool:
    """Whether it raises a refusal, however the framework wraps it; any other error is raised."""
    try:
        run()
    except BaseException as error:
        if find_denied(error) is None:
            raise
        return True
    return False


def booked(session: Session) -> int:
    return session.status().spent.nano


@how
def test_a_call_that_does_not_fit_is_refused_before_it_is_made(
    adapter: Adapter, how: How, customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    """L3: and then nothing is spent and nothing is held."""
    with customer.session(budget="0.0001") as poor:
        assert is_refused(lambda: make(adapter, how, replace(ask, session=poor))), "the call was not refused"
        assert poor.status().spent == 0
        assert poor.status().held == 0
    assert provider.calls == []


@how
def test_a_call_is_charged_what_it_was_billed(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """L11: cached input at its price, reasoning within the output."""
    provider.say(Reply(text="a longer answer, of several words", cached_tokens=1, reasoning_tokens=7))
    make(adapter, how, ask)
    assert len(provider.calls) == 1
    assert booked(session) == provider.billed > 0


@how
def test_the_cap_that_is_sent_is_the_cap_that_is_held(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    provider.say(Reply(text="word " * 200))
    make(adapter, how, replace(ask, max_output_tokens=50))
    (call,) = provider.calls
    assert call.asked.cap == 50
    assert booked(session) == provider.billed


@how
@pytest.mark.parametrize("status", NEVER_BILLED)
def test_an_error_before_any_work_is_free(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider, status: int
) -> None:
    provider.say(Reply(status=status))
    with pytest.raises(Exception):  # noqa: B017, PT011 - the SDKs have a class for each status
        make(adapter, how, ask)
    assert booked(session) == 0
    assert session.status().held == 0
    assert len(provider.calls) == 1


@how
def test_a_provider_that_cannot_be_reached_is_free(adapter: Adapter, how: How, ask: Ask, session: Session) -> None:
    nobody = "http://127.0.0.1:9"  # the discard port: nothing listens there
    with pytest.raises(Exception):  # noqa: B017, PT011 - the SDK's connection error
        make(adapter, how, replace(ask, url=nobody))
    assert booked(session) == 0


@how
def test_a_timeout_after_dispatch_is_charged(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    """L5, L11: the provider may have worked, so it is never free; the default policy books what the call held."""
    provider.say(Reply(stalls=True))
    with pytest.raises(Exception):  # noqa: B017, PT011 - the SDK's timeout
        make(adapter, how, replace(ask, timeout_seconds=0.3))
    drained(customer)
    assert booked(session) >= provider.billed > 0


def test_a_cancelled_call_is_charged_and_holds_nothing(
    adapter: Adapter, ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    """L5: also where the framework tells nobody that its call was cancelled."""
    if "async" not in adapter.calls:
        pytest.skip(f"{adapter.name} makes no async calls")
    provider.say(Reply(stalls=True))

    async def cancelled() -> None:
        task = asyncio.create_task(adapter.acall(ask))
        await asyncio.to_thread(provider.wait_for, lambda fake: len(fake.calls) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    drained(customer)
    assert booked(session) >= provider.billed > 0


@how
def test_a_retry_after_a_refusal_is_charged_once(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """A refused attempt was not billed; whoever retries, the SDK or the framework."""
    provider.say(Reply(status=500), Reply())
    make(adapter, how, replace(ask, max_retries=2))
    assert [call.end for call in provider.calls] == ["refused", "answered"]
    assert booked(session) == provider.billed > 0


@how
def test_a_retry_after_a_timeout_is_charged_for_both(
    adapter: Adapter, how: How, ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    """L11: the attempt that timed out may have been billed; hidden retries are spend."""
    provider.say(Reply(text="word " * 80, stalls=True), Reply())
    make(adapter, how, replace(ask, timeout_seconds=0.5, max_retries=2))
    assert len(provider.calls) == 2
    drained(customer)
    assert booked(session) >= provider.billed


@how
def test_calls_at_once_never_pass_the_budget(
    adapter: Adapter, how: How, customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    """L3: of those that begin together, exactly as many as fit."""
    if how not in adapter.calls:
        pytest.skip(f"{adapter.name} makes no {how} calls")
    with customer.session(budget=FITTING) as small:
        one = replace(ask, session=small, model="flat")
        if how == "sync":
            with ThreadPoolExecutor(TOGETHER) as pool:
                contexts = [contextvars.copy_context() for _ in range(TOGETHER)]
                ran = [pool.submit(context.run, is_refused, lambda: adapter.call(one)) for context in contexts]
                refused = [future.result() for future in ran]
        else:
            refused = asyncio.run(_all_at_once(adapter, one))
        assert sum(refused) == TOGETHER - FITTING
        assert small.status().spent == FITTING
    assert len(provider.calls) == FITTING


async def _all_at_once(adapter: Adapter, ask: Ask) -> list[bool]:
    async def one() -> bool:
        try:
            await adapter.acall(ask)
        except BaseException as error:
            if find_denied(error) is None:
                raise
            return True
        return False

    return list(await asyncio.gather(*(one() for _ in range(TOGETHER))))


@how
def test_a_loop_that_swallows_refusals_gets_no_further(
    adapter: Adapter, how: How, customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    """L3: a refusal is a state of the books, not an exception that a loop can outlast."""
    with customer.session(budget=FITTING) as small:
        refused = [
            is_refused(lambda: make(adapter, how, replace(ask, session=small, model="flat"))) for _ in range(TRIES)
        ]
        assert refused == [False] * FITTING + [True] * (TRIES - FITTING)
        assert small.status().spent == FITTING
    assert len(provider.calls) == FITTING


@how
def test_an_abort_passes_every_except_exception(
    adapter: Adapter, how: How, customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    def swallowing(poor: Session) -> None:
        try:
            make(adapter, how, replace(ask, session=poor))
        except Exception:
            pytest.fail("the refusal could be swallowed")

    with customer.session(budget="0.0001", on_denied="abort") as poor, pytest.raises(BudgetAbort):
        swallowing(poor)
    assert provider.calls == []


@how
def test_a_latched_session_refuses_what_would_fit(
    adapter: Adapter, how: How, customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    """``on_denied="stop"``: after one refusal nothing runs until somebody funds or resumes the session."""
    with customer.session(budget="1.5", on_denied="stop") as latched:
        flat = replace(ask, session=latched, model="flat")
        assert [is_refused(lambda: make(adapter, how, flat)) for _ in range(2)] == [False, True]
        assert is_refused(lambda: make(adapter, how, replace(ask, session=latched)))
    assert len(provider.calls) == 1


def test_what_a_tool_calls_is_charged_to_the_same_session(
    adapter: Adapter, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    provider.say(_CALLS_A_HELPER, Reply(text="helped"), Reply(text="done"))
    adapter.nested(ask)
    assert [call.end for call in provider.calls] == ["answered"] * 3
    assert booked(session) == provider.billed


def test_what_a_tool_calls_is_refused_by_the_same_budget(
    adapter: Adapter, customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    """L3: also where the framework turns the tool's failure into text; then the next call is refused."""
    provider.say(_CALLS_A_HELPER)
    with customer.session(budget=1) as small:
        try:
            adapter.nested(replace(ask, session=small, model="flat"))
        except BaseException as error:
            if find_denied(error) is None:
                raise
        with pytest.raises(BudgetDenied):
            small.raise_if_denied()
        assert small.status().spent == 1
    assert len(provider.calls) == 1


_CALLS_A_HELPER = Reply(text="", tools=(("ask_helper", {"question": "why"}),))


def test_a_call_that_is_guarded_twice_is_charged_once(
    adapter: Adapter, ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """L4: two handlers, two layers, two guards: one unit of work, one charge."""
    adapter.doubled(ask)
    assert len(provider.calls) == 1
    assert booked(session) == provider.billed
