"""``ScriptedChatModel`` behaves like a model where a budget can tell."""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add
from typing import Any

import pytest
from agentbudget_langchain import ScriptedChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool


@tool
def search(query: str) -> str:
    """Search."""
    return query


def test_replies_come_in_order_and_the_last_repeats() -> None:
    model = ScriptedChatModel(replies=["a", {"tool": "search", "args": {"query": "x"}}])
    said = [model.invoke("hi") for _ in range(3)]
    assert said[0].content == "a"
    assert [call["name"] for message in said[1:] for call in message.tool_calls] == ["search", "search"]
    assert said[1].tool_calls[0]["id"] != said[2].tool_calls[0]["id"]


def test_a_function_may_write_the_replies() -> None:
    model = ScriptedChatModel(replies=lambda messages: f"{len(messages)} messages")
    assert model.invoke("hi").content == "1 messages"


def test_usage_grows_with_what_is_sent_and_said() -> None:
    model = ScriptedChatModel(replies=["x" * 400])
    short, long = model.invoke("hi").usage_metadata, model.invoke("hi" * 400).usage_metadata
    tools = model.bind_tools([search]).invoke("hi").usage_metadata
    assert short is not None
    assert long is not None
    assert tools is not None
    assert short["output_tokens"] == 104
    assert long["input_tokens"] - short["input_tokens"] == 199
    assert tools["input_tokens"] > short["input_tokens"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_output_cap_is_obeyed_and_noted(name: str) -> None:
    model = ScriptedChatModel(replies=["x" * 400], reasoning_tokens=30)
    reply = model.invoke("hi", **{name: 50})
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 50
    assert reply.usage_metadata["output_token_details"] == {"reasoning": 30}
    assert len(reply.content) == 80
    assert reply.response_metadata["finish_reason"] == "length"
    assert model.caps == [50]


def test_a_stream_says_the_same_with_its_usage_last() -> None:
    model = ScriptedChatModel(replies=["one two three four five six seven", {"tool": "search", "args": {"query": "x"}}])
    chunks = list(model.stream("hi"))
    assert len(chunks) > 2
    whole: Any = reduce(add, chunks)
    assert whole.content == "one two three four five six seven"
    assert whole.usage_metadata == {**(whole.usage_metadata or {}), "output_tokens": 13}
    call: Any = reduce(add, model.stream("hi"))
    assert call.tool_calls[0]["args"] == {"query": "x"}


def test_it_works_asynchronously() -> None:
    async def go() -> list[Any]:
        model = ScriptedChatModel(replies=["a b c d e f"])
        return [await model.ainvoke("hi"), reduce(add, [chunk async for chunk in model.astream("hi")])]

    assert [message.content for message in asyncio.run(go())] == ["a b c d e f"] * 2


def test_errors_are_raised_after_the_request_was_received() -> None:
    model = ScriptedChatModel(replies=[TimeoutError("late")])
    with pytest.raises(TimeoutError):
        model.invoke("hi")
    assert len(model.received) == 1


def test_a_message_that_states_its_own_usage_keeps_it() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    reply = ScriptedChatModel(replies=[AIMessage(content="x", usage_metadata=usage)]).invoke("hi")
    assert reply.usage_metadata == usage
