"""Ends of a step that a lease serves, where this process decides them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentbudget.account.commands import ReleaseHold, SettleHold
from agentbudget.runtime.leases.upkeep import lapsed_while_open
from agentbudget.runtime.steps.ends import settlement_on_lease
from agentbudget.runtime.views import Settlement

if TYPE_CHECKING:
    from agentbudget.runtime.steps.step import Step


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
