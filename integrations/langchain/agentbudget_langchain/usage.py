"""LangChain replies -> :class:`agentbudget.Usage`.

One run reports its usage in several places (each candidate, the final message, chunks): what counts is the maximum of
them, never the sum. A reply that LangChain took from its own cache says ``total_cost`` 0 and cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from agentbudget import InvalidRequest, Usage

_PLAIN_INPUT: Final = frozenset({"cache_read", "cache_creation", "audio"})
_PLAIN_OUTPUT: Final = frozenset({"reasoning", "audio"})


def report_of(result: Any) -> tuple[bool, Usage | None]:
    """:func:`result_is_cache_hit` and :func:`usage_of_result` (None where it is one) in one look."""
    generations = result.generations
    if len(generations) == 1 and len(generations[0]) == 1:  # one candidate, as nearly every call asks for
        message = getattr(generations[0][0], "message", None)
        stated = getattr(message, "usage_metadata", None)
        if stated and "total_cost" not in stated:
            return False, usage_of_message(message)
    cached = result_is_cache_hit(result)
    return cached, None if cached else usage_of_result(result)


def usage_of_result(result: Any) -> Usage | None:
    """The usage that an ``LLMResult`` states, or None. Of several candidates the maximum; else ``llm_output`` of a
    plain LLM."""
    usage: Usage | None = None
    for message in _messages(result):
        usage = merge(usage, usage_of_message(message))
    return usage if usage is not None else _from_output(getattr(result, "llm_output", None))


def usage_of_messages(messages: Iterable[Any]) -> Usage | None:
    """The usage of the replies of one call (a middleware sees the message, and a tool message for structured
    output)."""
    usage: Usage | None = None
    for message in messages:
        usage = merge(usage, usage_of_message(message))
    return usage


def usage_of_message(message: Any) -> Usage | None:
    """The usage of one message or chunk, or None where it states none, or nothing that can be counted."""
    stated = getattr(message, "usage_metadata", None)
    if not stated:
        return None
    try:
        return _plain(stated, message) or Usage.of(message)
    except InvalidRequest:
        return None  # a count that is no count: the caller then books the whole hold


def _plain(stated: Mapping[str, Any], message: Any) -> Usage | None:
    """The usual shape, read directly: what :meth:`Usage.of` would say, in a fifth of its time. None for any other
    shape."""
    into, out = stated.get("input_token_details") or {}, stated.get("output_token_details") or {}
    metadata = message.response_metadata
    if (
        not (_PLAIN_INPUT.issuperset(into) and _PLAIN_OUTPUT.issuperset(out))
        or "token_usage" in metadata
        or "input_tokens" not in stated
    ):
        return None
    return Usage(
        input_tokens=stated["input_tokens"],
        cache_read_tokens=into.get("cache_read") or 0,
        cache_write_tokens=into.get("cache_creation") or 0,
        input_audio_tokens=into.get("audio") or 0,
        output_tokens=stated.get("output_tokens") or 0,
        reasoning_tokens=out.get("reasoning") or 0,
        output_audio_tokens=out.get("audio") or 0,
        model=metadata.get("model_name") or metadata.get("model"),
    )


def merge(a: Usage | None, b: Usage | None) -> Usage | None:
    """The fieldwise maximum of two reports of one call."""
    if a is None or b is None:
        return a if b is None else b
    return Usage.merge_max(a, b)


def is_cache_hit(messages: Iterable[Any]) -> bool:
    """Whether LangChain answered from its own cache: no provider was called."""
    stated = [usage for m in messages if (usage := getattr(m, "usage_metadata", None)) is not None]
    return bool(stated) and all(usage.get("total_cost") == 0 and "total_cost" in usage for usage in stated)


def result_is_cache_hit(result: Any) -> bool:
    """:func:`is_cache_hit` for an ``LLMResult``."""
    return is_cache_hit(_messages(result))


def counted_with_first(result: Any) -> bool:
    """Whether a plain LLM of several prompts reported all usage on the first: LangChain then gives the others
    ``{}``."""
    output = getattr(result, "llm_output", None)
    return isinstance(output, Mapping) and output.get("token_usage") == {}


def text_bytes(content: Any) -> int:
    """UTF-8 bytes of text, or of the blocks of a message: no byte-level tokenizer makes more tokens of them."""
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode())
    if isinstance(content, Mapping):
        return sum(text_bytes(part) for part in content.values())
    if isinstance(content, (list, tuple)):
        return sum(text_bytes(part) for part in content)
    return 0 if content is None else len(str(content))


def _messages(result: Any) -> list[Any]:
    generations = getattr(result, "generations", None) or [[]]
    return [g.message for g in generations[0] if getattr(g, "message", None) is not None]


def _from_output(output: Any) -> Usage | None:
    stated = output.get("token_usage") or output.get("usage") if isinstance(output, Mapping) else None
    if not stated:
        return None
    try:
        usage = Usage.of(stated)
    except InvalidRequest:
        return None
    name = output.get("model_name")
    return Usage.merge_max(usage, Usage(model=name)) if isinstance(name, str) and name else usage
