"""What the examples saw (facts: T16). A property that no example ever tried proves nothing, so these must all be seen."""

from __future__ import annotations

from collections import Counter

from agentbudget.account import commands as ask
from agentbudget.account.decision import Opened, Settled
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict, OutOfOrder
from tests.model.oracle_facts import Recalled, Refused, StepFact
from tests.model.oracle_leases import Renewal
from tests.model.oracle_world import OVERDRAFT, RECEIVABLE, World

REASONS = (
    "session_budget", "insufficient_credits", "overdraft", "limit", "feature_not_entitled", "model_not_allowed",
    "circuit_open", "paused", "session_closed", "unknown_entity",
)  # fmt: skip

LEASES = (
    "leased all at once", "leased a tranche", "topped up", "stale by window", "stale by expiry", "stale by policy",
    "stale by session", "stale in a report", "no answer to a recall", "answer to an earlier recall",
    "released on a lease",
    "expired in a lease", "lease overrun", "lease overdraft", "recall answered", "recall timed out", "recall refused",
    "queued", "ask recalls", "carve recalls", "suspended", "woken", "lease lapsed: charge", "lease lapsed: release",
    "lease corrected up", "lease corrected down", "number replayed", "replayed after the end", "out of order",
    "strict session", "no step left for a lease", "unknown step corrected", "lie refused", "resolved: lapsed",
    "lost a renewal", "reported after the session's end", "counts anew",
)  # fmt: skip

REQUIRED = (
    *LEASES,
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
        case Renewal():
            _note_renewal(reached, command, due, world, now)
        case OutOfOrder():
            reached["out of order"] += 1
        case InvalidRequest():
            reached["lie refused"] += isinstance(command, ask.Renew)
    reached.update(world.sights)
    world.sights.clear()
    _note_waiting(reached, command, due, world)


def _note_renewal(reached: Counter[str], command: ask.Renew, due: Renewal, world: World, now: int) -> None:
    shown, lease = due.shown, world.steps.get(command.lease)
    reached["strict session"] += shown.strict
    if due.again:
        reached["number replayed"] += 1
        reached["replayed after the end"] += lease.end is not None
        return
    if lease is None:
        return
    if shown.stale:
        ended = any(
            p.where == "held" and world.grants[p.grant].expired(now) for p in lease.pieces if p.grant in world.grants
        )
        by_session = lease.lease.epoch == world.epoch and world.is_untrue(lease)
        old = "session" if by_session else "policy" if world.is_untrue(lease) else ""
        reached[f"stale by {old or ('expiry' if ended else 'window')}"] += 1
        reached["stale in a report"] += command.ask is None
    if command.ask is not None and shown.amount:
        times = shown.amount // command.ask.amount
        reached["leased all at once" if times == command.times else "leased a tranche"] += command.times > 1
        reached["topped up"] += command.seq > 1
    reached["expired in a lease"] += any(piece.where == "expired" for piece in lease.pieces)
    reached["lease overrun"] += command.overrun > 0
    reached["lease overdraft"] += any(piece.grant == OVERDRAFT for piece in lease.lease.past.pieces)
    reached["reported after the session's end"] += bool(command.steps) and world.sessions[command.session].closed


def _note_waiting(reached: Counter[str], command: ask.Command, due: object, world: World) -> None:
    waiting = due.due if isinstance(due, Renewal) else due
    if isinstance(waiting, Recalled):
        reached["ask recalls"] += isinstance(command, ask.Renew)
        reached["carve recalls"] += isinstance(command, ask.OpenSession | ask.FanOut | ask.FundSession)
        reached["no step left for a lease"] += waiting.reasons == {"circuit_open"}


def _note_settled(reached: Counter[str], command: ask.Command, due: Settled, world: World, now: int) -> None:
    step = world.steps.get(due.step)
    if step is None:
        reached["tombstone"] += 1
        return
    if step.lease is not None:
        _note_correction(reached, due)
        return
    reached["unknown step corrected"] += due.state == "corrected" and _of_a_lease(step, world)
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


def _note_correction(reached: Counter[str], due: Settled) -> None:
    if due.state == "corrected":
        reached["lease corrected up" if due.overrun else "lease corrected down"] += 1


def _of_a_lease(step: StepFact, world: World) -> bool:
    return step.id.rpartition(".")[0] in world.steps


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
        reached["counts anew"] += bool(session.rest_steps) and world.breaker(session.id).max_steps is not None
        carve = session.budget
        if session.parent is not None and not session.closed and carve is not None:
            reached["child holds past its carve"] += world.consumption(session.id) > carve
