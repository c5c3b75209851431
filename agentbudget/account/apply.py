"""apply(books, event): the fold. The same code serves live traffic, recovery, tests and simulation (law L6).

Credits move by the entry's postings (``Wallet.post``); what is here is everything else that an event means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agentbudget.account import breaker
from agentbudget.account import events as e
from agentbudget.account.admission import Judge
from agentbudget.account.lanes import Lanes
from agentbudget.account.limits import LimitBook
from agentbudget.account.sessions import Rooms
from agentbudget.account.state import Debt, GrantState, HoldState, Refusals, SessionState, Slice, State, refund_grant
from agentbudget.account.wallet import Wallet, split
from agentbudget.catalog.terms import LimitTerms
from agentbudget.errors import check
from agentbudget.ledger.entry import Posting


class Books:
    """A state with the indexes that make it quick; owned by one account."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.wallet = Wallet(state)
        self.limits = LimitBook(state)
        self.rooms = Rooms(state, self.limits)
        self.judge = Judge(state, self.wallet, self.limits, self.rooms)
        self.lanes = Lanes(state, self.wallet, self.limits, self.rooms, self.judge)
        self.refusals: dict[str, Refusals] = {}


def apply(books: Books, *, seq: int, time_us: int, postings: Iterable[Posting], event: e.Event) -> None:
    """Fold one entry."""
    state = books.state
    if seq != state.seq + 1:
        check(False, "L6", f"entry {seq} does not follow {state.seq}")
    state.seq, state.time_us = seq, time_us
    kind = type(event)
    if kind in _BRING_GRANTS:
        _BRING_GRANTS[kind](books, event)
    books.wallet.post(postings)
    handler = _HANDLERS.get(kind)
    if handler is not None:
        handler(books, event)
    if state.debts:
        _paid(books, getattr(event, "paid", ()))


def apply_paid(books: Books, postings: Iterable[Posting], paid: e.Paid) -> None:
    """Let freed credits pay debts: part of the entry that freed them."""
    books.wallet.post(postings)
    _paid(books, paid)


def _paid(books: Books, paid: e.Paid) -> None:
    if not paid:
        return
    owed = {debt.step: debt for debt in books.state.debts}
    for step, amount in paid:
        owed[step].amount -= amount
        check(owed[step].amount >= 0, "L3", f"step {step} was paid more overdraft than it left")
    books.state.debts = [debt for debt in books.state.debts if debt.amount]


def _customer_created(books: Books, event: e.CustomerCreated) -> None:
    state = books.state
    state.time_zone, state.anchor_us, state.created_us = event.time_zone, event.anchor_us, state.time_us
    state.terms, state.plan_us = event.terms, state.time_us
    books.limits.assign_plan(event.terms)


def _plan_assigned(books: Books, event: e.PlanAssigned) -> None:
    books.state.terms, books.state.plan_us = event.terms, books.state.time_us
    books.limits.assign_plan(event.terms)


def _grant_issued(books: Books, event: e.GrantIssued) -> None:
    grant = GrantState(
        event.grant, event.label, event.category, event.priority, event.effective_us, event.expires_us,
        books.state.time_us, event.scope,
    )  # fmt: skip
    _add_grant(books, grant)
    if event.plan_grant is not None:
        books.state.plan_issued[event.plan_grant] = event.period_us


def _add_grant(books: Books, grant: GrantState) -> None:
    books.state.grants[grant.id] = grant
    books.wallet.add(grant, books.state.time_us)


def _entity_put(books: Books, event: e.EntityPut) -> None:
    books.state.parents[event.entity] = event.parent
    books.rooms.forget_paths()
    books.limits.version += 1


def _limit_set(books: Books, event: e.LimitSet) -> None:
    terms = LimitTerms(event.entity, 0, event.measure, event.window, event.mode, event.scope)
    books.limits.put(event.limit, terms, event.amount, origin="admin")


def _pause_set(books: Books, event: e.PauseSet) -> None:
    if event.paused:
        books.state.paused[event.entity] = event.reason
        return
    books.state.paused.pop(event.entity, None)
    session = books.rooms.get(event.entity.removeprefix("session:")) if event.entity.startswith("session:") else None
    if session is not None:
        breaker.rest(session, books.refusals.get(session.id), books.state.time_us)


def _session_opened(books: Books, event: e.SessionOpened) -> None:
    state = books.state
    parent = None if event.parent is None else state.sessions[event.parent]
    session = SessionState(
        event.session, event.parent, 1 if parent is None else parent.depth + 1, event.budget, event.entities,
        event.feature, event.workflow, event.on_unknown, event.on_denied, state.time_us, state.time_us, event.ttl_us,
        event.max_step_us, event.wind_down, event.breaker, rest_us=state.time_us,
    )  # fmt: skip
    state.sessions[session.id] = session
    if parent is not None:
        parent.children.append(session.id)
        if session.carve:
            books.rooms.add(parent, consumption=session.carve, spent=0, held=0)


def _session_funded(books: Books, event: e.SessionFunded) -> None:
    session = books.state.sessions[event.session]
    books.rooms.reshape(session, budget=(session.budget or 0) + event.amount)
    breaker.rest(session, books.refusals.get(session.id), books.state.time_us)
    session.touched_us = books.state.time_us


def _session_stopped(books: Books, event: e.SessionStopped) -> None:
    books.state.sessions[event.session].stopped = event.reason


def _session_closed(books: Books, event: e.SessionClosed) -> None:
    for session_id in event.sessions:
        session = books.state.sessions[session_id]
        books.rooms.reshape(session, closed=True)
        books.state.paused.pop(f"session:{session_id}", None)
        books.refusals.pop(session_id, None)
        books.rooms.forget_if_over(session)


def _hold_opened(books: Books, event: e.HoldOpened) -> None:
    state = books.state
    state.holds[event.step] = HoldState(
        event.step, event.session, event.kind, event.model, event.tool, event.feature, event.amount, event.slices,
        event.measures, event.marks, state.time_us, event.ttl_us, event.dispatched,
    )  # fmt: skip
    books.limits.hold(event.marks, event.amount, event.measures)
    session = state.sessions[event.session]
    books.rooms.add(session, consumption=event.amount, spent=0, held=event.amount)
    session.open_holds += 1
    session.touched_us = state.time_us
    session.steps += 1
    rules = books.judge.rules(session)
    if rules.repeat is not None or rules.max_rate is not None:
        breaker.remember(rules, session, fingerprint=event.fingerprint, amount=event.amount, now_us=state.time_us)


def _hold_extended(books: Books, event: e.HoldExtended) -> None:
    hold = books.state.holds[event.step]
    hold.slices = merged(hold.slices, event.slices)
    hold.amount += event.amount
    hold.measures = added(hold.measures, event.measures, 1)
    books.limits.hold(hold.marks, event.amount, event.measures)
    books.rooms.add(books.state.sessions[hold.session], consumption=event.amount, spent=0, held=event.amount)


def added(measures: Mapping[str, int], more: Mapping[str, int], sign: int) -> dict[str, int]:
    """Units of each measure, with others added or taken away. A new dict: a hold's own is its entry's."""
    return {m: measures.get(m, 0) + sign * more.get(m, 0) for m in (*measures, *(m for m in more if m not in measures))}


def merged(slices: Iterable[Slice], more: Iterable[Slice]) -> list[Slice]:
    """Slices in the order in which they were burnt; neighbours of one grant are one slice."""
    joined: list[Slice] = []
    for grant, amount in (*slices, *more):
        if joined and joined[-1][0] == grant:
            joined[-1] = (grant, joined[-1][1] + amount)
        else:
            joined.append((grant, amount))
    return joined


def _hold_dispatched(books: Books, event: e.HoldDispatched) -> None:
    books.state.holds[event.step].dispatched = True


def _hold_settled(books: Books, event: e.HoldSettled) -> None:
    state = books.state
    hold = state.holds[event.step]
    session = state.sessions[hold.session]
    within = event.amount - event.overrun
    if event.part is not None:
        _part_settled(books, hold, session, event, within)
        return
    del state.holds[event.step]
    held = hold.amount
    books.limits.use(hold.marks, held, hold.measures, event.amount, event.used)
    books.rooms.add(session, consumption=event.amount - held, spent=event.amount, held=-held)
    if event.debt:
        _owe(state, event, event.debt)
    session.open_holds -= 1
    session.touched_us = state.time_us
    failed = event.state == "unknown" or event.error is not None
    if failed or event.state == "settled":  # what was given back without an error says nothing either way
        session.errors_in_row = session.errors_in_row + 1 if failed else 0
    books.rooms.forget_if_over(session)


def _part_settled(books: Books, hold: HoldState, session: SessionState, event: e.HoldSettled, within: int) -> None:
    _, hold.slices = split(hold.slices, within)
    hold.charged = merged(hold.charged, event.charged)
    hold.amount -= within
    hold.measures = added(hold.measures, event.used, -1)
    books.limits.use(hold.marks, within, event.used, within, event.used)
    books.rooms.add(session, consumption=0, spent=within, held=-within)
    session.touched_us = books.state.time_us


def _owe(state: State, event: e.HoldSettled | e.HoldCorrected, amount: int) -> None:
    state.debts.append(
        Debt(event.step, event.kind, event.model, event.tool, event.feature, event.workflow, event.path, amount)
    )


def _hold_corrected(books: Books, event: e.HoldCorrected) -> None:
    books.limits.use(event.marks, 0, {}, event.delta, event.used)
    session = books.rooms.nearest(event.path)
    if session is not None:
        books.rooms.add(session, consumption=event.delta, spent=event.delta, held=0)
    if event.debt:
        _owe(books.state, event, event.debt)


def _credited(books: Books, event: e.HoldCorrected) -> None:
    if event.credit:
        now_us = books.state.time_us
        _add_grant(books, GrantState(refund_grant(event.step), "refund", "paid", 50, now_us, None, now_us))


_BRING_GRANTS: dict[type, Callable[[Books, Any], None]] = {e.GrantIssued: _grant_issued, e.HoldCorrected: _credited}
"""Events whose grant must be there before their postings."""

_HANDLERS: dict[type, Callable[[Books, Any], None]] = {
    e.CustomerCreated: _customer_created,
    e.PlanAssigned: _plan_assigned,
    e.EntityPut: _entity_put,
    e.LimitSet: _limit_set,
    e.PauseSet: _pause_set,
    e.SessionOpened: _session_opened,
    e.SessionFunded: _session_funded,
    e.SessionStopped: _session_stopped,
    e.SessionClosed: _session_closed,
    e.HoldOpened: _hold_opened,
    e.HoldExtended: _hold_extended,
    e.HoldDispatched: _hold_dispatched,
    e.HoldSettled: _hold_settled,
    e.HoldCorrected: _hold_corrected,
}
