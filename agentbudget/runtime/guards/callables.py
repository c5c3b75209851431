"""``session.guard(fn)``: any callable, held before each call and settled after it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar

from agentbudget.account.commands import Kind
from agentbudget.amounts import USD, Amount
from agentbudget.catalog import Usage
from agentbudget.errors import InvalidRequest
from agentbudget.runtime.guards.api import usage_in
from agentbudget.runtime.steps.asking import MODEL_KINDS
from agentbudget.runtime.steps.current import session_for

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.step import Step

W = TypeVar("W", bound=Callable[..., Any])
Price: TypeAlias = Amount | USD | Callable[..., Amount | USD] | None


class GuardArguments(TypedDict, total=False):
    """What ``session.guard`` takes besides the kind and the price.

    name: of the tool, retriever or agent, for the catalog's rates (default: the callable's).  model, provider, max_output_tokens:
    of a model call.  usage_of: the ``Usage`` of a result, or (of a generator) of the item that ends it, None for the others;
    default: what a reply states, and of a retrieval the number of its documents.  feature: what the plan must entitle.
    """

    name: str
    model: str
    provider: str
    max_output_tokens: int
    usage_of: Callable[[Any], Usage | None]
    feature: str


def guarded(session: Session, work: W, kind: Kind, price: Price, stated: GuardArguments) -> W:
    """See ``Session.guard``."""
    if not callable(work):
        raise InvalidRequest(f"{type(work).__name__} cannot be called", "fn")
    found = inspect.unwrap(work)
    while isinstance(found, functools.partial):
        found = inspect.unwrap(found.func)
    body = found if inspect.isroutine(found) else type(found).__call__
    form: Any = _call
    if inspect.isasyncgenfunction(body):
        form = _astream
    elif inspect.isgeneratorfunction(body):
        form = _stream
    elif inspect.iscoroutinefunction(body):
        form = _acall
    asking = Asking(session, work, kind, price, stated)
    made: Any = functools.wraps(work)(form(asking, work))
    return made  # type: ignore[no-any-return]


class Asking:
    """How the calls of one callable are held, and what their results state."""

    def __init__(self, session: Session, work: Any, kind: Kind, price: Price, stated: GuardArguments) -> None:
        self._session, self._kind, self._price = session, kind, price
        self._usage_of = stated.get("usage_of")
        self._what: dict[str, Any] = {name: value for name, value in stated.items() if name != "usage_of"}
        if kind not in MODEL_KINDS:
            self._what.setdefault("name", getattr(work, "__name__", type(work).__name__))

    def reserve(self, args: Any, kwargs: Any) -> Step:
        return session_for(self._session).reserve(self._kind, **self._asked(args, kwargs))

    async def areserve(self, args: Any, kwargs: Any) -> Step:
        return await session_for(self._session).areserve(self._kind, **self._asked(args, kwargs))

    def usage(self, result: Any) -> Usage | None:
        """None: what was held is charged."""
        if self._usage_of is not None:
            return self._usage_of(result)
        if self._kind == "retrieval" and isinstance(result, (list, tuple)):
            return Usage(documents=len(result))
        return usage_in(result) if self._kind in MODEL_KINDS else None

    def usage_of_item(self, item: Any) -> Usage | None:
        return None if self._usage_of is None else self._usage_of(item)

    def _asked(self, args: Any, kwargs: Any) -> Any:
        price = self._price(*args, **kwargs) if callable(self._price) else self._price
        said = "request" if self._kind in MODEL_KINDS else "arguments"
        return {**self._what, "amount": price, said: [args, kwargs], "dispatched": True}


def _call(asking: Asking, work: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with asking.reserve(args, kwargs) as step:
            done = work(*args, **kwargs)
            if inspect.iscoroutine(done):
                done.close()
                step.release()  # nothing of it has run
                raise InvalidRequest(
                    "it returns a coroutine, but is no coroutine function: guard one that awaits it", "fn"
                )
            step.settle(asking.usage(done))
            return done

    return call


def _acall(asking: Asking, work: Any) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        async with await asking.areserve(args, kwargs) as step:
            done = await work(*args, **kwargs)
            await step.asettle(asking.usage(done))
            return done

    return call


def _stream(asking: Asking, work: Any) -> Callable[..., Iterator[Any]]:
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        step = asking.reserve(args, kwargs)
        with closing(step.wrap(work(*args, **kwargs), asking.usage_of_item)) as items:
            yield from items

    return call


def _astream(asking: Asking, work: Any) -> Callable[..., AsyncIterator[Any]]:
    async def call(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        step = await asking.areserve(args, kwargs)
        async with aclosing(step.awrap(work(*args, **kwargs), asking.usage_of_item)) as items:
            async for item in items:
                yield item

    return call
