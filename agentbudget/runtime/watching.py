"""What the runtime shows to whoever watches it (``agentbudget/telemetry``): sessions, steps, and what owners do for them.

Where nobody watches, a session's ``seen`` is None and everything here is one comparison. The trace that a command belongs to
travels beside it: with its callback inside a process, in the message to another one, never in the command itself, whose hash
says what was asked (law L4).
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentbudget import telemetry
from agentbudget.account.decision import Decision, SessionView
from agentbudget.errors import BudgetAbort, BudgetDenied, OwnerUnavailable
from agentbudget.ledger.journal import Batch
from agentbudget.runtime.host import Plan

if TYPE_CHECKING:
    from agentbudget.ledger.store import Store
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.asking import Ask
    from agentbudget.runtime.steps.step import Step
    from agentbudget.telemetry.seen import SessionSeen, StepSeen

T = TypeVar("T")
_asking: ContextVar[SessionSeen | StepSeen | None] = ContextVar("agentbudget_asking", default=None)
"""For whom commands are sent now."""
_LAPSES: Final = (b'"cause":"silent"', b'"cause":"max_seconds"')
"""What the record of a hold's end by lapse holds, and no text of a caller can: its quotes would be escaped."""


# --- sessions ---------------------------------------------------------------------------------------------------------------


def session_began(session: Session) -> SessionSeen | None:
    """Its span begins, where somebody watches."""
    watch = telemetry.watch()
    if watch is None:
        return None
    above = None if session.parent is None else session.parent.seen
    return watch.session(session.id, session.link.customer, is_leased=session.stated_mode == "leased", above=above)


def opening(session: Session, plan: Plan[None]) -> Plan[None]:
    """Its opening, watched; what it asks of the owner belongs to its span."""
    seen = session.seen
    if seen is None or seen.is_over:  # else another thread opens it too
        seen = session.seen = session_began(session)
    if seen is None:
        return (yield from plan)
    yield from _judged(seen, plan)
    seen.id = session.id


def session_entered(session: Session) -> None:
    """Spans of the body are its children. One that was closed or left begins again."""
    if session.seen is None or session.seen.is_over:
        session.seen = session_began(session)
    if session.seen is not None:
        session.seen.tokens.append(_made_current(session.seen))


def session_left(session: Session) -> None:
    """The body has ended; a named session goes on without this process."""
    seen = session.seen
    if seen is None:
        return
    for token in reversed(seen.tokens):  # the others are of other threads and tasks that are in it too
        if _reset(token):
            seen.tokens.remove(token)
            break
    if session.is_named:
        seen.closed()


def session_closed(seen: SessionSeen | None, view: SessionView | None) -> None:
    if seen is None:
        return
    if view is None:
        seen.closed()
    else:
        seen.closed(view.spent, view.remaining, view.steps, view.denials)


# --- steps ------------------------------------------------------------------------------------------------------------------


def at_once(seen: SessionSeen, step: Step, since_ns: int) -> Step:
    """A step that was decided here."""
    watched = step._seen = seen.step(step.kind, step.model, step.name)
    watched.start_ns -= time.perf_counter_ns() - since_ns
    priced = step._priced
    watched.begun(step.id, priced.amount, priced.estimate, by="lease", since_ns=since_ns, money=_money(step))
    return step


def asked(session: Session, ask: Ask, plan: Plan[Step]) -> Plan[Step]:
    """A step that the owner decides: what is asked for it belongs to its span."""
    if session.seen is None:
        return (yield from plan)
    seen = session.seen.step(ask.kind, ask.model, ask.name)
    step = yield from _judged(seen, plan)
    step._seen = seen
    name = step.id if ask.key is None else _hashed(ask.key)
    seen.begun(name, step._priced.amount, step._priced.estimate, money=_money(step))
    return step


def entered(step: Step) -> Any:
    """Spans of the body are the step's children; what :func:`left` wants back."""
    return None if step._seen is None else _made_current(step._seen)


def left(token: Any) -> None:
    if token is not None:
        _reset(token)


def _judged(seen: SessionSeen | StepSeen, plan: Plan[T]) -> Plan[T]:
    """The plan, under that span, which is told of a refusal and of an owner that does not answer."""
    try:
        return (yield from under(seen, plan))
    except (BudgetDenied, BudgetAbort) as refused:
        if refused.decision is not None:
            seen.denied(refused.decision)
        raise
    except OwnerUnavailable:
        seen.unavailable()
        raise


def under(seen: SessionSeen | StepSeen | None, plan: Plan[T]) -> Plan[T]:
    """The plan; its commands belong to that span."""
    if seen is None:
        return (yield from plan)
    token = _asking.set(seen)
    try:
        return (yield from plan)
    finally:
        with contextlib.suppress(ValueError):  # closed in another context than it began in
            _asking.reset(token)


def _money(step: Step) -> Callable[[int], tuple[float, str]] | None:
    """What a charge is in money, where the catalog priced it."""
    priced = step._priced
    return priced.catalog.money_of if priced.is_priced else None


def _hashed(key: str) -> str:
    """A caller's own key may say anything, and is nobody's business."""
    return f"key:{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _made_current(seen: SessionSeen | StepSeen) -> Any:
    from opentelemetry import context

    from agentbudget.telemetry.watcher import in_context

    return context.attach(in_context(seen.context))


def _reset(token: Any) -> bool:
    """Make current what was before; False where that was in another context."""
    try:
        token.var.reset(token)
    except ValueError:
        return False
    return True


# --- owners -----------------------------------------------------------------------------------------------------------------


class Traced:
    """Who is told an answer, and the trace it belongs to."""

    __slots__ = ("done", "trace")

    def __init__(self, done: Callable[[Any], None], trace: str) -> None:
        self.done, self.trace = done, trace

    def __call__(self, answer: Any) -> None:
        self.done(answer)


def traced(done: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same, with the trace that is asked for now."""
    trace = carried()
    return Traced(done, trace) if trace else done


def carried() -> str:
    """The trace that a command of this moment belongs to, as text; empty where nobody watches."""
    if telemetry.watch() is None:
        return ""
    from agentbudget.telemetry.spans import as_text, current_span

    seen = _asking.get()
    context = current_span().get_span_context() if seen is None else seen.context
    return as_text(context) if context.is_valid and context.trace_flags.sampled else ""


def handled(
    owner: str, requests: Sequence[tuple[str, Any]], traces: Callable[[], Sequence[str]], handle: Callable[[], T]
) -> T:
    """What an owner does with a batch; a span for each command that came with a trace. ``handle`` gives a reply for each."""
    watch = telemetry.watch()
    if watch is None:
        return handle()
    start_ns = time.time_ns()
    replies: Any = handle()
    carried = [
        (trace, type(command).__name__, _answer(reply))
        for trace, (_, command), reply in zip(traces(), requests, replies, strict=False)
        if trace
    ]
    if carried:
        watch.decided(owner, start_ns, len(requests), carried)
    return replies  # type: ignore[no-any-return]


def _answer(reply: Any) -> str:
    refused = (
        reply if isinstance(reply, Decision) else getattr(reply, "refused", None)
    )  # of a renewal, what became of its ask
    return "refused" if refused is not None and not refused.allowed else type(reply).__name__


def commit(journal: Store, batch: Batch) -> None:
    """Make a batch durable, and say how long that took."""
    watch = telemetry.watch()
    if watch is None:
        return journal.commit(batch)
    start_ns = time.perf_counter_ns()
    journal.commit(batch)
    took_ns = time.perf_counter_ns() - start_ns
    watch.committed(took_ns, sum(any(sign in sealed.record for sign in _LAPSES) for sealed in batch.entries))
