"""A streamed reply whose step is counted as it comes, and settled before its last event is passed on.

The stream's class becomes one of ours below its own, so it stays what it was for whoever holds it: fallbacks, continuations and
deadlines read and write its attributes. Only its events are our own, from the first time somebody asks for them; until then the
stream takes the deadline that its caller sets.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.messages import PartEndEvent

from agentbudget import Usage
from agentbudget_pydantic_ai import jobs
from agentbudget_pydantic_ai.reply import stated, tokens_of_event, told

if TYPE_CHECKING:
    from pydantic_ai.models import StreamedResponse

    from agentbudget import Step
    from agentbudget.runtime.steps.streams import AsyncStream

_classes: Final[dict[type, type]] = {}
_classing: Final = threading.Lock()


class Reading:
    """One stream while it is read: what it has stated, and how its step ends."""

    def __init__(self, stream: StreamedResponse, step: Step) -> None:
        self.stream, self._step = stream, step
        self._reported: Usage | None = None
        self._source: AsyncIterator[Any] | None = None
        self.events: AsyncStream[Any] = step.awrap(self, self._usage_of_event, tokens_of_event)
        stream.__class__ = _class_of(type(stream))
        stream._agentbudget = self  # type: ignore[attr-defined]

    def hear(self, usage: Any) -> None:
        """A usage that the provider reported. Pydantic AI adds up those that come in several chunks; they are totals."""
        heard = stated(usage, self.stream.model_name)
        if heard is not None:
            self._reported = heard if self._reported is None else Usage.merge_max(self._reported, heard)

    @property
    def usage(self) -> Usage | None:
        """What was stated so far."""
        return self._reported or stated(self.stream.usage, self.stream.model_name)

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> Any:
        if self._source is None:
            self._source = _events_of(self.stream)
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            await self._end()
            raise
        except Exception as error:
            await self._step.afail(told(error))
            raise

    async def leave(self) -> None:
        """End what nobody reads any more, for whatever reason: the reply had begun, so it is charged its input and what came."""
        if self._step.is_open:
            await self._step.afail(GeneratorExit())
        await self.events.aclose()

    def _usage_of_event(self, event: Any) -> Usage | None:
        """The whole usage with the event that ends the last part, which comes when the provider has said everything. What is
        stated before (Anthropic: the input, and a token of output) is no more than what came."""
        is_last = isinstance(event, PartEndEvent) and event.next_part_kind is None
        return self.usage if is_last and self.stream.state != "suspended" else None

    async def _end(self) -> None:
        """The events are over: because all was said, or because the stream was cancelled or broke off."""
        reply = self.stream.get()
        if jobs.is_running(reply):
            await jobs.guessed(self._step, reply)
        elif reply.state in ("complete", "suspended"):
            await self._step.asettle(self.usage)
        else:
            await self._step.afail(GeneratorExit())


def _events_of(stream: Any) -> AsyncIterator[Any]:
    """The events as the stream's own class gives them, which keeps them for whoever asks again."""
    kept, stream._event_iterator = stream._event_iterator, None
    try:
        events: AsyncIterator[Any] = type(stream)._agentbudget_base.__aiter__(stream)
        return events
    finally:
        stream._event_iterator = kept


def _aiter(self: Any) -> AsyncIterator[Any]:
    if self._event_iterator is None:
        self._event_iterator = self._agentbudget.events
    events: AsyncIterator[Any] = self._event_iterator
    return events


def _add_usage(self: Any, usage: Any, *, reported: bool, **how: Any) -> None:
    type(self)._agentbudget_base._add_usage(self, usage, reported=reported, **how)
    if reported:
        self._agentbudget.hear(usage)


def _class_of(cls: type) -> type:
    with _classing:
        if cls not in _classes:
            body = {"__aiter__": _aiter, "_add_usage": _add_usage, "_agentbudget_base": cls}
            names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
            _classes[cls] = type(cls)(cls.__name__, (cls,), {**body, **names})
        return _classes[cls]
