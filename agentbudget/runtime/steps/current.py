"""The session and step that this thread or task is in. Functions only: a context variable does not travel through
Ray."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from agentbudget.account.decision import Decision
from agentbudget.errors import BudgetDenied

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.step import Step

SESSION: ContextVar[Session | None] = ContextVar("agentbudget_session", default=None)
STEP: ContextVar[Step | None] = ContextVar("agentbudget_step", default=None)
CALLS: ContextVar[tuple[Step, ...]] = ContextVar("agentbudget_calls", default=())
_claimed: Final[weakref.WeakSet[Step]] = weakref.WeakSet()
_claims: Final = threading.Lock()


def current_session() -> Session | None:
    """The session of the innermost ``with session``, or None. Threads started by hand do not inherit it: pass the
    session, or run them in ``contextvars.copy_context()``."""
    return SESSION.get()


def current_step() -> Step | None:
    """The open step whose body this is, or None."""
    step = STEP.get()
    while step is not None and not step.is_open:  # a value may outlive its step where a framework shields its callbacks
        step = step.outer
    return step


def require_session(session: Session | None = None) -> Session:
    """The given session, else the current one; raises ``BudgetDenied`` (``no_session``) when there is none."""
    found = session or current_session()
    if found is None:
        raise BudgetDenied(
            Decision(
                False,
                "no_session",
                detail="no session is given and none is current",
                suggestions=("run the agent inside `with agentbudget.session(budget=...):`, or pass session=",),
            )
        )
    return found


def session_for(given: Session | None) -> Session:
    """The session a step belongs to: the current one, or the given one, or a child of the given one that is current (its budget
    is carved out of the given one, so both bind). Raises ``BudgetDenied`` (``no_session``) when there is none."""
    current = current_session()
    if given is None or current is None:
        return require_session(given)
    above: Session | None = current
    while above is not None and (above.id != given.id or above.link.customer != given.link.customer):
        above = above.parent
    return given if above is None else current


# --- one call, seen by a framework and by the client that it uses -------------------------------------------------------------


def announce(step: Step) -> None:
    """Say that a framework's step is open and its call about to be made: a guarded client that makes it from here does not hold
    it again. For frameworks that tell of a start and an end; around a call use :func:`announced`."""
    CALLS.set((*(open_one for open_one in CALLS.get() if open_one.is_open), step))


@contextmanager
def announced(step: Step) -> Iterator[None]:
    """:func:`announce` for the block."""
    token = CALLS.set((*CALLS.get(), step))
    try:
        yield
    finally:
        CALLS.reset(token)


def claim(step: Step) -> bool:
    """Whether a client's request that is made now is the call of this step. Yes once: what follows is work of its own."""
    with _claims:
        if step in _claimed:
            return False
        _claimed.add(step)
        return True


def claimed_step(session: Session, kind: str, model: str | None) -> Step | None:
    """The open step whose call a client's request is, claimed; None when nobody holds it yet. The innermost counts; further out
    are those that were announced together (a batch), as long as they are of the same model."""
    here = {id(step): step for step in (*CALLS.get(), *_around()) if step.is_open and step.session == session.id}
    newest = sorted(here.values(), key=lambda step: -step._started_us)
    alike = takewhile(lambda step: step.kind == kind and (step is newest[0] or step.model == model), newest)
    return next((step for step in alike if claim(step)), None)


def _around() -> tuple[Step, ...]:
    step = current_step()
    return () if step is None else (step,)
