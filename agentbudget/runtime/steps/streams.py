"""Streams of a step: settled eagerly, counted while they run, charged for what came when they are left early.

A generator that is being closed may be running inside the garbage collector, so it never waits for the owner: it hands
the end over, and whoever leaves the step's body next waits for the answer."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from agentbudget.catalog import Usage

if TYPE_CHECKING:
    from agentbudget.runtime.steps.step import Step

T = TypeVar("T")


def wrapped(
    step: Step, items: Iterable[T], usage_of: Callable[[T], Usage | None], tokens_of: Callable[[T], int] | None = None
) -> Iterator[T]:
    """See ``Step.wrap``."""
    try:
        for item in items:
            usage = usage_of(item)
            if usage is None:
                step.count(1 if tokens_of is None else tokens_of(item))
            else:
                step.settle(usage)
            yield item
    except GeneratorExit:
        step.abandon()
        raise
    except BaseException as error:
        step.fail(error)
        raise
    if step.is_open:
        step.settle()  # whole, but without usage: the hold is what may be claimed


async def awrapped(
    step: Step,
    items: AsyncIterable[T],
    usage_of: Callable[[T], Usage | None],
    tokens_of: Callable[[T], int] | None = None,
) -> AsyncIterator[T]:
    """See ``Step.awrap``."""
    try:
        await step.adispatched()
        async for item in items:
            usage = usage_of(item)
            if usage is None:
                step.count(1 if tokens_of is None else tokens_of(item))
            else:
                await step.asettle(usage)
            yield item
    except GeneratorExit:
        step.abandon()
        raise
    except BaseException as error:
        await step.afail(error)
        raise
    if step.is_open:
        await step.asettle()
