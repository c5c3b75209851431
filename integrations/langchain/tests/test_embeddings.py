"""Embeddings have no callbacks: the wrapper holds every call of them."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agentbudget_langchain import BudgetEmbeddings
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

from agentbudget import BudgetDenied, Session
from agentbudget.testing.integration_suite import _applies, ask, customer, provider, session
from agentbudget.testing.integration_suite.calls import is_refused
from agentbudget.testing.provider import FakeProvider, Reply, pieces

__all__ = ["_applies", "ask", "customer", "provider", "session"]

TEXTS = ["some words", "and more"]


def openai(provider: FakeProvider, **more: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model="counted", base_url=provider.openai_url, api_key="none", check_embedding_ctx_length=False, max_retries=0, **more
    )  # fmt: skip


def tokens_of(texts: list[str]) -> int:
    return sum(len(pieces(text)) for text in texts)


WAYS: dict[str, Any] = {
    "documents": lambda e: e.embed_documents(TEXTS),
    "query": lambda e: e.embed_query(TEXTS[0]),
    "documents, awaited": lambda e: asyncio.run(e.aembed_documents(TEXTS)),
    "query, awaited": lambda e: asyncio.run(e.aembed_query(TEXTS[0])),
    "a vector store": lambda e: InMemoryVectorStore.from_texts(TEXTS, e),
}
ways = pytest.mark.parametrize("way", list(WAYS))


@ways
def test_every_way_to_embed_is_charged_what_was_held(session: Session, provider: FakeProvider, way: str) -> None:
    """L11: the vectors state no usage, so the texts as they were estimated."""
    WAYS[way](BudgetEmbeddings(openai(provider)))
    status = session.status()
    assert (status.steps, status.held) == (1, 0)
    assert status.spent.nano >= provider.billed > 0


@ways
def test_every_way_to_embed_is_refused_before_it_is_sent(customer: Any, provider: FakeProvider, way: str) -> None:
    """L3."""
    with customer.session(budget="0.000001"), pytest.raises(BudgetDenied):
        WAYS[way](BudgetEmbeddings(openai(provider)))
    assert provider.calls == []


def test_a_counter_of_tokens_makes_the_charge_exact(session: Session, provider: FakeProvider) -> None:
    BudgetEmbeddings(openai(provider), tokens_of=tokens_of).embed_documents(TEXTS)
    assert session.status().spent.nano == provider.billed


def test_without_a_session_nothing_is_embedded(provider: FakeProvider) -> None:
    """L8."""
    with pytest.raises(BudgetDenied) as refused:
        BudgetEmbeddings(openai(provider)).embed_query("hi")
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "no_session"
    assert provider.calls == []


def test_what_the_provider_refuses_is_free(session: Session, provider: FakeProvider) -> None:
    provider.say(Reply(status=429))
    with pytest.raises(Exception, match="429"):
        BudgetEmbeddings(openai(provider)).embed_query("hi")
    assert session.status().spent == 0


def test_calls_at_once_never_pass_the_budget(customer: Any, provider: FakeProvider) -> None:
    """L3, from threads."""
    with customer.session(budget="0.000009") as small:
        embeddings = BudgetEmbeddings(openai(provider), tokens_of=tokens_of)
        with ThreadPoolExecutor(8) as pool:
            here = [contextvars.copy_context() for _ in range(8)]
            ran = [pool.submit(c.run, is_refused, lambda: embeddings.embed_query("a b c")) for c in here]
            assert sum(future.result() for future in ran) == 5
        assert small.status().spent.nano == 9_000


def test_it_is_embeddings_and_what_it_wraps_is_reached_through_it(provider: FakeProvider) -> None:
    wrapped = BudgetEmbeddings(openai(provider, dimensions=3))
    assert isinstance(wrapped, Embeddings)
    assert wrapped.dimensions == 3
