"""What a plan promises, as plain values: the form in which the catalog reaches the account and the ledger.

The catalog file is validated by pydantic (``model.py``) and compiled into these. They are frozen, hashable, and written
whole into the entry that assigns a plan, so a decision can be explained from the ledger alone. Amounts are integers:
nanocredits where the measure is ``credits``, whole units of the measure elsewhere.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

Window: TypeAlias = Literal["hour", "day", "week", "month", "quarter", "year", "lifetime"]
LimitMode: TypeAlias = Literal["hard", "soft"]
WalletMode: TypeAlias = Literal["prepaid", "postpaid"]
FeatureType: TypeAlias = Literal["boolean", "config", "metered"]

WINDOWS: Final[tuple[Window, ...]] = ("hour", "day", "week", "month", "quarter", "year", "lifetime")
MEASURES: Final = ("credits", "tokens", "steps", "tool_calls", "seconds")
"""What every step counts; a metered feature's id is a measure too."""


class Scope(Struct, frozen=True, omit_defaults=True):
    """What a grant or limit applies to: shell globs by dimension; an empty dimension means everything.

    A step is covered when every non-empty dimension matches: its kind, its model (only steps of a model have one), its
    tool name, its feature, its workflow, and at least one entity on its path.
    """

    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()


class LimitTerms(Struct, frozen=True, omit_defaults=True):
    """At most ``amount`` of ``measure`` per ``window`` at ``entity``: ``customer``, a name, or each of a type (``user:*``)."""

    entity: str
    amount: int
    measure: str = "credits"
    window: Window = "lifetime"
    mode: LimitMode = "hard"
    scope: Scope | None = None


class GrantTerms(Struct, frozen=True, omit_defaults=True):
    """Credits that a plan brings: once (``every`` is None), or again at the start of each window, when the old grant expires.

    At most ``rollover`` nanocredits of what is left then are added to the next grant.
    """

    id: str
    amount: int
    every: Window | None = None
    rollover: int = 0
    label: str | None = None
    priority: int = 50
    category: Literal["paid", "promo"] = "paid"
    scope: Scope | None = None


class Breaker(Struct, frozen=True, omit_defaults=True):
    """When a session's circuit opens. None leaves a rule off. Counts are per session; windows are the last n steps.

    repeat: (n, window): the same tool with the same arguments n times within the last ``window`` tool steps.
    max_rate: nanocredits per minute held or charged.  max_step_cost: nanocredits that one step may hold.
    refusals_in_row / error_burst: that many refusals (failed steps) without an allowed (settled) one between.
    """

    max_steps: int | None = None
    max_depth: int | None = None
    max_parallel: int | None = None
    repeat: tuple[int, int] | None = None
    max_rate: int | None = None
    max_step_cost: int | None = None
    max_seconds: int | None = None
    refusals_in_row: int | None = None
    error_burst: int | None = None


class EntitlementTerms(Struct, frozen=True, omit_defaults=True):
    """A feature of the plan. ``value`` is the configured value of a ``config`` feature; a ``metered`` one may carry a limit."""

    feature: str
    type: FeatureType
    value: str | int | bool | None = None


class EntityTypeTerms(Struct, frozen=True, omit_defaults=True):
    """A kind of entity (``user`` of ``user:ana``). ``auto``: created at first use, under ``parent``, with ``limits``."""

    type: str
    auto: bool = False
    parent: str = "customer"
    limits: tuple[LimitTerms, ...] = ()


class PlanTerms(Struct, frozen=True, omit_defaults=True):
    """A plan of one catalog version, complete: nothing else of the catalog is needed to decide (prices come with the step).

    ``features`` None entitles every feature; ``models`` empty allows every model. ``credit_line`` bounds the receivable of a
    postpaid plan (None: no bound).
    """

    plan: str
    catalog: str
    wallet: WalletMode = "prepaid"
    credit_line: int | None = None
    features: tuple[EntitlementTerms, ...] | None = None
    models: tuple[str, ...] = ()
    grants: tuple[GrantTerms, ...] = ()
    limits: tuple[LimitTerms, ...] = ()
    breaker: Breaker = Breaker()
    entity_types: tuple[EntityTypeTerms, ...] = ()
    cycle: Literal["calendar", "anchored"] = "calendar"
