"""The life of a hold: opened or refused, extended, dispatched, settled in parts, ended exactly once, corrected at most once.

Laws kept here: L3 (a hold passes every constraint or takes nothing), L4 and L5 (ends are found by their key), L11 (what a step
really cost is booked, whatever it passes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.admission import Admission, Request, refusal
from agentbudget.account.breaker import refused_too_often
from agentbudget.account.decide import (
    Call,
    Decided,
    Made,
    amount_ok,
    event_of,
    issue_postings,
    replayed,
    step_ok,
    total_ok,
)
from agentbudget.account.decision import Decision, Done, Held, Settled
from agentbudget.account.lanes import request_of
from agentbudget.account.matching import StepContext
from agentbudget.account.sessions import tree_path
from agentbudget.account.state import HoldState, Refusals, SessionState, Slice, refund_grant
from agentbudget.account.wallet import burn_postings, give_back, hold_postings, move_postings, split
from agentbudget.amounts import MAX_NANO
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict
from agentbudget.ledger.entry import CONSUMED, HELD, ISSUED, OVERDRAFT, PAYMENTS, RECEIVABLE, Posting

MAX_HOLDS = 1_000_000
"""Open holds of one customer: far beyond any fleet's parallel steps, and the state still fits in memory."""
MAX_MEASURES = 32


def open_hold(call: Call) -> Decided:
    command: c.Hold = call.command
    if (before := replayed_hold(call)) is not None:
        return before, []
    _hold_ok(call, command)
    session = call.books.rooms.get(command.session)
    if session is None:
        detail = f"there is no open session {command.session!r}"
        return refusal("session_closed", detail, need=command.amount, session=command.session), []
    lanes = call.books.lanes
    admission = lanes.admit(lanes.of(command, session), command, call.now_us)
    if admission is None:
        request = request_of(call.books.rooms, command, session)
        admission = call.books.judge.judge(request, call.now_us)
        if not admission.allowed:
            return _refused(call, request, admission, session)
    event = e.HoldOpened(
        command.step, session.id, command.kind, command.amount, tuple(admission.slices), tuple(admission.marks),
        command.measures, command.ttl_us, command.dispatched, command.model, command.tool, command.provider,
        command.feature, command.fingerprint, command.rate, command.estimate, command.catalog,
    )  # fmt: skip
    refusals = call.books.refusals.get(session.id)
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


def _refused(call: Call, request: Request, admission: Admission, session: SessionState) -> Decided:
    """A refusal is a value and no entry; only a circuit that opens by it is one."""
    decision = call.books.judge.decision(request, admission)
    refusals = call.books.refusals.setdefault(session.id, Refusals())
    made: list[Made] = []
    if not request.hold.note_refusal:
        return decision, made
    refusals.total += 1
    refusals.in_row += 1
    if session.stopped or session.closed:
        return decision, made
    if admission.trip is not None and admission.trip.sticky:
        made.append(Made(e.SessionStopped(session.id, f"breaker {admission.trip.rule}: {admission.trip.detail}")))
    elif refused_too_often(call.books.judge.rules(session), refusals):
        made.append(Made(e.SessionStopped(session.id, f"breaker refusals_in_row: {refusals.in_row} refusals in a row")))
    return decision, made


def extend_hold(call: Call) -> Decided:
    command: c.ExtendHold = call.command
    if isinstance(before := replayed(call), e.HoldExtended):
        return Held(before.step, before.amount, before.measures, before.slices), []
    hold = _open(call)
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
    hold = _open(call)
    if hold.dispatched:
        return Done(False, hold.step), []
    return Done(True, hold.step), [Made(e.HoldDispatched(hold.step), key=call.key)]


def _open(call: Call) -> HoldState:
    """The open hold a command is about; HoldResolved with how it ended, InvalidRequest when it never was."""
    step = call.command.step
    hold = call.books.state.holds.get(step)
    if hold is not None:
        return hold
    ended = call.hits.get(f"{step}#end")
    if ended is not None:
        raise HoldResolved(step, _ended(ended_event(call)))
    raise InvalidRequest(f"there is no hold {step!r}", "step")


def ended_event(call: Call) -> e.HoldSettled:
    """The end of a hold that has one."""
    event = event_of(call.hits[f"{call.command.step}#end"])
    assert isinstance(event, e.HoldSettled)
    return event


def _ended(event: e.HoldSettled) -> str:
    return "settled" if event.state in ("settled", "partial") else "released" if event.state == "released" else "lapsed"


def settle_hold(call: Call) -> Decided:
    command: c.SettleHold = call.command
    amount_ok(command.amount, "amount")
    if command.part is not None:
        return _settle_part(call, command)
    hold = call.books.state.holds.get(command.step)
    if hold is None:
        return _settle_late(call, command)
    if command.outcome == "unknown" and command.amount > hold.amount:
        raise InvalidRequest(
            "what is not known charges at most what is held; a known cost is settled as such", "amount"
        )
    used = {**hold.measures, **command.measures} if command.measures else hold.measures
    event, postings = _end(call, hold, command.amount, command.outcome, used=used, facts=command)
    return settled(event), [Made(event, postings, call.key)]


def settled(event: e.HoldSettled) -> Settled:
    """The answer that the end (or part) of a hold stands for."""
    before = sum(amount for _, amount in event.before) if event.before else 0
    return Settled(event.step, event.state, before + event.amount, event.overrun, event.debt)


def _end(
    call: Call,
    hold: HoldState,
    amount: int,
    state: Literal["settled", "unknown", "released", "lapsed"],
    *,
    used: dict[str, int],
    facts: c.SettleHold | None = None,
    error: str | None = None,
    cause: str = "",
) -> tuple[e.HoldSettled, list[Posting]]:
    """End a hold at ``amount``: charge its slices in burn order, give back the rest, burn what is beyond it."""
    wallet = call.books.wallet
    charged, rest = split(hold.slices, amount)
    postings = move_postings(charged, HELD, CONSUMED) + give_back(wallet, rest, HELD, call.now_us)
    overrun = max(0, amount - hold.amount)
    more: Sequence[Slice] = ()
    debt, keep = 0, None
    if overrun or state in ("unknown", "lapsed"):
        context = _context(call, hold)
        more, debt = _burn(call, overrun, context)
        postings += burn_postings(more)
        keep = context if debt or state in ("unknown", "lapsed") else None
    event = e.HoldSettled(
        hold.step, hold.session, state, amount, (*charged, *more) if more else tuple(charged), overrun, debt,
        used, None, tuple(hold.charged),
    )  # fmt: skip
    if keep is not None:
        event = replace(
            event, kind=hold.kind, model=hold.model, tool=hold.tool, feature=keep.feature, workflow=keep.workflow,
            path=keep.path, marks=hold.marks, measures=hold.measures if state == "lapsed" else {},
        )  # fmt: skip
    if facts is not None and (facts.model or facts.usage or facts.rate or facts.catalog or facts.error):
        event = replace(
            event, served=facts.model, usage=facts.usage, rate=facts.rate, catalog=facts.catalog, error=facts.error
        )
    elif error or cause:
        event = replace(event, error=error, cause=cause)
    return event, postings


def _context(call: Call, hold: HoldState) -> StepContext:
    session = call.books.state.sessions[hold.session]
    feature = hold.feature if hold.feature is not None else session.feature
    path = call.books.rooms.path(session)
    return StepContext(hold.kind, hold.model, hold.tool, feature, session.workflow, path)


def _burn(call: Call, amount: int, context: StepContext) -> tuple[Sequence[Slice], int]:
    """Where an overrun goes: free eligible credits, then overdraft (prepaid) or receivable; returns what became overdraft."""
    slices, missing = call.books.wallet.take(amount, context)
    if not missing:
        return slices, 0
    total_ok(call.books, missing)
    terms = call.books.state.terms
    if terms is not None and terms.wallet == "postpaid":
        return [*slices, (RECEIVABLE, missing)], 0
    return [*slices, (OVERDRAFT, missing)], missing


def _settle_part(call: Call, command: c.SettleHold) -> Decided:
    if isinstance(before := replayed(call), e.HoldSettled):
        return settled(before), []
    hold = _open(call)
    if command.amount > hold.amount:
        raise InvalidRequest("a part may not pass what is held; extend the hold first", "amount")
    charged, _ = split(hold.slices, command.amount)
    used = {m: min(u, hold.measures.get(m, 0)) for m, u in command.measures.items()}
    event = e.HoldSettled(
        step=hold.step, session=hold.session, state="partial", amount=command.amount, charged=tuple(charged), used=used,
        part=command.part, before=tuple(hold.charged), usage=command.usage, rate=command.rate, catalog=command.catalog,
    )  # fmt: skip
    return settled(event), [Made(event, move_postings(charged, HELD, CONSUMED), call.key)]


def _settle_late(call: Call, command: c.SettleHold) -> Decided:
    """The hold has ended: the same settlement again, a correction of what a policy booked, or too late."""
    step = command.step
    entry = call.hits.get(f"{step}#end")
    if entry is None:
        if step in call.hits:
            raise HoldResolved(step, "released")
        raise InvalidRequest(f"there is no hold {step!r}", "step")
    ended = ended_event(call)
    if entry.request == call.request:
        return settled(ended), []
    if ended.state not in ("unknown", "lapsed"):
        raise HoldResolved(step, _ended(ended))
    corrected = call.hits.get(f"{step}#correction")
    if corrected is not None:
        if corrected.request != call.request:
            raise KeyConflict(step, "a late settlement")
        event = event_of(corrected)
        assert isinstance(event, e.HoldCorrected)
        return _corrected(event), []
    return _correct(call, command, ended)


def _corrected(event: e.HoldCorrected) -> Settled:
    return Settled(event.step, "corrected", event.amount, max(0, event.delta), event.debt)


def _correct(call: Call, command: c.SettleHold, ended: e.HoldSettled) -> Decided:
    """Book the difference between what a policy charged and what the step really cost, once (laws L4, L11)."""
    context = StepContext(ended.kind, ended.model, ended.tool, ended.feature, ended.workflow, ended.path)
    delta = command.amount - ended.amount
    burnt, debt = _burn(call, max(0, delta), context)
    postings, credit = burn_postings(burnt), 0
    if delta < 0:
        _, rest = split(list(ended.charged), command.amount)
        rest, credit = _without_paid(call, rest)
        postings = give_back(call.books.wallet, rest, CONSUMED, call.now_us) + _credit_postings(command.step, credit)
    used = {m: u - ended.used.get(m, 0) for m, u in {**ended.measures, **command.measures}.items()}
    event = e.HoldCorrected(
        step=command.step, session=ended.session, amount=sum(n for _, n in ended.before) + command.amount, delta=delta,
        debt=debt, used=used, marks=ended.marks, kind=ended.kind, model=ended.model, tool=ended.tool,
        feature=ended.feature, workflow=ended.workflow, path=ended.path, served=command.model, usage=command.usage,
        rate=command.rate, catalog=command.catalog, credit=credit,
    )  # fmt: skip
    return _corrected(event), [Made(event, postings, f"{command.step}#correction")]


def _without_paid(call: Call, slices: list[Slice]) -> tuple[list[Slice], int]:
    """Slices to give back, and what of them was receivable that billing has collected: it comes back as a grant."""
    owed = call.books.wallet.drawn(RECEIVABLE)
    paid = sum(n for grant, n in slices if grant == RECEIVABLE) - owed
    if paid <= 0:
        return slices, 0
    kept = [(grant, owed if grant == RECEIVABLE else n) for grant, n in slices]
    return [(grant, n) for grant, n in kept if n], paid


def _credit_postings(step: str, amount: int) -> list[Posting]:
    """A payment that turned out to be too much no longer pays for use; it is a grant of the customer's."""
    if not amount:
        return []
    back = [Posting(CONSUMED, PAYMENTS, -amount), Posting(ISSUED, PAYMENTS, amount)]
    return back + issue_postings(refund_grant(step), amount)


def release_hold(call: Call) -> Decided:
    command: c.ReleaseHold = call.command
    hold = call.books.state.holds.get(command.step)
    if hold is not None:
        return _finish(call, hold, 0, "released", error=command.error)
    if f"{command.step}#end" in call.hits:
        ended = ended_event(call)
        if ended.state != "released":
            raise HoldResolved(command.step, _ended(ended))
        return settled(ended), []
    answer = Settled(command.step, "released", 0)
    step_ok(command.step)
    if command.step in call.hits:
        return answer, []
    return answer, [Made(e.Tombstoned(command.step), key=command.step)]


def _finish(
    call: Call,
    hold: HoldState,
    amount: int,
    state: Literal["unknown", "released", "lapsed"],
    *,
    error: str | None = None,
    cause: str = "",
) -> Decided:
    used = dict(hold.measures) if state == "unknown" else {}
    event, postings = _end(call, hold, amount, state, used=used, error=error, cause=cause)
    return settled(event), [Made(event, postings, call.key)]


def lapse_hold(call: Call) -> Decided:
    command: c.LapseHold = call.command
    hold = call.books.state.holds.get(command.step)
    if hold is None:
        if f"{command.step}#end" in call.hits:
            return settled(ended_event(call)), []
        raise InvalidRequest(f"there is no hold {command.step!r}", "step")
    session = call.books.state.sessions[hold.session]
    if hold.dispatched and session.on_unknown == "charge":
        return _finish(call, hold, hold.amount, "unknown", cause=command.cause)
    return _finish(call, hold, 0, "lapsed", cause=command.cause)


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
    c.SettleHold: settle_hold,
    c.ReleaseHold: release_hold,
    c.LapseHold: lapse_hold,
    c.Explain: explain,
}
