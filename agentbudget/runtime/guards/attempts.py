"""One call of a guarded client: each HTTP attempt that may be billed is a step, or the attempt of a step that is open.

The SDKs try again by themselves, out of sight. Here they are told not to, and the same attempts are made from here: each is held
before it is sent, and ends by what became of it. Their order is written once, as a generator of what to do next; :func:`now` and
:func:`later` do it, blocking and awaiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from agentbudget.errors import BudgetAbort, BudgetDenied
from agentbudget.runtime.guards.api import Api, Body, Call, usage_in, usage_in_json
from agentbudget.runtime.guards.bodies import body_of
from agentbudget.runtime.steps.current import claimed_step, current_session, session_for
from agentbudget.runtime.steps.failures import proves_not_billed

if TYPE_CHECKING:
    from agentbudget.catalog import Usage
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.step import Step

T = TypeVar("T")
Deed: TypeAlias = Callable[[], Any]
Work: TypeAlias = Generator[Deed, Any, T]


class Guard(Struct, frozen=True, kw_only=True):
    """How a client is guarded. ``session``: whose budget pays, None for the current one at each call. ``in_steps``: only what it
    sends as the call of an open step is looked after: a framework holds its calls, and attempts that the SDK makes again are
    spend beside them."""

    api: Api
    session: Session | None = None
    feature: str | None = None
    in_steps: bool = False


class Sending(Protocol):
    """One request of one client, blocking or awaiting: each method returns at once or is awaited, as the client does."""

    retries: int
    """How often the SDK would try again."""

    def reserve(self, session: Session, call: Call, feature: str | None) -> Any: ...

    def send(self, body: Body, taken: int) -> Any: ...

    def pause(self, taken: int, error: BaseException) -> Any: ...

    def end(self, step: Step, error: BaseException | None, usage: Usage | None) -> Any: ...

    def watch(self, response: Any, step: Step, api: Api, request: Any) -> None: ...

    def is_tried_again(self, error: BaseException) -> bool:
        """Whether the SDK would try again after this."""
        ...

    def parsed(self) -> Any:
        """The reply as it was before the caller's own parser saw it, None when none came."""
        ...


def payer(guard: Guard, call: Call) -> tuple[Session, Step | None] | None:
    """The session that a call belongs to, and the open step whose call it is. None: nobody asked to look after it."""
    if guard.in_steps and current_session() is None and guard.session is None:
        return None
    session = session_for(guard.session)
    outer = claimed_step(session, call.kind, call.model)
    return None if guard.in_steps and outer is None else (session, outer)


def calling(
    guard: Guard, call: Call, path: str, body: Body, sending: Sending, session: Session, outer: Step | None
) -> Work[Any]:
    """The reply of a call, held and settled, or of an open step's. Raises ``BudgetDenied`` before an attempt that does not fit,
    and what the SDK raises."""
    if outer is None and body:
        body = guard.api.sent(path, body)
    taken, earlier = 0, None
    while True:
        step = outer if outer is not None else (yield from _held(guard, session, call, sending, earlier))
        sent = _bounded(call, body, step, outer)
        try:
            reply = yield lambda n=taken, b=sent: sending.send(b, n)  # type: ignore[misc]
        except BaseException as error:
            again = taken < sending.retries and sending.is_tried_again(error)
            if outer is None:
                yield lambda s=step, e=error: sending.end(s, e, _paid(sending, e))  # type: ignore[misc]
            elif again and not proves_not_billed(error):
                yield from _aside(guard, session, call, sending, error)
            if not again:
                raise
            yield lambda n=taken, e=error: sending.pause(n, e)  # type: ignore[misc]
            taken, earlier = taken + 1, error
            continue
        if outer is None:
            yield from _received(guard.api, call, step, sending, reply)
        return reply


def _held(guard: Guard, session: Session, call: Call, sending: Sending, earlier: BaseException | None) -> Work[Step]:
    """A step for an attempt. A refusal of a later one says what the earlier one had come to."""
    try:
        step: Step = yield lambda: sending.reserve(session, call, guard.feature)
        return step
    except (BudgetDenied, BudgetAbort) as refusal:
        raise refusal from earlier


def _aside(guard: Guard, session: Session, call: Call, sending: Sending, error: BaseException) -> Work[None]:
    """An attempt of an open step may have been billed, and is made again: the open step pays for the one that brings the reply,
    so this one gets a step of its own, which ends as it did."""
    step = yield from _held(guard, session, call, sending, error)
    yield lambda: sending.end(step, error, None)


def _received(api: Api, call: Call, step: Step, sending: Sending, reply: Any) -> Work[None]:
    """A reply has come, or its beginning."""
    response = body_of(reply)
    if response is not None:
        sending.watch(response, step, api, call.request)
        return
    usage = usage_in(sending.parsed() or reply) or usage_in_json(_content(reply))
    yield lambda: sending.end(step, None, usage)


def _bounded(call: Call, body: Body, step: Step, outer: Step | None) -> Body:
    """The body with the output cap that the hold rests on. A step that others opened holds by what they know of the call; only
    a cap that it counts on being written is written."""
    cap = step.max_output_tokens
    if call.cap_name is None or cap is None or cap == call.cap:
        return body
    if outer is not None and (call.cap is not None or not outer._ask.cap_enforced):
        return body
    return {**body, call.cap_name: cap}


def _paid(sending: Sending, error: BaseException) -> Usage | None:
    """The usage of a reply that came, and that could not be parsed."""
    reply = sending.parsed() or getattr(error, "completion", None)
    if reply is not None:
        return usage_in(reply)
    return None if proves_not_billed(error) else usage_in_json(_content(error))


def _content(holder: Any) -> bytes:
    """The body of the HTTP response that a reply or an error rests on, as far as it was read."""
    for response in (getattr(holder, "http_response", None), getattr(holder, "response", None), holder):
        content = getattr(response, "_content", None)
        if isinstance(content, bytes):
            return content
    return b""


def now(work: Work[T]) -> T:
    """Do the work on this thread."""
    try:
        deed = next(work)
        while True:
            try:
                done = deed()
            except BaseException as error:  # the work decides what its failure means
                deed = work.throw(error)
            else:
                deed = work.send(done)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def later(work: Generator[Callable[[], Awaitable[Any]], Any, T]) -> T:
    """Do the work on this event loop."""
    try:
        deed = next(work)
        while True:
            try:
                done = await deed()
            except BaseException as error:  # a cancelled task is told to the work too
                deed = work.throw(error)
            else:
                deed = work.send(done)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
