"""apply(books, event): the fold. The same code serves live traffic, recovery, tests and simulation (law L6).

Credits move by the entry's postings (``Wallet.post``); what is here is everything else that an event means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentbudget.account import breaker, lease_apply
from agentbudget.account import events as e
from agentbudget.account.books import Books
from agentbudget.account.limits import added
from agentbudget.account.state import GrantState, HoldState, SessionState, refund_grant
from agentbudget.account.wallet import merged, pay_debts, split
from agentbudget.catalog.terms import LimitTerms
from agentbudget.errors import check
from agentbudget.ledger.entry import Posting


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


def apply_first(
    books: Books, *, time_us: int, postings: Sequence[Posting], event: e.Event
) -> tuple[list[Posting], e.Paid]:
    """Fold the first part of an entry that is about to be written whatever its rest will be; returns how credits that it
    freed pay overdraft."""
    state = books.state
    state.time_us = time_us
    books.wallet.post(postings)
    _HANDLERS[type(event)](books, event)
    if not state.debts:
        return [], ()
    more, paid = pay_debts(books.wallet, state.debts)
    apply_paid(books, more, tuple(paid))
    return more, tuple(paid)


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
    _new_policy(books)


def _new_policy(books: Books) -> None:
    """What leases were granted under may no longer be true."""
    books.state.policy = books.state.seq
    if books.leases.count:
        books.recalls.refresh(books.leases.all())


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
    parents = books.state.parents
    if event.entity not in parents:  # no session can name it yet, so no path changes
        parents[event.entity] = event.parent
        return
    below = books.leases.take_below(event.entity)
    parents[event.entity] = event.parent
    books.rooms.forget_paths()
    books.limits.version += 1
    books.leases.put_below(below)
    _new_policy(books)


def _limit_set(books: Books, event: e.LimitSet) -> None:
    terms = LimitTerms(event.entity, 0, event.measure, event.window, event.mode, event.scope)
    books.limits.put(event.limit, terms, event.amount, origin="admin")
    _new_policy(books)


def _pause_set(books: Books, event: e.PauseSet) -> None:
    if event.paused:
        books.state.paused[event.entity] = event.reason
    else:
        books.state.paused.pop(event.entity, None)
    if not event.entity.startswith("session:"):
        _new_policy(books)
        return
    session = books.rooms.get(event.entity.removeprefix("session:"))
    if session is not None and not event.paused:
        breaker.rest(session, books.refusals.get(session.id), books.state.time_us)
    books.recalls.refresh(books.leases.at(event.entity))


def _session_opened(books: Books, event: e.SessionOpened) -> None:
    state = books.state
    parent = None if event.parent is None else state.sessions[event.parent]
    session = SessionState(
        event.session, event.parent, 1 if parent is None else parent.depth + 1, event.budget, event.entities,
        event.feature, event.workflow, event.on_unknown, event.on_denied, state.time_us, state.time_us, event.ttl_us,
        event.max_step_us, event.wind_down, event.breaker, rest_us=state.time_us,
    )  # fmt: skip
    state.sessions[session.id] = session
    books.leases.session_opened(session)
    books.next_close_us = min(books.next_close_us, state.time_us + event.ttl_us)
    if parent is not None:
        parent.children.append(session.id)
        if session.carve:
            books.rooms.add(parent, consumption=session.carve, spent=0, held=0)


def _session_funded(books: Books, event: e.SessionFunded) -> None:
    session = books.state.sessions[event.session]
    books.rooms.reshape(session, budget=(session.budget or 0) + event.amount)
    breaker.rest(session, books.refusals.get(session.id), books.state.time_us)
    session.touched_us = books.state.time_us
    books.recalls.refresh(books.leases.at(f"session:{session.id}"))


def _session_stopped(books: Books, event: e.SessionStopped) -> None:
    books.state.sessions[event.session].stopped = event.reason
    books.recalls.refresh(books.leases.at(f"session:{event.session}"))


def _session_closed(books: Books, event: e.SessionClosed) -> None:
    for session_id in event.sessions:
        session = books.state.sessions[session_id]
        books.leases.session_closed(session)
        books.rooms.reshape(session, closed=True)
        books.recalls.refresh(books.leases.of_session(session_id))
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


def _hold_dispatched(books: Books, event: e.HoldDispatched) -> None:
    books.state.holds[event.step].dispatched = True


def _hold_settled(books: Books, event: e.HoldSettled) -> None:
    if event.lease is not None and event.lease != event.step:
        lease_apply.unknown_step(books, event)
        return
    state = books.state
    hold = state.holds[event.step]
    session = state.sessions[hold.session]
    within = event.amount - event.overrun
    if event.part is not None:
        _part_settled(books, hold, session, event, within)
        return
    if hold.lease is not None:
        lease_apply.lapsed(books, hold, session)
    del state.holds[event.step]
    held = hold.amount
    books.limits.use(hold.marks, held, hold.measures, event.amount, event.used)
    books.rooms.add(session, consumption=event.amount - held, spent=event.amount, held=-held)
    if event.debt:
        lease_apply.owe(state, event.step, event, event.debt)
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


def _hold_corrected(books: Books, event: e.HoldCorrected) -> None:
    books.limits.use(event.marks, 0, {}, event.delta, event.used)
    session = books.rooms.nearest(event.path)
    if session is not None:
        books.rooms.add(session, consumption=event.delta, spent=event.delta, held=0)
    if event.session in books.state.sessions:
        books.state.sessions[event.session].steps += len(event.steps) + event.released
    if event.debt:
        lease_apply.owe(books.state, event.step, event, event.debt)


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
    e.LeaseRenewed: lease_apply.renewed,
    e.LeaseSuspended: lease_apply.suspended,
}
