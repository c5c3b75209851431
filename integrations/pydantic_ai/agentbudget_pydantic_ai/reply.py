"""What a reply, a stream and an error state about the cost of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.exceptions import ModelAPIError, ModelConnectionError
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent

from agentbudget import InvalidRequest, Usage
from agentbudget.runtime.guards.api import tokens_in

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.usage import RequestUsage

_SAID: Final = ("content", "args", "tool_name", "content_delta", "args_delta", "tool_name_delta")


def usage_of(reply: ModelResponse) -> Usage | None:
    """The usage of a reply; None where the provider stated none."""
    return stated(reply.usage, reply.model_name)


def stated(usage: RequestUsage, model: str | None) -> Usage | None:
    """``RequestUsage`` has the counts as a catalog prices them: input includes what was read from and written to a cache. Its
    ``cost`` here is the provider's own: Pydantic AI writes its estimate in later."""
    if usage.unmeasured_requests or not (usage.input_tokens or usage.output_tokens):
        return None
    try:
        return Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.output_reasoning_tokens,
            input_audio_tokens=usage.input_audio_tokens,
            cache_audio_read_tokens=usage.cache_audio_read_tokens,
            output_audio_tokens=usage.output_audio_tokens,
            web_searches=getattr(usage, "web_searches", 0) or usage.details.get("web_search_requests", 0),
            cost=usage.cost,
            model=model or None,
        )
    except InvalidRequest:
        return None  # a count that is no count: the hold is charged


def tokens_of_event(event: Any) -> int:
    """How much output an event of a stream brings, about."""
    part = (
        event.part if isinstance(event, PartStartEvent) else event.delta if isinstance(event, PartDeltaEvent) else None
    )
    if part is None:
        return 0
    said = [getattr(part, name, None) for name in _SAID]
    return tokens_in({"delta": [each for each in said if isinstance(each, (str, dict))]})


def told(error: BaseException) -> BaseException | None:
    """The error that says whether a call was billed. Pydantic AI wraps a connection that was never made; and an error in a stream
    carries the status that it would have had before the stream began, which then proves nothing."""
    if not isinstance(error, ModelAPIError):
        return error
    if error.in_stream:
        return None
    return (error.__cause__ or error) if isinstance(error, ModelConnectionError) else error
