"""Every cell of the part on the OpenAI client in integrations/DENIALS.md: where a call is refused, and what its session's
``on_denied`` makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import openai
import pytest
from agentbudget_openai import guard

from agentbudget import BudgetDenied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from tests.denials import OnDenied, columns, is_as_the_column_says, is_table_of

__all__ = ["_applies", "ask", "customer", "provider", "session"]

POOR: Final = "0.0001"
"""Credits: nothing of what is asked here fits."""
CHAT: Final[dict[str, Any]] = {"model": "flat", "messages": [{"role": "user", "content": "hi"}]}
RESPONSES: Final[dict[str, Any]] = {"model": "flat", "input": "hi"}
COUNTED: Final[dict[str, Any]] = {**CHAT, "model": "counted", "max_completion_tokens": 100}


def opened(stream: Any) -> Any:
    with stream:
        pytest.fail("the stream was opened")


def awaited(url: str, call: Callable[[Any], Any]) -> Any:
    async def go() -> Any:
        async with guard(openai.AsyncOpenAI(base_url=url, api_key="none")) as client:
            return await call(client)

    return asyncio.run(go())


CASES: Final[dict[str, tuple[Callable[[Any], Any], ...]]] = {
    "RO-01": (
        lambda c: c.chat.completions.create(**CHAT),
        lambda c: c.responses.create(**RESPONSES),
        lambda c: c.chat.completions.parse(**CHAT),
        lambda c: c.with_options(timeout=30).chat.completions.create(**CHAT),
        lambda c: c.post("/chat/completions", body=CHAT, cast_to=object),
    ),
    "RO-02": (
        lambda c: awaited(str(c.base_url), lambda a: a.chat.completions.create(**CHAT)),
        lambda c: awaited(str(c.base_url), lambda a: a.responses.create(**RESPONSES, stream=True)),
    ),
    "RO-03": (
        lambda c: c.chat.completions.create(**CHAT, stream=True),
        lambda c: opened(c.chat.completions.stream(**CHAT)),
        lambda c: opened(c.responses.stream(**RESPONSES)),
    ),
    "RO-04": (
        lambda c: c.chat.completions.with_raw_response.create(**CHAT),
        lambda c: opened(c.chat.completions.with_streaming_response.create(**CHAT)),
    ),
    "RO-05": (
        lambda c: c.embeddings.create(model="counted", input="word " * 200),
        lambda c: awaited(str(c.base_url), lambda a: a.embeddings.create(model="counted", input="word " * 200)),
    ),
}  # fmt: skip


@columns
@pytest.mark.parametrize("id", CASES)
def test_a_call_that_does_not_fit(customer: Customer, provider: FakeProvider, id: str, on_denied: OnDenied) -> None:
    client = guard(openai.OpenAI(base_url=provider.openai_url, api_key="none"))
    is_as_the_column_says(customer, on_denied, POOR, [partial(run, client) for run in CASES[id]])
    assert provider.calls == []


@columns
def test_a_stream_that_brings_more_than_can_be_held(
    customer: Customer, provider: FakeProvider, on_denied: OnDenied
) -> None:
    """RO-06."""
    came: list[Any] = []
    provider.say(Reply(text="word " * 400, obeys_cap=False, stalls_after=150))
    client = guard(openai.OpenAI(base_url=provider.openai_url, api_key="none", timeout=5.0))

    def read() -> None:
        for chunk in client.chat.completions.create(**COUNTED, stream=True):
            came.append(chunk)

    is_as_the_column_says(customer, on_denied, "0.0015", [read])
    assert len(came) > 100
    provider.wait_for(lambda fake: bool(fake.calls[0].end))
    provider.calls[0].output_tokens = min(provider.calls[0].output_tokens, len(came))  # the rest came to nobody


@columns
def test_an_attempt_that_the_sdk_makes_again(customer: Customer, provider: FakeProvider, on_denied: OnDenied) -> None:
    """RO-07."""
    provider.say(Reply(stalls=True))
    client = guard(openai.OpenAI(base_url=provider.openai_url, api_key="none", timeout=0.3, max_retries=2))

    again = partial(client.chat.completions.create, **COUNTED)
    (refused,) = is_as_the_column_says(customer, on_denied, "0.0015", [again])
    assert isinstance(refused.__cause__, openai.APITimeoutError)
    assert len(provider.calls) == 1


def test_the_table_has_these_rows_and_says_what_these_cases_say() -> None:
    is_table_of([*CASES, "RO-06", "RO-07"], "RO")


def test_what_fits_runs(customer: Customer, provider: FakeProvider) -> None:
    """The calls of the table are refused for their price alone."""
    client = guard(openai.OpenAI(base_url=provider.openai_url, api_key="none"))
    with customer.session(budget=5) as rich:
        for run in CASES["RO-01"]:
            run(client)
        assert rich.status().spent == 5
        with pytest.raises(BudgetDenied):
            CASES["RO-01"][0](client)
