"""What a middleware tells the callbacks that fire inside it: "this call is mine".

A middleware opens a step, and LangChain's callbacks then announce the same call once more, from within. The first run
of the same kind and name inside an open :class:`Around` is that call: it is not held again, it only reports what it
sees (usage, partial output, an error), also where the middleware never gets a reply, as when parsing the paid reply
fails. Every further run inside is work of its own and is held on its own: a retry between us and the model, a
sub-agent, a tool's model.

``net`` puts a callback handler on every run that starts while it is set, without touching the caller's configuration.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from agentbudget.runtime.steps.current import announced

if TYPE_CHECKING:
    from agentbudget import Session, Step, Usage

_around: ContextVar[Around | None] = ContextVar("agentbudget_langchain_around", default=None)
_net: ContextVar[BaseCallbackHandler | None] = ContextVar("agentbudget_langchain_net", default=None)
register_configure_hook(_net, inheritable=True)  # LangChain's own way to add a handler by context; it removes doubles

_claims = threading.Lock()


class Around:
    """An open step of a middleware, and what the run inside it reported.

    started: LangChain announced the call, so the model (the tool) may have been reached. ended: it came back. cached:
    out of LangChain's cache. usage, error: what the run reported.
    """

    __slots__ = ("cached", "ended", "error", "session", "started", "step", "usage")

    def __init__(self, step: Step, session: Session) -> None:
        self.step, self.session = step, session
        self.started = self.ended = self.cached = False
        self.usage: Usage | None = None
        self.error: BaseException | None = None

    def claim(self, session: Session, kind: str, name: str | None = None) -> bool:
        """Whether a run that starts now is the call of this step. Yes at most once."""
        is_other = (
            kind != self.step.kind or session.id != self.session.id or (kind == "tool" and name != self.step.name)
        )
        if is_other or not self.step.is_open:
            return False
        with _claims:
            claimed, self.started = not self.started, True
        return claimed


def enclosing() -> Around | None:
    """The innermost middleware step around this code."""
    return _around.get()


@contextmanager
def inside(around: Around, net: BaseCallbackHandler) -> Iterator[None]:
    """Within the block, runs know the step around them, ``net`` sees every run, and a guarded client that makes the call does not
    hold it again."""
    step, handler = _around.set(around), _net.set(net)
    try:
        with announced(around.step):
            yield
    finally:
        _net.reset(handler)
        _around.reset(step)
