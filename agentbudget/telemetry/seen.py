"""What is watched: a session, a step. The runtime makes these and tells them what happens; they note it and hand it over.

Nothing here waits, takes a lock or calls an exporter, so that a step may end inside a lock, and inside the garbage collector.
The exception is a framework's own span: what is known is put on it when the step ends, because the span ends soon after.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from agentbudget.account.commands import ReleaseHold, SettleHold
from agentbudget.account.decision import Constraint, Decision
from agentbudget.amounts import Credits
from agentbudget.telemetry import names
from agentbudget.telemetry.spans import Event, Place, Value, Written, current_span, frameworks_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span, SpanContext

    from agentbudget.telemetry.watcher import Watch

NANO: Final = 1e9
UNIT: Final = "credit"
MAX_TEXT: Final = 200
"""Characters of a name on a span: names of models and tools come from whoever calls."""
OPEN, OVER, CORRECTED = 0, 1, 2


class SessionSeen:
    """One session as this process works in it."""

    __slots__ = (
        "__weakref__", "_born", "_place", "customer", "id", "is_leased", "is_over", "parent", "start_ns", "tokens", "watch",
    )  # fmt: skip

    def __init__(
        self, watch: Watch, session: str, customer: str, *, is_leased: bool, above: SessionSeen | None = None
    ) -> None:
        self.watch, self.id, self.customer, self.is_leased = watch, session, customer, is_leased
        self._born = watch.born
        current = current_span().get_span_context()
        self.parent = current if current.is_valid else None if above is None else above.context
        self.start_ns, self.is_over = time.time_ns(), False
        self._place = watch.place(names.SESSION, self.parent, self.start_ns)
        self.tokens: list[Any] = []
        watch.sessions.add(self)

    @property
    def context(self) -> SpanContext:
        """Its place in the trace."""
        return self._place.context

    def step(self, kind: str, model: str | None, name: str | None) -> StepSeen:
        """A step that asks."""
        return StepSeen(self, kind, model, name)

    def denied(self, decision: Decision) -> None:
        """It could not be opened."""
        event = Event(names.SESSION_DENIED, denial(self, decision), time.time_ns())
        self._end("denied", {}, (event,))

    def unavailable(self) -> None:
        """Nobody answered, so it was not opened."""
        self._end("unavailable", {})

    def closed(self, spent: int | None = None, remaining: int | None = None, steps: int = 0, denials: int = 0) -> None:
        """It was closed, or this process left it (``spent`` None). Amounts are nanocredits."""
        found: dict[str, Value] = {}
        if spent is not None:
            found = {names.CHARGED: spent / NANO, names.STEPS: steps, names.DENIALS: denials}
            if remaining is not None:
                found[names.REMAINING] = remaining / NANO
        self._end("left" if spent is None else "closed", found)

    def __del__(self) -> None:
        """Nobody closed it, and nobody can any more. Called by the collector."""
        if not self.is_over:
            self._end("left", {}, in_collector=True)

    def _end(
        self, outcome: str, more: dict[str, Value], events: tuple[Event, ...] = (), *, in_collector: bool = False
    ) -> None:
        if self.is_over or self._born != self.watch.born:  # what was begun before a fork is the parent's
            return
        self.is_over, end_ns = True, time.time_ns()
        attributes = {names.SESSION_ID: self.id, names.CUSTOMER_ID: self.customer, names.OUTCOME: outcome, **more}
        if names.CHARGED in more:
            attributes[names.UNIT] = UNIT
        self.watch.put(
            _of_session(self._place, self.parent, self.start_ns, end_ns, attributes, events), in_collector=in_collector
        )


def _of_session(
    place: Place, parent: SpanContext | None, start_ns: int, end_ns: int, attributes: dict[str, Value],
    events: tuple[Event, ...],
) -> Callable[[], Written]:  # fmt: skip
    """Without the session, which may be gone when it is written."""
    return lambda: Written(names.SESSION, place, parent, start_ns, end_ns, attributes, events)


class StepSeen:
    """One step. ``on``: the framework's span for it; ``decided_by``: lease or owner."""

    __slots__ = (
        "_place", "asked_ns", "charged", "decided_by", "decided_ns", "estimate", "held", "id", "is_leased", "kind", "model",
        "money", "name", "on", "parent", "session", "start_ns", "state", "watch",
    )  # fmt: skip

    def __init__(self, session: SessionSeen, kind: str, model: str | None, name: str | None) -> None:
        self.session, self.watch, self.kind, self.model, self.name = session, session.watch, kind, model, name
        self.start_ns, self.asked_ns = time.time_ns(), time.perf_counter_ns()
        self.id, self.estimate, self.decided_by, self.is_leased = "", "", "owner", session.is_leased
        self.held = self.charged = self.decided_ns = 0
        self.state = OPEN
        self.money: Callable[[int], tuple[float, str]] | None = None
        self._place: Place | None = None
        current = current_span()
        context = current.get_span_context()
        self.on: Span | None = None
        self.parent: SpanContext | None = context if context.is_valid else None
        if self.parent is not None and frameworks_span(current, kind):
            self.on = current

    @property
    def context(self) -> SpanContext:
        """Its place in the trace: the framework's span, or its own."""
        return self.on.get_span_context() if self.on is not None else self._placed().context

    def begun(
        self, step: str, held: int, estimate: str, *, by: str = "owner", since_ns: int = 0,
        money: Callable[[int], tuple[float, str]] | None = None,
    ) -> None:  # fmt: skip
        """It may run, on ``held`` nanocredits; decided here (``lease``) or at the owner; asked at ``since_ns``."""
        self.decided_ns = time.perf_counter_ns() - (since_ns or self.asked_ns)
        self.id, self.held, self.estimate, self.decided_by, self.money = step, held, estimate, by, money
        self.watch.open[id(self)] = self

    def denied(self, decision: Decision) -> None:
        """It may not run."""
        self.decided_ns = time.perf_counter_ns() - self.asked_ns
        self.held = decision.need.nano
        event = Event(names.STEP_DENIED, denial(self.session, decision, self), time.time_ns())
        reason = decision.reason or "refused"
        self._end("denied", None, 0, event, reason)

    def unavailable(self) -> None:
        """Nobody answered, so it did not run."""
        self.decided_ns = time.perf_counter_ns() - self.asked_ns
        self._end("unavailable", None, 0)

    def ended(self, state: str, charged: int = 0, overrun: int = 0, *, in_collector: bool = False) -> None:
        """It ended, or what it was charged by policy was corrected. Nanocredits."""
        if self.watch.open.pop(id(self), None) is not None:  # who takes it out ends it: once, whatever thread
            self._end(state, charged, overrun, in_collector=in_collector)
        elif state == "corrected" and self.state != CORRECTED:
            self.state = CORRECTED
            self._corrected(charged, overrun)

    def resolved(self, state: str, answer: Any) -> None:
        """:meth:`ended`, as the runtime's ``Settlement`` says it; None where nothing was answered."""
        if answer is None:
            self.ended(state)
        else:
            self.ended(state, answer.charged_nano, answer.overrun_nano)

    def abandoned(self, command: SettleHold | ReleaseHold) -> None:
        """It was left, and ends by policy. The garbage collector may call this."""
        if isinstance(command, SettleHold):
            self.ended(command.outcome, command.amount, in_collector=True)
        else:
            self.ended("released", in_collector=True)

    def forgotten(self) -> None:
        """Nobody here will end it."""
        self.watch.open.pop(id(self), None)
        self.state = OVER

    # --- handing over ---------------------------------------------------------------------------------------------------------

    def _end(
        self, outcome: str, charged: int | None, overrun: int, event: Event | None = None, reason: str = "",
        *, in_collector: bool = False,
    ) -> None:  # fmt: skip
        self.state = OVER
        self.charged = charged or 0
        end_ns = time.time_ns()
        if (
            self.on is not None
            and not in_collector
            and self._put_on_framework(outcome, self.charged, overrun, event, reason)
        ):
            self.watch.step_over(self, None, outcome, reason, charged, overrun, 0, event)
        else:
            self.on = None
            self.watch.step_over(
                self, lambda: self._written(end_ns, outcome, charged or 0, overrun, event, reason), outcome, reason, charged,
                overrun, 0, event, in_collector=in_collector,
            )  # fmt: skip

    def _corrected(self, charged: int, overrun: int) -> None:
        """A late settlement: a span of its own, linked to the step, wherever in whatever trace it came."""
        before, self.charged = self.charged, charged
        now_ns = time.time_ns()
        current = current_span().get_span_context()
        parent = current if current.is_valid else self.session.context

        def written() -> Written:
            link = self.context
            place = self.watch.place(names.LATE, parent, now_ns, (link,))
            attributes = self._attributes("corrected", charged, overrun)
            return Written(names.LATE, place, parent, now_ns, now_ns, attributes, (), (link,))

        more, less = max(0, charged - before), max(0, before - charged)
        self.watch.step_over(self, written, "corrected", "", more, overrun, less, None)

    def _put_on_framework(self, outcome: str, charged: int, overrun: int, event: Event | None, reason: str) -> bool:
        span = self.on
        try:
            if span is None or not span.is_recording():
                return False
            span.set_attributes({**self._attributes(outcome, charged, overrun, reason), **self._cost(outcome)})
            if event is not None:
                span.add_event(event.name, event.attributes, event.time_ns)
        except Exception as error:  # somebody else's span: whatever it does, the step has ended
            self.watch.failed(error)
        return True

    def _cost(self, outcome: str) -> dict[str, Value]:
        if self.money is None or outcome != "settled":
            return {}
        amount, currency = self.money(self.charged)
        return {names.COST_AMOUNT: amount, names.COST_CURRENCY: currency, names.COST_SOURCE: "local"}

    def _written(
        self, end_ns: int, outcome: str, charged: int, overrun: int, event: Event | None, reason: str
    ) -> Written:
        events = () if event is None else (event,)
        attributes, session = self._attributes(outcome, charged, overrun, reason), self.session
        place = self._placed()
        links: tuple[SpanContext, ...] = ()
        if session.context.trace_id != place.context.trace_id:
            links = (session.context,)
        return Written(names.STEP, place, self.parent, self.start_ns, end_ns, attributes, events, links)

    def _attributes(self, outcome: str, charged: int, overrun: int, reason: str = "") -> dict[str, Value]:
        session = self.session
        found: dict[str, Value] = {
            names.SESSION_ID: session.id, names.CUSTOMER_ID: session.customer, names.KIND: self.kind,
            names.OUTCOME: outcome, names.UNIT: UNIT, names.HELD: self.held / NANO, names.CHARGED: charged / NANO,
            names.DECIDED_BY: self.decided_by,
        }  # fmt: skip
        for key, value in (
            (names.STEP_ID, self.id), (names.MODEL, self.model), (names.NAME, self.name), (names.ESTIMATE, self.estimate),
            (names.REASON, reason),
        ):  # fmt: skip
            if value:
                found[key] = value[:MAX_TEXT]
        if overrun:
            found[names.OVERRUN] = overrun / NANO
        return found

    def _placed(self) -> Place:
        if self._place is None:
            if self.parent is None:
                self.parent = self.session.context
            self._place = self.watch.place(names.STEP, self.parent, self.start_ns)
        return self._place


def denial(session: SessionSeen, decision: Decision, step: StepSeen | None = None) -> dict[str, Value]:
    """A refusal as attributes: which constraint binds, and what would fit. Its wording stays out: it may quote its caller."""
    found: dict[str, Value | None] = {
        names.SESSION_ID: session.id, names.CUSTOMER_ID: session.customer, names.REASON: decision.reason,
        names.AFFORDABLE: _number(decision.affordable.amount),
        names.RETRY_AT: None if decision.retry_at is None else decision.retry_at.isoformat(),
    }  # fmt: skip
    if step is not None:
        found |= {names.KIND: step.kind, names.MODEL: step.model, names.NAME: step.name}
    if decision.binding is not None:
        found |= _constraint(decision.binding)
    return {
        key: value[:MAX_TEXT] if isinstance(value, str) else value
        for key, value in found.items()
        if value is not None and value != ""
    }


def _constraint(binding: Constraint) -> dict[str, Value | None]:
    return {
        names.CONSTRAINT_KIND: binding.kind, names.CONSTRAINT_ENTITY: binding.entity,
        names.CONSTRAINT_MEASURE: binding.measure, names.CONSTRAINT_WINDOW: binding.window,
        names.CONSTRAINT_MODE: binding.mode, names.CONSTRAINT_LIMIT: _number(binding.limit),
        names.CONSTRAINT_USED: _number(binding.used), names.CONSTRAINT_HELD: _number(binding.held),
        names.CONSTRAINT_REMAINING: _number(binding.remaining), names.CONSTRAINT_NEED: _number(binding.need),
    }  # fmt: skip


def _number(quantity: Credits | int | None) -> float | int | None:
    return quantity.nano / NANO if isinstance(quantity, Credits) else quantity
