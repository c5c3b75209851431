"""Estimates: a bound is never below what a tokenizer counts, and never fails."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel

from agentbudget import InvalidRequest
from agentbudget.catalog import estimate_input
from agentbudget.catalog.estimate import IMAGE_TOKENS, TEMPLATE_TOKENS, TOOL_PROMPT_TOKENS

WINDOW = 1_000_000
rs_bpe = pytest.importorskip("rs_bpe")


def bound(payload: Any, **options: Any) -> int:
    return estimate_input(payload, window=WINDOW, **options).tokens


def test_a_bound_is_the_bytes_of_the_serialised_request() -> None:
    messages = [{"role": "user", "content": "héllo"}]
    assert bound(messages) == len('[{"role":"user","content":"héllo"}]'.encode())
    assert bound("héllo") == len("héllo".encode()) + TEMPLATE_TOKENS
    assert bound(b'{"a":1}') == 7 + TEMPLATE_TOKENS


@given(st.text())
def test_no_text_has_more_tokens_than_its_bound(text: str) -> None:
    counted = max(rs_bpe.openai.o200k_base().count(text), rs_bpe.openai.cl100k_base().count(text))
    assert bound(text) >= counted
    assert bound([{"role": "user", "content": text}]) >= counted + 8


@given(st.text(), st.lists(st.text(), max_size=5))
def test_the_exact_count_never_passes_the_bound(text: str, others: list[str]) -> None:
    messages = [{"role": "user", "content": other} for other in [text, *others]]
    for payload in (text, messages, {"messages": messages}):
        exact = estimate_input(payload, method="exact", model="gpt-5", window=WINDOW)
        assert exact.tokens <= bound(payload)


def test_exact_counts_with_the_tokenizer_of_the_model_and_falls_back_where_there_is_none() -> None:
    text = "The quick brown fox jumps over the lazy dog"
    estimates = {
        model: estimate_input(text, method="exact", model=model, window=WINDOW) for model in MODELS_AND_METHODS
    }
    assert {model: estimate.method for model, estimate in estimates.items()} == MODELS_AND_METHODS
    assert estimates["gpt-5"].tokens == rs_bpe.openai.o200k_base().count(text) + 8


MODELS_AND_METHODS = {
    "gpt-5": "exact",
    "openai/gpt-4.1-mini": "exact",
    "gpt-3.5-turbo": "exact",
    "claude-sonnet-4-5": "bound",
    None: "bound",
}


def test_exact_does_not_count_pictures() -> None:
    payload = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]
    assert estimate_input(payload, method="exact", model="gpt-5", window=WINDOW).method == "bound"


def test_typical_is_half_the_bytes_rounded_up() -> None:
    assert bound("abc", method="typical") == 2


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="bound, exact or typical"):
        estimate_input("x", method="guess", window=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["bound", "exact", "typical"])
def test_no_estimate_passes_the_context_window(method: Any) -> None:
    assert estimate_input("word " * 10_000, method=method, model="gpt-5", window=100).tokens == 100


def test_langchain_messages_are_bounded_by_what_is_sent_of_them() -> None:
    call = {"name": "search", "args": {"query": "x" * 500}, "id": "c1"}
    plain = [
        SystemMessage("be brief"),
        HumanMessage([{"type": "text", "text": "y" * 300}]),
        AIMessage("", tool_calls=[call]),
        ToolMessage("z" * 200, tool_call_id="c1"),
    ]
    assert 1_000 < bound(plain) < 2_000
    bloated = [plain[0].model_copy(update={"response_metadata": {"logprobs": "w" * 9_000}}), *plain[1:]]
    assert bound(bloated) == bound(plain)


def test_tool_definitions_and_inline_pictures_add_what_their_bytes_do_not_show() -> None:
    body = {"messages": [], "tools": [{"name": "f"}]}
    assert bound(body) == len(msgspec.json.encode(body)) + TOOL_PROMPT_TOKENS
    picture = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}]
    assert bound(picture) == len(msgspec.json.encode(picture)) + IMAGE_TOKENS


REFERENCES = [
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}],
    [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}],
    [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://example.com/a"}}]}],
    [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}],
    [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
    [{"role": "user", "content": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]}],
    [HumanMessage([{"type": "image", "url": "https://example.com/a.png"}])],
    [HumanMessage([{"type": "image", "source_type": "id", "id": "file-1"}])],
    {"contents": [{"parts": [{"fileData": {"fileUri": "gs://bucket/a", "mimeType": "image/png"}}]}]},
    {"input": [{"type": "item_reference", "id": "msg_1"}]},
    {"input": "go on", "previous_response_id": "resp_1"},
    {"input": "go on", "conversation": "conv_1"},
    {"input": "go on", "prompt": {"id": "pmpt_1"}},
    b'{"input": "go on", "previous_response_id": "resp_1"}',
]


@pytest.mark.parametrize("payload", REFERENCES)
@pytest.mark.parametrize("method", ["bound", "exact", "typical"])
def test_an_input_by_reference_holds_the_window_whatever_the_method(payload: Any, method: Any) -> None:
    estimate = estimate_input(payload, method=method, model="gpt-5", window=WINDOW)
    assert (estimate.tokens, estimate.by_reference) == (WINDOW, True)


@pytest.mark.parametrize(
    "payload",
    [
        "see https://example.com/a.png and previous_response_id",
        '{"previous_response_id": "quoted in a prompt"}',
        [{"role": "user", "content": "https://example.com/a.png"}],
        [{"role": "user", "content": 'say {"file_id": "x"}'}],
        [AIMessage("", tool_calls=[{"name": "fetch", "args": {"url": "https://example.com"}, "id": "1"}])],
        [{"type": "tool_use", "name": "f", "input": {"type": "image", "url": "https://example.com"}}],
        {"prompt": "complete this", "previous_response_id": None},
        {"conversation": [], "messages": []},
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
    ],
)
def test_a_link_that_nobody_follows_is_no_reference(payload: Any) -> None:
    assert not estimate_input(payload, window=WINDOW).by_reference


@pytest.mark.parametrize(
    "payload",
    [
        [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
        {"modalities": ["text", "audio"], "messages": []},
        [{"type": "file", "mime_type": "audio/mp3", "base64": "AA"}],
    ],
)
def test_audio_is_noticed(payload: Any) -> None:
    assert estimate_input(payload, window=WINDOW).audio


class Payload(BaseModel):
    text: str


@dataclass
class Plain:
    text: str


class Odd:
    def __init__(self, text: str) -> None:
        self.text = text


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Endless:
    @property
    def content(self) -> Any:
        return Endless()

    additional_kwargs: Any = None


def circle() -> Any:
    items: list[Any] = []
    items.append({"items": items})
    return items


TEXT = "é" * 1_000
READABLE = [Payload(text=TEXT), Plain(TEXT), Odd(TEXT), [Odd(TEXT)], {(1, 2): TEXT}, {Decimal(1): [TEXT]}, {1: {TEXT}}]


@pytest.mark.parametrize("payload", READABLE, ids=lambda payload: type(payload).__name__)
def test_odd_objects_are_read_never_shorter_than_their_text(payload: Any) -> None:
    assert 2_000 <= bound(payload) < 20_000


UNREADABLE = [circle(), Hostile(), [Hostile()], Endless(), (n for n in [1]), [iter([TEXT])]]


@pytest.mark.parametrize("payload", UNREADABLE, ids=lambda payload: type(payload).__name__)
def test_what_cannot_be_read_holds_the_window(payload: Any) -> None:
    estimate = estimate_input(payload, window=WINDOW)
    assert (estimate.tokens, estimate.by_reference) == (WINDOW, True)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_does_not_fail(text: str) -> None:
    for payload in (text, [{"content": text}]):
        assert bound(payload) >= 3


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(json_like)
def test_no_payload_fails_and_each_is_at_least_its_texts(payload: Any) -> None:
    estimate = estimate_input(payload, window=10**9)
    texts: list[str] = []
    waiting = [payload]
    while waiting:
        node = waiting.pop()
        texts += [node] if isinstance(node, str) else []
        waiting += node if isinstance(node, list) else [*node, *node.values()] if isinstance(node, dict) else []
    assert estimate.tokens >= sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
