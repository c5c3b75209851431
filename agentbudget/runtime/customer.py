"""A customer's handle: its wallet, tree, limits, sessions and ledger. Each method is one command and its answer.

These are synchronous; from a coroutine call them with ``asyncio.to_thread``. What agents do at every step (sessions,
steps) has an asynchronous face of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Unpack

from agentbudget.account.commands import (
    ROOT,
    AdjustGrant,
    AssignPlan,
    ClearReceivable,
    CloseSession,
    Explain,
    IssueGrant,
    Kind,
    PutEntity,
    SetLimit,
    SetPaused,
    VoidGrant,
)
from agentbudget.account.decision import CustomerView, Decision, EntityView
from agentbudget.amounts import USD, Amount, to_nano
from agentbudget.catalog import UnknownPrice
from agentbudget.catalog.terms import LimitMode, Scope, Window
from agentbudget.errors import InvalidRequest
from agentbudget.ledger.chain import Anchor, VerifyReport
from agentbudget.ledger.journal import Archive, DenialNote
from agentbudget.runtime.host import run
from agentbudget.runtime.ids import new_id
from agentbudget.runtime.link import Link
from agentbudget.runtime.session import Session
from agentbudget.runtime.session_terms import SessionArguments, terms_of
from agentbudget.runtime.statement import StatementLine, lines_of
from agentbudget.runtime.steps import reserving
from agentbudget.runtime.steps.asking import Ask, Caps, StepArguments, hold_of
from agentbudget.runtime.views import (
    Balance,
    Grant,
    Limit,
    OpenHold,
    SessionStatus,
    balance_of,
    grant_of,
    limit_of,
    open_hold_of,
    status_of,
    to_us,
)

if TYPE_CHECKING:
    from agentbudget.account.expand import StepLine
    from agentbudget.ledger.audit import Difference
    from agentbudget.ledger.entry import Entry


class Customer:
    """Made by ``runtime.customer(id)`` and ``runtime.customers.create(...)``; cheap, and safe to share."""

    __slots__ = ("_archive", "entities", "id", "ledger", "limits", "link", "sessions", "wallet")

    def __init__(self, link: Link, archive: Archive) -> None:
        self.id, self.link, self._archive = link.customer, link, archive
        self.wallet = Wallet(link, archive)
        self.entities = Entities(link)
        self.limits = Limits(link)
        self.sessions = Sessions(link)
        self.ledger = CustomerLedger(archive, link)

    def __repr__(self) -> str:
        return f"<Customer {self.id}>"

    def info(self) -> CustomerView:
        """Plan, catalog version, wallet mode, time zone."""
        view: CustomerView = self.link.read("customer")
        return view

    def session(self, **stated: Unpack[SessionArguments]) -> Session:
        """A session with a budget of its own; see :class:`~agentbudget.runtime.session_terms.SessionArguments`. It is
        opened (or joined) by its first use."""
        return Session(self.link, terms_of(self.link, stated))

    def explain(
        self, entities: str | Sequence[str] = (), *, kind: Kind = "llm", workflow: str | None = None,
        **what: Unpack[StepArguments],
    ) -> Decision:  # fmt: skip
        """What a step for these entities would be answered, level by level, outside any session. Nothing is held."""
        names = (entities,) if isinstance(entities, str) else tuple(entities)
        ask = Ask(kind=kind, **what)
        try:
            priced = reserving.priced(self.link, ask, Caps(), workflow)
        except UnknownPrice as error:
            return reserving.unknown_price(error)
        hold = hold_of(ask, priced, step="explain", session="", ttl_us=0)
        plan = self.link.reading(Explain(hold, names, workflow))
        decision: Any = run(self.link.host, self.id, plan)
        return reserving.with_output(decision, priced)

    def assign_plan(self, plan: str) -> None:
        """Put the customer under another plan of the catalog in force. The same plan again: nothing."""
        self.link.ask(AssignPlan(self.link.catalog.terms(plan)))

    def pause(self, entity: str | None = None, reason: str = "") -> None:
        """Refuse every step below an entity (default: of the whole customer) until :meth:`resume`."""
        self.link.ask(SetPaused(entity or ROOT, True, reason))

    def resume(self, entity: str | None = None) -> None:
        """End a pause."""
        self.link.ask(SetPaused(entity or ROOT, False))

    def holds(self, session: str = "") -> tuple[OpenHold, ...]:
        """Everything that is held now (of one session): open steps, and what processes have leased."""
        return tuple(open_hold_of(view) for view in self.link.read("holds", session))

    def denials(self, limit: int = 100) -> list[DenialNote]:
        """The newest refusals, coalesced, newest first; best effort (DESIGN.md §4)."""
        return self._archive.denials(self.id, limit=limit)


class Wallet:
    """The customer's credits."""

    __slots__ = ("_archive", "_link")

    def __init__(self, link: Link, archive: Archive) -> None:
        self._link, self._archive = link, archive

    def grant(
        self, amount: Amount | USD, *, label: str | None = None, priority: int = 50, expires_at: datetime | None = None,
        effective_at: datetime | None = None, category: Literal["paid", "promo"] = "paid", scope: Scope | None = None,
        key: str | None = None,
    ) -> Grant:  # fmt: skip
        """Issue credits. With a ``key`` it happens once, and the key is the grant's id. Times are aware datetimes.

        Raises ``InvalidAmount``, ``InvalidRequest`` (naming the field) and ``KeyConflict``.
        """
        if category not in ("paid", "promo"):
            raise InvalidRequest(f"{category!r} is neither paid nor promo", "category")
        command = IssueGrant(
            key or new_id(), self._link.nano(amount), label, priority, to_us(effective_at, "effective_at"),
            to_us(expires_at, "expires_at"), category, scope, key,
        )  # fmt: skip
        done: Any = self._link.ask(command)
        return self._get(done.id)

    def void(
        self, grant: str, amount: Amount | USD | None = None, *, reason: str = "", key: str | None = None
    ) -> Grant:
        """Take back free credits of a grant: all of them, or so many. Held credits stay."""
        nano = None if amount is None else self._link.nano(amount)
        self._link.ask(VoidGrant(grant, nano, reason, key))
        return self._get(grant)

    def adjust(self, grant: str, amount: Amount, *, reason: str = "", key: str | None = None) -> Grant:
        """Correct a grant: add to it, or (negative) take free credits out of it."""
        self._link.ask(AdjustGrant(grant, to_nano(amount, allow_negative=True), reason, key))
        return self._get(grant)

    def clear_receivable(self, amount: Amount | USD, *, reference: str = "", key: str | None = None) -> None:
        """Billing was paid: lower what the customer owes."""
        self._link.ask(ClearReceivable(self._link.nano(amount), reference, key))

    def balance(self) -> Balance:
        """What is available, held, consumed, owed; and each grant."""
        return balance_of(self._link.read("balance"))

    def grants(self) -> tuple[Grant, ...]:
        """Every grant in burn order."""
        return tuple(grant_of(view) for view in self._link.read("grants"))

    def statement(self, *, since: datetime | None = None, until: datetime | None = None) -> list[StatementLine]:
        """What moved credits, in order, from the ledger alone: entries from ``since`` on, before ``until``."""
        since_us, until_us = to_us(since, "since"), to_us(until, "until")
        self._link.settle_up()
        return list(lines_of(self._archive.entries(self._link.customer), since_us, until_us))

    def _get(self, grant: str) -> Grant:
        return next(found for found in self.grants() if found.id == grant)


class Entities:
    """The customer's tree."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, entity: str, parent: str | None = None) -> None:
        """Create an entity (``type:name``) below ``parent`` (default: the customer), or move it there."""
        self._link.ask(PutEntity(entity, parent or ROOT))

    def list(self) -> tuple[EntityView, ...]:
        """Every entity, the root first."""
        views: tuple[EntityView, ...] = self._link.read("entities")
        return views


class Limits:
    """The administrator's limits; those of the plan are listed with them."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def set(
        self, entity: str, amount: Amount | USD, *, window: Window = "lifetime", measure: str = "credits",
        mode: LimitMode = "hard", scope: Scope | None = None,
    ) -> None:  # fmt: skip
        """At most ``amount`` of ``measure`` per ``window`` at ``entity`` (``customer``, ``user:ana``, ``user:*``); it
        replaces the limit of the same entity, measure, window and scope, and goes on counting."""
        self._link.ask(SetLimit(entity, self._units(amount, measure), measure, window, mode, scope))

    def remove(
        self, entity: str, *, window: Window = "lifetime", measure: str = "credits", scope: Scope | None = None
    ) -> None:
        """Take the limit away; it goes on counting, so setting it again does not start from nothing."""
        self._link.ask(SetLimit(entity, None, measure, window, "hard", scope))

    def list(self, entity: str | None = None) -> tuple[Limit, ...]:
        """Every limit, or those at one entity, in its current window."""
        return tuple(limit_of(view) for view in self._link.read("limits", entity or ""))

    def _units(self, amount: Amount | USD, measure: str) -> int:
        if measure == "credits":
            return self._link.nano(amount)
        if type(amount) is not int or amount < 0:
            raise InvalidRequest(f"{amount!r} is no number of {measure}: give a whole number from 0", "amount")
        return amount


class Sessions:
    """The customer's sessions that are not over."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def list(self) -> tuple[SessionStatus, ...]:
        """Every session that is open or still has open steps."""
        return tuple(status_of(view) for view in self._link.read("sessions"))

    def get(self, session: str) -> SessionStatus:
        """One of them; raises ``InvalidRequest`` when there is none of that id."""
        return status_of(self._link.read("session", session))

    def close(self, session: str) -> None:
        """End a session and its children. Again: nothing."""
        self._link.ask(CloseSession(session))


class CustomerLedger:
    """The customer's entries, and what can be proven from them."""

    __slots__ = ("_archive", "_customer", "_link")

    def __init__(self, archive: Archive, link: Link) -> None:
        self._archive, self._customer, self._link = archive, link.customer, link

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Entries with ``seq`` greater than ``after``, in order."""
        from agentbudget.ledger.entry import decode

        self._link.settle_up()
        return (decode(sealed.record) for sealed in self._archive.entries(self._customer, after=after))

    def steps(self, after: int = 0) -> Iterator[StepLine]:
        """Every settled step in the entries after ``after``, one line each, whether it was an entry of its own or one of many
        that a renewal lists. Their amounts sum to what was consumed."""
        from agentbudget.account.expand import step_lines

        for entry in self.entries(after):
            yield from step_lines(entry)

    def verify(self, anchor: Anchor | tuple[int, str] | None = None) -> VerifyReport:
        """Walk the chain (law L7); an anchor kept elsewhere also shows a removed tail."""
        from agentbudget.ledger.chain import verify

        self._link.settle_up()
        return verify(self._archive.entries(self._customer), customer=self._customer, anchor=anchor)

    def reconcile(self) -> list[Difference]:
        """Where the account's own fold and the postings' sums differ; empty is right. Ask while nothing is written."""
        from agentbudget.runtime.auditing import reconcile_customer

        self._link.settle_up()
        return reconcile_customer(self._archive, self._customer)
