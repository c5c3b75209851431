"""``BudgetEmbeddings``, over the real SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agentbudget_pydantic_ai import BudgetEmbeddings
from pydantic_ai import Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.providers.openai import OpenAIProvider

from agentbudget import BudgetDenied, Session
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.pydantic_ai.tests.adapter import openai_client_of

__all__ = ["_applies", "ask", "customer", "provider", "session"]

TEXTS = ["a text", "another text"]


def model_of(ask: Ask) -> Any:
    return OpenAIEmbeddingModel(ask.model, provider=OpenAIProvider(openai_client=openai_client_of(ask)))


def embed(model: Any) -> Any:
    return asyncio.run(Embedder(model).embed_documents(TEXTS))


def test_embeddings_are_held_and_charged_what_they_were_billed(
    ask: Ask, session: Session, provider: FakeProvider
) -> None:
    """L4, L11: also where they are guarded twice."""
    assert len(embed(BudgetEmbeddings(BudgetEmbeddings(model_of(ask)))).embeddings) == len(TEXTS)
    assert (len(provider.calls), session.status().spent.nano) == (1, provider.billed)
    assert provider.billed > 0


def test_embeddings_that_do_not_fit_are_not_made(customer: Customer, ask: Ask, provider: FakeProvider) -> None:
    """L3."""
    with customer.session(budget="0.000001"), pytest.raises(BudgetDenied):
        embed(BudgetEmbeddings(model_of(ask)))
    assert provider.calls == []


def test_embeddings_that_the_provider_refuses_are_free(ask: Ask, session: Session, provider: FakeProvider) -> None:
    provider.say(Reply(status=429))
    with pytest.raises(ModelHTTPError):
        embed(BudgetEmbeddings(model_of(ask)))
    assert (session.status().spent, session.status().held) == (0, 0)


def test_an_attempt_that_the_client_makes_again_is_accounted(
    ask: Ask, session: Session, provider: FakeProvider, customer: Customer
) -> None:
    """L11: the attempt that timed out may have been billed."""
    provider.say(Reply(stalls=True), Reply())
    patient = Ask(session=ask.session, url=ask.url, timeout_seconds=0.5, max_retries=2)
    embed(BudgetEmbeddings(model_of(patient)))
    assert len(provider.calls) == 2
    assert session.status().spent.nano >= provider.billed
