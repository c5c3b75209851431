"""What happens to a session's leases once a second, and to steps that nobody holds any more.

Called by the keeper's thread (``holder.py``); steps never wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from agentbudget.account.commands import CorrectLease, ReleaseHold, Renew, SettleHold
from agentbudget.errors import AgentBudgetError, HoldResolved, LedgerCorrupt, OwnerUnavailable
from agentbudget.runtime.leases.lease import IDLE_US, Lease
from agentbudget.runtime.leases.session_leases import SessionLeases, nothing

_log = logging.getLogger("agentbudget")


def tick(own: SessionLeases, now_us: int) -> bool:
    """Report what was settled, close what is idle, send again what got no answer, end what runs too long. False when there is
    nothing left to look after."""
    out: list[tuple[Lease, Renew]] = []
    leaked: list[tuple[Lease, int]] = []
    with own.lock:
        for lease in own.all():
            leaked += [(lease, n) for n in _too_long(own, lease, now_us)]
            renew = _due(own, lease, now_us)
            if renew is not None:
                out.append((lease, renew))
        alive = bool(own.leases or own.draining)
    for lease, renew in out:
        own.send(lease, renew)
    for lease in [lease for lease in own.all() if lease.is_lost]:
        _correct(own, lease)
    for lease, n in leaked:
        end_unheard(own, lease, n, _leak(own, lease, n))
    return alive


def _due(own: SessionLeases, lease: Lease, now_us: int) -> Renew | None:
    if lease.is_lost:
        return None
    if lease.sent is not None:
        return lease.resent() if lease.is_unheard else None
    if lease.seq == 0 and not lease.open:
        if now_us - lease.sent_us >= IDLE_US:
            own.forget(lease)  # it never opened, and nobody asks any more
        return None
    if not lease.open and (lease in own.draining or lease.is_over or now_us - lease.used_us >= IDLE_US):
        return own.closing(lease, now_us)
    return lease.message(own.holder.id, now_us, ran=own.ran) if lease.reports or lease.released else None


def _correct(own: SessionLeases, lease: Lease) -> None:
    """Book what a lapsed lease's steps really cost in place of what the lapse booked: once, when none of them runs any more.
    Nothing, where none ran: the lapse may have charged what was idle."""
    with own.lock:
        if lease.open or lease.is_correcting:
            return
        if not lease.seq and not lease.reports:
            return own.forget(lease)
        lease.is_correcting = True
        command = CorrectLease(lease.id, lease.names, tuple(lease.reports), lease.tariffs, lease.released)

    def done(answer: Any) -> None:
        with own.lock:
            lease.is_correcting = False
            if not isinstance(answer, OwnerUnavailable | LedgerCorrupt):  # at the next tick again, else it is booked
                was_used, lease.reports = bool(lease.reports), []
                own.forget(lease)
                if isinstance(answer, AgentBudgetError) and was_used:
                    _log.error("lease %s lapsed, and its steps could not be booked: %s", lease.id, answer)

    try:
        own.holder.host.submit(own.customer, command, done)
    except OwnerUnavailable as error:
        done(error)


def _too_long(own: SessionLeases, lease: Lease, now_us: int) -> list[int]:
    found = []
    for n, step in lease.open.items():
        if now_us - step.started_us < own.max_step_us:
            break  # in the order in which they began
        if not step.guessed:
            step.guessed = True
            found.append(n)
    return found


def _leak(own: SessionLeases, lease: Lease, n: int) -> SettleHold | ReleaseHold:
    """How a step ends that was open longer than any step of the session may be: booked by policy at the owner, so that what it
    really cost still corrects it."""
    step = lease.open.get(n)
    name = f"{lease.id}.{n}"
    if step is None:
        return ReleaseHold(name)
    is_charged = step.dispatched and own.on_unknown == "charge"
    used = dict(step.measures) if is_charged else dict.fromkeys(step.measures, 0)
    return SettleHold(
        name, step.amount if is_charged else 0, used, outcome="unknown", error="max_seconds", rate="unknown",
        lease=lease.id,
    )  # fmt: skip


def end_unheard(
    own: SessionLeases, lease: Lease, n: int, command: SettleHold | ReleaseHold,
    ended: Callable[[Any], None] = nothing, answer: Any = None,
) -> None:  # fmt: skip
    """End a step without waiting for anybody; ``ended(answer)`` is called if it ends here, and not at the owner."""
    if isinstance(command, ReleaseHold):
        own.release(lease, n, ended, answer)
    elif command.outcome == "settled":
        own.settle(lease, n, command, ended, answer)
    else:
        _guess(own, lease, n, command)


def lapsed_while_open(own: SessionLeases, lease: Lease, n: int, command: SettleHold) -> None:
    """A guess came after its lease had lapsed: what it charges goes into the lease's one correction."""
    with own.lock:
        if not lease.is_lost and lease.sent is None:  # what is under way will be told so itself
            own.lose(lease, HoldResolved(lease.id, "lapsed"))
    own.settle(lease, n, command, nothing)


def _guess(own: SessionLeases, lease: Lease, n: int, command: SettleHold) -> None:
    def done(answer: Any) -> None:
        if isinstance(answer, HoldResolved):
            lapsed_while_open(own, lease, n, command)
        elif not isinstance(answer, OwnerUnavailable | LedgerCorrupt):
            own.guessed(lease, n, command)
        with own.lock:
            if n in lease.open:
                lease.open[n].guessed = False  # nobody answered: at the next tick again
            own.guessing -= 1
            waiters, own.guess_waiters = ([], own.guess_waiters) if own.guessing else (own.guess_waiters, [])
        for waiter in waiters:
            waiter(None)

    with own.lock:
        own.guessing += 1
    try:
        own.holder.host.submit(own.customer, command, done)
    except OwnerUnavailable as error:
        done(error)
