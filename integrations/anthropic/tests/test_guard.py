"""What is special to this SDK: every form of a call, its usage, hidden retries, and who pays inside a framework. What every
integration keeps is in ``test_suite``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest
from agentbudget_anthropic import guard
from agentbudget_langchain import BudgetCallbackHandler
from langchain_anthropic import ChatAnthropic

from agentbudget import BudgetDenied, Catalog, Credits, InvalidRequest, Runtime, Session, Usage
from agentbudget.catalog import PriceRequest
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite import _applies, ask, customer, provider, session
from agentbudget.testing.integration_suite.world import CATALOG
from agentbudget.testing.provider import FakeProvider, Reply

__all__ = ["_applies", "ask", "customer", "provider", "session"]

SAID = [{"role": "user", "content": "hi"}]
CALL: dict[str, Any] = {"model": "counted", "messages": SAID, "max_tokens": 100}


@pytest.fixture
def client(provider: FakeProvider) -> Any:
    return guard(anthropic.Anthropic(base_url=provider.url, api_key="none", max_retries=0))


def spent(session: Session) -> int:
    return session.status().spent.nano


def stream_helper(client: Any) -> str:
    with client.messages.stream(**CALL) as stream:
        return "".join(stream.text_stream)


def beta_stream_helper(client: Any) -> str:
    with client.beta.messages.stream(**CALL) as stream:
        return str(stream.get_final_message().content[0].text)


def streamed(client: Any) -> str:
    events = client.messages.create(stream=True, **CALL)
    return "".join(event.delta.text for event in events if event.type == "content_block_delta")


def streamed_raw(client: Any) -> str:
    events = client.messages.with_raw_response.create(stream=True, **CALL).parse()
    return "".join(event.delta.text for event in events if event.type == "content_block_delta")


def streaming_response(client: Any) -> str:
    with client.messages.with_streaming_response.create(**CALL) as response:
        return str(json.loads(response.read())["content"][0]["text"])


FORMS: dict[str, Callable[[Any], str]] = {
    "create": lambda c: c.messages.create(**CALL).content[0].text,
    "beta": lambda c: c.beta.messages.create(**CALL).content[0].text,
    "streamed": streamed,
    "stream helper": stream_helper,
    "beta stream helper": beta_stream_helper,
    "raw": lambda c: c.messages.with_raw_response.create(**CALL).parse().content[0].text,
    "raw stream": streamed_raw,
    "streaming response": streaming_response,
    "copy": lambda c: c.with_options(timeout=30).messages.create(**CALL).content[0].text,
}
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
    """L3: though this SDK turns whatever is raised while it sends into a connection error, and tries again."""
    with customer.session(budget="0.0001"), pytest.raises(BudgetDenied) as refused:
        FORMS[form](client)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "session_budget"
    assert provider.calls == []


def test_without_a_session_a_call_is_refused(client: Any, provider: FakeProvider) -> None:
    """L8."""
    with pytest.raises(BudgetDenied) as refused:
        client.messages.create(**CALL)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "no_session"
    assert provider.calls == []


def test_a_cap_is_clamped_to_what_fits(client: Any, customer: Customer, provider: FakeProvider) -> None:
    with customer.session(budget="0.002", on_short="clamp"):
        client.messages.create(**{**CALL, "max_tokens": 5_000})
    assert 100 < provider.bodies[0]["max_tokens"] < 200


# --- usage ---------------------------------------------------------------------------------------------------------------

USAGE = {
    "input_tokens": 100, "cache_read_input_tokens": 700, "cache_creation_input_tokens": 500, "output_tokens": 50,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 300},
}  # fmt: skip
MESSAGE = {
    "id": "m1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "hi"}], "stop_sequence": None, "usage": USAGE,
}  # fmt: skip


def elsewhere(content: bytes, kind: str = "application/json") -> Any:
    """A guarded client whose every request gets this answer."""
    answer = httpx2.MockTransport(lambda _: httpx2.Response(200, content=content, headers={"content-type": kind}))
    return guard(anthropic.Anthropic(api_key="none", http_client=httpx2.Client(transport=answer)))


def price_of_usage(catalog: Catalog) -> Credits:
    """By the provider's own table, every kind of input at its price."""
    usage = Usage(
        input_tokens=1_300, cache_read_tokens=700, cache_write_tokens=500, cache_write_1h_tokens=300, output_tokens=50
    )
    asked = PriceRequest(kind="llm", model="claude-sonnet-4-6", provider="anthropic")
    return Credits.of_nano(catalog.charge(asked, usage).nano)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_cache_reads_and_writes_of_both_lifetimes_are_charged_at_their_prices(is_streamed: bool) -> None:
    """L11: the SDK's ``input_tokens`` leave the cache out; the first half of a stream's usage does not add to the second."""
    events = [
        {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**USAGE, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 20}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}},
        {"type": "message_stop"},
    ]
    body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    client = elsewhere(body, "text/event-stream") if is_streamed else elsewhere(json.dumps(MESSAGE).encode())
    with Runtime.open("memory://") as runtime:
        acme = runtime.customers.create("acme")
        acme.wallet.grant(10)
        with acme.session(budget=5) as opened:
            reply = client.messages.create(**{**CALL, "model": "claude-sonnet-4-6"}, stream=is_streamed)
            if is_streamed:
                list(reply)
            assert opened.status().spent == price_of_usage(runtime.catalog)


def test_a_stream_whose_frame_is_not_known_is_charged_as_it_was_held(customer: Customer) -> None:
    """L11: never 0, whatever a gateway makes of it."""
    with customer.session(budget=5) as opened:
        with elsewhere(b"\x00\x01frames", "application/vnd.amazon.eventstream").messages.with_streaming_response.create(
            stream=True, **CALL
        ) as response:
            assert response.read() == b"\x00\x01frames"
        assert spent(opened) > 1_000_000


# --- hidden retries ---------------------------------------------------------------------------------------------------------


def retrying(provider: FakeProvider, **more: Any) -> Any:
    return guard(anthropic.Anthropic(base_url=provider.url, api_key="none", max_retries=2, **more))


def test_each_attempt_is_a_step_and_says_which_it_is(session: Session, provider: FakeProvider) -> None:
    """L11: what the SDK would do out of sight: refused attempts are free, the one that brings the reply is not."""
    provider.say(Reply(status=529), Reply(status=429))
    assert retrying(provider).messages.with_raw_response.create(**CALL).retries_taken == 2
    assert [call.headers["x-stainless-retry-count"] for call in provider.calls] == ["0", "1", "2"]
    assert session.status().steps == 3
    assert spent(session) == provider.billed


def test_a_retry_that_does_not_fit_is_refused(customer: Customer, provider: FakeProvider) -> None:
    """L3: the attempt that timed out may have been billed, so it is spend; the refusal says what came before it."""
    provider.say(Reply(stalls=True))
    with customer.session(budget="0.0015") as small:
        with pytest.raises(BudgetDenied) as refused:
            retrying(provider, timeout=0.3).messages.create(**CALL)
        assert isinstance(refused.value.__cause__, anthropic.APITimeoutError)
        assert spent(small) >= provider.billed
    assert len(provider.calls) == 1


# --- who pays ---------------------------------------------------------------------------------------------------------------


def test_a_call_inside_an_open_step_is_that_steps_call(client: Any, session: Session, provider: FakeProvider) -> None:
    """L4: never a second charge; what follows in the same body is work of its own."""
    with session.step("llm", model="counted", request=SAID, max_output_tokens=100) as step:
        step.settle(client.messages.create(**CALL))
        assert spent(session) == provider.billed
        client.messages.create(**CALL)
    assert session.status().steps == 2
    assert spent(session) == provider.billed


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_guarded_client_below_langchain_is_charged_once(session: Session, provider: FakeProvider, how: str) -> None:
    """L4."""
    model = ChatAnthropic(model="counted", base_url=provider.url, api_key="none", max_tokens=50)
    guard(model._client)
    guard(model._async_client)
    config: Any = {"callbacks": [BudgetCallbackHandler()]}
    model.invoke("hi", config) if how == "sync" else asyncio.run(model.ainvoke("hi", config))
    assert session.status().steps == len(provider.calls) == 1
    assert spent(session) == provider.billed


# --- what is guarded ----------------------------------------------------------------------------------------------------------


def test_a_guarded_client_is_what_it_was(client: Any) -> None:
    assert isinstance(client, anthropic.Anthropic)
    assert type(client).__name__ == "Anthropic"
    assert guard(client) is client


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no Anthropic client"):
        guard(object())


def test_batches_are_a_step_at_the_catalogs_rate() -> None:
    catalog = Catalog.loads(
        CATALOG + '[[rates]]\nid="batches"\nkind="tool"\ntool="anthropic batches"\nper_call="0.5"\n'
    )
    client = elsewhere(b'{"id": "b1", "type": "message_batch"}')
    with Runtime.open("memory://", catalog=catalog) as runtime:
        opened = runtime.customers.create("acme", plan="suite").session(budget="0.7")
        with opened:
            client.messages.batches.create(requests=[{"custom_id": "a", "params": CALL}])
            assert spent(opened) == 500_000_000


def test_counting_tokens_costs_nothing(session: Session) -> None:
    elsewhere(b'{"input_tokens": 1}').messages.count_tokens(model="counted", messages=SAID)
    assert session.status().steps == 0
