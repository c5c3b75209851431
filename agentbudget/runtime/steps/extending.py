"""More for a step that runs: out of its lease, else from the owner; judged as a new step of that size would be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from agentbudget.account.admission import refusal as refusal_of
from agentbudget.account.commands import ExtendHold, Hold
from agentbudget.account.decision import Decision, Renewed
from agentbudget.amounts import USD, Amount
from agentbudget.errors import HoldResolved, InvalidRequest
from agentbudget.runtime.host import Plan
from agentbudget.runtime.leases.claims import Claim, extend
from agentbudget.runtime.leases.lease import Lease
from agentbudget.runtime.leases.session_leases import SessionLeases
from agentbudget.runtime.steps import reserving
from agentbudget.runtime.steps.asking import Priced, hold_of, with_cap

if TYPE_CHECKING:
    from agentbudget.runtime.steps.step import Step


def extending(step: Step, output_tokens: int, amount: Amount | USD | None) -> Plan[None]:
    """The plan of ``Step.extend``."""
    if output_tokens < 0 or (amount is None) is (output_tokens == 0):
        raise InvalidRequest("give either output_tokens, 1 or more, or an amount", "output_tokens")
    if amount is None:
        wanted = wider(step._priced, output_tokens)
    else:
        wanted = replace(step._priced, amount=step._priced.amount + step._link.nano(amount))
    refused = yield from grow(step, wanted, note=True)
    if refused is not None:
        yield from reserving.deny(step._of, refused)
    if step._meter is not None:
        step._meter.limit += output_tokens


def wider(priced: Priced, output_tokens: int) -> Priced:
    """The same step with so much more output."""
    quote, cap = priced.quote, priced.cap
    if quote is None or cap is None:
        raise InvalidRequest("only a model step that the catalog prices holds output: give an amount", "output_tokens")
    wanted = with_cap(priced, cap + output_tokens)
    return replace(wanted, amount=priced.amount + max(0, wanted.amount - quote.amount))


def grow(step: Step, wanted: Priced, *, note: bool) -> Plan[Decision | None]:
    """Hold for an open step what is wanted, beyond what it holds; the refusal, and then it holds what it did. ``note``: the
    refusal is final, so leases that have what lacks are asked for it first."""
    if not step.is_open or step._end:
        raise HoldResolved(step.id, step.state)
    held = step._priced
    more = wanted.amount - held.amount
    measures = {
        m: units - held.measures.get(m, 0) for m, units in wanted.measures.items() if units > held.measures.get(m, 0)
    }
    own, lease = step._own, step._lease
    if own is None or lease is None:
        step._parts += 1  # also where no answer came: should that part be held, the owner holds more than is known here
        answer = yield from step._link.asked(ExtendHold(step.id, step._parts, more, measures))
        refused = answer if isinstance(answer, Decision) else None
    else:
        refused = yield from _on_lease(step, own, lease, more, measures, note=note)
    if refused is None:
        step._priced = wanted
    return refused


def _on_lease(
    step: Step, own: SessionLeases, lease: Lease, more: int, measures: Mapping[str, int], *, note: bool
) -> Plan[Decision | None]:
    """Out of what the lease has free; else the owner is asked for more on that lease."""
    delay_seconds, link = 0.0, step._link
    if own.patterns.is_too_dear(step._priced.amount + more):
        return refusal_of(
            "circuit_open", "breaker max_step_cost: one step may not hold so much", need=more, session=own.id
        )
    hold = hold_of(step._ask, step._priced, step=lease.id, session=own.id, ttl_us=link.hold_ttl_us)
    hold = replace(hold, amount=more, measures=dict(measures), fingerprint=None, note_refusal=note)
    lease.is_full = False  # it may have been full once, and have room again
    while not (got := extend(own, lease, step._n, more, measures)):
        if got is None:
            raise HoldResolved(step.id, step.state)
        if lease.stale or lease.is_lost or lease.is_full:
            why = "the spool has no room" if lease.is_full else "its lease gets no more: what binds it has changed"
            return refusal_of("unavailable", f"the step cannot be extended: {why}", need=more, session=own.id)
        answer = yield from _claimed(own, lease, hold, step._n)
        if type(answer) is int:
            return None
        if isinstance(answer, Renewed):
            if answer.refused is not None:
                return answer.refused
            if answer.recalling is not None:
                delay_seconds = yield from link.gave_back(answer.recalling, delay_seconds)
    return None


def _claimed(own: SessionLeases, lease: Lease, hold: Hold, n: int) -> Plan[Any]:
    """Ask the owner for more on a lease: the step's number when it has got it."""
    claim = Claim(own, lease, hold, grows=n)
    try:
        return (yield claim)
    except BaseException:
        claim.abandon()
        raise
