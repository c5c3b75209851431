"""ChatOpenAI and ChatAnthropic against a provider on the loopback: what is really sent, and what is really charged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from agentbudget import Credits, Usage
from agentbudget.catalog import Catalog, PriceRequest
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.provider import Provider, provider

ASK = {"messages": [("user", "hi")]}
CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@pytest.fixture
def served() -> Iterator[Provider]:
    with provider() as running:
        yield running


def openai(served: Provider, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "gpt-5", "base_url": f"{served.url}/v1", "api_key": "none", "max_retries": 0, **more})


def anthropic(served: Provider, **more: Any) -> ChatAnthropic:
    return ChatAnthropic(
        **{"model": "claude-sonnet-4-5", "base_url": served.url, "api_key": "none", "max_retries": 0, **more}
    )


MODELS = {
    "chat completions": (openai, {}, "max_completion_tokens"),
    "responses": (openai, {"use_responses_api": True}, "max_output_tokens"),
    "anthropic": (anthropic, {}, "max_tokens"),
}
kinds = pytest.mark.parametrize("kind", list(MODELS))


def caps_sent(served: Provider) -> list[dict[str, int]]:
    return [{name: body[name] for name in CAPS if name in body} for body in served.bodies]


@kinds
@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_sessions_cap_is_what_the_provider_is_sent(
    customer: Customer, served: Provider, kind: str, how: str
) -> None:
    make, more, parameter = MODELS[kind]
    agent = create_agent(make(served, **more), [], middleware=[BudgetMiddleware()])
    with customer.session(budget=1, max_output_tokens=321):
        agent.invoke(ASK) if how == "sync" else asyncio.run(agent.ainvoke(ASK))
    assert caps_sent(served) == [{parameter: 321}]


@kinds
def test_a_cap_on_the_model_object_is_sent_as_it_is(customer: Customer, served: Provider, kind: str) -> None:
    make, more, parameter = MODELS[kind]
    with customer.session(budget=1):
        create_agent(make(served, max_tokens=55, **more), [], middleware=[BudgetMiddleware()]).invoke(ASK)
    assert caps_sent(served) == [{parameter: 55}]


@kinds
def test_a_clamped_cap_reaches_the_provider_also_where_the_model_object_has_one(
    customer: Customer, served: Provider, kind: str
) -> None:
    """On the Responses API a per-call ``max_tokens`` is dropped when the model object has a cap: the name that is
    written wins."""
    make, more, parameter = MODELS[kind]
    with customer.session(budget="0.1", on_short="clamp"):
        create_agent(make(served, max_tokens=60_000, **more), [], middleware=[BudgetMiddleware()]).invoke(ASK)
    (sent,) = caps_sent(served)
    assert list(sent) == [parameter]
    assert 1_000 < sent[parameter] < 11_000


def test_a_thinking_budget_stays_below_the_cap(customer: Customer, served: Provider) -> None:
    """Anthropic refuses a cap that is not above the thinking budget, which counts as output."""
    model = anthropic(served, thinking={"type": "enabled", "budget_tokens": 5_000})
    with customer.session(budget=1, max_output_tokens=1_000):
        create_agent(model, [], middleware=[BudgetMiddleware()]).invoke(ASK)
    assert caps_sent(served) == [{"max_tokens": 6_000}]


@kinds
@pytest.mark.parametrize("route", ["handler", "middleware"])
def test_the_charge_is_the_price_of_what_the_provider_stated(
    customer: Customer, served: Provider, catalog: Catalog, kind: str, route: str
) -> None:
    """Cached input at its price, reasoning within output, by the model that served."""
    make, more, _ = MODELS[kind]
    model = make(served, max_tokens=500, **more)
    with customer.session(budget=1) as session:
        if route == "handler":
            model.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
        else:
            create_agent(model, [], middleware=[BudgetMiddleware()]).invoke(ASK)
        assert session.status().spent == price(catalog, kind)


def price(catalog: Catalog, kind: str) -> Credits:
    if kind == "anthropic":
        usage = Usage(input_tokens=1000, cache_read_tokens=700, cache_write_tokens=200, output_tokens=50)
    else:
        usage = Usage(input_tokens=1000, cache_read_tokens=600, output_tokens=200, reasoning_tokens=150)
    name = "claude-sonnet-4-5" if kind == "anthropic" else "gpt-5"
    return Credits.of_nano(catalog.charge(PriceRequest(kind="llm", model=name), usage).nano)


@pytest.mark.parametrize("kind", ["chat completions", "anthropic"])
def test_a_stream_with_usage_is_charged_the_same(
    customer: Customer, served: Provider, catalog: Catalog, kind: str
) -> None:
    make, _, _ = MODELS[kind]
    model = make(served, max_tokens=500, stream_usage=True)
    with customer.session(budget=1) as session:
        list(model.stream("hi", config={"callbacks": [BudgetCallbackHandler()]}))
        assert session.status().spent == price(catalog, kind)


def test_chatopenai_with_a_base_url_streams_without_usage_so_the_hold_is_charged(
    customer: Customer, served: Provider, catalog: Catalog
) -> None:
    """It turns ``stream_usage`` off for other endpoints; never 0 then. ``stream_usage=True`` closes it."""
    with customer.session(budget=1) as session:
        list(openai(served, max_tokens=500).stream("hi", config={"callbacks": [BudgetCallbackHandler()]}))
        assert session.status().spent.nano > price(catalog, "chat completions").nano


def test_the_bare_handler_holds_chatanthropics_own_maximum(customer: Customer, served: Provider) -> None:
    """The client fills in its profile's maximum and sends it, so that is what the call may cost."""
    from agentbudget import BudgetDenied

    with customer.session(budget="0.5"), pytest.raises(BudgetDenied) as refused:
        anthropic(served).invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
    assert refused.value.decision is not None
    assert refused.value.decision.need.nano > Credits("0.9").nano
    assert served.requests == []


@pytest.mark.parametrize(
    ("status", "is_free"), [(400, True), (429, True), (500, True), (503, True), (408, False), (502, False)]
)
@pytest.mark.parametrize("route", ["handler", "middleware"])
def test_a_providers_own_status_decides_whether_a_failure_is_free(
    customer: Customer, status: int, is_free: bool, route: str
) -> None:
    with provider(lambda _: status) as served, customer.session(budget=1) as session:
        model = openai(served, max_tokens=500)
        with pytest.raises(Exception):  # noqa: PT012, B017, PT011 - the SDK has an error class for each status
            if route == "handler":
                model.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
            else:
                create_agent(model, [], middleware=[BudgetMiddleware()]).invoke(ASK)
        assert (session.status().spent == 0) is is_free
        assert session.status().held == 0


def test_a_provider_that_nobody_answers_for_is_free(customer: Customer) -> None:
    with provider() as served:
        gone = served.url
    model = ChatOpenAI(model="gpt-5", base_url=f"{gone}/v1", api_key="none", max_retries=0, max_tokens=5)
    with customer.session(budget=1) as session:
        with pytest.raises(Exception):  # noqa: B017, PT011 - the SDK's connection error
            create_agent(model, [], middleware=[BudgetMiddleware()]).invoke(ASK)
        assert session.status().spent == 0


def test_retries_of_the_sdk_are_one_step(customer: Customer, served: Provider) -> None:
    """They are invisible above the SDK (hooks.md §0): one hold; a refused request is not billed, and the last reply
    is charged."""
    served.status = lambda number: 500 if number == 1 else 200
    with customer.session(budget=1) as session:
        openai(served, max_tokens=500, max_retries=2).invoke("hi", config={"callbacks": [BudgetCallbackHandler()]})
        assert session.status().steps == 1
    assert len(served.requests) == 2
