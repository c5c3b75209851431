"""What entries about leases mean; part of the fold (``apply.py``).

A renewal is folded in the order in which it was decided: what was settled, what was given back, what was added. When the account
judges an ask it has folded the first two already, and folds the last with an event that says nothing else.
"""

from __future__ import annotations

from agentbudget.account import events as e
from agentbudget.account.books import Books
from agentbudget.account.leases import lease_of
from agentbudget.account.limits import added
from agentbudget.account.state import Debt, HoldState, LeaseState, SessionState, State
from agentbudget.account.wallet import merged, split


def renewed(books: Books, event: e.LeaseRenewed) -> None:
    state = books.state
    hold = state.holds.get(event.lease)
    if hold is None:
        hold = _opened(books, event)
    session, lease = state.sessions[hold.session], lease_of(hold)
    lease.seq, lease.renewed_us, session.touched_us = event.seq, state.time_us, state.time_us
    session.steps += len(event.steps) + event.released
    if event.steps or event.overrun:
        _settled(books, hold, session, event)
    if event.back or event.back_measures:
        _given_back(books, hold, session, event)
    if event.granted or event.measures:
        _added(books, hold, session, event)
    if event.closed:
        _ended(books, hold, session)
        del state.holds[hold.step]
        books.rooms.forget_if_over(session)
    elif lease.suspended_us is not None:
        lease.suspended_us = None
        books.recalls.woken(hold)


def _opened(books: Books, event: e.LeaseRenewed) -> HoldState:
    """A lease is a hold that nothing is held of yet; the measures that it counts are there from the start."""
    state = books.state
    lease = LeaseState(event.holder, event.seq, event.policy, event.wind_down, state.time_us)
    hold = state.holds[event.lease] = HoldState(
        event.lease, event.session, event.kind, event.model, event.tool, event.feature, 0, (),  # type: ignore[arg-type]
        dict.fromkeys(event.measures, 0), event.marks, state.time_us, 0, True, lease=lease,
    )  # fmt: skip
    books.state.sessions[event.session].open_holds += 1
    books.leases.add(hold)
    books.limits.hold(event.marks, 0, {})
    return hold


def _settled(books: Books, hold: HoldState, session: SessionState, event: e.LeaseRenewed) -> None:
    within = event.amount - event.overrun
    freed = {m: event.used.get(m, 0) - event.over.get(m, 0) for m in hold.measures}
    _, hold.slices = split(hold.slices, within)
    hold.amount -= within
    hold.measures = added(hold.measures, freed, -1)
    books.limits.use(hold.marks, within, freed, event.amount, event.used)
    books.rooms.add(session, consumption=event.overrun, spent=event.amount, held=-within)
    session.leased_steps -= freed.get("steps", 0)
    session.errors_in_row = 0
    if event.debt:
        owe(books.state, debt_of(event), event, event.debt)


def debt_of(event: e.LeaseRenewed) -> str:
    """What a debt is named after that steps of a lease left."""
    return f"{event.lease}#{event.seq}"


def _given_back(books: Books, hold: HoldState, session: SessionState, event: e.LeaseRenewed) -> None:
    hold.slices, _ = split(hold.slices, hold.amount - event.back)
    hold.amount -= event.back
    hold.measures = added(hold.measures, event.back_measures, -1)
    books.limits.use(hold.marks, event.back, event.back_measures, 0, {})
    books.rooms.add(session, consumption=-event.back, spent=0, held=-event.back)
    session.leased_steps -= event.back_measures.get("steps", 0)


def _added(books: Books, hold: HoldState, session: SessionState, event: e.LeaseRenewed) -> None:
    hold.slices = merged(hold.slices, event.slices)
    hold.amount += event.granted
    hold.measures = added(hold.measures, event.measures, 1)
    books.limits.hold(hold.marks, event.granted, event.measures)
    books.rooms.add(session, consumption=event.granted, spent=0, held=event.granted)
    session.leased_steps += event.measures.get("steps", 0)


def _ended(books: Books, hold: HoldState, session: SessionState) -> None:
    books.leases.remove(hold)
    books.recalls.gone(hold)
    session.open_holds -= 1


def suspended(books: Books, event: e.LeaseSuspended) -> None:
    hold = books.state.holds[event.lease]
    lease_of(hold).suspended_us = books.state.time_us
    books.recalls.refresh((hold,))


def lapsed(books: Books, hold: HoldState, session: SessionState) -> None:
    """What the end of a lease by lapse means besides the end of a hold."""
    books.leases.remove(hold)
    books.recalls.gone(hold)
    session.leased_steps -= hold.measures.get("steps", 0)


def unknown_step(books: Books, event: e.HoldSettled) -> None:
    """A step of a lease ended without a known cost: what it may cost leaves the lease."""
    state = books.state
    hold = state.holds[event.lease or ""]
    session = state.sessions[hold.session]
    freed = {m: min(units, hold.measures[m]) for m, units in event.used.items() if m in hold.measures}
    _, hold.slices = split(hold.slices, event.amount)
    hold.amount -= event.amount
    hold.measures = added(hold.measures, freed, -1)
    books.limits.use(hold.marks, event.amount, freed, event.amount, event.used)
    books.rooms.add(session, consumption=0, spent=event.amount, held=-event.amount)
    session.steps += 1
    session.leased_steps -= freed.get("steps", 0)
    session.errors_in_row += 1
    session.touched_us = state.time_us


def owe(state: State, step: str, event: e.HoldSettled | e.HoldCorrected | e.LeaseRenewed, amount: int) -> None:
    """Overdraft that a step left, with what decides which credits may pay it."""
    state.debts.append(
        Debt(step, event.kind, event.model, event.tool, event.feature, event.workflow, event.path, amount)
    )
