"""Opening many children of a session at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentbudget.account.commands import FanOut
from agentbudget.account.decision import Decision, Opened
from agentbudget.amounts import USD, Amount
from agentbudget.errors import InvalidRequest
from agentbudget.runtime import watching
from agentbudget.runtime.host import Plan
from agentbudget.runtime.session_terms import SessionArguments, renamed, terms_of
from agentbudget.runtime.steps import reserving

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session


def fanning_out(
    session: Session, n: int, budget_each: Amount | USD, at_least: int | None, stated: SessionArguments
) -> Plan[list[Session]]:
    """See ``Session.fan_out``."""
    from agentbudget.runtime.session import Session as NewSession

    if type(n) is not int or n < 1:
        raise InvalidRequest(f"{n!r} is no number of children: give 1 or more", "n")
    if stated.get("id") is not None or "budget" in stated:
        raise InvalidRequest("children of a fan-out have generated ids and one budget_each", "id")
    yield from session.opening()
    terms = terms_of(session.link, {**stated, "budget": budget_each}, parent=session.id, inherited=session._terms)
    children = [NewSession(session.link, renamed(terms), parent=session) for _ in range(n)]
    command = FanOut(session.id, tuple(child._terms.command for child in children), n if at_least is None else at_least)
    answer = yield from watching.under(session.seen, session.link.asked(command))
    if isinstance(answer, Decision):
        yield from reserving.deny(session, answer)
    return _opened(children, answer)


def _opened(children: list[Session], answer: Opened) -> list[Session]:
    opened = set(answer.sessions)
    kept = [child for child in children if child.id in opened]
    for child in kept:
        child._is_open, child.seen = True, watching.session_began(child)
    return kept
