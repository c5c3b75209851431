"""The circuit breaker of a session: rules that stop an agent in trouble though it still has budget.

A rule that fires stops the session until it is resumed or funded (an entry: ``session_stopped``), except ``max_parallel``,
``max_step_cost`` and steps that leases hold but have not run, which refuse only the step that breaks them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agentbudget.account.commands import Hold
from agentbudget.account.state import Refusals, SessionState
from agentbudget.catalog.terms import Breaker
from agentbudget.clock import SECOND_US

MINUTE_US: Final = 60 * SECOND_US


class Trip(NamedTuple):
    """A rule that fired: its name, in words, and whether the session stays stopped."""

    rule: str
    detail: str
    sticky: bool


def trips(rules: Breaker, session: SessionState, hold: Hold, now_us: int) -> Trip | None:
    """The first rule that refuses this step, or None."""
    steps = session.steps - session.rest_steps
    if rules.max_steps is not None and steps >= rules.max_steps:
        return Trip("max_steps", f"{steps} steps were run, {rules.max_steps} are allowed", True)
    if rules.max_depth is not None and session.depth > rules.max_depth:
        return Trip("max_depth", f"the session is {session.depth} deep, {rules.max_depth} is allowed", True)
    age_us = now_us - max(session.opened_us, session.rest_us)
    if rules.max_seconds is not None and age_us > rules.max_seconds * SECOND_US:
        return Trip(
            "max_seconds", f"the session is {age_us // SECOND_US} s old, {rules.max_seconds} s are allowed", True
        )
    if rules.error_burst is not None and session.errors_in_row >= rules.error_burst:
        return Trip("error_burst", f"the last {session.errors_in_row} steps failed", True)
    return _repeats(rules, session, hold) or _costs(rules, session, hold, now_us) or _leased(rules, session, steps)


def trips_more(rules: Breaker, session: SessionState, hold: Hold, now_us: int) -> Trip | None:
    """The first rule that refuses more of a step that has begun: those about time and cost, not those that count steps."""
    age_us = now_us - max(session.opened_us, session.rest_us)
    if rules.max_seconds is not None and age_us > rules.max_seconds * SECOND_US:
        return Trip("max_seconds", f"the session is {age_us // SECOND_US} s old", True)
    trip = _costs(rules, session, hold, now_us)
    return None if trip is None or trip.rule == "max_parallel" else trip


def _leased(rules: Breaker, session: SessionState, steps: int) -> Trip | None:
    """Steps that leases hold may all be run: they refuse another one as long as they are not given back."""
    leased = session.leased_steps
    if rules.max_steps is None or not leased or steps + leased + 1 <= rules.max_steps:
        return None
    return Trip("max_steps", f"{steps} steps were run and leases hold {leased}, {rules.max_steps} are allowed", False)


def _repeats(rules: Breaker, session: SessionState, hold: Hold) -> Trip | None:
    if rules.repeat is None or hold.fingerprint is None:
        return None
    times, window = rules.repeat
    recent = session.fingerprints[-(window - 1) :] if window > 1 else []
    count = 1 + recent.count(hold.fingerprint)
    if count < times:
        return None
    return Trip(
        "repeat", f"{hold.tool or hold.kind} with the same arguments {count} times in {window} tool steps", True
    )


def _costs(rules: Breaker, session: SessionState, hold: Hold, now_us: int) -> Trip | None:
    if rules.max_rate is not None:
        rate = hold.amount + sum(amount for at_us, amount in session.recent if at_us > now_us - MINUTE_US)
        if rate > rules.max_rate:
            return Trip("max_rate", "credits held within a minute pass the allowed rate", True)
    if rules.max_step_cost is not None and hold.amount > rules.max_step_cost:
        return Trip("max_step_cost", "this one step would hold more than a step may", False)
    if rules.max_parallel is not None and session.open_holds >= rules.max_parallel:
        return Trip(
            "max_parallel", f"{session.open_holds} steps are open, {rules.max_parallel} are allowed at once", False
        )
    return None


def remember(rules: Breaker, session: SessionState, *, fingerprint: str | None, amount: int, now_us: int) -> None:
    """Note an opened step, as far as the rules will ask."""
    if rules.repeat is not None and fingerprint is not None:
        session.fingerprints.append(fingerprint)
        del session.fingerprints[: -rules.repeat[1]]
    if rules.max_rate is not None:
        session.recent = [(at_us, n) for at_us, n in session.recent if at_us > now_us - MINUTE_US]
        session.recent.append((now_us, amount))


def refused_too_often(rules: Breaker, refusals: Refusals) -> bool:
    """True when the refusals in a row stop the session."""
    return rules.refusals_in_row is not None and refusals.in_row >= rules.refusals_in_row


def rest(session: SessionState, refusals: Refusals | None, now_us: int) -> None:
    """A resumed or funded session starts counting anew."""
    session.stopped = ""
    session.rest_steps, session.rest_us, session.errors_in_row = session.steps, now_us, 0
    session.fingerprints, session.recent = [], []
    if refusals is not None:
        refusals.in_row = 0
