"""What must be true after every step: the owner's views say what the oracle's sums say, and the laws hold in the entries."""

from __future__ import annotations

from agentbudget.account.decision import (
    BalanceView,
    Decision,
    Done,
    GrantView,
    HoldView,
    LimitView,
    Opened,
    Recalling,
    Renewed,
    SessionView,
    failing_first,
)
from agentbudget.amounts import Credits
from agentbudget.errors import AgentBudgetError, HoldResolved, OutOfOrder
from tests.model.oracle_facts import Recalled, Refused, StepFact
from tests.model.oracle_leases import Renewal
from tests.model.oracle_world import OVERDRAFT, RECEIVABLE, SessionFact, World


def same_answer(answer: object, due: object) -> None:
    """The owner's answer against the oracle's."""
    match due:
        case AgentBudgetError():
            assert type(answer) is type(due), f"{answer!r} instead of {due!r}"
            if isinstance(due, OutOfOrder):
                assert (answer.lease, answer.expected) == (due.lease, due.expected), f"{answer!r} instead of {due!r}"
            if isinstance(due, HoldResolved):
                assert (answer.hold, answer.state) == (due.hold, due.state), f"{answer!r} instead of {due!r}"
        case Refused(reasons):
            assert isinstance(answer, Decision), f"{answer!r} instead of {due!r}"
            assert not answer.allowed, f"allowed instead of {due!r}"
            same_reasons(answer, reasons)
        case Recalled():
            assert isinstance(answer, Recalling), f"{answer!r} instead of {due!r}"
            same_recalling(answer, due)
        case Renewal():
            assert isinstance(answer, Renewed), f"{answer!r} instead of {due!r}"
            same_renewal(answer, due)
        case Done():
            assert isinstance(answer, Done), f"{answer!r} instead of {due!r}"
            assert answer.changed == due.changed, f"{answer!r} instead of {due!r}"
        case Opened():
            assert isinstance(answer, Opened), f"{answer!r} instead of {due!r}"
            assert answer.sessions == due.sessions, f"{answer!r} instead of {due!r}"
            assert answer.joined == due.joined, f"{answer!r} instead of {due!r}"
            assert (answer.refused is None) == (due.refused is None), f"{answer!r} instead of {due!r}"
        case _:
            assert answer == due, f"{answer!r} instead of {due!r}"


def same_recalling(answer: Recalling, due: Recalled) -> None:
    """What it waits for is what leases hold."""
    assert not answer.decision.allowed, answer
    assert frozenset(answer.leases) == due.leases, f"{answer!r} instead of {due!r}"
    same_reasons(answer.decision, due.reasons)


def same_renewal(answer: Renewed, due: Renewal) -> None:
    """What was granted and what became of the ask; a number used before says what it granted, and no more."""
    shown = due.shown
    names = ["lease", "amount", "is_open"]
    names += [] if due.again else ["seq", "stale", "strict", "rules"]
    names += ["lasts_us"] if shown.is_open and not due.again else []
    differing = [name for name in names if getattr(answer, name) != getattr(shown, name)]
    assert not differing, f"{differing}: {answer!r} instead of {due!r}"
    assert _units(answer.measures) == shown.measures, f"{answer!r} instead of {due!r}"
    if due.again:
        assert (answer.refused, answer.recalling) == (None, None), answer
        return
    assert frozenset(answer.recall) == frozenset(shown.recall), f"{answer!r} instead of {due!r}"
    assert bool(answer.told) == bool(answer.recall), f"numbered {answer.told}: {answer!r}"
    counted = frozenset(answer.counted) == frozenset(shown.counted)
    assert counted or not shown.is_open, f"{answer!r} instead of {due!r}"
    assert (answer.refused is not None) == isinstance(due.due, Refused), f"{answer!r} instead of {due!r}"
    assert (answer.recalling is not None) == isinstance(due.due, Recalled), f"{answer!r} instead of {due!r}"
    if answer.refused is not None and due.due.reasons:
        same_reasons(answer.refused, due.due.reasons)
    if answer.recalling is not None:
        same_recalling(answer.recalling, due.due)


def same_policy(known: dict[int, int], epoch: int, policy: int) -> None:
    """One number a policy, and a later policy has a greater one."""
    assert known.setdefault(epoch, policy) == policy, f"policy {policy} instead of {known[epoch]}"
    order = [known[one] for one in sorted(known)]
    assert order == sorted(set(order)), f"policies do not grow: {known}"


def _units(measures: dict[str, int]) -> dict[str, int]:
    return {measure: units for measure, units in measures.items() if units}


def same_reasons(decision: Decision, reasons: frozenset[str]) -> None:
    """Every constraint that fails is named, and the one that binds is the least of them (the contract of Decision)."""
    failing = {constraint.kind for constraint in decision.constraints if not constraint.allowed}
    assert failing <= reasons, f"refused by {failing}, but only {set(reasons)} refuse"
    assert decision.reason in reasons, f"refused by {decision.reason}, but only {set(reasons)} refuse"
    binding = decision.binding
    assert binding is None or binding.kind == decision.reason, f"{decision.reason} does not bind: {binding}"
    assert decision.need >= Credits(0)
    assert binding is None or failing_first(decision.constraints)[0] == binding


def _differing(shown: dict[str, object], due: dict[str, object]) -> str:
    names = [name for name in {**shown, **due} if shown.get(name) != due.get(name)]
    return ", ".join(f"{name} is {shown.get(name)!r}, due {due.get(name)!r}" for name in names)


def same_balance(view: BalanceView, world: World, now: int) -> None:
    """The wallet, grant by grant (laws L2 and L6)."""
    assert sorted(grant.id for grant in view.grants) == sorted(world.grants)
    for grant in view.grants:
        _same_grant(grant, world, now)
    grants = view.grants
    active = sum(grant.available for grant in grants if grant.state in ("active", "used"))
    carried = {where: world.total(OVERDRAFT, where) + world.total(RECEIVABLE, where) for where in ("held", "consumed")}
    due = {
        "available": active,
        "pending": sum(grant.available for grant in grants if grant.state == "pending"),
        "held": sum(grant.held for grant in grants) + carried["held"],
        "consumed": sum(grant.consumed for grant in grants) + carried["consumed"],
        "expired": sum(grant.expired for grant in grants),
        "voided": sum(grant.voided for grant in grants),
        "overdraft": world.overdraft(),
        "leased": sum(lease.held for lease in world.leases()),
        "suspended": sum(lease.held for lease in world.leases() if lease.lease.suspended_us is not None),
        "receivable": world.owed(),
        "issued": sum(grant.issued for grant in grants) + sum(carried.values()),
    }
    shown = {name: getattr(view, name) for name in due}
    assert shown == due, f"the wallet: {_differing(shown, due)}"
    parts = view.available + view.pending + view.held + view.consumed + view.expired + view.voided
    assert view.issued == parts, "L2: the wallet does not balance"


def _same_grant(view: GrantView, world: World, now: int) -> None:
    fact = world.grants[view.id]
    free, gone = world.free(fact), fact.expired(now)
    state = "expired" if gone else "pending" if fact.effective_us > now else "active" if free else "used"
    due = {
        "issued": sum(fact.issued), "available": 0 if gone else free, "held": world.total(view.id, "held"),
        "consumed": world.total(view.id, "consumed"), "expired": world.total(view.id, "expired") + (free if gone else 0),
        "voided": sum(fact.voids), "state": state, "effective_us": fact.effective_us, "expires_us": fact.expires_us,
        "issued_us": fact.issued_us, "label": fact.label, "category": fact.category, "priority": fact.priority,
    }  # fmt: skip
    shown = {name: getattr(view, name) for name in due}
    assert shown == due, f"grant {view.id}: {_differing(shown, due)}"
    parts = view.available + view.held + view.consumed + view.expired + view.voided
    assert view.issued == parts, f"L2: grant {view.id} does not balance"


def same_limits(views: tuple[LimitView, ...], world: World, now: int) -> None:
    """Every limit in force, at every entity where it counted something (law L3)."""
    for fact in world.limits:
        if fact.entity.startswith("session:") and not world.known(fact.entity.removeprefix("session:")):
            continue
        for entity in _entities_counted(fact.entity, world):
            due = (fact.amount, world.used(fact, entity, now), world.held_on(fact, entity, now))
            found = [
                (view.limit, view.used, view.held)
                for view in views
                if (view.origin, view.entity, view.measure, view.window)
                == (fact.origin, entity, fact.measure, fact.window)
            ]
            idle = not due[1] and not due[2] and (entity != fact.entity or fact.amount is None)
            assert due in found or idle, f"{fact.origin} {entity} {fact.window}: {found}, due {due}"
            if fact.window != "lifetime":
                end = world.window(fact.window, now)[1]
                assert all(view.resets_at_us == end for view in views if view.window == fact.window), fact.window


def _entities_counted(entity: str, world: World) -> list[str]:
    if not entity.endswith(":*"):
        return [entity]
    prefix = entity[:-1]
    known = [f"session:{session}" for session in world.sessions if world.known(session)]
    return [one for one in [*world.entities, *known] if one.startswith(prefix)]


def same_sessions(views: tuple[SessionView, ...], world: World) -> None:
    """Every open session is shown, with what it and its children spent and hold."""
    shown = {view.id: view for view in views}
    missing = [session.id for session in world.sessions.values() if not session.closed and session.id not in shown]
    assert not missing, f"open, but not shown: {missing}"
    for view in views:
        _same_session(view, world.sessions[view.id], world)


def _same_session(view: SessionView, fact: SessionFact, world: World) -> None:
    opened = fact.opened
    budget = fact.budget
    due = {
        "budget": budget, "spent": world.spent(fact.id), "held": world.held(fact.id),
        "remaining": None if budget is None else budget - world.consumption(fact.id),
        "steps": world.ran(fact.id), "parent": fact.parent,
        "on_unknown": world.effective(fact.id, "on_unknown", "charge"),
        "on_denied": world.effective(fact.id, "on_denied", "refuse"),
        "wind_down": opened.wind_down or 0, "opened_us": fact.opened_us,
    }  # fmt: skip
    shown = {name: getattr(view, name) for name in due}
    assert shown == due, f"session {view.id}: {_differing(shown, due)}"
    assert (view.state == "closed") == fact.closed, view


def same_holds(views: tuple[HoldView, ...], world: World) -> None:
    """Exactly the holds that did not end are open, leases among them (law L5)."""
    due = {step.id: _shown_of(step) for step in world.steps.values() if step.end is None}
    shown = {
        v.step: (v.session, v.amount, 0 if v.holder else v.charged, v.opened_us, v.dispatched, v.holder, v.suspended_us)
        for v in views
    }
    assert shown == due, f"open holds: {_differing(shown, due)}"


def _shown_of(step: StepFact) -> tuple[object, ...]:
    lease = step.lease
    silent = ("", None) if lease is None else (lease.holder, lease.suspended_us)
    return step.session, step.held, step.charged, step.opened_us, step.dispatched, *silent


def within_bounds(views: tuple[LimitView, ...], need: dict[str, int], path: frozenset[str]) -> None:
    """Law L3, from the owner's own figures: after a hold was granted, no hard limit that counts it is passed."""
    for view in views:
        counts = need.get(view.measure, 0) > 0 and view.entity in path and not view.scope
        if counts and view.mode == "hard" and view.limit is not None:
            assert view.used + view.held <= view.limit, f"L3: a hold was granted past {view}"
