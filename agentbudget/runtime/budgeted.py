"""``@budgeted``: work that spends somebody's session, wherever it runs: a Ray task, an actor, a process pool, a plain call.

The caller passes ``session.handle()`` (or the session itself) as any argument; the work gets the joined session in its place, and
it is the current one in the body. Ray may do the work again when its worker died: the sessions that it opens and the grants that
it makes are then the same ones, while every step is a new one, since a second model call costs a second time.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar, Unpack, overload

from agentbudget.errors import InvalidRequest
from agentbudget.runtime.carriers import SessionHandle, session_here
from agentbudget.runtime.ids import EXECUTION, Execution
from agentbudget.runtime.session import Session
from agentbudget.runtime.session_terms import SessionArguments
from agentbudget.runtime.steps.current import SESSION, require_session
from agentbudget.runtime.trace import in_trace

W = TypeVar("W", bound=Callable[..., Any])
_OWN: Final = "_agentbudget_session"
MAX_EXECUTIONS: Final = 1_000
"""Executions remembered in one process: an actor runs a few at once."""


@overload
def budgeted(work: W, /) -> W: ...
@overload
def budgeted(**child: Unpack[SessionArguments]) -> Callable[[W], W]: ...
def budgeted(work: Any = None, /, **child: Unpack[SessionArguments]) -> Any:
    """Run a function, or an actor's methods, in the session whose handle is among the arguments, else in the current one.

    ``child``: as ``session.child(...)`` takes it, then each call has a child session of its own, closed at its end (an actor: one
    for its life, the same after a restart). Put ``@ray.remote`` above it. In the call raises ``BudgetDenied`` when there is no
    session, or it has no room for the child."""
    if work is None:
        return functools.partial(_budgeted, child=child)
    return _budgeted(work, child={})


def _budgeted(work: Any, *, child: SessionArguments) -> Any:
    if isinstance(work, type):
        return _of_class(work, child)
    if inspect.isgeneratorfunction(work) or inspect.isasyncgenfunction(work):
        raise InvalidRequest(
            "a generator runs after its call has ended: budget what it calls, or open a session in it", "work"
        )
    if hasattr(work, "remote"):
        raise InvalidRequest("put @ray.remote above @budgeted, so that it runs in the worker", "work")
    return _of_function(work, child)


def _of_function(work: Callable[..., Any], child: SessionArguments) -> Callable[..., Any]:
    @functools.wraps(work)
    def run(*args: Any, **kwargs: Any) -> Any:
        given, session = _sessions_in(args, kwargs)
        with _within(given, session, child) as own:
            return work(*_given(args, own), **_given_by_name(kwargs, own))

    @functools.wraps(work)
    async def arun(*args: Any, **kwargs: Any) -> Any:
        given, session = await asyncio.to_thread(_sessions_in, args, kwargs)
        with _execution(), _traced(given):
            own = session if not child else await session.achild(**child)
            try:
                with _current(own):
                    return await work(*_given(args, own), **_given_by_name(kwargs, own))
            finally:
                if own is not session:
                    await own.aclose()

    return arun if inspect.iscoroutinefunction(work) else run


def _of_class(work: type, child: SessionArguments) -> type:
    """Its ``__init__`` joins the session, and its methods run in it."""
    begin = work.__init__  # type: ignore[misc]

    @functools.wraps(begin)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        given, session = _sessions_in(args, kwargs)
        with _execution(), _traced(given):
            own = session if not child else session.child(**child).open()
            setattr(self, _OWN, own)
            with _current(own):
                begin(self, *_given(args, own), **_given_by_name(kwargs, own))

    work.__init__ = __init__  # type: ignore[misc]
    for name, method in list(vars(work).items()):
        if inspect.isfunction(method) and not name.startswith("__"):
            setattr(work, name, _of_method(method))
    return work


def _of_method(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _execution(), _current(getattr(self, _OWN)):
            return method(self, *args, **kwargs)

    @functools.wraps(method)
    async def arun(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _execution(), _current(getattr(self, _OWN)):
            return await method(self, *args, **kwargs)

    return arun if inspect.iscoroutinefunction(method) else run


# --- the session -------------------------------------------------------------------------------------------------------------


def _sessions_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[SessionHandle | Session | None, Session]:
    """What was given, if anything was, and the open session it means. Blocks."""
    given = next((one for one in (*args, *kwargs.values()) if isinstance(one, SessionHandle | Session)), None)
    if isinstance(given, SessionHandle):
        return given, session_here(given)
    return given, require_session(given).open()


def _given(args: tuple[Any, ...], session: Session) -> tuple[Any, ...]:
    return tuple(session if isinstance(one, SessionHandle | Session) else one for one in args)


def _given_by_name(kwargs: dict[str, Any], session: Session) -> dict[str, Any]:
    return {name: session if isinstance(one, SessionHandle | Session) else one for name, one in kwargs.items()}


@contextmanager
def _within(given: object, session: Session, child: SessionArguments) -> Iterator[Session]:
    with ExitStack() as stack:
        stack.enter_context(_execution())
        stack.enter_context(_traced(given))
        own = stack.enter_context(session.child(**child)) if child else session
        stack.enter_context(_current(own))
        yield own


@contextmanager
def _current(session: Session) -> Iterator[None]:
    token = SESSION.set(session)
    try:
        yield
    finally:
        SESSION.reset(token)


def _traced(given: object) -> Any:
    return in_trace(given.trace if isinstance(given, SessionHandle) else {})


# --- the execution -----------------------------------------------------------------------------------------------------------

_executions: OrderedDict[tuple[str, int], Execution] = OrderedDict()


@contextmanager
def _execution() -> Iterator[None]:
    """Ids that are asked for in here come out the same when Ray does this work again."""
    found = _on_ray() if EXECUTION.get() is None else None
    if found is None:
        yield
        return
    execution = _executions.setdefault(found, Execution(found[0]))
    while len(_executions) > MAX_EXECUTIONS:
        _executions.popitem(last=False)
    token = EXECUTION.set(execution)
    try:
        yield
    finally:
        EXECUTION.reset(token)


def _on_ray() -> tuple[str, int] | None:
    """The name of the task that this is, which its repetitions share, and which of them it is; None when it is no task."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None
    task, actor = context.get_task_id(), context.get_actor_id()
    return (f"{actor}/{task}", context.worker.core_worker.get_current_task_attempt_number()) if task else None
