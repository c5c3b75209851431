"""A session: one agent run with a budget of its own, which every step of it passes."""

from __future__ import annotations

import contextlib
import logging
import time
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import msgspec

from agentbudget.account.commands import (
    CloseSession,
    FundSession,
    Kind,
    OnDenied,
    OnShort,
    OnUnknown,
    Read,
    SetPaused,
)
from agentbudget.account.decision import Decision, SessionView
from agentbudget.amounts import USD, Amount
from agentbudget.catalog import UnknownPrice
from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.runtime import watching
from agentbudget.runtime.fanning import fanning_out
from agentbudget.runtime.host import Plan, arun, run
from agentbudget.runtime.leases.session_leases import SessionLeases
from agentbudget.runtime.link import Link
from agentbudget.runtime.session_terms import Mode, SessionArguments, Terms, renamed, terms_of
from agentbudget.runtime.steps import reserving
from agentbudget.runtime.steps.asking import Ask, Caps, Priced, StepArguments, lease_key
from agentbudget.runtime.steps.current import SESSION
from agentbudget.runtime.steps.entry import StepEntry
from agentbudget.runtime.steps.step import Step
from agentbudget.runtime.views import SessionStatus, status_of

if TYPE_CHECKING:
    from agentbudget.runtime.carriers import SessionHandle
    from agentbudget.runtime.guards.callables import GuardArguments, Price, W
    from agentbudget.telemetry.seen import SessionSeen

T = TypeVar("T")
_log = logging.getLogger("agentbudget")


class Session:
    """Made by ``customer.session(...)``, ``session.child(...)`` or ``agentbudget.session(...)``.

    It is opened at the owner by its first use: ``with``, ``async with``, ``open()`` or its first step; a named one that
    is open is joined. Leaving ``with`` closes an unnamed session and detaches from a named one. Threads and tasks may
    share it."""

    __slots__ = (
        "__weakref__", "_denied", "_is_open", "_last", "_own", "_terms", "_tokens", "feature", "id", "link", "on_denied",
        "on_unknown", "parent", "seen", "workflow",
    )  # fmt: skip

    def __init__(self, link: Link, terms: Terms, *, parent: Session | None = None) -> None:
        self.link, self._terms, self.parent = link, terms, parent
        self.id = terms.command.session
        self.on_denied: OnDenied = terms.command.on_denied or (parent.on_denied if parent else "refuse")
        self.on_unknown: OnUnknown = terms.command.on_unknown or (parent.on_unknown if parent else "charge")
        self.feature: str | None = terms.command.feature or (parent.feature if parent else None)
        self.workflow: str | None = terms.command.workflow or (parent.workflow if parent else None)
        self._is_open = False
        self.seen: SessionSeen | None = None
        self._own: SessionLeases | None = None
        self._last: SessionView | None = None
        self._denied: Decision | None = None
        self._tokens: list[Token[Session | None]] = []

    def __repr__(self) -> str:
        return f"<Session {self.id} of {self.link.customer}>"

    @property
    def on_short(self) -> OnShort:
        return self._terms.on_short

    @property
    def caps(self) -> Caps:
        """How calls that state no output cap are bounded."""
        return self._terms.caps

    @property
    def max_output_tokens(self) -> int:
        """The output cap that a call without one gets."""
        return self._terms.caps.max_output_tokens

    @property
    def mode(self) -> Mode:
        """``leased`` or ``strict``, as this process serves it now: a leased session goes strict when rules of its breaker must
        see every process, and when the spool has no room."""
        return "strict" if self._own is not None and self._own.is_strict else self._terms.mode

    @property
    def stated_mode(self) -> Mode:
        """The mode that was asked for, which those who join with its handle ask for too."""
        return self._terms.mode

    @property
    def leases(self) -> SessionLeases | None:
        """What this process has leased for it; None in strict mode. For the library's own use."""
        own, holder = self._own, self.link.holder
        if own is None and self._terms.mode == "leased" and holder is not None:
            own = self._own = SessionLeases(holder, self.link.customer, self.id)
            own.on_unknown = self.on_unknown
            own.max_step_us = self._terms.command.max_step_us or own.max_step_us
        return own

    @property
    def is_named(self) -> bool:
        """Whether the caller named it, so that leaving ``with`` only detaches."""
        return self._terms.is_named

    # --- steps --------------------------------------------------------------------------------------------------------

    def reserve(self, kind: Kind, *, timeout_seconds: float | None = None, **what: Unpack[StepArguments]) -> Step:
        """Hold a step at once. Raises ``BudgetDenied`` (or ``BudgetAbort``) with the decision when it may not run, and
        ``OwnerUnavailable`` when no answer came (within ``timeout_seconds``, else the runtime's): it must not run then
        either (law L8)."""
        begun = self.at_once(kind, what)
        if isinstance(begun, Step):
            return begun
        return run(self.link.host, self.link.customer, reserving.reserve(self, *begun), timeout_seconds)

    def at_once(self, kind: Kind, what: StepArguments) -> Step | tuple[Ask, Priced | None]:
        """The step, where what is leased covers it, else what is asked and its cost, as far as it is known."""
        if not self._is_open or self._terms.mode == "strict":
            return Ask(kind=kind, **what), None
        link, since_ns = self.link, 0 if self.seen is None else time.perf_counter_ns()
        known = link.remembered.find(self, kind, what)
        if known is not None:
            ask, cost, key = known
        else:
            ask = Ask(kind=kind, **what)
            try:
                cost = reserving.priced(link, ask, self._terms.caps, self.workflow, self.feature)
            except UnknownPrice:
                return ask, None  # refused where refusals are
            key = lease_key(ask)
        return reserving.at_once(self, ask, cost, key, since_ns) or (ask, cost)

    async def areserve(self, kind: Kind, **what: Unpack[StepArguments]) -> Step:
        """:meth:`reserve`, awaited. A cancelled one gives back what it may have held."""
        begun = self.at_once(kind, what)
        return begun if isinstance(begun, Step) else await self.arun(reserving.reserve(self, *begun))

    def step(self, kind: Kind, **what: Unpack[StepArguments]) -> StepEntry:
        """The same as a context manager: ``with`` reserves on entry, ``async with`` awaits it; the body is the step's
        work."""
        return StepEntry(self, kind, {"dispatched": True, **what})

    def explain(self, kind: Kind, **what: Unpack[StepArguments]) -> Decision:
        """What :meth:`reserve` would answer now. Nothing is held or counted."""
        return self.run(reserving.explain(self, Ask(kind=kind, **what)))

    async def aexplain(self, kind: Kind, **what: Unpack[StepArguments]) -> Decision:
        """:meth:`explain`, awaited."""
        return await self.arun(reserving.explain(self, Ask(kind=kind, **what)))

    def guard(self, fn: W, *, kind: Kind = "tool", price: Price = None, **stated: Unpack[GuardArguments]) -> W:
        """``fn`` (a function, a coroutine function, a generator, any callable), each call of it a step of this session, or of a
        child of it that is current. ``price``: an amount, or a function of the call's arguments; None: the catalog's. The calls
        raise ``BudgetDenied`` before the work, beside what it raises."""
        from agentbudget.runtime.guards.callables import guarded

        return guarded(self, fn, kind, price, stated)

    # --- children -----------------------------------------------------------------------------------------------------

    def child(self, **stated: Unpack[SessionArguments]) -> Session:
        """A session whose budget is carved out of this one's when it is opened (by its first use; refused when there is
        no room). It adds entities to the path, never replaces them; without a budget it draws on this one directly."""
        terms = terms_of(self.link, stated, parent=self.id, inherited=self._terms)
        return Session(self.link, terms, parent=self)

    async def achild(self, **stated: Unpack[SessionArguments]) -> Session:
        """:meth:`child`, opened."""
        return await self.child(**stated).aopen()

    def fan_out(
        self, n: int, budget_each: Amount | USD, at_least: int | None = None, **stated: Unpack[SessionArguments]
    ) -> list[Session]:
        """Open ``n`` children at once, as many as fit; when fewer than ``at_least`` (default: all) fit, none and a
        refusal."""
        return self.run(fanning_out(self, n, budget_each, at_least, stated))

    async def afan_out(
        self, n: int, budget_each: Amount | USD, at_least: int | None = None, **stated: Unpack[SessionArguments]
    ) -> list[Session]:
        """:meth:`fan_out`, awaited."""
        return await self.arun(fanning_out(self, n, budget_each, at_least, stated))

    # --- the session itself -------------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Open it, or join the open one of its id. Again: nothing. Raises ``BudgetDenied`` when it may not be opened
        and ``KeyConflict`` when what is stated differs from what created it."""
        self.run(self.opening())
        return self

    async def aopen(self) -> Self:
        """:meth:`open`, awaited."""
        await self.arun(self.opening())
        return self

    def status(self) -> SessionStatus:
        """What it has spent, holds and has left. After ``close()``, what it had come to by then."""
        return self.run(self._reading())

    async def astatus(self) -> SessionStatus:
        """:meth:`status`, awaited."""
        return await self.arun(self._reading())

    def raise_if_denied(self) -> None:
        """Raise the last refusal that this object (or a child made from it) met, which a framework may have
        swallowed."""
        if self._denied is not None:
            raise reserving.refusal(self.on_denied, self._denied)

    def fund(self, amount: Amount | USD, key: str | None = None) -> None:
        """Raise the budget and end a stop. A child's parent must have the room. With a ``key`` it happens once (law
        L4)."""
        self.run(self._funding(amount, key))

    async def afund(self, amount: Amount | USD, key: str | None = None) -> None:
        """:meth:`fund`, awaited."""
        await self.arun(self._funding(amount, key))

    def pause(self, reason: str = "") -> None:
        """Refuse its steps until :meth:`resume`."""
        self.run(self._governing(SetPaused(f"session:{self.id}", True, reason)))

    async def apause(self, reason: str = "") -> None:
        """:meth:`pause`, awaited."""
        await self.arun(self._governing(SetPaused(f"session:{self.id}", True, reason)))

    def resume(self) -> None:
        """End a pause, a stop, and an open circuit."""
        self.run(self._governing(SetPaused(f"session:{self.id}", False)))

    async def aresume(self) -> None:
        """:meth:`resume`, awaited."""
        await self.arun(self._governing(SetPaused(f"session:{self.id}", False)))

    def close(self) -> None:
        """End it and its children: no further step. Steps still open end by themselves. Again: nothing."""
        self.run(self._closing())

    async def aclose(self) -> None:
        """:meth:`close`, awaited."""
        await self.arun(self._closing())

    def handle(self) -> SessionHandle:
        """A value that pickles, with which another thread or process joins this session (opened first), in its trace."""
        from agentbudget.runtime.carriers import handle_of

        self.open()
        return handle_of(self, self.link.ledger, self.link.catalog)

    # --- context manager ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.run(self.opening())
        watching.session_entered(self)
        self._tokens.append(SESSION.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if not self.is_named:
            with self._closing_may_fail(error):
                self.close()

    async def __aenter__(self) -> Self:
        await self.arun(self.opening())
        watching.session_entered(self)
        self._tokens.append(SESSION.set(self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if not self.is_named:
            with self._closing_may_fail(error):
                await self.aclose()

    def _leave(self) -> None:
        watching.session_left(self)
        if self._tokens:
            with contextlib.suppress(ValueError):  # entered in another context, whose value was never here
                SESSION.reset(self._tokens.pop())

    @contextlib.contextmanager
    def _closing_may_fail(self, error: BaseException | None) -> Any:
        """An unreachable owner must not hide why the body ended; its session then ends by its time to live."""
        try:
            yield
        except OwnerUnavailable:
            if error is None:
                raise
            _log.warning("session %s could not be closed; it ends by its time to live", self.id)

    # --- plans --------------------------------------------------------------------------------------------------------

    def run(self, plan: Plan[T]) -> T:
        """Run one of its plans on this thread. For the library's own use."""
        return run(self.link.host, self.link.customer, plan)

    async def arun(self, plan: Plan[T]) -> T:
        """The same on this event loop."""
        return await arun(self.link.host, self.link.customer, plan)

    def opening(self) -> Plan[None]:
        """The plan that opens it where it is not open; threads that do it at once send the same command."""
        if self._is_open:
            return
        if self.parent is not None:
            yield from self.parent.opening()
        yield from watching.opening(self, self._opening())

    def _opening(self) -> Plan[None]:
        if self.link.holder is not None:
            self.link.holder.start()
        yield from self.link.keep_plan()
        answer = yield from self.link.asked(self._terms.command)
        if isinstance(answer, Decision) and answer.reason == "session_closed" and not self.is_named:
            self._terms = renamed(self._terms, again=True)  # of work that is done again, and had come to its end before
            self.id = self._terms.command.session
            answer = yield from self.link.asked(self._terms.command)
        if isinstance(answer, Decision):
            self.note_denial(answer)
            raise reserving.refusal(self.on_denied, answer)
        if answer.joined:
            self._adopt((yield Read("session", self.id)))
        self._is_open = True

    def _adopt(self, view: SessionView) -> None:
        """What the session's creator chose counts for those who join it."""
        self.on_denied, self.on_unknown = view.on_denied, view.on_unknown  # type: ignore[assignment]
        self.feature, self.workflow = view.feature, view.workflow

    def note_denial(self, decision: Decision) -> None:
        """Remember a refusal for :meth:`raise_if_denied`, here and above."""
        self._denied = decision
        if self.parent is not None:
            self.parent.note_denial(decision)

    def _asking(self, command: Any) -> Plan[Any]:
        yield from self.opening()
        return (yield from self.link.asked(command))

    def _governing(self, command: Any) -> Plan[None]:
        """What changes whether its steps may run: none starts on what was leased before."""
        yield from self._asking(command)
        if self._own is not None:
            self._own.patterns.rest()
            yield from self._own.settling_up()

    def _reading(self) -> Plan[SessionStatus]:
        try:
            yield from self.opening()
            return status_of((yield from self.link.reading(Read("session", self.id))))
        except InvalidRequest:  # nothing of it is open any more, so its owner has put it away
            if self._last is None:
                raise
            return status_of(msgspec.structs.replace(self._last, state="closed"))

    def _funding(self, amount: Amount | USD, key: str | None) -> Plan[None]:
        answer = yield from self._asking(FundSession(self.id, self.link.nano(amount), key))
        if self._own is not None:
            self._own.patterns.rest()
        if isinstance(answer, Decision):
            yield from reserving.deny(self, answer)

    def _closing(self) -> Plan[None]:
        if not self._is_open and not self.is_named:
            return
        if self._own is not None:
            self._own.drain()
            yield from self._own.settling_up()
        yield from watching.under(self.seen, self._ending())
        watching.session_closed(self.seen, self._last)

    def _ending(self) -> Plan[None]:
        with contextlib.suppress(InvalidRequest):  # closed before, by somebody else
            self._last = yield Read("session", self.id)
        yield CloseSession(self.id)
