"""Reading the usage out of the replies of providers and frameworks, without importing any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentbudget.catalog.usage import Usage
from agentbudget.errors import InvalidRequest

_TIERS = ("", "priority_", "flex_")
"""LangChain prefixes its detail keys with the service tier (langchain-openai)."""


def read_usage(reply: Any) -> Usage:
    """See :meth:`Usage.of`."""
    if isinstance(reply, Usage):
        return reply
    for find in (_langchain, _google, _with_usage, _bare):
        usage = find(reply)
        if usage is not None:
            return usage
    raise InvalidRequest(
        f"this {type(reply).__name__} states no usage: pass Usage(input_tokens=..., output_tokens=...) yourself, or "
        "for a stream ask the provider to report it (OpenAI: stream_options={'include_usage': True})",
        "reply",
    )


def _langchain(reply: Any) -> Usage | None:
    """A LangChain message (or ``{"raw": message}``, or an LLMResult): ``usage_metadata`` includes cached input for
    every provider."""
    message = _message(reply)
    stated = _get(message, "usage_metadata")
    if not isinstance(stated, Mapping) or "input_tokens" not in stated:
        return None
    into = _get(stated, "input_token_details")
    out = _get(stated, "output_token_details")
    one_hour = _count(into, "ephemeral_1h_input_tokens")
    # langchain-anthropic sets cache_creation to 0 when it gives the split by lifetime
    split = one_hour + _count(into, "ephemeral_5m_input_tokens")
    metadata = _get(message, "response_metadata")
    return Usage(
        input_tokens=_count(stated, "input_tokens"),
        cache_read_tokens=_tiered(into, "cache_read"),
        cache_write_tokens=max(_tiered(into, "cache_creation"), split),
        cache_write_1h_tokens=one_hour,
        output_tokens=_count(stated, "output_tokens"),
        reasoning_tokens=_tiered(out, "reasoning"),
        input_audio_tokens=_count(into, "audio"),
        output_audio_tokens=_count(out, "audio"),
        model=_text(metadata, "model_name") or _text(metadata, "model"),
        cost=_cost(_get(metadata, "token_usage")),
    )


def _message(reply: Any) -> Any:
    raw = _get(reply, "raw")
    if raw is not None and _get(raw, "usage_metadata") is not None:
        return raw
    generations = _get(reply, "generations")
    if isinstance(generations, list) and generations:
        first = generations[0][0] if isinstance(generations[0], list) and generations[0] else generations[0]
        return _get(first, "message")
    return reply


def _google(reply: Any) -> Usage | None:
    stated = _get(reply, "usage_metadata") or _get(reply, "usageMetadata")
    if stated is None:
        return None

    def count(snake: str, camel: str) -> int:
        found: int = _count(stated, snake) or _count(stated, camel)
        return found

    thoughts = count("thoughts_token_count", "thoughtsTokenCount")
    tool_prompt = count("tool_use_prompt_token_count", "toolUsePromptTokenCount")
    usage = Usage(
        input_tokens=count("prompt_token_count", "promptTokenCount") + tool_prompt,
        cache_read_tokens=count("cached_content_token_count", "cachedContentTokenCount"),
        output_tokens=count("candidates_token_count", "candidatesTokenCount") + thoughts,
        reasoning_tokens=thoughts,
        model=_text(reply, "model_version") or _text(reply, "modelVersion"),
    )
    return usage if usage.tokens else None


def _with_usage(reply: Any) -> Usage | None:
    """A reply object with ``usage`` in it; Responses stream events carry it under ``response``, Anthropic's under
    ``message``."""
    for holder in (reply, _get(reply, "response"), _get(reply, "message")):
        stated = _get(holder, "usage")
        usage = _provider_usage(stated, _text(holder, "model")) if stated is not None else None
        if usage is not None:
            return usage
    return None


def _bare(reply: Any) -> Usage | None:
    """The usage object itself."""
    return _provider_usage(reply, None)


def _provider_usage(stated: Any, model: str | None) -> Usage | None:
    if isinstance(stated, Usage):
        return stated
    if _get(stated, "prompt_tokens") is not None:
        return _openai(stated, model, "prompt_tokens", "completion_tokens")
    if _get(stated, "input_tokens") is None and _get(stated, "output_tokens") is None:
        return None
    if _get(stated, "input_token_details") is not None:
        return _langchain({"usage_metadata": stated})
    anthropic = ("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "server_tool_use")
    is_anthropic = any(_get(stated, name) is not None for name in anthropic)
    read: Callable[[Any, str | None], Usage] = _anthropic if is_anthropic else _openai_responses
    return read(stated, model)


def _openai_responses(stated: Any, model: str | None) -> Usage:
    return _openai(stated, model, "input_tokens", "output_tokens")


def _openai(stated: Any, model: str | None, into: str, out: str) -> Usage:
    """Chat completions and Responses; input includes cached tokens, output includes reasoning."""
    in_details = _get(stated, f"{into}_details")
    out_details = _get(stated, f"{out}_details")
    return Usage(
        input_tokens=_count(stated, into),
        cache_read_tokens=_count(in_details, "cached_tokens"),
        cache_write_tokens=_count(in_details, "cache_write_tokens"),
        output_tokens=_count(stated, out),
        reasoning_tokens=_count(out_details, "reasoning_tokens"),
        input_audio_tokens=_count(in_details, "audio_tokens"),
        output_audio_tokens=_count(out_details, "audio_tokens"),
        model=model,
        cost=_cost(stated),
    )


def _anthropic(stated: Any, model: str | None) -> Usage:
    """Messages API: ``input_tokens`` leaves out what was read from and written to the cache, so both are added."""
    read = _count(stated, "cache_read_input_tokens")
    split = _get(stated, "cache_creation")
    one_hour = _count(split, "ephemeral_1h_input_tokens")
    written = max(_count(stated, "cache_creation_input_tokens"), one_hour + _count(split, "ephemeral_5m_input_tokens"))
    return Usage(
        input_tokens=_count(stated, "input_tokens") + read + written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=one_hour,
        output_tokens=_count(stated, "output_tokens"),
        reasoning_tokens=_count(_get(stated, "output_tokens_details"), "thinking_tokens"),
        web_searches=_count(_get(stated, "server_tool_use"), "web_search_requests"),
        model=model,
    )


def _get(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    return None if holder is None or isinstance(holder, (str, bytes, list)) else getattr(holder, name, None)


def _count(holder: Any, name: str) -> Any:
    value = _get(holder, name)
    return 0 if value is None else value  # Usage refuses by name what is no count


def _tiered(holder: Any, name: str) -> Any:
    return sum(_count(holder, f"{tier}{name}") for tier in _TIERS)


def _text(holder: Any, name: str) -> str | None:
    value = _get(holder, name)
    return value if isinstance(value, str) and value else None


def _cost(stated: Any) -> Any:
    """Gateways such as OpenRouter state the cost of a call, in US dollars, inside the usage."""
    cost = _get(stated, "cost")
    return cost if isinstance(cost, (int, float)) and not isinstance(cost, bool) and cost >= 0 else None
