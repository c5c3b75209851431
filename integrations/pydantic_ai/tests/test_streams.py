"""Streams as agents hand them out: left, cancelled, never read, out of time, broken by whoever reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from agentbudget_pydantic_ai import BudgetCapability, BudgetModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelRequestTimeout
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIStreamedResponse

from agentbudget import BudgetDenied, Session
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.integration_suite.streams import LONG, MOST
from agentbudget.testing.integration_suite.world import drained
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.pydantic_ai.tests.adapter import Chat, Messages, Responses

__all__ = ["_applies", "ask", "customer", "provider", "session"]

CAP: Final[Any] = {"max_tokens": 1_000}
ASKED: Final = [ModelRequest.user_text_prompt("hi")]
STALLS: Final = Reply(text=LONG, stalls_after=2)


def agent_of(ask: Ask, **settings: Any) -> Any:
    return Agent(Chat().model(ask), capabilities=[BudgetCapability()], model_settings={**CAP, **settings})


def opened(ask: Ask, model: Any = None) -> Any:
    guarded = BudgetModel(Chat().model(ask) if model is None else model)
    return guarded.request_stream(ASKED, CAP, ModelRequestParameters())


async def text_is_left(ask: Ask) -> None:
    async with agent_of(ask).run_stream("hi") as run:
        async for _ in run.stream_text(delta=True, debounce_by=None):
            break


async def events_are_left(ask: Ask) -> None:
    async with agent_of(ask).run_stream_events("hi") as events:
        async for _ in events:
            break


async def response_is_cancelled(ask: Ask) -> None:
    """Anthropic's: below OpenAI's client Pydantic AI takes the connection that it has closed itself for one that broke."""
    agent: Any = Agent(Messages().model(ask), capabilities=[BudgetCapability()], model_settings=CAP)
    async with agent.run_stream("hi") as run:
        async for _ in run.stream_text(delta=True, debounce_by=None):
            await run.cancel()


async def nobody_reads(ask: Ask) -> None:
    async with opened(ask):
        pass


async def reader_fails(ask: Ask) -> None:
    """The reader's own error looks like a connection that was never made."""
    with suppress(ConnectionRefusedError):
        async with opened(ask) as events:
            async for _ in events:
                raise ConnectionRefusedError
        pytest.fail("the error was swallowed")


async def time_runs_out(ask: Ask) -> None:
    with suppress(ModelRequestTimeout):
        async with agent_of(ask, request_timeout=0.5).run_stream("hi") as run:
            await run.get_output()
        pytest.fail("there was time enough")


LEAVING: Final[list[Callable[[Ask], Awaitable[None]]]] = [
    text_is_left, events_are_left, response_is_cancelled, nobody_reads, reader_fails, time_runs_out,
]  # fmt: skip


@pytest.mark.parametrize("mode", ["leased", "strict"])
@pytest.mark.parametrize("leave", LEAVING, ids=lambda leave: leave.__name__)
def test_a_stream_that_is_not_read_to_its_end_is_charged_its_input_and_what_came(
    ask: Ask, provider: FakeProvider, customer: Customer, leave: Callable[[Ask], Any], mode: Any
) -> None:
    """L5, L11: more than nothing, less than the whole, settled once; also where a cancelled scope lets nobody wait for it."""
    provider.say(STALLS)
    with customer.session(budget=1, mode=mode) as session:
        asyncio.run(leave(ask))
        drained(customer)
        assert provider.billed <= session.status().spent.nano < MOST


def test_a_stream_is_what_it_was(ask: Ask, session: Session, provider: FakeProvider) -> None:
    async def read() -> Any:
        async with opened(ask) as events:
            assert isinstance(events, OpenAIStreamedResponse)
            assert type(events).__name__ == "OpenAIStreamedResponse"
            assert aiter(events) is aiter(events)
            async for _ in events:
                pass
            return events.get()

    reply = asyncio.run(read())
    assert (reply.text, reply.state) == (Reply().text, "complete")
    assert session.status().spent.nano == provider.billed


def test_of_a_streamed_fallback_the_candidate_that_answers_is_charged(
    ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """Its first event is read ahead, so that an error before it falls back."""
    provider.say(Reply(status=503))
    other = Responses().model(Ask(session=ask.session, url=ask.url, model="flat"))

    async def read() -> None:
        async with opened(ask, FallbackModel(Chat().model(ask), other)) as events:
            async for _ in events:
                pass

    asyncio.run(read())
    assert [call.asked.model for call in provider.calls] == ["counted", "flat"]
    assert session.status().spent == 1


def test_a_stream_that_is_refused_is_not_opened(ask: Ask, customer: Customer, provider: FakeProvider) -> None:
    async def read() -> None:
        async with opened(ask):
            pytest.fail("it was opened")

    with customer.session(budget="0.0001"), pytest.raises(BudgetDenied):
        asyncio.run(read())
    assert provider.calls == []
