"""What the examples saw (facts: T16). A property that no example ever tried proves nothing, so these must all be seen."""

from __future__ import annotations

from collections import Counter

from agentbudget.account import commands as ask
from agentbudget.account.decision import Opened, Settled
from agentbudget.errors import HoldResolved, KeyConflict
from tests.model.oracle import Refused
from tests.model.oracle_world import RECEIVABLE, World

REASONS = (
    "session_budget", "insufficient_credits", "overdraft", "limit", "feature_not_entitled", "model_not_allowed",
    "circuit_open", "paused", "session_closed", "unknown_entity",
)  # fmt: skip

REQUIRED = (
    *(f"denied: {reason}" for reason in REASONS),
    "expired while held", "overrun to overdraft", "overdraft repaid", "overrun to receivable", "corrected up",
    "corrected down", "late settle after window roll", "key conflict", "resolved: released", "resolved: settled",
    "tombstone", "fan out partial", "snapshot used", "joined", "part", "lapsed free", "lapsed charged", "lost before",
    "lost after", "silent holder", "child holds past its carve", "clock went back",
)  # fmt: skip


def note_answer(reached: Counter[str], command: ask.Command, due: object, world: World, now: int) -> None:
    """Count what an answer shows."""
    match due:
        case Refused(reasons):
            reached.update(f"denied: {reason}" for reason in reasons)
        case KeyConflict():
            reached["key conflict"] += 1
        case HoldResolved(state=state):
            reached[f"resolved: {state}"] += 1
        case Opened(joined=joined, refused=refused):
            reached["joined"] += joined
            reached["fan out partial"] += refused is not None
        case Settled():
            _note_settled(reached, command, due, world, now)


def _note_settled(reached: Counter[str], command: ask.Command, due: Settled, world: World, now: int) -> None:
    step = world.steps.get(due.step)
    if step is None:
        reached["tombstone"] += 1
        return
    reached["part"] += due.state == "partial"
    reached["lapsed free"] += due.state == "lapsed"
    reached["lapsed charged"] += due.state == "unknown" and isinstance(command, ask.LapseHold)
    reached["overrun to overdraft"] += bool(due.debt)
    reached["overrun to receivable"] += bool(due.overrun) and any(piece.grant == RECEIVABLE for piece in step.pieces)
    reached["expired while held"] += any(piece.where == "expired" for piece in step.pieces)
    if due.state == "corrected":
        reached["corrected up" if due.overrun else "corrected down"] += 1
        month = world.window("month", step.opened_us) != world.window("month", now)
        reached["late settle after window roll"] += month


def note_state(reached: Counter[str], world: World, now: int) -> None:
    """Count what a state shows."""
    owed = world.overdraft()
    reached["in overdraft"] += owed > 0
    repaid = any(
        place > 0 and step.end is not None and piece.where == "consumed" and world.grants.get(piece.grant) is not None
        and world.grants[piece.grant].issued_us > step.opened_us and step.first_amount < step.charged
        for step in world.steps.values()
        for place, piece in enumerate(step.pieces)
    )  # fmt: skip
    reached["overdraft repaid"] += repaid
    for session in world.sessions.values():
        carve = session.budget
        if session.parent is not None and not session.closed and carve is not None:
            reached["child holds past its carve"] += world.consumption(session.id) > carve
