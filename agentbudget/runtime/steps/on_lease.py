"""Ends of a step that a lease serves, where this process decides them."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentbudget.account.commands import ReleaseHold, SettleHold
from agentbudget.amounts import USD, Amount
from agentbudget.catalog import Usage
from agentbudget.catalog.usage import counts_of
from agentbudget.clock import SECOND_US
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.host import ignore
from agentbudget.runtime.leases.session_leases import SessionLeases
from agentbudget.runtime.leases.upkeep import end_unheard, lapsed_while_open
from agentbudget.runtime.steps import ends
from agentbudget.runtime.steps.ends import End, settlement_on_lease
from agentbudget.runtime.views import Settlement

if TYPE_CHECKING:
    from agentbudget.runtime.steps.step import Step

_NO_USAGE: Final[dict[str, int]] = {}


def ended(step: Step, command: SettleHold | ReleaseHold) -> bool:
    """End a step of a lease in this process; False where the owner has to: it holds the step, it must book a guess, or it
    has ended the step already."""
    own, lease, n = step._own, step._lease, step._n
    if own is None or lease is None:
        return False
    if isinstance(command, ReleaseHold):
        own.release(lease, n, step._ended, Settlement(step.id, "released"))
    elif command.outcome == "settled":
        answer = settlement_on_lease(step.id, command.amount, step._priced.amount)
        own.settle(lease, n, command, step._ended, answer)
    return step._answer is not None


def lapsed(step: Step, command: SettleHold | ReleaseHold) -> bool:
    """Whether the owner refused a guess because the whole lease had lapsed: then what it charges corrects the lapse."""
    own, lease, n = step._own, step._lease, step._n
    if own is None or lease is None or not isinstance(command, SettleHold) or n not in lease.open:
        return False
    lapsed_while_open(own, lease, n, command)
    step._ended(settlement_on_lease(step.id, command.amount, step._priced.amount))
    return True


def settled(step: Step, usage: Any, amount: Amount | USD | None) -> Settlement | None:
    """``Step.settle``, without a plan, on the path of every leased step; None when it had ended."""
    priced, link = step._priced, step._of.link
    now_us = link.clock.monotonic_us()
    if usage is None:
        nano, tariff = (priced.amount, ends.HELD) if amount is None else (link.nano(amount), ends.STATED)
        counts, model, used = _NO_USAGE, None, priced.measures
        passed_us = now_us - step._started_us
        if passed_us > SECOND_US or used.get("seconds") != 1:
            used = used | ends.seconds_of(None, passed_us)
    else:
        if type(usage) is not Usage:
            usage = Usage.of(usage)
        counts, model = counts_of(usage), usage.model
        nano, rate = priced.charge(usage) if amount is None else (link.nano(amount), "stated")
        tariff = (rate, priced.catalog.version)
        used = ends.all_used(priced.measures, usage, now_us - step._started_us)
    answer = settlement_on_lease(step.id, nano, priced.amount)
    own: SessionLeases = step._own  # type: ignore[assignment]
    if own.book(step._lease, step._n, step.id, nano, used, tariff, counts, model, now_us, step._ended, answer):  # type: ignore[arg-type]
        return answer
    return None


def hand_over(step: Step, command: End) -> None:
    """Have a step ended by this command without waiting for the answer."""
    own, lease, link = step._own, step._lease, step._link
    if own is not None and lease is not None:  # the collector may have interrupted who holds the session's lock
        if isinstance(
            command, ReleaseHold
        ):  # the owner never hears of the end, so whoever asks again has to find it here
            answer = Settlement(step.id, "released")
        else:
            answer = settlement_on_lease(step.id, command.amount, step._priced.amount)
        own.holder.later(partial(end_unheard, own, lease, step._n, command, step._ended, answer))
        return
    link.host.live.discard(step.id)
    with contextlib.suppress(OwnerUnavailable):  # nobody to tell: the hold lapses by the same policy (law L5)
        link.host.submit(link.customer, command, ignore)
