"""Every name that is emitted, once. README.md has the same in a table; a test compares both with what really comes out."""

from __future__ import annotations

from typing import Final, NamedTuple

SCOPE: Final = "agentbudget"
"""The instrumentation scope of everything below."""

# --- spans and events -------------------------------------------------------------------------------------------------------
SESSION: Final = "agentbudget.session"
STEP: Final = "agentbudget.step"
OWNER: Final = "agentbudget.owner"
LATE: Final = "agentbudget.late_settlement"
STEP_DENIED: Final = "agentbudget.step.denied"
SESSION_DENIED: Final = "agentbudget.session.denied"

# --- attributes -------------------------------------------------------------------------------------------------------------
CUSTOMER_ID: Final = "agentbudget.customer.id"
SESSION_ID: Final = "agentbudget.session.id"
STEPS: Final = "agentbudget.session.steps"
DENIALS: Final = "agentbudget.session.denials"
STEP_ID: Final = "agentbudget.step.id"
KIND: Final = "agentbudget.step.kind"
MODEL: Final = "agentbudget.step.model"
NAME: Final = "agentbudget.step.name"
UNIT: Final = "agentbudget.unit"
HELD: Final = "agentbudget.held"
CHARGED: Final = "agentbudget.charged"
OVERRUN: Final = "agentbudget.overrun"
REMAINING: Final = "agentbudget.remaining"
OUTCOME: Final = "agentbudget.outcome"
ESTIMATE: Final = "agentbudget.estimate.source"
DECIDED_BY: Final = "agentbudget.decided_by"
REASON: Final = "agentbudget.denial.reason"
AFFORDABLE: Final = "agentbudget.denial.affordable"
RETRY_AT: Final = "agentbudget.denial.retry_at"
CONSTRAINT_KIND: Final = "agentbudget.constraint.kind"
CONSTRAINT_ENTITY: Final = "agentbudget.constraint.entity"
CONSTRAINT_MEASURE: Final = "agentbudget.constraint.measure"
CONSTRAINT_WINDOW: Final = "agentbudget.constraint.window"
CONSTRAINT_MODE: Final = "agentbudget.constraint.mode"
CONSTRAINT_LIMIT: Final = "agentbudget.constraint.limit"
CONSTRAINT_USED: Final = "agentbudget.constraint.used"
CONSTRAINT_HELD: Final = "agentbudget.constraint.held"
CONSTRAINT_REMAINING: Final = "agentbudget.constraint.remaining"
CONSTRAINT_NEED: Final = "agentbudget.constraint.need"
OWNER_NAME: Final = "agentbudget.owner.name"
COMMAND: Final = "agentbudget.owner.command"
ANSWER: Final = "agentbudget.owner.answer"
BATCH: Final = "agentbudget.owner.batch"
HIT: Final = "agentbudget.lease.hit"
REQUEST_MODEL: Final = "gen_ai.request.model"
COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
COST_SOURCE: Final = "gen_ai.usage.cost.source"


class Metric(NamedTuple):
    """An instrument: what it is, its unit (UCUM), the attributes that it may carry."""

    instrument: str
    unit: str
    attributes: tuple[str, ...] = ()


CREDITS_CHARGED: Final = "agentbudget.credits.charged"
CREDITS_RETURNED: Final = "agentbudget.credits.returned"
CREDITS_HELD: Final = "agentbudget.credits.held"
CREDITS_OVERRUN: Final = "agentbudget.credits.overrun"
STEPS_ENDED: Final = "agentbudget.steps"
HOLDS: Final = "agentbudget.holds.outstanding"
UTILIZATION: Final = "agentbudget.hold.utilization"
DECISION: Final = "agentbudget.decision.duration"
LOOKUPS: Final = "agentbudget.lease.lookups"
MAILBOX: Final = "agentbudget.mailbox.depth"
COMMIT: Final = "agentbudget.commit.duration"
LAPSES: Final = "agentbudget.lapses"
DROPPED: Final = "agentbudget.telemetry.dropped"

METRICS: Final[dict[str, Metric]] = {
    CREDITS_CHARGED: Metric("counter", "{credit}", (KIND, REQUEST_MODEL)),
    CREDITS_RETURNED: Metric("counter", "{credit}", (KIND, REQUEST_MODEL)),
    CREDITS_OVERRUN: Metric("counter", "{credit}", (KIND, REQUEST_MODEL)),
    CREDITS_HELD: Metric("updowncounter", "{credit}", (KIND,)),
    HOLDS: Metric("updowncounter", "{hold}", (KIND,)),
    STEPS_ENDED: Metric("counter", "{step}", (KIND, REQUEST_MODEL, OUTCOME, REASON)),
    UTILIZATION: Metric("histogram", "1", (KIND, REQUEST_MODEL)),
    DECISION: Metric("histogram", "s", (KIND, DECIDED_BY)),
    LOOKUPS: Metric("counter", "{lookup}", (HIT,)),
    MAILBOX: Metric("gauge", "{command}"),
    COMMIT: Metric("histogram", "s"),
    LAPSES: Metric("counter", "{hold}"),
    DROPPED: Metric("counter", "{record}"),
}
"""Session and customer ids come on top where ``metric_ids`` allows them, on those that carry a model."""

SPANS: Final[dict[str, tuple[str, ...]]] = {
    SESSION: (CUSTOMER_ID, SESSION_ID, UNIT, OUTCOME, CHARGED, REMAINING, STEPS, DENIALS),
    STEP: (
        CUSTOMER_ID, SESSION_ID, STEP_ID, KIND, MODEL, NAME, UNIT, HELD, CHARGED, OVERRUN, OUTCOME, ESTIMATE, DECIDED_BY,
        REASON,
    ),
    LATE: (
        CUSTOMER_ID, SESSION_ID, STEP_ID, KIND, MODEL, NAME, UNIT, HELD, CHARGED, OVERRUN, OUTCOME, ESTIMATE, DECIDED_BY,
    ),
    OWNER: (OWNER_NAME, COMMAND, ANSWER, BATCH),
}  # fmt: skip
"""The attributes that each span may have. A framework's own span gets those of STEP, and the cost."""

COST: Final = (COST_AMOUNT, COST_CURRENCY, COST_SOURCE)
DENIAL: Final = (
    CUSTOMER_ID, SESSION_ID, KIND, MODEL, NAME, REASON, AFFORDABLE, RETRY_AT, CONSTRAINT_KIND, CONSTRAINT_ENTITY,
    CONSTRAINT_MEASURE, CONSTRAINT_WINDOW, CONSTRAINT_MODE, CONSTRAINT_LIMIT, CONSTRAINT_USED, CONSTRAINT_HELD,
    CONSTRAINT_REMAINING, CONSTRAINT_NEED,
)  # fmt: skip
EVENTS: Final[dict[str, tuple[str, ...]]] = {STEP_DENIED: DENIAL, SESSION_DENIED: DENIAL}
