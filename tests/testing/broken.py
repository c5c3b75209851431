"""Adapters that do it wrong, each in a way that real integrations get wrong; ``test_broken.py`` runs this as a test file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest

from agentbudget import BudgetDenied, Usage
from agentbudget.testing.integration_suite import *  # noqa: F403
from agentbudget.testing.integration_suite import Ask, world
from tests.testing.by_hand import _STREAMED, ByHand, _client, _messages, _request, _step, tokens_of, usage_of


class Unguarded(ByHand):
    """Calls without a hold."""

    def call(self, ask: Ask) -> Any:
        with _client(ask, openai.OpenAI) as client:
            return client.chat.completions.create(**_request(ask, _messages(ask)))


class AfterTheFact(ByHand):
    """Looks at the budget, calls, and records what it cost."""

    def call(self, ask: Ask) -> Any:
        if ask.session.status().remaining < 1:  # type: ignore[operator]
            raise BudgetDenied
        with _client(ask, openai.OpenAI) as client:
            reply = client.chat.completions.create(**_request(ask, _messages(ask)))
        ask.session.reserve("tool", name="model", amount=1).settle()
        return reply


class Leaking(ByHand):
    """Ends its steps on success, as a bare callback does."""

    kept: list[Any] = []  # noqa: RUF012 - what leaks must outlive its owner

    async def acall(self, ask: Ask) -> Any:
        async with _client(ask, openai.AsyncOpenAI) as client:
            step = await ask.session.areserve(
                "llm", model=ask.model, request=_messages(ask), max_output_tokens=ask.max_output_tokens, dispatched=True
            )
            self.kept.append(step)
            reply = await client.chat.completions.create(**_request(ask, _messages(ask)))
            await step.asettle(reply)
            return reply


class Generous(ByHand):
    """Gives the hold back whatever goes wrong."""

    def call(self, ask: Ask) -> Any:
        with _client(ask, openai.OpenAI) as client, _step(ask) as step:
            try:
                reply = client.chat.completions.create(**_request(ask, _messages(ask)))
            except Exception:
                step.release()
                raise
            step.settle(reply)
            return reply


class Estimating(ByHand):
    """Books the estimate instead of the usage."""

    def call(self, ask: Ask) -> Any:
        with _client(ask, openai.OpenAI) as client, _step(ask):
            return client.chat.completions.create(**_request(ask, _messages(ask)))


class Double(ByHand):
    """Two layers, each of which holds and charges."""

    def call(self, ask: Ask) -> Any:
        with _step(ask) as outer:
            reply = ByHand.call(self, ask)
            outer.settle(reply)
            return reply


class Swallowing(ByHand):
    """Turns a refusal into text."""

    def call(self, ask: Ask) -> Any:
        try:
            return ByHand.call(self, ask)
        except BudgetDenied:
            return "no budget"


class Late(ByHand):
    """Settles a stream when it is exhausted."""

    def stream(self, ask: Ask) -> Iterator[Any]:
        with _client(ask, openai.OpenAI) as client, _step(ask) as step:
            chunks = list(client.chat.completions.create(**_request(ask, _messages(ask)), **_STREAMED))
            yield from chunks
            step.settle(chunks[-1])


class Adding(ByHand):
    """Adds up what chunks state."""

    def stream(self, ask: Ask) -> Iterator[Any]:
        with _client(ask, openai.OpenAI) as client, _step(ask) as step:
            total = 0
            for chunk in client.chat.completions.create(**_request(ask, _messages(ask)), **_STREAMED):
                total += chunk.usage.completion_tokens if chunk.usage is not None else 0
                yield chunk
            step.settle(Usage(input_tokens=1, output_tokens=total))


class Uncut(ByHand):
    """Counts nothing while a stream runs."""

    def stream(self, ask: Ask) -> Iterator[Any]:
        with _client(ask, openai.OpenAI) as client, _step(ask) as step:
            chunks = client.chat.completions.create(**_request(ask, _messages(ask)), **_STREAMED)
            with closing(step.wrap(chunks, usage_of, lambda chunk: 0)) as counted:
                yield from counted


class Forgetful(ByHand):
    """Gives a stream back that is left."""

    async def astream(self, ask: Ask) -> AsyncIterator[Any]:
        async with _client(ask, openai.AsyncOpenAI) as client, _step(ask) as step:
            try:
                async for chunk in await client.chat.completions.create(**_request(ask, _messages(ask)), **_STREAMED):
                    step.count(tokens_of(chunk))
                    yield chunk
                    if chunk.usage is not None:
                        await step.asettle(chunk)
            finally:
                step.release()


NOTICED = {
    Unguarded: "a_call_that_does_not_fit_is_refused_before_it_is_made[Unguarded-sync]",
    AfterTheFact: "calls_at_once_never_pass_the_budget[AfterTheFact-sync]",
    Leaking: "a_cancelled_call_is_charged_and_holds_nothing[Leaking]",
    Generous: "a_timeout_after_dispatch_is_charged[Generous-sync]",
    Estimating: "a_call_is_charged_what_it_was_billed[Estimating-sync]",
    Double: "a_call_is_charged_what_it_was_billed[Double-sync]",
    Swallowing: "a_call_that_does_not_fit_is_refused_before_it_is_made[Swallowing-sync]",
    Late: "a_stream_is_settled_before_its_last_item_is_passed_on[Late-sync]",
    Adding: "a_stream_that_states_running_totals_is_charged_the_last[Adding-sync]",
    Uncut: "a_stream_is_cut_before_it_passes_what_can_be_held[Uncut-sync]",
    Forgetful: "a_cancelled_stream_is_charged_its_input_and_what_came[Forgetful]",
}
"""A test of the suite that each of them fails."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "DRAIN_SECONDS", 0.5)  # what leaks here never drains


@pytest.fixture(params=list(NOTICED), ids=lambda broken: broken.__name__)
def adapter(request: pytest.FixtureRequest) -> Any:
    return request.param()
