"""Streams of a step: metered while they run, settled by their last word, cut before they pass what can be held, and charged
for what came when they are left.

A usage is a stream's last word unless it can be seen to be a running total: it stands in the first item, or in one that brings
output. Of running totals the largest counts, never the sum; what is said again after the end counts once.

A stream that is being closed may be running inside the garbage collector, so it never waits for the owner: it hands the end over,
and whoever leaves the step's body next waits for the answer."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from agentbudget.catalog import Usage
from agentbudget.errors import BudgetDenied, OwnerUnavailable
from agentbudget.runtime.host import Plan, arun, run
from agentbudget.runtime.steps import ends

if TYPE_CHECKING:
    from agentbudget.runtime.steps.step import Step

T = TypeVar("T")
_log = logging.getLogger("agentbudget")

GROWS_BY: Final = 1_024
"""Output tokens that a stream gets at a time beyond its cap: asked for once in some ten seconds of output. Where so many do not
fit, an eighth, and so on, down to what has come."""


class Meter:
    """What is known of a step's output while it comes. ``limit``: output tokens that the hold covers; ``seen``: the largest
    usage that was stated; ``grows_by``: how much more to ask for next; ``surely``: tokens that came, at the least.

    A request with a cap brings no more than that, unless its provider ignores it: only what surely came says so, for a count by
    bytes may be twice the truth, and would cut streams that keep their cap. Where a cap is only assumed, the count decides."""

    __slots__ = ("grows_by", "is_capped", "items", "limit", "seen", "surely")

    def __init__(self, step: Step) -> None:
        priced, ask = step._priced, step._ask
        self.limit = sys.maxsize if priced.cap is None or not priced.is_priced else priced.cap
        self.is_capped = ask.max_output_tokens is not None or ask.cap_enforced
        self.seen: Usage | None = None
        self.items, self.surely, self.grows_by = 0, step._came, GROWS_BY

    def beyond(self, came: int) -> int:
        """Output tokens that the hold does not cover; 0 or less where it does."""
        return (self.surely if self.is_capped else came) - self.limit

    def hear(self, usage: Usage, *, brings_output: bool, counts_tokens: bool) -> Usage | None:
        """Take in a usage that an item states; the whole usage, if it is the stream's last word."""
        is_total = self.items == 1 or (brings_output if counts_tokens else self.seen is not None)
        self.seen = usage if self.seen is None else Usage.merge_max(self.seen, usage)
        return None if is_total else self.seen


def heard(
    step: Step, meter: Meter, item: T, usage_of: Callable[[T], Usage | None], tokens_of: Callable[[T], int] | None
) -> Usage | None:
    """Count an item; the usage by which the step is to be settled now."""
    usage = usage_of(item)
    if step._state is not None:
        if usage is not None and meter.seen is not None and Usage.merge_max(meter.seen, usage) != meter.seen:
            meter.seen = Usage.merge_max(meter.seen, usage)
            _log.warning("step %s was settled by its stream's last usage, and then another one stated more", step.id)
        return None
    meter.items += 1
    tokens = tokens_of(item) if tokens_of is not None else 1 if usage is None else 0
    if tokens:
        step._came += tokens
        meter.surely += 1
    if usage is None:
        return None
    return meter.hear(usage, brings_output=tokens > 0, counts_tokens=tokens_of is not None)


def counted(step: Step, output_tokens: int, at_least: int | None) -> int:
    """Count output of an open step; how much of it the hold does not cover."""
    meter = step._metered()
    step._came += output_tokens
    meter.surely += output_tokens if at_least is None else at_least
    return meter.beyond(step._came) if step.is_open else 0


def keeping_up(step: Step, meter: Meter) -> Plan[None]:
    """Hold more for the output that came; where that is refused, end the step by what came and raise the refusal."""
    from agentbudget.runtime.steps import extending, reserving

    need = meter.beyond(step._came)
    try:
        while meter.grows_by > need:
            wanted = extending.wider(step._priced, meter.grows_by)
            if (yield from extending.grow(step, wanted, note=False)) is None:
                meter.limit += meter.grows_by
                return
            meter.grows_by //= 8
        refused = yield from extending.grow(step, extending.wider(step._priced, need), note=True)
    except OwnerUnavailable as error:
        with ends.unheard(step.id, error):
            yield from step._ending(partial(ends.cut, step, error))
        raise
    if refused is None:
        meter.limit += need
        return
    denied = BudgetDenied(refused)
    with ends.unheard(step.id, denied):
        yield from step._ending(partial(ends.cut, step, denied))
    yield from reserving.deny(step._of, refused)


class Stream(Generic[T]):
    """See ``Step.wrap``. ``close()`` leaves it."""

    __slots__ = ("__weakref__", "_is_over", "_items", "_meter", "_source", "_step", "_tokens_of", "_usage_of")

    def __init__(
        self,
        step: Step,
        items: Iterable[T],
        usage_of: Callable[[T], Usage | None],
        tokens_of: Callable[[T], int] | None,
    ) -> None:
        self._is_over, self._step, self._meter = False, step, step._metered()
        self._source, self._usage_of, self._tokens_of = items, usage_of, tokens_of
        self._items = iter(items)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._is_over:
            raise StopIteration
        step, meter = self._step, self._meter
        try:
            try:
                item = next(self._items)
            except StopIteration:
                self._is_over = True
                if step.is_open:
                    step.settle(meter.seen)  # whole, but without usage: the hold is what may be claimed
                raise
            usage = heard(step, meter, item, self._usage_of, self._tokens_of)
            if usage is not None:
                step.settle(usage)
            elif meter.beyond(step._came) > 0 and step._state is None:
                run(step._link.host, step._link.customer, keeping_up(step, meter))
            return item
        except StopIteration:
            raise
        except GeneratorExit:
            self.close()
            raise
        except BaseException as error:
            self._is_over = True
            with ends.unheard(step.id, error):
                step.fail(error)
            with _unmasked(step.id):
                _close(self._items, self._source)
            raise

    def close(self) -> None:
        """Leave it: the step is charged its input and what came, and the stream below is closed."""
        if not self._is_over:
            self._is_over = True
            self._step.abandon()
            _close(self._items, self._source)

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):  # closing what is below is its own collector's: here it might deadlock
            self._step.abandon()


class AsyncStream(Generic[T]):
    """See ``Step.awrap``. ``aclose()`` leaves it."""

    __slots__ = ("__weakref__", "_is_over", "_items", "_meter", "_source", "_step", "_tokens_of", "_usage_of")

    def __init__(
        self, step: Step, items: AsyncIterable[T], usage_of: Callable[[T], Usage | None],
        tokens_of: Callable[[T], int] | None,
    ) -> None:  # fmt: skip
        self._is_over, self._step, self._meter = False, step, step._metered()
        self._source, self._usage_of, self._tokens_of = items, usage_of, tokens_of
        self._items = aiter(items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._is_over:
            raise StopAsyncIteration
        step, meter = self._step, self._meter
        try:
            if not step._is_dispatched:
                await step.adispatched()
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                self._is_over = True
                if step.is_open:
                    await step.asettle(meter.seen)
                raise
            usage = heard(step, meter, item, self._usage_of, self._tokens_of)
            if usage is not None:
                await step.asettle(usage)
            elif meter.beyond(step._came) > 0 and step._state is None:
                await arun(step._link.host, step._link.customer, keeping_up(step, meter))
            return item
        except StopAsyncIteration:
            raise
        except GeneratorExit:  # whoever awaits is being closed: nothing may be awaited any more
            self._is_over = True
            step.abandon()
            raise
        except BaseException as error:
            self._is_over = True
            with ends.unheard(step.id, error):
                await step.afail(error)
            with _unmasked(step.id):
                await _aclose(self._items, self._source)
            raise

    async def aclose(self) -> None:
        """Leave it: the step is charged its input and what came, and the stream below is closed."""
        if not self._is_over:
            self._is_over = True
            self._step.abandon()
            await _aclose(self._items, self._source)

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self._step.abandon()


def _close(*streams: Any) -> None:
    for stream in streams:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


async def _aclose(*streams: Any) -> None:
    for stream in streams:
        close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
        closed = None if close is None else close()
        if inspect.isawaitable(closed):
            await closed


@contextlib.contextmanager
def _unmasked(step: str) -> Iterator[None]:
    """What goes wrong while a broken stream is closed must not hide why it broke."""
    try:
        yield
    except Exception as error:
        _log.warning("the broken stream of step %s could not be closed: %s", step, type(error).__name__)
