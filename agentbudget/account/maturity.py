"""What time alone brings: plan grants of a new window, expiry, and debts that newly effective grants pay.

It is caught up with at the next command of the customer, whatever the command is, as entries of their own before it.
"""

from __future__ import annotations

from agentbudget.account import events as e
from agentbudget.account.books import Books
from agentbudget.account.decide import MAX_TOTAL, Made, issue_postings
from agentbudget.account.windows import bounds
from agentbudget.catalog.terms import GrantTerms
from agentbudget.ledger.entry import AVAILABLE, EXPIRED, Posting

EXPIRE_AT_ONCE = 1_000
"""Grants that one entry expires: an entry stays readable, and a batch bounded."""


def due_grants(books: Books, now_us: int) -> list[Made]:
    """Plan grants to issue now: one-time ones never issued yet, recurring ones whose window has turned."""
    terms = books.state.terms
    if terms is None:
        return []
    made = (_due(books, grant, now_us) for grant in terms.grants)
    return [one for one in made if one is not None]


def _due(books: Books, grant: GrantTerms, now_us: int) -> Made | None:
    last_us = books.state.plan_issued.get(grant.id)
    if grant.every is None:
        amount = min(grant.amount, MAX_TOTAL - books.wallet.issued)
        return None if last_us is not None else _issue(grant, f"plan:{grant.id}", amount, 0, None, now_us)
    start_us, end_us = books.limits.window(grant.every, now_us)
    if last_us is not None and last_us >= start_us:
        return None
    carried = 0 if last_us is None else _carried(books, grant, last_us, start_us)
    amount = min(grant.amount + carried, MAX_TOTAL - books.wallet.issued)
    return _issue(grant, f"plan:{grant.id}:{start_us}", amount, start_us, end_us, now_us)


def _carried(books: Books, grant: GrantTerms, last_us: int, start_us: int) -> int:
    """What rolls over into the window that starts at ``start_us``, through windows in which nothing happened. Time before the
    plan was (again) assigned brings nothing: up to then its grants were issued at every command."""
    if last_us < _window(books, grant, books.state.plan_us)[0]:
        return 0
    old = books.state.grants.get(f"plan:{grant.id}:{last_us}")
    carried = min(grant.rollover, 0 if old is None else old.available)
    at_us = last_us
    while grant.rollover and (at_us := _next(books, grant, at_us)) < start_us:
        if carried == grant.rollover:
            break
        carried = min(grant.rollover, carried + grant.amount)
    return carried


def _next(books: Books, grant: GrantTerms, start_us: int) -> int:
    return _window(books, grant, start_us)[1]


def _window(books: Books, grant: GrantTerms, at_us: int) -> tuple[int, int]:
    state = books.state
    assert grant.every is not None
    assert state.terms is not None
    anchor_us = state.anchor_us if state.terms.cycle == "anchored" else None
    return bounds(grant.every, zone=state.time_zone, anchor_us=anchor_us, now_us=at_us)


def _issue(grant: GrantTerms, grant_id: str, amount: int, period_us: int, expires_us: int | None, now_us: int) -> Made:
    event = e.GrantIssued(
        grant_id,
        amount,
        grant.label,
        grant.category,
        grant.priority,
        now_us,
        expires_us,
        grant.scope,
        grant.id,
        period_us,
    )
    return Made(event, issue_postings(grant_id, amount), f"grant:{grant_id}")


def due_expiry(books: Books, now_us: int) -> Made | None:
    """Post the free credits of grants that have expired (law L2), a bounded number at a time."""
    gone = books.wallet.expire(now_us, EXPIRE_AT_ONCE)
    if not gone:
        return None
    postings = []
    for grant in gone:
        postings += [Posting(AVAILABLE, grant.id, -grant.available), Posting(EXPIRED, grant.id, grant.available)]
    return Made(e.GrantsExpired(tuple(grant.id for grant in gone)), postings)


def next_turn_us(books: Books, now_us: int) -> int:
    """When time will next bring something."""
    terms = books.state.terms
    ends = () if terms is None else tuple(books.limits.window(g.every, now_us)[1] for g in terms.grants if g.every)
    return min(books.wallet.next_change_us, *ends, 2**62)
