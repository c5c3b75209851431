"""Every cell of the part on the Anthropic client in integrations/DENIALS.md: where a call is refused, and what its session's
``on_denied`` makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anthropic
import pytest
from agentbudget_anthropic import guard

from agentbudget import BudgetDenied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from tests.denials import OnDenied, columns, is_as_the_column_says, is_table_of

__all__ = ["_applies", "ask", "customer", "provider", "session"]

POOR: Final = "0.0001"
"""Credits: nothing of what is asked here fits."""
CALL: Final[dict[str, Any]] = {"model": "flat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
COUNTED: Final[dict[str, Any]] = {**CALL, "model": "counted"}


def opened(stream: Any) -> Any:
    with stream:
        pytest.fail("the stream was opened")


def awaited(url: str, call: Callable[[Any], Any]) -> Any:
    async def go() -> Any:
        async with guard(anthropic.AsyncAnthropic(base_url=url, api_key="none")) as client:
            return await call(client)

    return asyncio.run(go())


CASES: Final[dict[str, tuple[Callable[[Any], Any], ...]]] = {
    "RA-01": (
        lambda c: c.messages.create(**CALL),
        lambda c: c.with_options(timeout=30).messages.create(**CALL),
        lambda c: c.post("/v1/messages", body=CALL, cast_to=object),
    ),
    "RA-02": (
        lambda c: awaited(str(c.base_url), lambda a: a.messages.create(**CALL)),
        lambda c: awaited(str(c.base_url), lambda a: a.messages.create(**CALL, stream=True)),
    ),
    "RA-03": (
        lambda c: c.messages.create(**CALL, stream=True),
        lambda c: opened(c.messages.stream(**CALL)),
    ),
    "RA-04": (
        lambda c: c.messages.with_raw_response.create(**CALL),
        lambda c: opened(c.messages.with_streaming_response.create(**CALL)),
    ),
}


@columns
@pytest.mark.parametrize("id", CASES)
def test_a_call_that_does_not_fit(customer: Customer, provider: FakeProvider, id: str, on_denied: OnDenied) -> None:
    client = guard(anthropic.Anthropic(base_url=provider.url, api_key="none"))
    is_as_the_column_says(customer, on_denied, POOR, [partial(run, client) for run in CASES[id]])
    assert provider.calls == []


@columns
def test_a_stream_that_brings_more_than_can_be_held(
    customer: Customer, provider: FakeProvider, on_denied: OnDenied
) -> None:
    """RA-05."""
    came: list[Any] = []
    provider.say(Reply(text="word " * 400, obeys_cap=False, stalls_after=150))
    client = guard(anthropic.Anthropic(base_url=provider.url, api_key="none", timeout=5.0))

    def read() -> None:
        for chunk in client.messages.create(**COUNTED, stream=True):
            came.append(chunk)

    is_as_the_column_says(customer, on_denied, "0.0015", [read])
    assert len(came) > 100
    provider.wait_for(lambda fake: bool(fake.calls[0].end))
    provider.calls[0].output_tokens = min(provider.calls[0].output_tokens, len(came))  # the rest came to nobody


@columns
def test_an_attempt_that_the_sdk_makes_again(customer: Customer, provider: FakeProvider, on_denied: OnDenied) -> None:
    """RA-06."""
    provider.say(Reply(stalls=True))
    client = guard(anthropic.Anthropic(base_url=provider.url, api_key="none", timeout=0.3, max_retries=2))

    again = partial(client.messages.create, **COUNTED)
    (refused,) = is_as_the_column_says(customer, on_denied, "0.0015", [again])
    assert isinstance(refused.__cause__, anthropic.APITimeoutError)
    assert len(provider.calls) == 1


def test_the_table_has_these_rows_and_says_what_these_cases_say() -> None:
    is_table_of([*CASES, "RA-05", "RA-06"], "RA")


def test_what_fits_runs(customer: Customer, provider: FakeProvider) -> None:
    """The calls of the table are refused for their price alone."""
    client = guard(anthropic.Anthropic(base_url=provider.url, api_key="none"))
    with customer.session(budget=3) as rich:
        for run in CASES["RA-01"]:
            run(client)
        assert rich.status().spent == 3
        with pytest.raises(BudgetDenied):
            CASES["RA-01"][0](client)
