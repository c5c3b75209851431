"""Everything that may refuse a hold, each judged by itself: the oracle names all that refuse, not only the first."""

from __future__ import annotations

from fnmatch import fnmatchcase

from agentbudget.account.commands import Hold
from tests.model.oracle_facts import Context, LimitFact, StepFact, covers
from tests.model.oracle_world import RECEIVABLE, SessionFact, World

MINUTE_US = 60_000_000


def context_of(world: World, hold: Hold) -> Context:
    """What scopes see of a step."""
    feature = hold.feature if hold.feature is not None else world.effective(hold.session, "feature")
    workflow = world.effective(hold.session, "workflow")
    return Context(hold.kind, hold.model, hold.tool, feature, workflow, frozenset(world.path(hold.session)))


def refusing(world: World, hold: Hold, now: int, *, extending: bool = False, opened: int | None = None) -> set[str]:
    """The reasons that refuse the hold; empty when it is allowed. More of a hold counts in the window it was opened in."""
    context = context_of(world, hold)
    checks = {
        "session_closed": world.sessions[hold.session].closed,
        "paused": any(entity in world.paused for entity in context.path),
        "circuit_open": circuit_refuses(world, hold, now, extending=extending),
        "feature_not_entitled": not entitled(world, context.feature),
        "model_not_allowed": not _model_allowed(world, hold.model),
        "session_budget": not world.fits(hold.session, hold.amount, wind_down=hold.wind_down),
        "limit": bool(limits_refusing(world, hold, context, now if opened is None else opened)),
        **_wallet(world, hold.amount, context, now),
    }
    return {reason for reason, refuses in checks.items() if refuses}


def entitled(world: World, feature: str | None) -> bool:
    """Whether the plan entitles the feature (None: nothing was asked)."""
    if feature is None or world.terms.features is None:
        return True
    return any(terms.feature == feature and terms.value is not False for terms in world.terms.features)


def _model_allowed(world: World, model: str | None) -> bool:
    globs = world.terms.models
    return model is None or not globs or any(fnmatchcase(model, glob) for glob in globs)


def limits_refusing(world: World, hold: Hold, context: Context, now: int) -> list[tuple[LimitFact, str]]:
    """The hard limits (with the entity) that the hold would pass."""
    return [
        (limit, entity)
        for limit, entity, remaining, need in limits_touched(world, hold, context, now)
        if limit.mode == "hard" and need > max(0, remaining)
    ]


def limits_touched(world: World, hold: Hold, context: Context, now: int) -> list[tuple[LimitFact, str, int, int]]:
    """Each limit in force that counts the hold: (limit, entity, what remains, what the hold needs)."""
    touched = []
    for limit in world.limits:
        if limit.amount is None or not covers(limit.scope, context):
            continue
        need = hold.amount if limit.measure == "credits" else hold.measures.get(limit.measure, 0)
        for entity in limit.entities_on(context.path):
            taken = world.used(limit, entity, now) + world.held_on(limit, entity, now)
            touched.append((limit, entity, limit.amount - taken, need))
    return touched


def _wallet(world: World, amount: int, context: Context, now: int) -> dict[str, bool]:
    free = sum(world.free(grant) for grant in world.eligible(context, now))
    short = amount > 0 and free < amount
    if world.terms.wallet == "postpaid":
        grown = world.owed() + world.total(RECEIVABLE, "held") + amount - free
        short = short and world.terms.credit_line is not None and grown > world.terms.credit_line
    return {"insufficient_credits": short, "overdraft": amount > 0 and world.overdraft() > 0}


# --- the breaker ---


def circuit_refuses(world: World, hold: Hold, now: int, *, extending: bool = False) -> bool:
    """More of a hold is judged by the rules about time and cost; those that count steps have judged its step."""
    if any(session.latched for session in world.lineage(hold.session)):
        return True
    if extending:
        return bool(_time_and_rate(world, hold, now)) or _too_dear(world, hold)
    return bool(lasting_rules(world, hold, now)) or passing_rules(world, hold)


def lasting_rules(world: World, hold: Hold, now: int) -> list[str]:
    """The rules that fire, of those that keep the circuit open until the session is resumed or funded."""
    session, rules = world.sessions[hold.session], world.breaker(hold.session)
    fired = {
        "max_steps": rules.max_steps is not None and world.steps_since_rest(session.id) >= rules.max_steps,
        "max_depth": rules.max_depth is not None and world.depth(hold.session) > rules.max_depth,
        "repeat": rules.repeat is not None and _repeats(_since_rest(world, session), hold, *rules.repeat),
        "error_burst": rules.error_burst is not None and session.errors_in_row >= rules.error_burst,
    }
    return [*_time_and_rate(world, hold, now), *(rule for rule, fires in fired.items() if fires)]


def refused_too_often(world: World, session: SessionFact) -> bool:
    """Whether a refusal that was just counted opens the circuit. Only then is it asked: a rule that comes into force later stops
    nobody for refusals of before."""
    most = world.breaker(session.id).refusals_in_row
    return most is not None and session.refusals_in_row >= most


def _time_and_rate(world: World, hold: Hold, now: int) -> list[str]:
    session, rules = world.sessions[hold.session], world.breaker(hold.session)
    age = now - max(session.opened_us, session.rest_us)
    steps = _since_rest(world, session)
    lately = sum(step.first_amount for step in steps if step.opened_us > now - MINUTE_US)
    fired = {
        "max_seconds": rules.max_seconds is not None and age > rules.max_seconds * 1_000_000,
        "max_rate": rules.max_rate is not None and lately + hold.amount > rules.max_rate,
    }
    return [rule for rule, fires in fired.items() if fires]


def _since_rest(world: World, session: SessionFact) -> list[StepFact]:
    return [step for step in world.steps_of(session.id) if step.order > session.rest_order]


def passing_rules(world: World, hold: Hold) -> bool:
    """Whether a rule fires that judges this step only."""
    return _of_this_step(world, hold) or leases_hold_the_steps(world, hold)


def _of_this_step(world: World, hold: Hold) -> bool:
    rules = world.breaker(hold.session)
    running = [step for step in world.steps_of(hold.session) if step.end is None]
    return _too_dear(world, hold) or (rules.max_parallel is not None and len(running) + 1 > rules.max_parallel)


def _too_dear(world: World, hold: Hold) -> bool:
    most = world.breaker(hold.session).max_step_cost
    return most is not None and hold.amount > most


def only_leases_break_it(world: World, hold: Hold, now: int) -> bool:
    """Whether the circuit refuses for nothing but steps that leases hold."""
    latched = any(session.latched for session in world.lineage(hold.session))
    others = latched or bool(lasting_rules(world, hold, now)) or _of_this_step(world, hold)
    return not others and leases_hold_the_steps(world, hold)


def leases_hold_the_steps(world: World, hold: Hold) -> bool:
    """Whether the steps that may still run are in leases."""
    rules = world.breaker(hold.session)
    begun = world.steps_since_rest(hold.session) + world.leased_steps(hold.session)
    return rules.max_steps is not None and begun + 1 > rules.max_steps


def _repeats(steps: list[StepFact], hold: Hold, times: int, within: int) -> bool:
    if hold.fingerprint is None:
        return False
    prints = [step.fingerprint for step in steps if step.fingerprint is not None] + [hold.fingerprint]
    return prints[-within:].count(hold.fingerprint) >= times
