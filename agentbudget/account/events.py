"""What happened: the body of each kind of entry. Together with its postings, an event is all that the fold needs.

Bodies without cycles are left out of garbage collection (gc=False): there are many, and they live for one commit.
Amounts move in the postings only; bodies say why, and hold what is counted besides credits. ``paid`` lists the overdraft that
credits freed by the entry paid: (step of the debt, nanocredits); the postings say from which grants.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from agentbudget.account.commands import Kind, StepReport
from agentbudget.account.state import Mark, Slice
from agentbudget.catalog.terms import Breaker, LimitMode, PlanTerms, Scope, Window

Paid: TypeAlias = tuple[tuple[str, int], ...]


class CustomerCreated(Struct, frozen=True, tag="customer_created"):
    terms: PlanTerms
    time_zone: str
    anchor_us: int


class PlanAssigned(Struct, frozen=True, tag="plan_assigned"):
    terms: PlanTerms


class GrantIssued(Struct, frozen=True, tag="grant_issued"):
    """``plan_grant`` and ``period_us``: issued by the plan, for the window that starts then."""

    grant: str
    amount: int
    label: str | None
    category: Literal["paid", "promo"]
    priority: int
    effective_us: int
    expires_us: int | None
    scope: Scope | None = None
    plan_grant: str | None = None
    period_us: int = 0
    paid: Paid = ()


class GrantVoided(Struct, frozen=True, tag="grant_voided"):
    grant: str
    amount: int
    reason: str


class GrantAdjusted(Struct, frozen=True, tag="grant_adjusted"):
    grant: str
    amount: int
    reason: str
    paid: Paid = ()


class GrantsExpired(Struct, frozen=True, tag="grants_expired"):
    grants: tuple[str, ...]


class DebtPaid(Struct, frozen=True, tag="debt_paid"):
    """Grants that became effective paid overdraft."""

    paid: Paid = ()


class ReceivableCleared(Struct, frozen=True, tag="receivable_cleared"):
    amount: int
    reference: str


class EntityPut(Struct, frozen=True, tag="entity_put"):
    entity: str
    parent: str


class LimitSet(Struct, frozen=True, tag="limit_set"):
    limit: int
    entity: str
    amount: int | None
    measure: str
    window: Window
    mode: LimitMode
    scope: Scope | None = None


class PauseSet(Struct, frozen=True, tag="pause_set"):
    entity: str
    paused: bool
    reason: str


class SessionOpened(Struct, frozen=True, tag="session_opened"):
    session: str
    parent: str | None
    budget: int | None
    wind_down: int
    entities: tuple[str, ...]
    feature: str | None
    workflow: str | None
    breaker: Breaker | None
    on_unknown: Literal["charge", "release"]
    on_denied: Literal["refuse", "stop", "abort"]
    ttl_us: int
    max_step_us: int


class SessionFunded(Struct, frozen=True, tag="session_funded"):
    session: str
    amount: int


class SessionStopped(Struct, frozen=True, tag="session_stopped"):
    session: str
    reason: str


class SessionClosed(Struct, frozen=True, tag="session_closed"):
    """``sessions``: the session and those of its descendants that were open, children first."""

    sessions: tuple[str, ...]
    reason: str


class HoldOpened(Struct, frozen=True, gc=False, tag="hold_opened", omit_defaults=True):
    step: str
    session: str
    kind: Kind
    amount: int
    slices: tuple[Slice, ...]
    marks: tuple[Mark, ...]
    measures: dict[str, int]
    ttl_us: int
    dispatched: bool
    model: str | None = None
    tool: str | None = None
    provider: str | None = None
    feature: str | None = None
    fingerprint: str | None = None
    rate: str = ""
    estimate: str = ""
    catalog: str = ""


class HoldExtended(Struct, frozen=True, gc=False, tag="hold_extended"):
    step: str
    part: int
    amount: int
    slices: tuple[Slice, ...]
    measures: dict[str, int]


class HoldDispatched(Struct, frozen=True, tag="hold_dispatched"):
    step: str


class HoldSettled(Struct, frozen=True, gc=False, tag="hold_settled", omit_defaults=True):
    """An end (``part`` None) or a part of a hold. ``charged``: slices charged by this entry in burn order, parts before them
    in ``before``; ``overrun`` of the amount was beyond the hold, ``debt`` beyond all grants; ``used`` by measure.
    The context (kind ... marks) is there when it is needed after the hold is gone: for a debt, or for a correction, which
    for a lapse also needs the ``measures`` that were held."""

    step: str
    session: str
    state: Literal["settled", "unknown", "released", "lapsed", "partial"]
    amount: int
    charged: tuple[Slice, ...] = ()
    overrun: int = 0
    debt: int = 0
    used: dict[str, int] = {}
    part: int | None = None
    before: tuple[Slice, ...] = ()
    kind: str = ""
    model: str | None = None
    tool: str | None = None
    feature: str | None = None
    workflow: str | None = None
    path: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    measures: dict[str, int] = {}
    served: str | None = None
    usage: dict[str, int] = {}
    error: str | None = None
    rate: str = ""
    catalog: str = ""
    cause: str = ""
    paid: Paid = ()
    lease: str | None = None


class LeaseRenewed(Struct, frozen=True, gc=False, tag="lease_renewed", omit_defaults=True):
    """One message of a lease's holder. ``steps`` settled on it: ``amount`` in all, of which ``charged`` came out of the lease
    and ``burnt`` (``overrun`` nanocredits of it; ``debt`` beyond all grants) did not; ``used`` and ``over`` the same by
    measure. ``released``: steps that cost nothing. ``back_slices`` and ``back_measures`` were given back, ``slices`` and
    ``measures`` (``granted`` in all) added. The key (kind ... path) is there when the lease opens (``seq`` 1), and when it is
    needed for a debt."""

    lease: str
    session: str
    seq: int
    holder: str
    amount: int = 0
    charged: tuple[Slice, ...] = ()
    burnt: tuple[Slice, ...] = ()
    overrun: int = 0
    debt: int = 0
    used: dict[str, int] = {}
    over: dict[str, int] = {}
    back: int = 0
    back_slices: tuple[Slice, ...] = ()
    back_measures: dict[str, int] = {}
    granted: int = 0
    slices: tuple[Slice, ...] = ()
    measures: dict[str, int] = {}
    closed: bool = False
    kind: str = ""
    model: str | None = None
    tool: str | None = None
    feature: str | None = None
    workflow: str | None = None
    wind_down: bool = False
    path: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    policy: int = 0
    names: tuple[str, ...] = ()
    steps: tuple[StepReport, ...] = ()
    tariffs: tuple[tuple[str, str], ...] = ()
    paid: Paid = ()
    released: int = 0


class LeaseSuspended(Struct, frozen=True, tag="lease_suspended"):
    """The lease's holder is silent; the next renewal ends it."""

    lease: str


class HoldCorrected(Struct, frozen=True, gc=False, tag="hold_corrected", omit_defaults=True):
    """The true cost of a step that had ended by a policy: ``amount`` in all, ``delta`` against what was booked. ``credit``:
    what of it billing had collected already, and is now a grant (``refund:<step>``). ``steps``: of a lease that had lapsed;
    ``released``: those of it that cost nothing."""

    step: str
    session: str
    amount: int
    delta: int
    debt: int = 0
    used: dict[str, int] = {}
    marks: tuple[Mark, ...] = ()
    kind: str = ""
    model: str | None = None
    tool: str | None = None
    feature: str | None = None
    workflow: str | None = None
    path: tuple[str, ...] = ()
    served: str | None = None
    usage: dict[str, int] = {}
    rate: str = ""
    catalog: str = ""
    credit: int = 0
    paid: Paid = ()
    names: tuple[str, ...] = ()
    steps: tuple[StepReport, ...] = ()
    tariffs: tuple[tuple[str, str], ...] = ()
    released: int = 0


class Tombstoned(Struct, frozen=True, tag="tombstoned"):
    """A key released before its hold arrived: a hold of that key will hold nothing."""

    step: str


Event: TypeAlias = (
    CustomerCreated | PlanAssigned | GrantIssued | GrantVoided | GrantAdjusted | GrantsExpired | DebtPaid | ReceivableCleared
    | EntityPut | LimitSet | PauseSet | SessionOpened | SessionFunded | SessionStopped | SessionClosed | HoldOpened
    | HoldExtended | HoldDispatched | HoldSettled | HoldCorrected | LeaseRenewed | LeaseSuspended | Tombstoned
)  # fmt: skip
