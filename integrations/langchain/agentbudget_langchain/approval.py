"""A refused step that asks a human: a LangGraph interrupt, whose approval gives the session more budget.

The graph stops at the step, as at every ``interrupt()``, and what ``invoke`` returns carries the :func:`question`. Its
``approve`` is the answer that approves it: ``graph.invoke(Command(resume=question["approve"]), config)``, with another
``amount`` in it to give more; ``False`` declines it, and the refusal stands.

An approval names its question, since LangGraph hands out an answer more than once: to every replay of the node, and,
after a failure, to the next question as well. So each funds at most once, in whatever process it comes back (law L4).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from agentbudget import BudgetDenied, Credits, KeyConflict, Session
from agentbudget.amounts import Amount
from agentbudget.runtime.ids import new_id

if TYPE_CHECKING:
    from agentbudget import Step
    from agentbudget.account.commands import Kind
    from agentbudget.account.decision import Decision

_WORTH_ASKING: Final = frozenset({"session_budget", "circuit_open", "insufficient_credits", "overdraft", "limit"})
"""Refusals that a human can lift: a session's budget and a stop by approving here, the others by a grant or another
limit before approving. Any other is a mistake in the program or a choice of the plan."""

_TASK: Final = "__pregel_scratchpad"
"""Where LangGraph keeps what belongs to one attempt of a task; without it this code is in no graph."""

Approved = list[tuple[Session, Amount | None, str]]
"""What an approval does: the budgets to raise, by how much, under which key; None: end the stop of the session."""


def reserve(session: Session, kind: Kind, what: Mapping[str, Any], *, timeout_seconds: float | None = None) -> Step:
    """``session.reserve``, asking a human when it is refused. Raises LangGraph's interrupt until there is an answer, and
    the ``BudgetDenied`` where none is to be had: outside of a graph, when it was declined, when no human can lift it."""
    note = ""
    while True:
        try:
            return session.reserve(kind, timeout_seconds=timeout_seconds, **what)
        except BudgetDenied as error:
            refused = error
        approved, note = _answered(session, refused, note)
        for level, more, key in approved:
            with contextlib.suppress(KeyConflict):  # funded before, by another amount: an approval counts once
                level.resume() if more is None else level.fund(more, key)


async def areserve(session: Session, kind: Kind, what: Mapping[str, Any]) -> Step:
    """:func:`reserve`, awaited."""
    note = ""
    while True:
        try:
            return await session.areserve(kind, **what)
        except BudgetDenied as error:
            refused = error
        approved, note = _answered(session, refused, note)
        for level, more, key in approved:
            with contextlib.suppress(KeyConflict):
                await (level.aresume() if more is None else level.afund(more, key))


def question(session: Session, decision: Decision, note: str = "") -> dict[str, Any]:
    """What the interrupt carries, as plain data: ``message``, ``reason``, ``session``, ``need``, ``amount`` (what is
    short; None where it is not the session's budget that lacks), ``suggestions``, ``approve`` (the answer that approves
    it), and a ``note`` where the last answer did not count."""
    short = _short(session, decision)
    amount = str(max(short.values())) if short else None
    return {
        "kind": "agentbudget_approval",
        "message": str(decision),
        "reason": decision.reason,
        "session": session.id,
        "need": str(decision.need),
        "amount": amount,
        "suggestions": list(decision.suggestions),
        "approve": {"approve": f"{session.id}.{new_id()}", "amount": amount},
        "note": note,
    }


def _answered(session: Session, refused: BudgetDenied, note: str) -> tuple[Approved, str]:
    """Ask, and say what the answer does, or what was wrong with it."""
    decision = refused.decision
    if decision is None or decision.reason not in _WORTH_ASKING or not _in_graph():
        raise refused
    from langgraph.types import interrupt

    answer = interrupt(question(session, decision, note))  # raises, until it was answered
    if answer is False or (isinstance(answer, Mapping) and answer.get("approve") is False):
        raise refused
    named = answer.get("approve") if isinstance(answer, Mapping) else None
    if not isinstance(named, str) or not named.startswith(f"{session.id}."):
        return [], "the last answer did not count: resume with this question's `approve`, or with False"
    try:
        amount = None if answer.get("amount") is None else Credits(answer["amount"])
    except (ValueError, TypeError) as error:
        return [], f"the last answer did not count: {error}"
    if amount is not None and amount <= 0:
        return [], f"the last answer did not count: {amount} credits are none"
    return _funding(session, decision, amount, named)


def _in_graph() -> bool:
    try:
        from langgraph.config import get_config

        return _TASK in get_config().get("configurable", {})
    except (ImportError, RuntimeError):  # LangGraph is not there, or no graph runs
        return False


def _funding(session: Session, decision: Decision, amount: Amount | None, named: str) -> tuple[Approved, str]:
    """Raise each budget that is short, the outermost first, since a child's parent must have the room; without a
    shortage, end the stop of the session."""
    approved: Approved = []
    for level, lacks in _short(session, decision).items():
        digest = hashlib.sha256(f"{named}|{level.id}".encode()).hexdigest()[:32]
        approved.append((level, lacks if amount is None else amount, f"approval.{digest}"))
    if approved or amount is None:
        return approved or ([(session, None, "")] if decision.reason == "circuit_open" else []), ""
    return [], f"{amount} credits would not help, since the step is refused by {decision.reason}"


def _short(session: Session, decision: Decision) -> dict[Session, Credits]:
    """The sessions, outermost first, whose budget is too small for the step, and how much each lacks."""
    path: list[Session] = []
    level: Session | None = session
    while level is not None:
        path.append(level)
        level = level.parent
    lacking: dict[str, Credits] = {}
    for one in decision.constraints:
        is_short = not one.allowed and one.kind == "session_budget"
        if is_short and isinstance(one.need, Credits) and isinstance(one.remaining, Credits):
            lacking[one.entity] = one.need - one.remaining
    return {level: lacking[at] for level in reversed(path) if (at := f"session:{level.id}") in lacking}
