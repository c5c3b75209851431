"""The port to an owner, and how a plan of commands is run over it, blocking or awaiting.

A *plan* is a generator that yields commands and is sent their answers: what to ask is written once, and :func:`run` and
:func:`arun` are the two faces of it (DESIGN.md §7: async never blocks the event loop).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer
from agentbudget.errors import AgentBudgetError, OwnerUnavailable

T = TypeVar("T")


class Waiting(Protocol):
    """What a plan may yield beside a command: something that ends by calling ``done`` with a value (or an error), once, from
    any thread; ``done`` must not be called before ``start`` returns while the caller holds a lock that it takes."""

    def start(self, done: Callable[[Any], None]) -> None: ...


class Pause(Struct, frozen=True):
    """A plan that yields this goes on after so many seconds."""

    seconds: float


Plan: TypeAlias = Generator[Command | Waiting | Pause, Any, T]
OnAnswer: TypeAlias = Callable[[Answer | AgentBudgetError], None]


class Beat(Struct, frozen=True):
    """A process that holds leases says once a second that it lives: of which customers it has some, and the ordinal of the
    newest catalog that was published to it (0: none)."""

    holder: str
    customers: tuple[str, ...] = ()
    catalog: int = 0


class Beaten(Struct, frozen=True):
    """The answer: by customer the leases whose idle amounts are asked back (a changed limit, a pause, a stop, another's
    need), until each was answered by a renewal that has heard of the number ``told``; and a newer catalog, where one was
    published."""

    recall: dict[str, tuple[str, ...]] = {}
    catalog: int = 0
    document: bytes = b""
    told: dict[str, int] = {}


class Host(Protocol):
    """Carries commands to the owner. ``live``: ids of the steps that this process still works on (their holds do not
    lapse by silence). ``timeout_seconds``: how long a caller waits for one answer."""

    live: set[str]
    timeout_seconds: float

    @property
    def owner(self) -> str:
        """Who owns the ledger now, for people; empty while nobody does."""
        ...

    @property
    def is_owner(self) -> bool:
        """Whether this process looks after what dead ones of the machine left: one of them does, where it can the owner."""
        ...

    def late(self, seconds: float) -> OwnerUnavailable:
        """What to raise when no answer came for so long: it names the owner, or says why there is none."""
        ...

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        """The owner's answer, or its error raised. Blocks (``timeout_seconds``, else the host's); raises
        ``OwnerUnavailable`` when none came in time, and then the command may still be carried out: the same command
        again is safe."""
        ...

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        """Hand a command over without waiting; ``done`` is called once with its answer or error, from any thread, and
        must not block. Takes no lock, so a finalizer may call it. Raises ``OwnerUnavailable`` when nobody can take
        it."""
        ...

    def beat(self, beat: Beat) -> Beaten:
        """One plain call: the holder's leases live on for another TTL. Blocks for a short time; raises
        ``OwnerUnavailable`` when no answer came."""
        ...

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Call this, from any thread, when the owner has something to ask back. It must not block."""
        ...

    def publish_catalog(self, document: bytes) -> int:
        """Tell every process of the ledger of a new catalog; its ordinal."""
        ...

    def sweep(self) -> None:
        """End what is overdue now, instead of within a second."""
        ...

    def close(self) -> None:
        """Answer what waits, keep what is held, give the ledger up. Again: nothing."""
        ...


def run(host: Host, customer: str, plan: Plan[T], timeout_seconds: float | None = None) -> T:
    """Run a plan on this thread; each answer may take ``timeout_seconds``, else what the host allows."""
    try:
        command = next(plan)
        while True:
            try:
                answer = _asked(host, customer, command, timeout_seconds)
            except BaseException as error:  # the plan decides: even an interrupt must give back what it may have held
                command = plan.throw(error)
            else:
                command = plan.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _asked(host: Host, customer: str, what: Any, timeout_seconds: float | None) -> Any:
    if isinstance(what, Pause):
        return time.sleep(what.seconds)
    if not hasattr(what, "start"):
        return host.ask(customer, what, timeout_seconds)
    slot = Slot()
    what.start(slot.put)
    seconds = host.timeout_seconds if timeout_seconds is None else timeout_seconds
    if not slot.wait(seconds):
        raise host.late(seconds)
    if isinstance(slot.answer, Exception):
        raise slot.answer
    return slot.answer


class Slot:
    """Where one blocked caller finds its answer."""

    __slots__ = ("_lock", "answer")

    def __init__(self) -> None:
        self.answer: Any = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def put(self, answer: Any) -> None:
        self.answer = answer
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)


async def arun(host: Host, customer: str, plan: Plan[T]) -> T:
    """Run a plan on this event loop, which goes on meanwhile."""
    try:
        command = next(plan)
        while True:
            try:
                answer = await _aask(host, customer, command)
            except BaseException as error:  # as in run; a cancelled task is told the plan too
                command = plan.throw(error)
            else:
                command = plan.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def _aask(host: Host, customer: str, what: Any) -> Any:
    if isinstance(what, Pause):
        return await asyncio.sleep(what.seconds)
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[Any] = loop.create_future()

    def done(answer: Any) -> None:
        try:
            loop.call_soon_threadsafe(_resolve, waiting, answer)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
            waiting.cancel()

    if hasattr(what, "start"):
        what.start(done)
    else:
        host.submit(customer, what, done)
    late = loop.call_later(host.timeout_seconds, _is_late, waiting, host)
    try:
        return await waiting
    finally:
        late.cancel()


def _is_late(waiting: asyncio.Future[Any], host: Host) -> None:
    _resolve(waiting, host.late(host.timeout_seconds))


def _resolve(waiting: asyncio.Future[Any], answer: Any) -> None:
    if waiting.done():
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


def ignore(answer: Answer | AgentBudgetError) -> None:
    """For a command whose answer nobody waits for: what it should have done is done by lapse (law L5)."""


def no_answer_within(seconds: float, owner: str = "") -> OwnerUnavailable:
    return OwnerUnavailable(
        f"no answer within {seconds:g} s", owner, "it may still be carried out: send it again with the same key"
    )
