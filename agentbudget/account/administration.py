"""The commands that administer a customer: plan, grants, entities, limits, pauses. See ``commands.py``, by whose name everybody
knows them."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from agentbudget.catalog.terms import LimitMode, PlanTerms, Scope, Window

ROOT: Final = "customer"
"""The root entity of every customer's tree."""


class CreateCustomer(Struct, frozen=True, tag="create_customer"):
    """Create the customer under a plan; once. Again with the same plan answers the existing one, another plan is KeyConflict.

    ``time_zone`` (IANA) is where calendar windows turn; ``anchor_us`` is where an anchored plan's cycle starts (None: now).
    """

    terms: PlanTerms
    time_zone: str = "UTC"
    anchor_us: int | None = None


class AssignPlan(Struct, frozen=True, tag="assign_plan"):
    """Put the customer under these terms (a new plan, or the same plan of a new catalog version). Limits of the old plan that the
    new one does not have end; those it has too (same entity, measure, window, scope) keep what they counted. One-time plan
    grants are issued once per grant id for ever; equal terms change nothing and write nothing."""

    terms: PlanTerms


class IssueGrant(Struct, frozen=True, tag="issue_grant"):
    """Issue credits. Free credits pay overdraft in the same entry, in burn order of the grant's scope."""

    grant: str
    amount: int
    label: str | None = None
    priority: int = 50
    effective_us: int | None = None
    expires_us: int | None = None
    category: Literal["paid", "promo"] = "paid"
    scope: Scope | None = None
    key: str | None = None


class VoidGrant(Struct, frozen=True, tag="void_grant"):
    """Take back free credits of a grant: all of them (``amount`` None) or so many. Held credits cannot be voided."""

    grant: str
    amount: int | None = None
    reason: str = ""
    key: str | None = None


class AdjustGrant(Struct, frozen=True, tag="adjust_grant"):
    """Correct a grant: add to it (positive) or take free credits out of it (negative, booked as voided)."""

    grant: str
    amount: int
    reason: str = ""
    key: str | None = None


class ClearReceivable(Struct, frozen=True, tag="clear_receivable"):
    """Billing was paid: lower the receivable by ``amount`` (at most what is owed). Holds of the receivable are not owed yet."""

    amount: int
    reference: str = ""
    key: str | None = None


class PutEntity(Struct, frozen=True, tag="put_entity"):
    """Create an entity below ``parent``, or move it there. Its depth may be at most 16. Equal: nothing is written."""

    entity: str
    parent: str = ROOT


class SetLimit(Struct, frozen=True, tag="set_limit"):
    """Set, change or (``amount`` None) remove the administrator's limit for (entity, measure, window, scope).

    It counts holds opened from now on. A removed limit goes on counting, so setting it again does not start from nothing.
    ``entity``: ``customer``, an existing entity, an open ``session:<id>``, or every entity of a type (``user:*``).
    """

    entity: str
    amount: int | None
    measure: str = "credits"
    window: Window = "lifetime"
    mode: LimitMode = "hard"
    scope: Scope | None = None


class SetPaused(Struct, frozen=True, tag="set_paused"):
    """Pause or resume an entity (``customer`` for all, ``session:<id>`` for one session): new holds below it are refused.

    Resuming a session also ends its latch and closes its circuit.
    """

    entity: str
    paused: bool
    reason: str = ""
