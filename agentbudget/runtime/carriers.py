"""Carrying a session to where work runs: other threads, executors, other processes.

A context variable does not follow work into a thread that somebody else starts, and nothing follows it into a process. So it
is carried by hand: :func:`carry` for threads and thread pools, :meth:`SessionHandle.carry` for process pools, and the
handle itself for everything that can pickle (``multiprocessing``, queues, Ray).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar
from weakref import WeakSet

from msgspec import Struct

from agentbudget.account.commands import OnShort
from agentbudget.catalog import Catalog
from agentbudget.errors import InvalidRequest
from agentbudget.runtime.on_ray.host import RayHost
from agentbudget.runtime.session_terms import Mode
from agentbudget.runtime.settings import HostChoice, OwnerLifetime
from agentbudget.runtime.steps.asking import Caps
from agentbudget.runtime.steps.current import SESSION
from agentbudget.runtime.trace import in_trace, trace_here

if TYPE_CHECKING:
    from agentbudget.runtime.runtime import Runtime
    from agentbudget.runtime.session import Session

P = ParamSpec("P")
T = TypeVar("T")
_MEMORY: Final = "memory://"
MAX_JOINED: Final = 1_000
"""Sessions that carried work keeps joined in one process; more are joined again when their work comes back."""


def carry(work: Callable[P, T]) -> Callable[P, T]:
    """``work`` with the session, step and trace that are current now, for another thread: ``pool.submit(carry(work), x)``,
    ``Thread(target=carry(work))``. It may run many times, also at once. It does not pickle: across processes carry by
    ``session.handle().carry(work)``."""
    here = copy_context()

    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        return here.copy().run(work, *args, **kwargs)

    return carried


class SessionHandle(Struct, frozen=True):
    """A session as a value that pickles: where its ledger is and what owners it has on Ray, who it is, how this process serves
    it, and the trace it belongs to. ``with handle.join() as session:`` joins it; leaving detaches and never closes it."""

    ledger: str
    customer: str
    session: str
    mode: Mode = "leased"
    on_short: OnShort = "deny"
    caps: Caps = Caps()
    catalog: tuple[str, str, str] | None = None
    trace: dict[str, str] = {}
    holder: str = ""
    host: HostChoice = "auto"
    owners: int | None = None
    owner_lifetime: OwnerLifetime | None = None

    def __hash__(self) -> int:
        return hash((self.ledger, self.customer, self.session))

    @contextmanager
    def join(self, runtime: Runtime | None = None) -> Iterator[Session]:
        """The session, joined and current in the body, in its trace. ``runtime``: of the same ledger; by default one that this
        process has open, else one that is opened here and closed when the process ends. Raises ``InvalidRequest`` for a
        memory ledger of another process, and what opening a ledger or joining a session raises."""
        session = self.session_of(runtime)
        with in_trace(self.trace), session:
            yield session

    def carry(self, work: Callable[P, T]) -> Carried[P, T]:
        """``work``, to be run inside this session in whatever process calls it; pickles if ``work`` does."""
        return Carried(self, work)

    def session_of(self, runtime: Runtime | None = None) -> Session:
        """The session's object in this process; opened (joined) by its first use."""
        from agentbudget.runtime.session import Session
        from agentbudget.runtime.session_terms import Terms, terms_of

        found = runtime if runtime is not None else _runtime_for(self)
        link = found.link(self.customer)
        terms = terms_of(link, {"id": self.session})
        return Session(link, Terms(terms.command, True, self.on_short, self.caps, self.mode))


class Carried(Generic[P, T]):
    """Work that joins its session before it runs. Workers of a pool keep the session joined between two calls."""

    __slots__ = ("handle", "work")

    def __init__(self, handle: SessionHandle, work: Callable[P, T]) -> None:
        self.handle, self.work = handle, work

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with in_trace(self.handle.trace), _joined(self.handle):
            return self.work(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Carried, (self.handle, self.work)


def handle_of(session: Session, ledger: str, catalog: Catalog) -> SessionHandle:
    """See ``Session.handle``."""
    own = None if catalog == Catalog.bundled() else (catalog.text, catalog.format, catalog.source)
    host = session.link.host
    on_ray = (host.owners, host.owner_lifetime) if isinstance(host, RayHost) else (None, None)
    return SessionHandle(
        ledger, session.link.customer, session.id, session.stated_mode, session.on_short, session.caps, own, trace_here(),
        "" if session.link.holder is None else session.link.holder.id,
        "ray" if isinstance(host, RayHost) else "local", *on_ray,
    )  # fmt: skip


# --- the runtimes and sessions of this process ------------------------------------------------------------------------------

_open: WeakSet[Runtime] = WeakSet()
_opened_here: list[Runtime] = []
_sessions: dict[SessionHandle, Session] = {}
_lock = threading.Lock()


def register(runtime: Runtime) -> None:
    """Let handles of its ledger find this runtime."""
    _open.add(runtime)


def _runtime_for(handle: SessionHandle) -> Runtime:
    from agentbudget.runtime.runtime import Runtime

    with _lock:
        for runtime in list(_open):
            if _serves(runtime, handle):
                return runtime
        if handle.ledger == _MEMORY:
            raise InvalidRequest(
                "a memory ledger lives in one process; give the runtime a ledger that processes can share, as "
                "sqlite:///budget.db",
                "ledger",
            )
        catalog = None if handle.catalog is None else Catalog.loads(
            handle.catalog[0], format=handle.catalog[1], source=handle.catalog[2]  # type: ignore[arg-type]
        )  # fmt: skip
        runtime = Runtime.open(
            handle.ledger, catalog, handle.host, owners=handle.owners, owner_lifetime=handle.owner_lifetime
        )
        _opened_here.append(runtime)
        return runtime


def _serves(runtime: Runtime, handle: SessionHandle) -> bool:
    holder = runtime.holder
    if holder is None or runtime.is_closed or runtime.settings.ledger != handle.ledger:
        return False
    return handle.ledger != _MEMORY or holder.id == handle.holder


def session_here(handle: SessionHandle) -> Session:
    """The session in this process, open; it stays joined between two pieces of work. Blocks."""
    with _lock:
        session = _sessions.get(handle)
    if session is None:
        session = handle.session_of()
        with _lock:
            if len(_sessions) >= MAX_JOINED:
                _sessions.pop(next(iter(_sessions)))
            session = _sessions.setdefault(handle, session)
    return session.open()


@contextmanager
def _joined(handle: SessionHandle) -> Iterator[None]:
    token = SESSION.set(session_here(handle))
    try:
        yield
    finally:
        SESSION.reset(token)


def _forget() -> None:
    """In a forked child: a lock that another thread may have held."""
    global _lock
    _lock = threading.Lock()
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
