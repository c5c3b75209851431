"""How a hold begins: opened or refused, extended, dispatched; and what a step would be answered. ``ending.py`` has the rest.

Law kept here: L3 and L12 (a hold passes every constraint or takes nothing).
"""

from __future__ import annotations

from collections.abc import Callable

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.admission import LEASED_STEPS, Admission, Request, refusal
from agentbudget.account.breaker import refused_too_often
from agentbudget.account.decide import Call, Decided, Made, amount_ok, event_of, replayed, step_ok
from agentbudget.account.decision import Decision, Done, Held, Recalling
from agentbudget.account.ending import open_of
from agentbudget.account.lanes import request_of
from agentbudget.account.matching import StepContext
from agentbudget.account.queueing import recalling_or_final
from agentbudget.account.recall import Ask
from agentbudget.account.sessions import tree_path
from agentbudget.account.state import Refusals
from agentbudget.account.wallet import hold_postings
from agentbudget.amounts import MAX_NANO
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict

MAX_HOLDS = 1_000_000
"""Open holds of one customer: far beyond any fleet's parallel steps, and the state still fits in memory."""
MAX_MEASURES = 32


def open_hold(call: Call) -> Decided:
    command: c.Hold = call.command
    if (before := replayed_hold(call)) is not None:
        return before, []
    _hold_ok(call, command)
    books = call.books
    session = books.rooms.get(command.session)
    if session is None:
        detail = f"there is no open session {command.session!r}"
        return refusal("session_closed", detail, need=command.amount, session=command.session), []
    lanes = books.lanes
    admission = None if books.recalls.tickets else lanes.admit(lanes.of(command, session), command, call.now_us)
    if admission is None:
        request = request_of(books.rooms, command, session)
        admission, wanted = judged(call, request, who=command.step)
        if not admission.allowed:
            return refused_or_recalling(call, request, admission, wanted)
        books.recalls.leave(command.step)
    event = e.HoldOpened(
        command.step, session.id, command.kind, command.amount, tuple(admission.slices), tuple(admission.marks),
        command.measures, command.ttl_us, command.dispatched, command.model, command.tool, command.provider,
        command.feature, command.fingerprint, command.rate, command.estimate, command.catalog,
    )  # fmt: skip
    refusals = books.refusals.get(session.id)
    if refusals is not None:
        refusals.in_row = 0
    return held(event), [Made(event, hold_postings(admission.slices), command.step)]


def held(event: e.HoldOpened) -> Held:
    """The answer that the entry of a hold stands for, now and at every replay."""
    return Held(event.step, event.amount, event.measures, event.slices)


def replayed_hold(call: Call) -> Held | None:
    """The answer of the hold that has this key; a tombstoned key holds nothing."""
    entry = call.hits.get(call.command.step)
    if entry is None:
        return None
    event = event_of(entry)
    if isinstance(event, e.Tombstoned):
        raise HoldResolved(call.command.step, "released")
    if entry.request != call.request or not isinstance(event, e.HoldOpened):
        raise KeyConflict(call.command.step, "Hold")
    return held(event)


def _hold_ok(call: Call, command: c.Hold) -> None:
    step_ok(command.step)
    amount_ok(command.amount, "amount")
    measures = command.measures
    if len(measures) > MAX_MEASURES:
        raise InvalidRequest(f"a step counts at most {MAX_MEASURES} measures", "measures")
    if measures and not (min(measures.values()) >= 0 and max(measures.values()) <= MAX_NANO):
        for measure, units in measures.items():
            amount_ok(units, measure)
    if len(call.books.state.holds) >= MAX_HOLDS:
        raise InvalidRequest(f"a customer may have at most {MAX_HOLDS} open holds", "step")


def judged(call: Call, request: Request, *, who: str, lease: str = "") -> tuple[Admission, Ask]:
    """What the judge says of a step, behind those who asked before it; and the step as the queue sees it. A top-up of a lease
    (a probe) gets nothing where anybody waits."""
    books, session = call.books, request.session
    assert session is not None
    admission = books.judge.judge(request, call.now_us)
    wanted = Ask(who, admission.rows, session, request.context, lease)
    if books.recalls.tickets:
        steps = books.judge.steps_row(session)
        wanted.rows = admission.rows if steps is None else [*admission.rows, steps]
        books.recalls.put_behind(wanted, call.now_us, everybody=bool(lease) and not request.hold.note_refusal)
        admission.rows = [row for row in wanted.rows if not (row[0] and row[12] == LEASED_STEPS)]
        admission.allowed = all(row[0] for row in admission.rows)
    return admission, wanted


def refused_or_recalling(
    call: Call, request: Request, admission: Admission, wanted: Ask
) -> tuple[Decision | Recalling, list[Made]]:
    """A refusal is a value and no entry; only a circuit that opens by it is one. Where leases hold what lacks, it is not
    said yet."""
    decision = call.books.judge.decision(request, admission)
    if not request.hold.note_refusal:
        return decision, []
    verdict = recalling_or_final(call, wanted, decision)
    if isinstance(verdict, Recalling):
        return verdict, []
    session, refusals = wanted.session, call.books.refusals.setdefault(wanted.session.id, Refusals())
    refusals.total += 1
    refusals.in_row += 1
    if session.stopped or session.closed:
        return verdict, []
    why = ""
    if admission.trip is not None and admission.trip.sticky:
        why = f"breaker {admission.trip.rule}: {admission.trip.detail}"
    elif refused_too_often(call.books.judge.rules(session), refusals):
        why = f"breaker refusals_in_row: {refusals.in_row} refusals in a row"
    return verdict, [Made(e.SessionStopped(session.id, why))] if why else []


def extend_hold(call: Call) -> Decided:
    command: c.ExtendHold = call.command
    if isinstance(before := replayed(call), e.HoldExtended):
        return Held(before.step, before.amount, before.measures, before.slices), []
    hold = open_of(call)
    amount_ok(command.amount, "amount")
    session = call.books.state.sessions[hold.session]
    more = c.Hold(
        command.step, hold.session, hold.kind, command.amount, command.measures, hold.model, hold.tool,
        feature=hold.feature,
    )  # fmt: skip
    request = request_of(call.books.rooms, more, session, count_step=False)
    admission = call.books.judge.judge(request, call.now_us, counted_us=hold.opened_us)
    if not admission.allowed:
        return call.books.judge.decision(request, admission), []
    event = e.HoldExtended(command.step, command.part, command.amount, tuple(admission.slices), command.measures)
    answer = Held(event.step, event.amount, event.measures, event.slices)
    return answer, [Made(event, hold_postings(admission.slices), call.key)]


def dispatch_hold(call: Call) -> Decided:
    if call.key is not None and call.key in call.hits:
        return Done(False, call.command.step), []
    hold = open_of(call)
    if hold.dispatched:
        return Done(False, hold.step), []
    return Done(True, hold.step), [Made(e.HoldDispatched(hold.step), key=call.key)]


def explain(call: Call) -> Decided:
    """The decision that ``Hold`` would get, made by the same judge; nothing is held."""
    command: c.Explain = call.command
    books = call.books
    session = books.rooms.get(command.hold.session) if command.hold.session else None
    if session is not None:
        request = request_of(books.rooms, command.hold, session)
    else:
        if command.hold.session:
            detail = f"there is no open session {command.hold.session!r}"
            return refusal("session_closed", detail, need=command.hold.amount, session=command.hold.session), []
        request_or_refusal = _outside(call, command)
        if isinstance(request_or_refusal, Decision):
            return request_or_refusal, []
        request = request_or_refusal
    return books.judge.decision(request, books.judge.judge(request, call.now_us)), []


def _outside(call: Call, command: c.Explain) -> Request | Decision:
    state = call.books.state
    for entity in command.entities:
        if entity != c.ROOT and entity not in state.parents:
            return refusal("unknown_entity", f"there is no entity {entity!r}", entity=entity)
    path = tree_path(state, [entity for entity in command.entities if entity != c.ROOT])
    hold = command.hold
    context = StepContext(hold.kind, hold.model, hold.tool, hold.feature, command.workflow, path)
    return Request(hold, context, path, call.books.limits.gates(path), None)


STEPS: dict[type, Callable[[Call], Decided]] = {
    c.Hold: open_hold,
    c.ExtendHold: extend_hold,
    c.DispatchHold: dispatch_hold,
    c.Explain: explain,
}
