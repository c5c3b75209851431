"""What readers are told: views of the state at one moment, computed when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from agentbudget.account import commands as c
from agentbudget.account.decide import Call, Decided
from agentbudget.account.decision import (
    Answer,
    BalanceView,
    CustomerView,
    EntityView,
    GrantView,
    HoldView,
    LimitView,
    SessionView,
)
from agentbudget.account.state import GrantState, LimitState, SessionState
from agentbudget.account.windows import FOREVER_US
from agentbudget.errors import InvalidRequest
from agentbudget.ledger.entry import OVERDRAFT, PAYMENTS, RECEIVABLE

Where = Literal["customer", "balance", "grants", "entities", "limits", "sessions", "session", "holds"]


def read(call: Call) -> Decided:
    """Answer a Read command."""
    command: c.Read = call.command
    return _VIEWS[command.what](call, command.id), []


def customer(call: Call, _: str) -> Answer:
    state = call.books.state
    assert state.terms is not None
    return CustomerView(
        state.customer, state.terms.plan, state.terms.catalog, state.terms.wallet, state.time_zone,
        c.ROOT in state.paused, state.created_us, state.seq,
    )  # fmt: skip


def grant_view(grant: GrantState, now_us: int) -> GrantView:
    """A grant now: what is free of an expired one is expired, whether or not that has been posted yet."""
    lapsed = grant.available if grant.is_expired(now_us) else 0
    state: Literal["active", "pending", "used", "expired"] = "active"
    if grant.is_expired(now_us):
        state = "expired"
    elif grant.effective_us > now_us:
        state = "pending"
    elif not grant.available:
        state = "used"
    return GrantView(
        grant.id, grant.label, grant.category, grant.priority, state, grant.issued, grant.available - lapsed, grant.held,
        grant.consumed, grant.expired + lapsed, grant.voided, grant.effective_us, grant.expires_us, grant.issued_us,
    )  # fmt: skip


def grants(call: Call, _: str) -> tuple[GrantView, ...]:
    own = [g for g in call.books.state.grants.values() if not g.id.startswith("@")]
    return tuple(grant_view(grant, call.now_us) for grant in sorted(own, key=lambda g: g.order))


def balance(call: Call, _: str) -> Answer:
    state = call.books.state
    views = grants(call, "")
    drawn = [state.grants[g] for g in (OVERDRAFT, RECEIVABLE, PAYMENTS) if g in state.grants]
    pending = sum(v.available for v in views if v.state == "pending")
    return BalanceView(
        issued=sum(v.issued for v in views) + sum(g.issued for g in drawn),
        available=sum(v.available for v in views) - pending,
        pending=pending,
        held=sum(v.held for v in views) + sum(g.held for g in drawn),
        consumed=sum(v.consumed for v in views) + sum(g.consumed for g in drawn),
        expired=sum(v.expired for v in views),
        voided=sum(v.voided for v in views),
        overdraft=call.books.wallet.drawn(OVERDRAFT),
        receivable=call.books.wallet.drawn(RECEIVABLE),
        grants=views,
        leased=sum(hold.amount for hold in call.books.leases.all()),
        suspended=sum(h.amount for h in call.books.leases.all() if h.lease and h.lease.suspended_us is not None),
    )


def entities(call: Call, _: str) -> Answer:
    state = call.books.state
    root = EntityView(c.ROOT, None, c.ROOT in state.paused)
    return (root, *(EntityView(name, parent, name in state.paused) for name, parent in state.parents.items()))


def limits(call: Call, only: str) -> Answer:
    found = []
    for limit in call.books.state.limits.values():
        nodes = limit.counters if limit.entity.endswith(":*") else {limit.entity: None}
        found += [_limit_view(call, limit, node) for node in nodes or {limit.entity: None} if only in ("", node)]
    return tuple(found)


def _limit_view(call: Call, limit: LimitState, node: str) -> LimitView:
    start_us, end_us = call.books.limits.window(limit.window, call.now_us)
    counter = call.books.limits.peek(limit, node, start_us)
    scope = "" if limit.scope is None else msgspec.json.encode(limit.scope).decode()
    return LimitView(
        node, limit.measure, limit.window, limit.mode, limit.origin, limit.amount, counter.used, counter.held,
        None if end_us == FOREVER_US else end_us, scope,
    )  # fmt: skip


def session_view(call: Call, session: SessionState) -> SessionView:
    """A session as its holder sees it."""
    state: Literal["open", "paused", "stopped", "closed"] = "open"
    if session.closed:
        state = "closed"
    elif session.stopped:
        state = "stopped"
    elif any(node in call.books.state.paused for node in call.books.rooms.path(session)):
        state = "paused"
    refusals = call.books.refusals.get(session.id)
    return SessionView(
        id=session.id, state=state, budget=session.budget, spent=session.spent, held=session.held,
        remaining=None if session.budget is None else session.budget - session.consumption, steps=session.steps,
        denials=0 if refusals is None else refusals.total, parent=session.parent, entities=session.entities,
        feature=session.feature, workflow=session.workflow, children=tuple(session.children),
        opened_us=session.opened_us, stopped_because=session.stopped, on_unknown=session.on_unknown,
        on_denied=session.on_denied, wind_down=session.wind_down, max_step_us=session.max_step_us,
    )  # fmt: skip


def sessions(call: Call, _: str) -> Answer:
    return tuple(session_view(call, session) for session in call.books.state.sessions.values())


def one_session(call: Call, session_id: str) -> Answer:
    session = call.books.rooms.get(session_id)
    if session is None:
        raise InvalidRequest(f"there is no open session {session_id!r}", "session")
    return session_view(call, session)


def holds(call: Call, only: str) -> Answer:
    return tuple(
        HoldView(
            hold.step, hold.session, hold.kind, hold.model or hold.tool or "", hold.amount,
            sum(n for _, n in hold.charged), hold.opened_us, hold.dispatched,
            "" if hold.lease is None else hold.lease.holder, None if hold.lease is None else hold.lease.suspended_us,
            dict(hold.measures),
        )
        for hold in call.books.state.holds.values()
        if only in ("", hold.session)
    )  # fmt: skip


_VIEWS: dict[Where, Callable[[Call, str], Answer]] = {
    "customer": customer,
    "balance": balance,
    "grants": grants,
    "entities": entities,
    "limits": limits,
    "sessions": sessions,
    "session": one_session,
    "holds": holds,
}
