"""``attach``: a budget around an agent that nobody has to touch.

LangChain asks its configure hooks at every run that starts: a handler found there is put on the run, and on everything
inside it. So one context variable covers every runnable of the block: models, chains, graphs, agents in tools.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar, Token
from typing import Final, Literal, TypeVar

from langchain_core.tracers.context import register_configure_hook

from agentbudget import InvalidRequest, Session
from agentbudget.runtime.steps.current import SESSION
from agentbudget_langchain.handler import DEFAULT_TIMEOUT, BudgetCallbackHandler
from agentbudget_langchain.holding import is_below

T = TypeVar("T")
_attached: Final[ContextVar[BudgetCallbackHandler | None]] = ContextVar("agentbudget_langchain_attached", default=None)
register_configure_hook(_attached, inheritable=True)


@contextlib.contextmanager
def attach(
    session: Session | None = None,
    *,
    handler_timeout: float = DEFAULT_TIMEOUT,
    assume_max_output_tokens: int | None = None,
    feature: str | None = None,
    on_refused: Literal["raise", "ask"] = "raise",
) -> Iterator[BudgetCallbackHandler]:
    """Hold credits for every model, tool and retriever that runs in the block, whoever calls it; see
    ``BudgetCallbackHandler``, whose arguments these are. Gives the handler.

    session: pays for everything in the block (a child of it that is current there pays for its own part), and is the
    current one there; it is neither opened nor closed by this. None: the session that is current at each call, and
    without one the call is refused.

    The context carries it: asyncio tasks and LangChain's own threads have it, a thread of yours has it by
    ``agentbudget.carry(work)``, another process by ``with handle.join() as session, attach(session)``. Raises
    ``InvalidRequest`` inside a block of another session: what one session pays for is not handed to another, only to
    its children."""
    outer = _attached.get()
    if outer is not None and outer.session is not None and session is not None and not is_below(session, outer.session):
        raise InvalidRequest(
            f"is {session.id}, but this code is attached to session {outer.session.id} already; attach one of its "
            "children, or leave that block first",
            "session",
        )
    handler = BudgetCallbackHandler(
        session,
        handler_timeout=handler_timeout,
        assume_max_output_tokens=assume_max_output_tokens,
        feature=feature,
        on_refused=on_refused,
    )
    attached = _attached.set(handler)
    current = None if session is None else SESSION.set(session)
    try:
        yield handler
    finally:
        if current is not None:
            _put_back(SESSION, current)
        _put_back(_attached, attached)


def _put_back(variable: ContextVar[T], token: Token[T]) -> None:
    """The value of before, unless the block is left in another context than it was entered in: that one never had it
    (a web framework may end a dependency in another thread)."""
    with contextlib.suppress(ValueError):
        variable.reset(token)
