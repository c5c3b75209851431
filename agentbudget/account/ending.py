"""How a hold ends: settled in parts and at last, released, or lapsed; exactly once, and corrected at most once.

Laws kept here: L4 and L5 (ends are found by their key), L11 (what a step really cost is booked, whatever it passes and however
late it comes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account import events as e
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
from agentbudget.account.decision import Settled
from agentbudget.account.matching import StepContext
from agentbudget.account.state import HoldState, Slice, refund_grant
from agentbudget.account.wallet import burn_postings, give_back, move_postings, split
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict
from agentbudget.ledger.entry import CONSUMED, HELD, ISSUED, OVERDRAFT, PAYMENTS, RECEIVABLE, Posting


def open_of(call: Call) -> HoldState:
    """The open hold a command is about; HoldResolved with how it ended, InvalidRequest when it never was."""
    step = call.command.step
    hold = call.books.state.holds.get(step)
    if hold is not None:
        return no_lease(hold)
    ended = call.hits.get(f"{step}#end")
    if ended is not None:
        raise HoldResolved(step, _ended(ended_event(call)))
    raise InvalidRequest(f"there is no hold {step!r}", "step")


def no_lease(hold: HoldState) -> HoldState:
    """Refuse what is said of a lease as if it were a step's hold."""
    if hold.lease is not None:
        raise InvalidRequest(f"{hold.step!r} is a lease: its holder renews it", "step")
    return hold


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
    no_lease(hold)
    if command.outcome == "unknown" and command.amount > hold.amount:
        raise InvalidRequest(
            "what is not known charges at most what is held; a known cost is settled as such", "amount"
        )
    used = {**hold.measures, **command.measures} if command.measures else hold.measures
    event, postings = end_at(call, hold, command.amount, command.outcome, used=used, facts=command)
    return settled(event), [Made(event, postings, call.key)]


def settled(event: e.HoldSettled) -> Settled:
    """The answer that the end (or part) of a hold stands for."""
    before = sum(amount for _, amount in event.before) if event.before else 0
    return Settled(event.step, event.state, before + event.amount, event.overrun, event.debt)


def end_at(
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
        context = context_of(call, hold)
        more, debt = burn(call, overrun, context)
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
            lease=None if hold.lease is None else hold.step,
        )  # fmt: skip
    if facts is not None and (facts.model or facts.usage or facts.rate or facts.catalog or facts.error):
        event = replace(
            event, served=facts.model, usage=facts.usage, rate=facts.rate, catalog=facts.catalog, error=facts.error
        )
    elif error or cause:
        event = replace(event, error=error, cause=cause)
    return event, postings


def context_of(call: Call, hold: HoldState) -> StepContext:
    """Steps of an open hold, as scopes see them."""
    session = call.books.state.sessions[hold.session]
    feature = hold.feature if hold.feature is not None else session.feature
    path = call.books.rooms.path(session)
    return StepContext(hold.kind, hold.model, hold.tool, feature, session.workflow, path)


def burn(call: Call, amount: int, context: StepContext) -> tuple[Sequence[Slice], int]:
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
    hold = open_of(call)
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
    if ended.state not in ("unknown", "lapsed") or ended.lease == step:
        raise HoldResolved(step, _ended(ended))
    entry = call.hits.get(f"{step}#correction")
    if entry is not None:
        if entry.request != call.request:
            raise KeyConflict(step, "a late settlement")
        event = event_of(entry)
        assert isinstance(event, e.HoldCorrected)
        return corrected(event), []
    return _correct(call, command, ended)


def corrected(event: e.HoldCorrected) -> Settled:
    """The answer that a correction stands for."""
    return Settled(event.step, "corrected", event.amount, max(0, event.delta), event.debt)


def _correct(call: Call, command: c.SettleHold, ended: e.HoldSettled) -> Decided:
    """Book the difference between what a policy charged and what the step really cost, once (laws L4, L11)."""
    event, postings = difference(call, ended, command.amount)
    used = {m: u - ended.used.get(m, 0) for m, u in {**ended.measures, **command.measures}.items()}
    event = replace(
        event, used=used, served=command.model, usage=command.usage, rate=command.rate, catalog=command.catalog
    )
    return corrected(event), [Made(event, postings, f"{command.step}#correction")]


def difference(call: Call, ended: e.HoldSettled, amount: int) -> tuple[e.HoldCorrected, list[Posting]]:
    """The correction of what a policy charged to the true ``amount``: beyond it free credits burn, below it the last-burnt go
    back."""
    context = StepContext(ended.kind, ended.model, ended.tool, ended.feature, ended.workflow, ended.path)
    delta = amount - ended.amount
    burnt, debt = burn(call, max(0, delta), context)
    postings, credit = burn_postings(burnt), 0
    if delta < 0:
        _, rest = split(list(ended.charged), amount)
        rest, credit = _without_paid(call, rest)
        postings = give_back(call.books.wallet, rest, CONSUMED, call.now_us) + _credit_postings(ended.step, credit)
    event = e.HoldCorrected(
        step=ended.step, session=ended.session, amount=sum(n for _, n in ended.before) + amount, delta=delta, debt=debt,
        marks=ended.marks, kind=ended.kind, model=ended.model, tool=ended.tool, feature=ended.feature,
        workflow=ended.workflow, path=ended.path, credit=credit,
    )  # fmt: skip
    return event, postings


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
        return _finish(call, no_lease(hold), 0, "released", error=command.error)
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
    event, postings = end_at(call, hold, amount, state, used=used, error=error, cause=cause)
    return settled(event), [Made(event, postings, call.key)]


def lapse_hold(call: Call) -> Decided:
    command: c.LapseHold = call.command
    hold = call.books.state.holds.get(command.step)
    if hold is None:
        if f"{command.step}#end" in call.hits:
            return settled(ended_event(call)), []
        raise InvalidRequest(f"there is no hold {command.step!r}", "step")
    session = call.books.state.sessions[no_lease(hold).session]
    if hold.dispatched and session.on_unknown == "charge":
        return _finish(call, hold, hold.amount, "unknown", cause=command.cause)
    return _finish(call, hold, 0, "lapsed", cause=command.cause)


ENDS: dict[type, Callable[[Call], Decided]] = {
    c.SettleHold: settle_hold,
    c.ReleaseHold: release_hold,
    c.LapseHold: lapse_hold,
}
