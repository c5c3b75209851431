"""A customer's state: what the fold of its entries is. Mutable, owned by one account, encodable as a snapshot.

Everything here follows from entries. What only speeds things up (pools, paths, caches) lives in the classes that hold these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, field

from agentbudget.account.commands import Kind
from agentbudget.catalog.terms import Breaker, LimitMode, PlanTerms, Scope, Window
from agentbudget.ledger.entry import Posting

NEVER_US = 2**62
Order = tuple[int, int, int, int, int, str]


class GrantState(Struct):
    """One grant and its six balances (nanocredits)."""

    id: str
    label: str | None
    category: Literal["paid", "promo"]
    priority: int
    effective_us: int
    expires_us: int | None
    issued_us: int
    scope: Scope | None = None
    issued: int = 0
    available: int = 0
    held: int = 0
    consumed: int = 0
    expired: int = 0
    voided: int = 0

    @property
    def order(self) -> Order:
        """Burn order, a total one (DESIGN.md §5)."""
        expires_us = NEVER_US if self.expires_us is None else self.expires_us
        return (
            self.priority,
            expires_us,
            0 if self.category == "promo" else 1,
            self.effective_us,
            self.issued_us,
            self.id,
        )

    def is_expired(self, now_us: int) -> bool:
        return self.expires_us is not None and self.expires_us <= now_us


class Debt(Struct):
    """Overdraft that one step left, with what decides which credits may pay it."""

    step: str
    kind: str
    model: str | None
    tool: str | None
    feature: str | None
    workflow: str | None
    path: tuple[str, ...]
    amount: int


class Counter(Struct, gc=False):
    """What one limit counted at one entity in one window, in units of the limit's measure."""

    used: int = 0
    held: int = 0


class LimitState(Struct):
    """A limit and its counters: entity -> window start -> counter. ``amount`` None: removed or ended, still counting."""

    id: int
    entity: str
    amount: int | None
    measure: str
    window: Window
    mode: LimitMode
    origin: Literal["plan", "admin"]
    scope: Scope | None = None
    counters: dict[str, dict[int, Counter]] = field(default_factory=dict)


Mark = tuple[int, str, int]
"""Where a hold is counted: limit id, entity, window start."""
Slice = tuple[str, int]
"""So many nanocredits of one grant."""


class LeaseState(Struct):
    """What makes a hold a lease: who holds it, the last renewal applied, the policy epoch it was opened under, when it was
    last heard of in an entry, and since when its holder is silent (None: it is not)."""

    holder: str
    seq: int
    policy: int
    wind_down: bool
    renewed_us: int
    suspended_us: int | None = None


class HoldState(Struct):
    """An open hold: what is still held, where, and what its parts have charged. ``lease``: it is a lease; its ``measures`` are
    then those that something on its path counts."""

    step: str
    session: str
    kind: Kind
    model: str | None
    tool: str | None
    feature: str | None
    amount: int
    slices: Sequence[Slice]
    measures: dict[str, int]
    marks: tuple[Mark, ...]
    opened_us: int
    ttl_us: int
    dispatched: bool
    charged: list[Slice] = field(default_factory=list)
    lease: LeaseState | None = None


class SessionState(Struct):
    """A session. ``steps``: begun as holds, or ended on leases; ``leased_steps``: steps that its leases hold.
    ``consumption`` is what counts against its budget: own and closed children's spending and holds, and for each open child
    the larger of its carve-out and its own consumption."""

    id: str
    parent: str | None
    depth: int
    budget: int | None
    entities: tuple[str, ...]
    feature: str | None
    workflow: str | None
    on_unknown: Literal["charge", "release"]
    on_denied: Literal["refuse", "stop", "abort"]
    opened_us: int
    touched_us: int
    ttl_us: int
    max_step_us: int
    wind_down: int = 0
    breaker: Breaker | None = None
    closed: bool = False
    stopped: str = ""
    consumption: int = 0
    spent: int = 0
    held: int = 0
    steps: int = 0
    open_holds: int = 0
    leased_steps: int = 0
    children: list[str] = field(default_factory=list)
    rest_steps: int = 0
    rest_us: int = 0
    errors_in_row: int = 0
    fingerprints: list[str] = field(default_factory=list)
    recent: list[tuple[int, int]] = field(default_factory=list)

    @property
    def carve(self) -> int:
        """What this session keeps aside at its parent as long as it is open."""
        return 0 if self.closed or self.budget is None else self.budget


class Refusals(Struct):
    """What this process remembers of a session's refusals; they are no entries (DESIGN.md §4)."""

    total: int = 0
    in_row: int = 0


class State(Struct):
    """Everything of a customer. ``policy``: the policy epoch, the number of the last entry that may make what a lease was
    granted under untrue (a limit, a plan, a moved entity, a pause of anything but a session)."""

    customer: str
    seq: int = 0
    time_us: int = 0
    terms: PlanTerms | None = None
    time_zone: str = "UTC"
    anchor_us: int = 0
    created_us: int = 0
    plan_us: int = 0
    policy: int = 0
    grants: dict[str, GrantState] = field(default_factory=dict)
    plan_issued: dict[str, int] = field(default_factory=dict)
    debts: list[Debt] = field(default_factory=list)
    parents: dict[str, str] = field(default_factory=dict)
    paused: dict[str, str] = field(default_factory=dict)
    limits: dict[int, LimitState] = field(default_factory=dict)
    next_limit: int = 1
    sessions: dict[str, SessionState] = field(default_factory=dict)
    holds: dict[str, HoldState] = field(default_factory=dict)


Postings = tuple[Posting, ...]


def refund_grant(step: str) -> str:
    """The grant that gives back what a correction found to be paid too much."""
    return f"refund:{step}"
