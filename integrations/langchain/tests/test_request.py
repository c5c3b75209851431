"""What a hold learns about a call: model, provider, cap, candidates, payload; and what usage a reply states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agentbudget_langchain import ScriptedChatModel
from agentbudget_langchain.caps import cap_parameter, thinking_budget, with_cap
from agentbudget_langchain.request import call_of_callback, call_of_model, cap_of, is_server_tool, own_cap, provider_of
from agentbudget_langchain.usage import (
    counted_with_first,
    is_cache_hit,
    result_is_cache_hit,
    text_bytes,
    usage_of_message,
    usage_of_result,
)
from langchain.agents.middleware.types import ModelRequest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from agentbudget import Usage

HI = [HumanMessage("hi")]


@pytest.mark.parametrize(
    ("params", "cap"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_output_tokens": 7}, 7),
        ({"num_predict": 7}, 7),
        ({"num_predict": -1}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": True}, None),
        ({"options": {"num_predict": 7}}, 7),
        ({"generation_config": {"max_output_tokens": 7}}, 7),
        ({"max_completion_tokens": 1000, "max_tokens": 7}, 1000),
    ],
)
def test_an_output_cap_is_found_under_each_of_its_names(params: dict[str, Any], cap: int | None) -> None:
    """Of several the largest: which one a client sends is its own affair."""
    assert cap_of(params) == cap


def test_a_cap_that_the_client_filled_in_from_its_profile_is_no_choice() -> None:
    assert own_cap(SimpleNamespace(max_tokens=64_000, profile={"max_output_tokens": 64_000})) is None
    assert own_cap(SimpleNamespace(max_tokens=500, profile={"max_output_tokens": 64_000})) == 500


def test_the_call_of_a_callback_is_named_by_metadata_then_by_parameters() -> None:
    named = call_of_callback(HI, {"ls_model_name": "a", "ls_provider": "anthropic", "ls_max_tokens": 9}, {"model": "b"})
    assert (named.model, named.provider, named.cap) == ("a", "anthropic", 9)
    bare = call_of_callback(HI, None, {"model_name": "b", "max_tokens": 3, "n": 2})
    assert (bare.model, bare.provider, bare.cap, bare.quantity) == ("b", None, 3, 2)
    assert call_of_callback(HI, None, None).model is None


def test_the_payload_carries_messages_tools_and_what_points_elsewhere() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    call = call_of_callback(HI, {}, {"tools": [tool], "previous_response_id": "resp_1", "temperature": 1})
    assert call.payload == {
        "messages": [{"type": "human", "content": "hi"}],
        "tools": [tool],
        "previous_response_id": "resp_1",
    }
    stored = call_of_model(SimpleNamespace(use_previous_response_id=True, model="m"), HI, [], {})
    assert stored.payload["previous_response_id"]


@pytest.mark.parametrize(
    ("named", "provider"),
    [
        ("anthropic", "anthropic"),
        ("google_genai", "google"),
        ("amazon_bedrock", "aws"),
        ("xai", "x-ai"),
        ("openai", None),
        (None, None),
    ],
)
def test_a_provider_is_named_as_the_price_table_names_it(named: Any, provider: str | None) -> None:
    """ChatOpenAI is the client of every compatible endpoint, so its name says nothing about who serves."""
    assert provider_of(named) == provider


@pytest.mark.parametrize(
    ("tool", "runs_at_the_provider"),
    [
        ({"type": "function", "function": {"name": "f"}}, False),
        ({"name": "f", "input_schema": {}}, False),
        ({"type": "custom", "name": "f"}, False),
        ({"type": "bash_20250124", "name": "bash"}, False),
        ({"type": "web_search_20250305", "name": "web_search"}, True),
        ({"type": "web_search"}, True),
        ({"google_search": {}}, True),
        ("not a mapping", False),
    ],
)
def test_a_tool_that_the_provider_runs_is_told_from_the_callers_own(tool: Any, runs_at_the_provider: bool) -> None:
    assert is_server_tool(tool) is runs_at_the_provider


class ChatOllama(ScriptedChatModel):
    num_predict: int | None = None


class ChatGoogleGenerativeAI(ScriptedChatModel):
    max_output_tokens: int | None = None


class ChatOpenAI(ScriptedChatModel):
    pass


class Unheard(ScriptedChatModel):
    max_new_tokens: int | None = None


@pytest.mark.parametrize(
    ("model", "parameter"),
    [
        (ChatOpenAI(), "max_completion_tokens"),
        (ChatOllama(), "num_predict"),
        (ChatGoogleGenerativeAI(), "max_output_tokens"),
        (ScriptedChatModel(), "max_tokens"),
    ],
)
def test_the_cap_is_written_under_the_name_that_the_class_sends(model: Any, parameter: str) -> None:
    assert cap_parameter(model) == parameter
    request = ModelRequest(model=model, messages=HI, model_settings={"temperature": 0, "max_tokens": 9})  # type: ignore[arg-type]
    capped = with_cap(request, 50)
    if parameter == "num_predict":
        assert (capped.model.num_predict, model.num_predict) == (50, None)
    else:
        assert capped.model_settings == {"temperature": 0, parameter: 50}
    assert request.model_settings == {"temperature": 0, "max_tokens": 9}


def test_a_stated_cap_parameter_wins() -> None:
    request = ModelRequest(model=Unheard(), messages=HI)  # type: ignore[arg-type]
    assert with_cap(request, 5, "limit").model_settings == {"limit": 5}


def test_only_an_enabled_thinking_budget_counts() -> None:
    assert thinking_budget(SimpleNamespace(thinking={"type": "enabled", "budget_tokens": 5}), {}) == 5
    assert thinking_budget(SimpleNamespace(thinking={"type": "adaptive"}), {}) == 0
    assert thinking_budget(SimpleNamespace(), {"thinking": {"type": "enabled", "budget_tokens": 7}}) == 7


# --- usage -------------------------------------------------------------------------------------------------------


def stated(**usage: Any) -> AIMessage:
    return AIMessage(
        content="x",
        usage_metadata={"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, **usage},
        response_metadata={"model_name": "served"},
    )


def test_usage_carries_cache_reasoning_audio_and_the_model_that_served() -> None:
    message = stated(
        input_token_details={"cache_read": 4, "cache_creation": 3, "audio": 2},
        output_token_details={"reasoning": 3, "audio": 1},
    )
    assert usage_of_message(message) == Usage(
        input_tokens=10, cache_read_tokens=4, cache_write_tokens=3, input_audio_tokens=2, output_tokens=5,
        reasoning_tokens=3, output_audio_tokens=1, model="served",
    )  # fmt: skip


@pytest.mark.parametrize(
    "details",
    [
        {},
        {
            "input_token_details": {"cache_read": 4, "cache_creation": 3, "audio": 2},
            "output_token_details": {"reasoning": 3},
        },
        {"input_token_details": {"ephemeral_1h_input_tokens": 3, "cache_creation": 0}},
        {"input_token_details": {"priority_cache_read": 4, "priority": 6}},
    ],
)
def test_reading_directly_and_reading_by_the_catalog_agree(details: dict[str, Any]) -> None:
    message = stated(**details)
    assert usage_of_message(message) == Usage.of(message)


def test_of_several_reports_of_one_call_the_maximum_counts() -> None:
    result = LLMResult(
        generations=[[ChatGeneration(message=stated()), ChatGeneration(message=stated(output_tokens=9))]]
    )
    usage = usage_of_result(result)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (10, 9)


def test_a_plain_llm_states_usage_in_its_output() -> None:
    result = LLMResult(
        generations=[[]], llm_output={"token_usage": {"prompt_tokens": 7, "completion_tokens": 2}, "model_name": "m"}
    )
    assert usage_of_result(result) == Usage(input_tokens=7, output_tokens=2, model="m")
    assert not counted_with_first(result)
    assert counted_with_first(LLMResult(generations=[[]], llm_output={"token_usage": {}}))


def test_a_reply_that_states_nothing_countable_has_no_usage() -> None:
    assert usage_of_message(AIMessage(content="x")) is None
    odd = AIMessage(content="x").model_copy(update={"usage_metadata": {"input_tokens": "many", "output_tokens": 1}})
    assert usage_of_message(odd) is None
    assert usage_of_result(LLMResult(generations=[[]])) is None


def test_a_total_cost_of_zero_marks_langchains_cache() -> None:
    assert is_cache_hit([stated(total_cost=0)])
    assert not is_cache_hit([stated()])
    assert not is_cache_hit([stated(total_cost=0), stated()])
    assert not is_cache_hit([])
    assert result_is_cache_hit(LLMResult(generations=[[ChatGeneration(message=stated(total_cost=0))]]))


@pytest.mark.parametrize(
    ("content", "size"), [("abc", 3), ("é", 2), ([{"type": "text", "text": "abc"}], 7), (None, 0), (12, 2)]
)
def test_text_is_counted_in_utf8_bytes(content: Any, size: int) -> None:
    assert text_bytes(content) == size
