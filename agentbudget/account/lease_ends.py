"""How leases end without their holder, and what comes to light afterwards: suspended, lapsed, corrected; and single steps of a
lease whose cost nobody knows.

Laws kept here: L1 (what a silent holder has not reported stays held, until a stated policy ends it), L4 and L5 (one end, one
correction, by their keys), L11 (a late spool is booked).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.decide import Call, Decided, Made, amount_ok, event_of, name_ok
from agentbudget.account.decision import Done
from agentbudget.account.ending import context_of, corrected, difference, end_at, settle_hold, settled
from agentbudget.account.leases import lease_of
from agentbudget.account.leasing import renew
from agentbudget.account.reporting import reported_ok, used_by
from agentbudget.account.state import HoldState
from agentbudget.account.wallet import move_postings, split
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict
from agentbudget.ledger.entry import CONSUMED, HELD


def _open_lease(call: Call, lease: str) -> HoldState:
    """The open lease a command is about; HoldResolved when it has lapsed, InvalidRequest when it is none."""
    hold = call.books.state.holds.get(lease)
    if hold is not None and hold.lease is not None:
        return hold
    if _lapse(call, lease) is not None:
        raise HoldResolved(lease, "lapsed")
    raise InvalidRequest(f"there is no open lease {lease!r}", "lease")


def _lapse(call: Call, lease: str) -> e.HoldSettled | None:
    """How the lease lapsed, if it did."""
    entry = call.hits.get(f"{lease}#end")
    event = None if entry is None else event_of(entry)
    return event if isinstance(event, e.HoldSettled) and event.lease == lease else None


def suspend(call: Call) -> Decided:
    hold = call.books.state.holds.get(call.command.lease)
    if hold is None or lease_of(hold).suspended_us is not None:
        return Done(False, call.command.lease), []
    return Done(True, hold.step), [Made(e.LeaseSuspended(hold.step))]


def lapse(call: Call) -> Decided:
    command: c.LapseLease = call.command
    ended = _lapse(call, command.lease)
    if ended is not None:
        return settled(ended), []
    hold = _open_lease(call, command.lease)
    if command.charge:
        event, postings = end_at(call, hold, hold.amount, "unknown", used=dict(hold.measures), cause="silent")
    else:
        event, postings = end_at(call, hold, 0, "lapsed", used={}, cause="silent")
    return settled(event), [Made(event, postings, call.key)]


def correct(call: Call) -> Decided:
    command: c.CorrectLease = call.command
    entry = call.hits.get(call.key or "")
    if entry is not None:
        if entry.request != call.request:
            raise KeyConflict(command.lease, "CorrectLease")
        event = event_of(entry)
        assert isinstance(event, e.HoldCorrected)
        return corrected(event), []
    ended = _lapse(call, command.lease)
    if ended is None:
        if command.lease in call.books.state.holds:
            raise InvalidRequest(f"lease {command.lease!r} has not lapsed: renew it instead", "lease")
        raise InvalidRequest(f"there is no lapsed lease {command.lease!r}", "lease")
    reported_ok(command.released)
    amount, units = used_by(command.lease, command.measures, command.steps, len(command.tariffs))
    event, postings = difference(call, ended, amount)
    used = {m: units.get(m, 0) - ended.used.get(m, 0) for m in dict.fromkeys((*ended.used, *units))}
    event = replace(
        event, used=used, names=command.measures, steps=command.steps, tariffs=command.tariffs,
        released=command.released,
    )  # fmt: skip
    return corrected(event), [Made(event, postings, call.key)]


def settle(call: Call) -> Decided:
    """A step of a lease may end as unknown; everything else is the settlement of a hold."""
    command: c.SettleHold = call.command
    step = command.step
    known = step in call.books.state.holds or step in call.hits or f"{step}#end" in call.hits
    if command.lease is None or known or command.part is not None:
        return settle_hold(call)
    return _unknown_step(call, command, _open_lease(call, command.lease))


def _unknown_step(call: Call, command: c.SettleHold, hold: HoldState) -> Decided:
    """What the step may cost leaves the lease as a hold that has ended by a policy, so that its true cost still corrects it."""
    if not command.step.startswith(f"{hold.step}."):
        raise InvalidRequest(f"the steps of lease {hold.step!r} are named {hold.step}.1 and so on", "step")
    if "#" in command.step:
        raise InvalidRequest(f"a step id may not contain #, as {command.step[:60]!r} does", "step")
    name_ok(command.step, "step")
    if command.outcome != "unknown":
        raise InvalidRequest("a known cost is reported with the renewal of its lease", "outcome")
    amount_ok(command.amount, "amount")
    for measure, units in command.measures.items():
        amount_ok(units, measure)
    if command.amount > hold.amount:
        raise InvalidRequest("what is not known charges at most what the lease holds", "amount")
    charged, _ = split(hold.slices, command.amount)
    context = context_of(call, hold)
    event = e.HoldSettled(
        command.step, hold.session, "unknown", command.amount, tuple(charged), used=command.measures, kind=hold.kind,
        model=hold.model, tool=hold.tool, feature=context.feature, workflow=context.workflow, path=context.path,
        marks=hold.marks, served=command.model, usage=command.usage, error=command.error, rate=command.rate,
        catalog=command.catalog, lease=hold.step,
    )  # fmt: skip
    return settled(event), [Made(event, move_postings(charged, HELD, CONSUMED), call.key)]


LEASES: dict[type, Callable[[Call], Decided]] = {
    c.Renew: renew,
    c.SuspendLease: suspend,
    c.LapseLease: lapse,
    c.CorrectLease: correct,
    c.SettleHold: settle,
}
