"""The session and step that this thread or task is in. Functions only: a context variable does not travel through
Ray."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from agentbudget.account.decision import Decision
from agentbudget.errors import BudgetDenied

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.step import Step

SESSION: ContextVar[Session | None] = ContextVar("agentbudget_session", default=None)
STEP: ContextVar[Step | None] = ContextVar("agentbudget_step", default=None)


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
