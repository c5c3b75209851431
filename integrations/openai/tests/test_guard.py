"""What is special to this SDK: every form of a call, what is written into requests, hidden retries, and who pays inside a
framework. What every integration keeps is in ``test_suite``."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware
from agentbudget_openai import account_retries, guard
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from agentbudget import BudgetDenied, Catalog, InvalidRequest, Runtime, Session
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import _applies, ask, customer, provider, session
from agentbudget.testing.integration_suite.world import CATALOG
from agentbudget.testing.provider import FakeProvider, Reply

__all__ = ["_applies", "ask", "customer", "provider", "session"]

SAID = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"model": "counted", "messages": SAID}
RESPONSES: dict[str, Any] = {"model": "counted", "input": "hi"}
HUMAN = HumanMessage("hi")
ONE_TRY = 1_100_000
"""Nanocredits that bound one call of ``CHAT`` with a cap of 100 tokens: those, and the request's bytes as input."""


class Answer(BaseModel):
    word: str


@pytest.fixture
def client(provider: FakeProvider) -> Any:
    return guard(openai.OpenAI(base_url=provider.openai_url, api_key="none", max_retries=0))


def spent(session: Session) -> int:
    return session.status().spent.nano


def stream_helper(client: Any) -> str:
    with client.chat.completions.stream(**CHAT) as stream:
        return str(stream.get_final_completion().choices[0].message.content)


def responses_helper(client: Any) -> str:
    with client.responses.stream(**RESPONSES) as stream:
        return str(stream.get_final_response().output_text)


def streamed_raw(client: Any) -> str:
    chunks = client.chat.completions.with_raw_response.create(stream=True, **CHAT).parse()
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def streaming_response(client: Any) -> str:
    with client.chat.completions.with_streaming_response.create(**CHAT) as response:
        return str(response.parse().choices[0].message.content)


def lines_of_a_stream(client: Any) -> str:
    with client.chat.completions.with_streaming_response.create(stream=True, **CHAT) as response:
        lines = list(response.iter_lines())
    return "a short answer" if any("answ" in line for line in lines) else ""


def raw_of_a_copy(client: Any) -> Any:
    return client.with_options(timeout=30).with_raw_response.chat.completions.create(**CHAT)


FORMS: dict[str, Callable[[Any], str]] = {
    "create": lambda c: c.chat.completions.create(**CHAT).choices[0].message.content,
    "responses": lambda c: c.responses.create(**RESPONSES).output_text,
    "responses.parse": lambda c: c.responses.parse(**RESPONSES).output_text,
    "raw": lambda c: c.chat.completions.with_raw_response.create(**CHAT).parse().choices[0].message.content,
    "raw stream": streamed_raw,
    "streaming response": streaming_response,
    "lines of a stream": lines_of_a_stream,
    "stream helper": stream_helper,
    "responses stream helper": responses_helper,
    "copy": lambda c: c.with_options(timeout=30).chat.completions.create(**CHAT).choices[0].message.content,
    "copy of raw": lambda c: raw_of_a_copy(c).parse().choices[0].message.content,
    "post": lambda c: c.post("/chat/completions", body=CHAT, cast_to=object)["choices"][0]["message"]["content"],
}  # fmt: skip
forms = pytest.mark.parametrize("form", list(FORMS))


@forms
def test_every_form_of_a_call_is_charged_what_it_was_billed(
    client: Any, session: Session, provider: FakeProvider, form: str
) -> None:
    """L11."""
    assert FORMS[form](client) == "a short answer"
    assert spent(session) == provider.billed > 0
    assert session.status().held == 0


@forms
def test_every_form_of_a_call_is_refused_before_it_is_sent(
    client: Any, customer: Customer, provider: FakeProvider, form: str
) -> None:
    """L3."""
    with customer.session(budget="0.0001"), pytest.raises(BudgetDenied) as refused:
        FORMS[form](client)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "session_budget"
    assert provider.calls == []


def test_without_a_session_a_call_is_refused(client: Any, provider: FakeProvider) -> None:
    """L8."""
    with pytest.raises(BudgetDenied) as refused:
        client.chat.completions.create(**CHAT)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "no_session"
    assert provider.calls == []


def test_the_given_session_pays_or_a_child_of_it_that_is_current(
    customer: Customer, session: Session, provider: FakeProvider
) -> None:
    """L12: a child's budget binds too, and only one of the two is charged."""
    with customer.session(budget=5) as given:
        client = guard(openai.OpenAI(base_url=provider.openai_url, api_key="none"), given)
        with session:
            client.chat.completions.create(**CHAT)
            assert (spent(session), spent(given)) == (0, provider.billed)
        with given.child(budget="0.0001"), pytest.raises(BudgetDenied):
            client.chat.completions.create(**CHAT)


def test_embeddings_are_charged_what_they_were_billed(client: Any, session: Session, provider: FakeProvider) -> None:
    reply = client.embeddings.create(model="counted", input=["some words", "more"])
    assert len(reply.data) == 2
    assert spent(session) == provider.billed > 0


def test_embeddings_are_awaited_too(session: Session, provider: FakeProvider) -> None:
    client = guard(openai.AsyncOpenAI(base_url=provider.openai_url, api_key="none"))
    asyncio.run(client.embeddings.create(model="counted", input="some words"))
    assert spent(session) == provider.billed > 0


# --- what is written into requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("create", "max_completion_tokens"),
        ("stream helper", "max_completion_tokens"),
        ("responses", "max_output_tokens"),
    ],
)
def test_a_call_without_a_cap_gets_the_sessions(
    client: Any, customer: Customer, provider: FakeProvider, form: str, name: str
) -> None:
    with customer.session(budget=5, max_output_tokens=321):
        FORMS[form](client)
    assert provider.bodies[0][name] == 321


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_cap_is_clamped_under_the_name_that_it_has(
    client: Any, customer: Customer, provider: FakeProvider, name: str
) -> None:
    with customer.session(budget="0.002", on_short="clamp"):
        client.chat.completions.create(**CHAT, **{name: 5_000})
    caps = {key: value for key, value in provider.bodies[0].items() if key.startswith("max_")}
    assert list(caps) == [name]
    assert 100 < caps[name] < 200


def test_a_cap_in_the_extra_body_is_the_calls(client: Any, customer: Customer, provider: FakeProvider) -> None:
    with customer.session(budget="0.002", on_short="clamp"):
        client.chat.completions.create(**CHAT, extra_body={"max_completion_tokens": 5_000, "seed": 7})
    assert provider.bodies[0]["seed"] == 7
    assert provider.bodies[0]["max_completion_tokens"] < 200


def test_an_endpoint_may_know_only_another_name_of_the_cap(session: Session, provider: FakeProvider) -> None:
    client = guard(openai.OpenAI(base_url=provider.openai_url, api_key="none"), cap_parameter="max_tokens")
    client.chat.completions.create(**CHAT)
    assert provider.bodies[0]["max_tokens"] == session.max_output_tokens
    assert "max_completion_tokens" not in provider.bodies[0]


def test_several_candidates_are_held_as_many_times(client: Any, customer: Customer, provider: FakeProvider) -> None:
    with customer.session(budget=2), pytest.raises(BudgetDenied):
        client.chat.completions.create(model="flat", messages=SAID, n=3)
    assert provider.calls == []


def test_a_stream_states_its_usage_though_nobody_asked_and_nobody_sees_it(
    client: Any, session: Session, provider: FakeProvider
) -> None:
    """Code that reads ``choices[0]`` of every chunk does not expect the chunk without choices."""
    chunks = list(client.chat.completions.create(**CHAT, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert provider.bodies[0]["stream_options"] == {"include_usage": True}
    assert spent(session) == provider.billed


def test_a_stream_that_was_asked_for_its_usage_shows_it(client: Any, session: Session, provider: FakeProvider) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options=options))
    assert chunks[-1].usage is not None
    assert provider.bodies[0]["stream_options"] == options
    assert spent(session) == provider.billed


# --- replies that come, and that nobody gets ------------------------------------------------------------------------------


def test_a_reply_that_cannot_be_parsed_was_paid_for(client: Any, session: Session, provider: FakeProvider) -> None:
    """L11: the caller's parser refuses it, the provider bills it."""
    provider.say(Reply(text="no JSON at all"))
    with pytest.raises(ValueError, match="JSON"):
        client.chat.completions.parse(**CHAT, response_format=Answer)
    assert spent(session) == provider.billed > 0


def test_a_reply_that_was_cut_at_its_cap_was_paid_for(client: Any, session: Session, provider: FakeProvider) -> None:
    provider.say(Reply(text="word " * 50))
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**CHAT, response_format=Answer, max_completion_tokens=5)
    assert spent(session) == provider.billed > 0


def test_a_reply_that_nobody_reads_is_charged_as_it_was_held(
    client: Any, session: Session, provider: FakeProvider
) -> None:
    """The provider made all of it."""
    with client.chat.completions.with_streaming_response.create(**CHAT, max_completion_tokens=100):
        pass
    assert provider.billed <= spent(session) <= ONE_TRY


def test_a_dropped_stream_holds_nothing(client: Any, session: Session, provider: FakeProvider) -> None:
    """L5."""
    provider.say(Reply(text="word " * 50, stalls_after=2))
    stream = client.chat.completions.create(**CHAT, stream=True)
    next(stream)
    del stream
    gc.collect()
    assert session.status().held == 0
    assert spent(session) > 0


# --- hidden retries -------------------------------------------------------------------------------------------------------


def retrying(provider: FakeProvider, **more: Any) -> Any:
    return guard(openai.OpenAI(base_url=provider.openai_url, api_key="none", max_retries=2, **more))


def test_each_attempt_is_a_step_and_says_which_it_is(session: Session, provider: FakeProvider) -> None:
    """L11: what the SDK would do out of sight: refused attempts are free, the one that brings the reply is not."""
    provider.say(Reply(status=500), Reply(status=429))
    raw = retrying(provider).chat.completions.with_raw_response.create(**CHAT)
    assert raw.retries_taken == 2
    assert [call.headers["x-stainless-retry-count"] for call in provider.calls] == ["0", "1", "2"]
    assert session.status().steps == 3
    assert spent(session) == provider.billed


def test_what_is_not_worth_a_retry_is_not_tried_again(session: Session, provider: FakeProvider) -> None:
    provider.say(Reply(status=400))
    with pytest.raises(openai.BadRequestError):
        retrying(provider).chat.completions.create(**CHAT)
    assert len(provider.calls) == 1


def test_the_last_attempt_raises_what_the_sdk_raises(session: Session, provider: FakeProvider) -> None:
    provider.say(*[Reply(status=503)] * 3)
    with pytest.raises(openai.InternalServerError):
        retrying(provider).chat.completions.create(**CHAT)
    assert len(provider.calls) == 3
    assert spent(session) == 0


def test_a_retry_that_does_not_fit_is_refused(customer: Customer, provider: FakeProvider) -> None:
    """L3: the attempt that timed out may have been billed, so it is spend; the refusal says what came before it."""
    provider.say(Reply(stalls=True))
    with customer.session(budget="0.0015") as small:
        with pytest.raises(BudgetDenied) as refused:
            retrying(provider, timeout=0.3).chat.completions.create(**CHAT, max_completion_tokens=100)
        assert isinstance(refused.value.__cause__, openai.APITimeoutError)
        assert provider.billed <= spent(small) <= ONE_TRY
    assert len(provider.calls) == 1


# --- inside a step that is open already -------------------------------------------------------------------------------------


def test_a_call_inside_an_open_step_is_that_steps_call(client: Any, session: Session, provider: FakeProvider) -> None:
    """L4: never a second charge; what follows in the same body is work of its own."""
    with session.step("llm", model="counted", request=SAID, max_output_tokens=50) as step:
        step.settle(client.chat.completions.create(**CHAT))
        assert provider.bodies[0]["max_completion_tokens"] == 50
        assert spent(session) == provider.billed
        client.chat.completions.create(**CHAT)
    assert session.status().steps == 2
    assert spent(session) == provider.billed


def test_a_stream_inside_an_open_step_is_what_was_asked_for(
    client: Any, session: Session, provider: FakeProvider
) -> None:
    """The open step settles it, so nothing is asked of the provider that its owner did not ask for."""
    with session.step("llm", model="counted", request=SAID, max_output_tokens=50):
        list(client.chat.completions.create(**CHAT, stream=True))
    assert "stream_options" not in provider.bodies[0]
    assert session.status().steps == 1


def test_only_retries_in_steps_are_accounted_where_a_framework_holds_the_calls(
    session: Session, provider: FakeProvider
) -> None:
    """L11: and what is sent outside such a step is left alone."""
    made = openai.OpenAI(base_url=provider.openai_url, api_key="none", max_retries=2, timeout=0.3)
    client = account_retries(made)
    client.chat.completions.create(**CHAT)
    assert (spent(session), session.status().steps) == (0, 0)
    provider.say(Reply(text="word " * 30, stalls=True))
    with session.step("llm", model="counted", request=SAID, max_output_tokens=100) as step:
        step.settle(client.chat.completions.create(**CHAT, max_completion_tokens=100))
    assert session.status().steps == 2
    assert spent(session) >= sum(call.nano for call in provider.calls[1:])
    guard(client).chat.completions.create(**CHAT)
    assert session.status().steps == 3
    account_retries(client).chat.completions.create(**CHAT)
    assert session.status().steps == 4


def test_a_call_inside_another_kind_of_step_is_held(client: Any, session: Session, provider: FakeProvider) -> None:
    with session.step("tool", name="helper", amount=0):
        client.chat.completions.create(**CHAT)
    assert spent(session) == provider.billed


def test_a_retried_attempt_of_an_open_step_is_charged_beside_it(session: Session, provider: FakeProvider) -> None:
    """L11: the open step pays for the attempt that brings the reply; the one that timed out was spend, too."""
    provider.say(Reply(text="word " * 30, stalls=True))
    with session.step("llm", model="counted", request=SAID, max_output_tokens=100) as step:
        step.settle(retrying(provider, timeout=0.3).chat.completions.create(**CHAT, max_completion_tokens=100))
    assert len(provider.calls) == 2
    assert session.status().steps == 2
    assert provider.billed <= spent(session) <= provider.billed + ONE_TRY


def chat_model(provider: FakeProvider) -> Any:
    model = ChatOpenAI(model="counted", base_url=provider.openai_url, api_key="none", max_tokens=50, stream_usage=True)
    guard(model.root_client)
    guard(model.root_async_client)
    return model


LANGCHAIN: dict[str, Callable[[Any], Any]] = {
    "handler": lambda m: m.invoke("hi", config={"callbacks": [BudgetCallbackHandler()]}),
    "handler, awaited": lambda m: asyncio.run(m.ainvoke("hi", config={"callbacks": [BudgetCallbackHandler()]})),
    "handler, streamed": lambda m: list(m.stream("hi", config={"callbacks": [BudgetCallbackHandler()]})),
    "handler, batch": lambda m: m.batch(["hi", "hi"], config={"callbacks": [BudgetCallbackHandler()]}),
    "handler, generate": lambda m: m.generate([[HUMAN], [HUMAN]], callbacks=[BudgetCallbackHandler()]),
    "middleware": lambda m: create_agent(m, [], middleware=[BudgetMiddleware()]).invoke({"messages": SAID}),
    "middleware, awaited": lambda m: asyncio.run(
        create_agent(m, [], middleware=[BudgetMiddleware()]).ainvoke({"messages": SAID})
    ),
    "nothing": lambda m: m.invoke("hi"),
}


@pytest.mark.parametrize("how", list(LANGCHAIN))
def test_a_guarded_client_below_langchain_is_charged_once(session: Session, provider: FakeProvider, how: str) -> None:
    """L4: the call that a handler or a middleware holds is the one that the client makes; without them the client holds it."""
    LANGCHAIN[how](chat_model(provider))
    assert session.status().steps == len(provider.calls)
    assert spent(session) == provider.billed > 0


def test_a_call_beside_an_unguarded_stream_is_held(client: Any, session: Session, provider: FakeProvider) -> None:
    """L11: the open step is the stream's, whose call was made; it does not cover what the consumer does between two chunks."""
    model = ChatOpenAI(model="counted", base_url=provider.openai_url, api_key="none", max_tokens=50, stream_usage=True)
    for chunk in model.stream("hi", config={"callbacks": [BudgetCallbackHandler()]}):
        if chunk.content and len(provider.calls) == 1:
            client.chat.completions.create(**CHAT)
    assert len(provider.calls) == 2
    assert spent(session) == provider.billed


# --- what is guarded -------------------------------------------------------------------------------------------------------


def test_a_guarded_client_is_what_it_was(client: Any) -> None:
    assert isinstance(client, openai.OpenAI)
    assert type(client).__name__ == "OpenAI"
    assert guard(client) is client


def test_a_client_guarded_for_another_session_is_refused(client: Any, session: Session) -> None:
    with pytest.raises(InvalidRequest, match="already"):
        guard(client, session)


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no OpenAI client"):
        guard(object())  # type: ignore[type-var]


def elsewhere(answer: dict[str, Any]) -> Any:
    """A guarded client whose every request gets this answer."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=answer))
    return guard(openai.OpenAI(api_key="none", http_client=httpx2.Client(transport=transport)))


def test_work_that_no_tokens_price_is_a_step_at_the_catalogs_rate() -> None:
    """Images, speech, batches: no hole; a rate for the tool ``openai images`` prices them."""
    catalog = Catalog.loads(CATALOG + '[[rates]]\nid="images"\nkind="tool"\ntool="openai images"\nper_call="0.5"\n')
    client = elsewhere({"created": 1, "data": [{"url": "https://example.org/cat.png"}]})
    with Runtime.open("memory://", catalog=catalog) as runtime:
        opened = runtime.customers.create("acme", plan="suite").session(budget="0.7")
        with opened:
            client.images.generate(model="counted", prompt="a cat")
            assert spent(opened) == 500_000_000
            with pytest.raises(BudgetDenied):
                client.images.generate(model="counted", prompt="a cat")


def test_what_costs_nothing_is_no_step(session: Session) -> None:
    elsewhere({"object": "response.input_tokens", "input_tokens": 1}).responses.input_tokens.count(
        model="counted", input="hi"
    )
    elsewhere({"object": "list", "data": []}).models.list()
    assert session.status().steps == 0
