"""Usage: what is refused, what is read out of replies, and how two reports of one call become one."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from anthropic.types import Usage as AnthropicUsage
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from openai.types import CompletionUsage

from agentbudget import InvalidAmount, InvalidRequest, Usage
from agentbudget.catalog.usage import COUNT_FIELDS


@pytest.mark.parametrize("name", COUNT_FIELDS)
@pytest.mark.parametrize("value", [-1, 1.5, True, "12", None, 2**53])
def test_a_bad_count_is_refused_by_the_name_of_its_field(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Usage(**{name: value})
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("NaN", "not_finite"),
        (float("inf"), "not_finite"),
        (-1, "negative"),
        ("x", "not_a_number"),
        (10**30, "too_large"),
    ],
)
@pytest.mark.parametrize("name", ["cost", "seconds"])
def test_a_bad_cost_or_duration_is_refused_by_name(name: str, value: Any, fault: str) -> None:
    with pytest.raises(InvalidAmount) as refused:
        Usage(**{name: value})
    assert refused.value.fault == fault


def test_a_float_cost_is_read_by_its_shortest_decimal_form() -> None:
    assert Usage(cost=0.1).cost == Decimal("0.1")


def test_usage_survives_json() -> None:
    usage = Usage(input_tokens=5, output_tokens=2, cost=Decimal("0.1"), seconds=1.5, model="gpt-5")
    assert msgspec.json.decode(msgspec.json.encode(usage), type=Usage) == usage


ANTHROPIC = {
    "input_tokens": 10,
    "output_tokens": 7,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
}
CHAT = {
    "prompt_tokens": 110,
    "completion_tokens": 40,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 4},
}
RESPONSES = {
    "input_tokens": 110,
    "input_tokens_details": {"cached_tokens": 100},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 150,
}


def test_anthropic_input_leaves_cached_tokens_out_so_they_are_added() -> None:
    expected = Usage(
        input_tokens=140,
        output_tokens=7,
        cache_read_tokens=100,
        cache_write_tokens=30,
        cache_write_1h_tokens=20,
        web_searches=2,
        model="claude-sonnet-5",
    )
    assert Usage.of({"model": "claude-sonnet-5", "usage": ANTHROPIC}) == expected
    reply = SimpleNamespace(model="claude-sonnet-5", usage=AnthropicUsage.model_validate(ANTHROPIC))
    assert Usage.of(reply) == expected


def test_openai_input_includes_cached_tokens() -> None:
    expected = Usage(
        input_tokens=110,
        cache_read_tokens=100,
        input_audio_tokens=3,
        output_tokens=40,
        reasoning_tokens=30,
        output_audio_tokens=4,
        model="gpt-5",
    )
    assert Usage.of({"model": "gpt-5", "usage": CHAT}) == expected
    assert Usage.of(SimpleNamespace(model="gpt-5", usage=CompletionUsage.model_validate(CHAT))) == expected


@pytest.mark.parametrize("reply", [RESPONSES, {"usage": RESPONSES}, {"response": {"usage": RESPONSES}}])
def test_openai_responses_are_read_bare_in_a_reply_and_in_a_stream_event(reply: Any) -> None:
    expected = Usage(input_tokens=110, cache_read_tokens=100, output_tokens=40, reasoning_tokens=30)
    assert Usage.of(reply) == expected


def test_a_gateway_that_states_its_cost_is_believed() -> None:
    assert Usage.of({"usage": {**CHAT, "cost": 0.0125}}).cost == Decimal("0.0125")


def test_a_langchain_message_is_read_with_every_detail() -> None:
    message = AIMessage(
        content="hi",
        usage_metadata={
            "input_tokens": 140,
            "output_tokens": 7,
            "total_tokens": 147,
            "input_token_details": {
                "cache_read": 100,
                "cache_creation": 0,
                "ephemeral_5m_input_tokens": 10,
                "ephemeral_1h_input_tokens": 20,
            },
            "output_token_details": {"reasoning": 3},
        },
        response_metadata={"model_name": "claude-sonnet-5"},
    )
    expected = Usage(
        input_tokens=140,
        cache_read_tokens=100,
        cache_write_tokens=30,
        cache_write_1h_tokens=20,
        output_tokens=7,
        reasoning_tokens=3,
        model="claude-sonnet-5",
    )
    assert Usage.of(message) == expected
    assert Usage.of({"raw": message, "parsed": None}) == expected


def test_langchain_details_of_a_service_tier_count() -> None:
    stated = {"input_tokens": 9, "output_tokens": 1, "input_token_details": {"priority_cache_read": 4}}
    assert Usage.of({"usage_metadata": stated}).cache_read_tokens == 4


def test_google_thoughts_are_output() -> None:
    stated = {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 20, "cachedContentTokenCount": 4}
    expected = Usage(input_tokens=10, cache_read_tokens=4, output_tokens=25, reasoning_tokens=20)
    assert Usage.of({"usageMetadata": stated}) == expected


@pytest.mark.parametrize("reply", [AIMessage(content="hi"), "text", {}, {"usage": None}, None, [], object()])
def test_a_reply_without_usage_is_refused_with_what_to_do(reply: Any) -> None:
    with pytest.raises(InvalidRequest, match="pass Usage"):
        Usage.of(reply)


def test_a_usage_is_its_own_usage() -> None:
    usage = Usage(input_tokens=1)
    assert Usage.of(usage) is usage


counts: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {name: st.integers(0, 10**6) for name in COUNT_FIELDS}
)


@given(counts, counts)
def test_usage_reported_twice_is_the_maximum_of_each_field(a: dict[str, Any], b: dict[str, Any]) -> None:
    merged = Usage.merge_max(Usage(**a), Usage(**b))
    assert {name: getattr(merged, name) for name in COUNT_FIELDS} == {
        name: max(a[name], b[name]) for name in COUNT_FIELDS
    }
    assert Usage.merge_max(merged, Usage(**a)) == merged


def test_merging_keeps_the_later_model_and_the_larger_cost() -> None:
    merged = Usage.merge_max(Usage(model="a", cost=2), Usage(model="b", cost=1))
    assert (merged.model, merged.cost) == ("b", 2)
    assert Usage.merge_max(Usage(model="a", cost=2), Usage()) == Usage(model="a", cost=2)
