"""What a lease's holder reports: steps settled on it, and what it gives back. Decided from the message and the lease alone.

Law kept here: L11 (what steps really cost is booked, also what the lease had not free).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.decide import Call, amount_ok
from agentbudget.account.ending import burn, context_of
from agentbudget.account.holds import MAX_MEASURES
from agentbudget.account.leases import lease_of
from agentbudget.account.state import HoldState, Slice
from agentbudget.account.wallet import burn_postings, give_back, move_postings, split
from agentbudget.errors import InvalidRequest
from agentbudget.ledger.entry import CONSUMED, HELD, Posting

MAX_REPORTS = 65_536
"""Steps in one message: an entry of some 10 MB. Holders send a few hundred; a spool that was cut off for long sends more."""


class Report(NamedTuple):
    """What a message says of the past, decided: nothing of it depends on what it asks for."""

    event: e.LeaseRenewed
    postings: list[Posting]
    says: bool


def used_by(
    lease: str, measures: Sequence[str], steps: Sequence[c.StepReport], tariffs: int
) -> tuple[int, dict[str, int]]:
    """What steps cost and used in all; InvalidRequest when they cannot be steps of the lease."""
    if not steps:
        return 0, {}
    if len(steps) > MAX_REPORTS or len(measures) > MAX_MEASURES:
        raise InvalidRequest(f"a message reports at most {MAX_REPORTS} steps of {MAX_MEASURES} measures", "steps")
    prefix = f"{lease}."
    if not all(step.step.startswith(prefix) for step in steps):
        raise InvalidRequest(f"the steps of a lease are named {prefix}1 and so on", "steps")
    amounts = [step.amount for step in steps]
    rows = [step.used for step in steps]
    if min(amounts) < 0 or max(map(len, rows)) > len(measures):
        raise InvalidRequest("a step costs at least 0, and uses what the message names the measures of", "steps")
    if tariffs and not 0 <= min(step.tariff for step in steps) <= max(step.tariff for step in steps) < tariffs:
        raise InvalidRequest("a step names a tariff that the message does not have", "tariffs")
    columns = list(zip_longest(*rows, fillvalue=0))
    if any(min(column) < 0 for column in columns):
        raise InvalidRequest("a step uses at least 0 of each measure", "steps")
    units = dict(zip(measures, map(sum, columns), strict=False))
    for what, total in (("amount", sum(amounts)), *units.items()):
        amount_ok(total, what)
    return sum(amounts), units


def reported_ok(released: int) -> None:
    """So many steps may be said to have cost nothing."""
    if not 0 <= released <= MAX_REPORTS:
        raise InvalidRequest(f"a message reports 0 to {MAX_REPORTS} released steps, not {released}", "released")


def report_of(call: Call, command: c.Renew, hold: HoldState) -> Report:
    """Steps settled: out of the lease in burn order, and what it had not free as an overrun. Then what is given back."""
    amount, used = used_by(command.lease, command.measures, command.steps, len(command.tariffs))
    over = {measure: units for measure, units in command.over.items() if units}
    left, left_measures = _left(command, hold, amount, used)
    back, back_measures = (left, left_measures) if command.close else (command.back, command.back_measures)
    back_measures = {measure: units for measure, units in back_measures.items() if units}
    reported_ok(command.released)
    says = bool(
        command.steps
        or command.released
        or back
        or back_measures
        or command.close
        or lease_of(hold).suspended_us is not None
    )
    event = e.LeaseRenewed(command.lease, hold.session, command.seq, command.holder)
    if not says:
        return Report(event, [], says)
    charged, rest = split(hold.slices, amount - command.overrun)
    _, returned = split(rest, left - back)
    postings = move_postings(charged, HELD, CONSUMED)
    burnt: Sequence[Slice] = ()
    debt = 0
    if command.overrun:
        burnt, debt = burn(call, command.overrun, context_of(call, hold))
        postings += burn_postings(burnt)
    postings += give_back(call.books.wallet, returned, HELD, call.now_us)
    event = e.LeaseRenewed(
        command.lease, hold.session, command.seq, command.holder, amount, tuple(charged), tuple(burnt), command.overrun,
        debt, used, over, back, tuple(returned), back_measures, closed=command.close, steps=command.steps,
        names=command.measures if command.steps else (), tariffs=command.tariffs if command.steps else (),
        released=command.released,
    )  # fmt: skip
    return Report(_with_key(call, event, hold) if debt else event, postings, says)


def _left(command: c.Renew, hold: HoldState, amount: int, used: dict[str, int]) -> tuple[int, dict[str, int]]:
    """What the lease holds after the report; InvalidRequest when it does not hold what the message takes out of it."""
    amount_ok(command.overrun, "overrun")
    amount_ok(command.back, "back")
    left = hold.amount - (amount - command.overrun)
    if command.overrun > amount or left < command.back:
        raise InvalidRequest(
            f"lease {hold.step!r} holds {hold.amount} nanocredits, less than the message takes", "steps"
        )
    for over in (command.over, command.back_measures):
        for measure, units in over.items():
            if units and (measure not in hold.measures and over is command.back_measures):
                raise InvalidRequest(f"lease {hold.step!r} holds no {measure}", "back_measures")
            amount_ok(units, measure)
    measures: dict[str, int] = {}
    for measure, held in hold.measures.items():
        taken = used.get(measure, 0) - command.over.get(measure, 0)
        measures[measure] = held - taken
        if taken < 0 or held < taken + command.back_measures.get(measure, 0):
            raise InvalidRequest(f"lease {hold.step!r} holds {held} {measure}, less than the message takes", "steps")
    return left, measures


def _with_key(call: Call, event: e.LeaseRenewed, hold: HoldState) -> e.LeaseRenewed:
    context = context_of(call, hold)
    return replace(
        event, kind=hold.kind, model=hold.model, tool=hold.tool, feature=context.feature, workflow=context.workflow,
        path=context.path,
    )  # fmt: skip
