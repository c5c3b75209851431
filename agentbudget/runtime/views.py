"""What the public methods return: small frozen values, amounts as Credits, times as aware datetimes in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from msgspec import Struct

from agentbudget.account.decision import BalanceView, GrantView, HoldView, LimitView, SessionView, Settled, quantity
from agentbudget.amounts import Credits
from agentbudget.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
StepState: TypeAlias = Literal["reserved", "dispatched", "settled", "unknown", "released", "lapsed", "corrected"]


class Grant(Struct, frozen=True):
    """A grant: issued = available + held + consumed + expired + voided."""

    id: str
    label: str | None
    category: str
    priority: int
    state: str
    issued: Credits
    available: Credits
    held: Credits
    consumed: Credits
    expired: Credits
    voided: Credits
    effective_at: datetime | None
    expires_at: datetime | None
    issued_at: datetime | None


class Balance(Struct, frozen=True):
    """The wallet: issued = available + pending + held + consumed + expired + voided. ``leased``: of held, what processes have
    leased and decide about by themselves; ``suspended``: of that, what is held by processes that have gone silent."""

    issued: Credits
    available: Credits
    pending: Credits
    held: Credits
    consumed: Credits
    expired: Credits
    voided: Credits
    overdraft: Credits
    receivable: Credits
    grants: tuple[Grant, ...] = ()
    leased: Credits = Credits(0)
    suspended: Credits = Credits(0)


class Limit(Struct, frozen=True):
    """A limit at one entity in its current window: Credits where ``measure`` is credits, whole units otherwise."""

    entity: str
    measure: str
    window: str
    mode: str
    origin: str
    limit: Credits | int | None
    used: Credits | int
    held: Credits | int
    resets_at: datetime | None
    scope: str = ""


class SessionStatus(Struct, frozen=True):
    """A session now. ``remaining`` None: no budget of its own. ``state``: open, paused, stopped or closed."""

    id: str
    state: str
    budget: Credits | None
    spent: Credits
    held: Credits
    remaining: Credits | None
    steps: int
    denials: int
    parent: str | None
    entities: tuple[str, ...]
    feature: str | None
    workflow: str | None
    children: tuple[str, ...]
    opened_at: datetime | None
    stopped_because: str = ""


class OpenHold(Struct, frozen=True):
    """What is held for a step that is not over, or (``holder`` set) for a process that has leased it and decides about steps
    like this by itself. ``measures``: what it holds beside credits; ``charged``: what partial settlements have charged;
    ``suspended_at``: since when its holder is silent."""

    id: str
    session: str
    kind: str
    name: str
    amount: Credits
    measures: dict[str, int]
    charged: Credits
    dispatched: bool
    holder: str
    opened_at: datetime | None
    suspended_at: datetime | None


class Settlement(Struct, frozen=True):
    """How a step ended: ``charged`` in all, ``overrun`` of it beyond its hold, ``debt`` of it beyond all grants; the fields
    are their nanocredits."""

    step: str
    state: StepState
    charged_nano: int = 0
    overrun_nano: int = 0
    debt_nano: int = 0

    @property
    def charged(self) -> Credits:
        return Credits.of_nano(self.charged_nano)

    @property
    def overrun(self) -> Credits:
        return Credits.of_nano(self.overrun_nano)

    @property
    def debt(self) -> Credits:
        return Credits.of_nano(self.debt_nano)

    def __repr__(self) -> str:
        beyond = "".join(
            f", {name} {amount}" for name, amount in (("overrun", self.overrun), ("debt", self.debt)) if amount
        )
        return f"<Settlement {self.step} {self.state}, charged {self.charged}{beyond}>"


def balance_of(view: BalanceView) -> Balance:
    amounts = {name: Credits.of_nano(getattr(view, name)) for name in Balance.__struct_fields__ if name != "grants"}
    return Balance(**amounts, grants=tuple(grant_of(grant) for grant in view.grants))


def grant_of(view: GrantView) -> Grant:
    names = ("issued", "available", "held", "consumed", "expired", "voided")
    return Grant(
        id=view.id, label=view.label, category=view.category, priority=view.priority, state=view.state,
        effective_at=at(view.effective_us), expires_at=at(view.expires_us), issued_at=at(view.issued_us),
        **{name: Credits.of_nano(getattr(view, name)) for name in names},
    )  # fmt: skip


def limit_of(view: LimitView) -> Limit:
    return Limit(
        view.entity, view.measure, view.window, view.mode, view.origin,
        None if view.limit is None else quantity(view.measure, view.limit),
        quantity(view.measure, view.used), quantity(view.measure, view.held), at(view.resets_at_us), view.scope,
    )  # fmt: skip


def status_of(view: SessionView) -> SessionStatus:
    return SessionStatus(
        id=view.id, state=view.state, budget=_credits(view.budget), spent=Credits.of_nano(view.spent),
        held=Credits.of_nano(view.held), remaining=_credits(view.remaining), steps=view.steps, denials=view.denials,
        parent=view.parent, entities=view.entities, feature=view.feature, workflow=view.workflow,
        children=view.children, opened_at=at(view.opened_us), stopped_because=view.stopped_because,
    )  # fmt: skip


def open_hold_of(view: HoldView) -> OpenHold:
    return OpenHold(
        view.step, view.session, view.kind, view.name, Credits.of_nano(view.amount), view.measures,
        Credits.of_nano(view.charged), view.dispatched, view.holder, at(view.opened_us), at(view.suspended_us),
    )  # fmt: skip


def settlement_of(settled: Settled) -> Settlement:
    state: StepState = "dispatched" if settled.state == "partial" else settled.state
    return Settlement(settled.step, state, settled.charged, settled.overrun, settled.debt)


def at(time_us: int | None) -> datetime | None:
    """Microseconds since the epoch as an aware datetime; None stays None, and so does a time beyond the year 9999."""
    if time_us is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        return None


def to_us(when: datetime | None, field: str) -> int | None:
    """An aware datetime as microseconds since the epoch; raises :class:`InvalidRequest` for a naive one, by name."""
    if when is None:
        return None
    if not isinstance(when, datetime):
        raise InvalidRequest(f"{when!r} is no datetime", field)
    if when.tzinfo is None or when.utcoffset() is None:
        raise InvalidRequest(f"{when} has no time zone: give an aware datetime, as datetime(..., tzinfo=UTC)", field)
    return (when - _EPOCH) // timedelta(microseconds=1)


def _credits(nano: int | None) -> Credits | None:
    return None if nano is None else Credits.of_nano(nano)
