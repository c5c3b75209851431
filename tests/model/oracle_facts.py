"""What the oracle remembers: plain facts, never balances. What can be summed is summed again each time it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from agentbudget.account.decision import Renewed
from agentbudget.catalog.terms import Scope

NEVER = 2**80
"""Later than any time: when a grant that never expires expires."""
PATIENCE_US = 1_500_000
"""After so long a ticket is refused, whoever has not answered."""
FORGOTTEN_US = 1_000_000
"""A ticket that nobody asked for again for so long is no ticket any more."""


@dataclass(slots=True)
class Context:
    """What scopes are compared with: the step, and the path it ran on when it was held."""

    kind: str
    model: str | None
    tool: str | None
    feature: str | None
    workflow: str | None
    path: frozenset[str]


def covers(scope: Scope | None, step: Context) -> bool:
    """Whether every dimension that the scope names matches the step."""
    if scope is None:
        return True
    dimensions = [
        (scope.kinds, [step.kind]), (scope.models, [step.model]), (scope.tools, [step.tool]),
        (scope.features, [step.feature]), (scope.workflows, [step.workflow]), (scope.entities, list(step.path)),
    ]  # fmt: skip
    return all(
        any(value is not None and fnmatchcase(value, glob) for value in values for glob in globs)
        for globs, values in dimensions
        if globs
    )


@dataclass(slots=True)
class GrantFact:
    """A grant as issued, and every change of its amount."""

    id: str
    issued: list[int]
    label: str | None
    priority: int
    effective_us: int
    expires_us: int | None
    category: str
    scope: Scope | None
    issued_us: int
    voids: list[int] = field(default_factory=list)

    def expired(self, now: int) -> bool:
        return self.expires_us is not None and self.expires_us <= now

    def active(self, now: int) -> bool:
        return self.effective_us <= now and not self.expired(now)

    def burns_before(self) -> tuple[object, ...]:
        """The burn order of DESIGN.md §5."""
        expires = NEVER if self.expires_us is None else self.expires_us
        promo_first = 0 if self.category == "promo" else 1
        return self.priority, expires, promo_first, self.effective_us, self.issued_us, self.id


@dataclass(slots=True)
class Piece:
    """Some credits of one grant that one step took: ``held``, ``consumed``, or ``expired`` (forfeited)."""

    grant: str
    amount: int
    where: str


@dataclass(slots=True)
class Ending:
    """How a step ended: the state that was answered, and what latecomers are told: settled, released or lapsed."""

    state: str
    told: str
    request: str
    answer: object
    amount: int


@dataclass(frozen=True)
class Refused:
    """A refusal, with every reason that refuses."""

    reasons: frozenset[str]


@dataclass(frozen=True)
class Recalled:
    """Not yet: refused for now, and these leases are asked for what they hold."""

    reasons: frozenset[str]
    leases: frozenset[str]


@dataclass(slots=True)
class LeaseFact:
    """What makes a step a lease. ``past`` took what was reported on it; ``messages`` are those applied, by number, with what
    each granted; ``epoch`` counts policies; ``due``: when it was asked back by what happened, 0 where it is not (others may
    wait for it as well: ``Queue``)."""

    holder: str
    key: tuple[object, ...]
    epoch: int
    past: StepFact
    counted: frozenset[str]
    messages: dict[int, tuple[str, Renewed]] = field(default_factory=dict)
    suspended_us: int | None = None
    due: int = 0

    @property
    def seq(self) -> int:
        return len(self.messages)


@dataclass(slots=True)
class StepFact:
    """One step: what it took, in the order it took it, and what became of it. ``ran``: the steps of the session that it
    stands for (a lease: none; what was reported on it: as many as were reported)."""

    id: str
    session: str
    order: int
    opened_us: int
    context: Context
    dispatched: bool
    fingerprint: str | None
    first_amount: int
    pieces: list[Piece] = field(default_factory=list)
    held_measures: dict[str, int] = field(default_factory=dict)
    used_measures: dict[str, int] = field(default_factory=dict)
    end_measures: dict[str, int] = field(default_factory=dict)
    end: Ending | None = None
    correction: Ending | None = None
    not_in_session: int = 0
    ran: int = 1
    lease: LeaseFact | None = None

    def total(self, where: str) -> int:
        return sum(piece.amount for piece in self.pieces if piece.where == where)

    @property
    def held(self) -> int:
        return self.total("held")

    @property
    def charged(self) -> int:
        return self.total("consumed")

    def used(self, measure: str) -> int:
        if measure == "credits":
            return self.charged
        return self.used_measures.get(measure, 0) + self.end_measures.get(measure, 0)

    def still_held(self, measure: str) -> int:
        if self.end is not None:
            return 0
        return self.held if measure == "credits" else self.held_measures.get(measure, 0)


@dataclass(slots=True)
class Debt:
    """Overdraft that one step left behind: the piece is what is still owed."""

    step: StepFact
    piece: Piece


@dataclass(slots=True)
class Ticket:
    """Who waits since when: what it needs on each level that was short, and the leases that have not answered yet, with the
    moments at which they were asked."""

    number: int
    since_us: int
    asked_us: int
    needs: dict[tuple[object, ...], int]
    silent: dict[str, int] = field(default_factory=dict)

    def waits(self, now: int) -> bool:
        """Whether others have to let it go first."""
        return now - self.asked_us < FORGOTTEN_US and now - self.since_us < PATIENCE_US


@dataclass(slots=True)
class Queue:
    """All tickets of a customer, by who asks, the first first. They live in memory: a new owner has none.

    ``moment`` counts what was asked back; ``told``: the moment up to which the last answer told; ``meanings``: the moment that
    the owner's number in such an answer stands for, whatever the owner makes its numbers of."""

    tickets: dict[str, Ticket] = field(default_factory=dict)
    issued: int = 0
    moment: int = 0
    told: int = 0
    meanings: dict[int, int] = field(default_factory=dict)

    def next(self) -> int:
        self.moment += 1
        return self.moment

    def waits_for(self, lease: str) -> bool:
        return any(lease in ticket.silent for ticket in self.tickets.values())

    def drop_forgotten(self, now: int) -> None:
        self.tickets = {who: t for who, t in self.tickets.items() if now - t.asked_us < FORGOTTEN_US}

    def answered(self, lease: str, moment: int) -> None:
        """Those who had asked for the lease by then do not wait for it any more."""
        for ticket in self.tickets.values():
            if ticket.silent.get(lease, moment + 1) <= moment:
                del ticket.silent[lease]


@dataclass(slots=True)
class LimitFact:
    """A limit; ``since`` is the place in history from which it counts, ``amount`` None means removed."""

    origin: str
    entity: str
    measure: str
    window: str
    scope: Scope | None
    amount: int | None
    mode: str
    since: int

    def entities_on(self, path: frozenset[str]) -> list[str]:
        """The entities of a path that this limit counts."""
        if self.entity.endswith(":*"):
            return sorted(entity for entity in path if entity.startswith(self.entity[:-1]))
        return [self.entity] if self.entity in path else []
