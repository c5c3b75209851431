"""``account_retries``: what the SDK below a chat model makes again out of sight. That both are charged the suite says."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, ScriptedChatModel, account_retries, attach

from agentbudget import BudgetDenied, InvalidRequest, Session
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.langchain.tests.adapter import Api, model_of

__all__ = ["_applies", "ask", "customer", "provider", "session"]

apis = pytest.mark.parametrize("api", ["openai", "anthropic"])


@apis
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_retry_that_does_not_fit_beside_the_attempt_before_it_is_refused(
    customer: Customer, ask: Ask, provider: FakeProvider, api: Api, how: str
) -> None:
    """L3: the attempt that timed out may have been billed, so it is spend."""
    provider.say(Reply(stalls=True))
    with customer.session(budget="0.0015") as small, attach(small):
        model = account_retries(model_of(api, replace(ask, timeout_seconds=0.3, max_retries=2)))
        with pytest.raises(BudgetDenied):
            model.invoke("hi") if how == "sync" else asyncio.run(model.ainvoke("hi"))
    assert len(provider.calls) == 1


@apis
def test_a_model_whose_retries_are_accounted_is_held_by_its_handler_alone(
    ask: Ask, session: Session, provider: FakeProvider, api: Api
) -> None:
    """L4: and what nobody holds is left alone."""
    model: Any = account_retries(account_retries(model_of(api, ask)))
    provider.say(Reply(status=400))
    with pytest.raises(Exception, match="400"):
        model.invoke("hi")
    assert session.status().steps == 0
    model.invoke("hi", {"callbacks": [BudgetCallbackHandler()]})
    assert (session.status().steps, session.status().spent.nano) == (1, provider.billed)


def test_a_model_without_a_client_that_can_tell_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no client"):
        account_retries(ScriptedChatModel())


@apis
def test_the_package_that_guards_the_sdk_is_named_where_it_is_missing(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    monkeypatch.setitem(sys.modules, f"agentbudget_{api}", None)
    with pytest.raises(ImportError, match=f"agentbudget-{api}"):
        account_retries(model_of(api, ask))
