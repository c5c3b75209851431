"""Answers: what the owner says to a command. Plain values that pickle; shown amounts are ``Credits`` where credits are meant.

``Decision`` is the public one: the answer before a step, with every constraint that was evaluated.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from msgspec import Struct

from agentbudget.account.windows import EPOCH, MICROSECOND
from agentbudget.amounts import Credits, format_nano
from agentbudget.catalog.terms import Breaker

Reason: TypeAlias = Literal[
    "session_budget", "insufficient_credits", "overdraft", "limit", "feature_not_entitled", "model_not_allowed",
    "circuit_open", "paused", "session_closed", "no_session", "unknown_customer", "unknown_entity", "unknown_price",
    "unavailable",
]  # fmt: skip
Quantity: TypeAlias = Credits | int


class Constraint(Struct, frozen=True):
    """One thing that had to allow the step. Amounts are Credits when ``measure`` is credits, whole units otherwise, and None
    where the constraint has no amount (``detail`` then says what it looked at). ``resets_at_us``: end of its window."""

    kind: Reason
    entity: str
    allowed: bool
    measure: str = ""
    limit: Quantity | None = None
    used: Quantity | None = None
    held: Quantity | None = None
    remaining: Quantity | None = None
    need: Quantity | None = None
    window: str = ""
    mode: str = "hard"
    resets_at_us: int | None = None
    detail: str = ""

    @property
    def resets_at(self) -> datetime | None:
        """When its window ends, in UTC; None for one that never does."""
        return _time(self.resets_at_us)


class Affordable(Struct, frozen=True):
    """What would fit now: credits on every constraint at once; output tokens for this request at its price (None: not a priced
    model call, or not even its input fits)."""

    amount: Credits = Credits(0)
    max_output_tokens: int | None = None


class Decision(Struct, frozen=True):
    """The answer before a step. ``reason`` is the binding one, None when allowed: of the failing constraints on credits the
    one with the least remaining, else the first that fails. ``age_us`` is the age of the data used (0 at the owner)."""

    allowed: bool
    reason: Reason | None = None
    constraints: tuple[Constraint, ...] = ()
    affordable: Affordable = Affordable()
    need: Credits = Credits(0)
    retry_at_us: int | None = None
    grants: tuple[tuple[str, Credits], ...] = ()
    suggestions: tuple[str, ...] = ()
    detail: str = ""
    session: str = ""
    age_us: int = 0

    @property
    def retry_at(self) -> datetime | None:
        """When the binding constraint resets, in UTC; None when time alone does not help."""
        return _time(self.retry_at_us)

    @property
    def age(self) -> timedelta:
        """How old the data is that this was decided on."""
        return self.age_us * MICROSECOND

    @property
    def binding(self) -> Constraint | None:
        """The constraint that decided a denial."""
        return next((c for c in failing_first(self.constraints) if not c.allowed), None)

    def __str__(self) -> str:
        if self.allowed:
            return "allowed"
        head = f"refused ({self.reason})"
        what = wording(self)
        return head + (f": {what}" if what else "") + "".join(f"; {s}" for s in self.suggestions)


def _time(time_us: int | None) -> datetime | None:
    return None if time_us is None else EPOCH + time_us * MICROSECOND


def failing_first(constraints: tuple[Constraint, ...]) -> list[Constraint]:
    """Failing constraints, the binding one first; then the rest in the order they were evaluated."""
    failing = [c for c in constraints if not c.allowed]
    on_credits = [c for c in failing if c.measure == "credits" and isinstance(c.remaining, Credits)]
    binding = min(on_credits, key=lambda c: c.remaining) if on_credits and failing[0].remaining is not None else None  # type: ignore[arg-type,return-value]
    first = [binding] if binding is not None else []
    return first + [c for c in failing if c is not binding] + [c for c in constraints if c.allowed]


def wording(refused: Decision) -> str:
    """A refusal in words, without its reason and suggestions."""
    if refused.detail:
        return refused.detail
    binding = refused.binding
    if binding is None:
        return ""
    if binding.remaining is None:
        return binding.detail
    window = f" per {binding.window}" if binding.window not in ("", "lifetime") else ""
    unit = binding.measure
    return f"{binding.entity} has {binding.remaining} {unit} left{window}, the step needs {binding.need}"


class Held(Struct, frozen=True, gc=False):
    """A hold was made (or was made before under this key)."""

    step: str
    amount: int
    measures: dict[str, int]
    slices: tuple[tuple[str, int], ...]


class Settled(Struct, frozen=True, gc=False):
    """A hold's end, part or correction: ``charged`` in all for the step so far, ``overrun`` of it beyond the hold, ``debt`` of it
    overdraft. ``state``: settled, unknown, released, lapsed (given back), partial or corrected."""

    step: str
    state: Literal["settled", "unknown", "released", "lapsed", "partial", "corrected"]
    charged: int
    overrun: int = 0
    debt: int = 0


class Recalling(Struct, frozen=True):
    """Not yet: what the command needs is idle in leases of others, which have been asked for it. Ask the same again shortly;
    the first ticket is served first, and within 1.5 s there is an answer (DESIGN.md §4). ``decision``: the refusal that
    stands meanwhile; ``leases``: whose idle amounts are asked back."""

    ticket: int
    decision: Decision
    leases: tuple[str, ...] = ()


class Renewed(Struct, frozen=True, gc=False):
    """A renewal was applied. ``seq``: the last number of this lease that the owner has applied. ``amount``, ``measures``: what
    this message added to the lease (0 and empty: nothing). ``counted``: measures that something on the path limits, so
    that the holder must count them too. ``lasts_us``: for how long from now steps may start on the lease, as far as windows,
    expiries and time rules go (the holder's silence comes on top). ``policy``: the policy epoch that judged it.
    ``stale``: nothing may start on the lease any more (a window, an expiry or the policy turned, or its session may not go
    on), and ``lasts_us`` is 0: open another.
    ``refused``, ``recalling``: what became of ``ask`` where it was not granted. ``is_open``: False after ``close``.
    ``strict``: rules of this session (``max_parallel``, ``max_rate``) must see every process at every moment, so it has no
    leases: hold each step. ``recall``: leases of this holder that are asked back, by recalls up to number ``told``.
    ``rules``: the session's breaker, when the lease opens and rules of it are patterns that the holder watches (repeat,
    error_burst, max_step_cost)."""

    lease: str
    seq: int
    amount: int = 0
    measures: dict[str, int] = {}
    counted: tuple[str, ...] = ()
    lasts_us: int = 0
    policy: int = 0
    stale: bool = False
    refused: Decision | None = None
    recalling: Recalling | None = None
    is_open: bool = True
    strict: bool = False
    recall: tuple[str, ...] = ()
    rules: Breaker | None = None
    told: int = 0


class Done(Struct, frozen=True):
    """A command that answers only that it is so. ``changed``: an entry was written."""

    changed: bool = True
    id: str = ""


class Opened(Struct, frozen=True):
    """Sessions opened (or joined) by one command; ``refused`` says why a fan-out opened fewer than asked."""

    sessions: tuple[str, ...]
    joined: bool = False
    refused: Decision | None = None


class SessionView(Struct, frozen=True):
    """A session: ``spent`` and ``held`` include its children's; ``remaining`` is budget less spent, held and what open
    children have carved and not used (None: no budget)."""

    id: str
    state: Literal["open", "paused", "stopped", "closed"]
    budget: int | None
    spent: int
    held: int
    remaining: int | None
    steps: int
    denials: int
    parent: str | None
    entities: tuple[str, ...]
    feature: str | None
    workflow: str | None
    children: tuple[str, ...]
    opened_us: int
    stopped_because: str = ""
    on_unknown: str = "charge"
    on_denied: str = "refuse"
    wind_down: int = 0
    max_step_us: int = 0


class GrantView(Struct, frozen=True):
    """A grant; per grant issued = available + held + consumed + expired + voided (nanocredits). ``state``: active, pending (not
    effective yet), used (nothing free) or expired."""

    id: str
    label: str | None
    category: str
    priority: int
    state: Literal["active", "pending", "used", "expired"]
    issued: int
    available: int
    held: int
    consumed: int
    expired: int
    voided: int
    effective_us: int
    expires_us: int | None
    issued_us: int


class BalanceView(Struct, frozen=True):
    """The wallet in nanocredits: issued = available + pending + held + consumed + expired + voided over all grants, where
    held and consumed also count what overdraft and receivable carry (issued counts those draws too). ``leased``: of held, what
    leases hold; ``suspended``: of that, what holders hold that have gone silent."""

    issued: int
    available: int
    pending: int
    held: int
    consumed: int
    expired: int
    voided: int
    overdraft: int
    receivable: int
    grants: tuple[GrantView, ...]
    leased: int = 0
    suspended: int = 0


class EntityView(Struct, frozen=True):
    """A node of the tree."""

    id: str
    parent: str | None
    paused: bool


class LimitView(Struct, frozen=True):
    """A limit at one entity in its current window. ``origin``: plan or admin; ``limit`` None: removed, still counting."""

    entity: str
    measure: str
    window: str
    mode: str
    origin: str
    limit: int | None
    used: int
    held: int
    resets_at_us: int | None
    scope: str = ""


class CustomerView(Struct, frozen=True):
    """The customer and the plan it is under."""

    id: str
    plan: str
    catalog: str
    wallet: str
    time_zone: str
    paused: bool
    created_us: int
    entries: int


class HoldView(Struct, frozen=True):
    """An open hold, of a step or (``holder`` set) a lease; ``suspended_us``: since when its holder is silent."""

    step: str
    session: str
    kind: str
    name: str
    amount: int
    charged: int
    opened_us: int
    dispatched: bool
    holder: str = ""
    suspended_us: int | None = None
    measures: dict[str, int] = {}


Answer: TypeAlias = (
    Held | Settled | Renewed | Recalling | Done | Opened | Decision | SessionView | CustomerView | BalanceView
    | tuple[SessionView, ...] | tuple[GrantView, ...] | tuple[EntityView, ...] | tuple[LimitView, ...] | tuple[HoldView, ...]
)  # fmt: skip


def quantity(measure: str, units: int) -> Quantity:
    """Units of a measure as shown: Credits for credits, the integer otherwise."""
    return Credits.of_nano(units) if measure == "credits" else units


def describe(measure: str, units: int) -> str:
    """Units of a measure in words: ``1.5 credits``, ``20 steps``."""
    return f"{format_nano(units) if measure == 'credits' else units} {measure}"


def refusal_of_customer(customer: str) -> Decision:
    """The answer to a step of a customer that does not exist."""
    detail = f"there is no customer {customer!r}"
    constraint = Constraint("unknown_customer", "customer", False, detail=detail)
    suggestions = ("create it: runtime.customers.create(...), or agentbudget customer create",)
    return Decision(False, "unknown_customer", (constraint,), detail=detail, suggestions=suggestions)
