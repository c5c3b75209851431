"""The bodies of replies that are read later: streams, and whatever a raw response is asked for.

The response that the SDK reads gets bytes that have passed the step: each event is counted, and the last one settles it before
it is handed on. So one place sees streams, stream helpers and raw responses alike, whichever way they are read, closed or left.
The response refers to the events only until somebody reads them: a dropped stream ends at once, without a circle to be found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from functools import cache
from typing import TYPE_CHECKING, Any

from agentbudget.catalog import Usage
from agentbudget.runtime.guards.api import END_OF_STREAM, Api, Heard, tokens_in, usage_in_json
from agentbudget.runtime.guards.sse import Event, Splitter

if TYPE_CHECKING:
    from agentbudget.runtime.steps.step import Step


def body_of(reply: Any) -> Any:
    """The HTTP response whose body the caller will read, None where the SDK has read it already. (A stream of events is still to
    be read where a hook of the HTTP client has read it ahead.)"""
    holders: tuple[Any, ...] = (getattr(reply, "http_response", None), getattr(reply, "response", None), reply)
    response = next((each for each in holders if hasattr(each, "iter_bytes") and hasattr(each, "is_closed")), None)
    if response is None or (response.is_closed and not _is_sse(response)):
        return None
    return response


def _is_sse(response: Any) -> bool:
    return "event-stream" in response.headers.get("content-type", "")


class Watch:
    """What one body has said so far. ``is_pulling``: more of it is being read right now, so that its closing is its end."""

    __slots__ = ("_api", "_request", "_waiting", "chunks", "heard", "is_pulling", "is_sse")

    def __init__(self, api: Api, request: Any, response: Any) -> None:
        self._api, self._request = api, request
        self._waiting = b""
        self.heard = Heard()
        self.is_pulling = False
        self.chunks: Any = None
        self.is_sse = _is_sse(response)

    def usage_of(self, event: Event) -> Usage | None:
        """The usage, with the event that ends the reply."""
        if event.data == END_OF_STREAM:
            self.heard = Heard(self.heard.usage, True)
        elif event.data is None:
            self.heard = Heard(self.heard.usage, self.heard.is_last)
        else:
            self.heard = self._api.heard(self._request, event.data, self.heard)
        return self.heard.usage if self.heard.is_last else None

    @staticmethod
    def tokens_of(event: Event) -> int:
        """How much output it brings, about."""
        return tokens_in(event.data)

    def events(self) -> Iterator[Event]:
        """A body of events, one by one."""
        splitter = Splitter()
        for chunk in self.pulled():
            yield from splitter.feed(chunk)
        yield from splitter.rest()

    async def aevents(self) -> AsyncIterator[Event]:
        """:meth:`events`, awaited."""
        splitter = Splitter()
        async for chunk in self.apulled():
            for event in splitter.feed(chunk):
                yield event
        for event in splitter.rest():
            yield event

    def shown(self, event: Event) -> bytes:
        """What the caller reads with the newest event: with what had to wait for it, without what he did not ask for."""
        kept = self._waiting
        if self.heard.waits:
            self._waiting = kept + event.raw
            return b""
        self._waiting = b""
        return kept if self.heard.is_extra else kept + event.raw

    def rest(self) -> bytes:
        """What waits when nothing follows."""
        kept, self._waiting = self._waiting, b""
        return kept

    def pulled(self) -> Iterator[bytes]:
        """The chunks, noting when one is waited for."""
        with closing(self.chunks):
            while True:
                self.is_pulling = True
                try:
                    chunk = next(self.chunks)
                except StopIteration:
                    return
                finally:
                    self.is_pulling = False
                yield chunk

    async def apulled(self) -> AsyncIterator[bytes]:
        """:meth:`pulled`, awaited."""
        async with aclosing(self.chunks):
            while True:
                self.is_pulling = True
                try:
                    chunk = await anext(self.chunks)
                except StopAsyncIteration:
                    return
                finally:
                    self.is_pulling = False
                yield chunk


class Passing:
    """What a watched response carries: its step, what was said, and the events that pass, until somebody reads them."""

    __slots__ = ("passed", "seen", "step")

    def __init__(self, step: Step, seen: Watch) -> None:
        self.step, self.seen = step, seen
        self.passed: Any = None


def watch(response: Any, step: Step, api: Api, request: Any) -> None:
    """Let the body of this response pass the step."""
    passing = Passing(step, seen := Watch(api, request, response))
    passing.passed = step.wrap(seen.events(), seen.usage_of, seen.tokens_of) if seen.is_sse else _whole(step, seen)
    cls: Any = type(response)
    response.__class__ = _watched(cls, iter_bytes=_iter_bytes, close=_close)
    response._agentbudget = passing


def awatch(response: Any, step: Step, api: Api, request: Any) -> None:
    """:func:`watch` for an asynchronous response."""
    passing = Passing(step, seen := Watch(api, request, response))
    passing.passed = step.awrap(seen.aevents(), seen.usage_of, seen.tokens_of) if seen.is_sse else _awhole(step, seen)
    cls: Any = type(response)
    response.__class__ = _watched(cls, aiter_bytes=_aiter_bytes, aclose=_aclose)
    response._agentbudget = passing


@cache
def _watched(cls: Any, **methods: Any) -> type:
    """The response's class, with these methods: whoever asks for the class still finds it."""
    return type(cls.__name__, (cls,), {**methods, "__module__": cls.__module__, "_agentbudget_base": cls})


def _iter_bytes(self: Any, chunk_size: int | None = None) -> Iterator[bytes]:
    passing: Passing = self._agentbudget
    passed, passing.passed = passing.passed, None  # whoever reads it holds it: no circle through the response
    if passed is None:
        yield from self._agentbudget_base.iter_bytes(self, chunk_size)
        return
    passing.seen.chunks = self._agentbudget_base.iter_bytes(self)
    with closing(passed):
        for event in passed:
            if shown := passing.seen.shown(event):
                yield shown
    if rest := passing.seen.rest():
        yield rest


async def _aiter_bytes(self: Any, chunk_size: int | None = None) -> AsyncIterator[bytes]:
    passing: Passing = self._agentbudget
    passed, passing.passed = passing.passed, None
    if passed is None:
        async with aclosing(self._agentbudget_base.aiter_bytes(self, chunk_size)) as parts:
            async for part in parts:
                yield part
        return
    passing.seen.chunks = self._agentbudget_base.aiter_bytes(self)
    async with aclosing(passed):
        async for event in passed:
            if shown := passing.seen.shown(event):
                yield shown
    if rest := passing.seen.rest():
        yield rest


def _close(self: Any) -> None:
    step, seen = self._agentbudget.step, self._agentbudget.seen
    if step.is_open and not seen.is_pulling:
        if seen.heard.is_last:
            step.settle()  # the reply was whole, but nobody stated what it cost: the hold is what may be claimed
        else:
            step.abandon()
    self._agentbudget_base.close(self)


async def _aclose(self: Any) -> None:
    step, seen = self._agentbudget.step, self._agentbudget.seen
    if step.is_open and not seen.is_pulling:
        if seen.heard.is_last:
            await step.asettle()
        else:
            step.abandon()
    await self._agentbudget_base.aclose(self)


def _whole(step: Step, seen: Watch) -> Iterator[Event]:
    """A body that is no stream of events: its last piece comes when it is settled. Left early it is charged whole, for the
    provider made all of it."""
    kept = [b""]
    try:
        for chunk in seen.pulled():
            yield Event(kept[-1])
            kept.append(chunk)
    except GeneratorExit:
        step.abandon()
        raise
    except BaseException as error:
        step.fail(error)
        raise
    step.settle(usage_in_json(b"".join(kept)))
    yield Event(kept[-1])


async def _awhole(step: Step, seen: Watch) -> AsyncIterator[Event]:
    """:func:`_whole`, awaited."""
    kept = [b""]
    try:
        async for chunk in seen.apulled():
            yield Event(kept[-1])
            kept.append(chunk)
    except GeneratorExit:
        step.abandon()
        raise
    except BaseException as error:
        await step.afail(error)
        raise
    await step.asettle(usage_in_json(b"".join(kept)))
    yield Event(kept[-1])
