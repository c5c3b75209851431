"""Answers and errors as they travel: each with a mark of its type, because an answer is one of many.

``Credits`` travel as nanocredits. What holds some (a decision, and what carries one) has a twin here with the same fields
in the same order; everything else travels as it is.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import astuple

from agentbudget import errors
from agentbudget.account import decision as d
from agentbudget.amounts import Credits
from agentbudget.catalog.terms import Breaker
from agentbudget.errors import AgentBudgetError


class Failed(Struct, frozen=True, array_like=True, gc=False, tag=0):
    """An error: the name of its class, and what it was made of."""

    name: str
    args: list[str | int | None]


class SentHeld(Struct, frozen=True, array_like=True, gc=False, tag=1):
    value: d.Held


class SentSettled(Struct, frozen=True, array_like=True, gc=False, tag=2):
    value: d.Settled


class SentDone(Struct, frozen=True, array_like=True, gc=False, tag=3):
    value: d.Done


class SentConstraint(Struct, frozen=True, array_like=True):
    kind: d.Reason
    entity: str
    allowed: bool
    measure: str
    limit: int | None
    used: int | None
    held: int | None
    remaining: int | None
    need: int | None
    window: str
    mode: str
    resets_at_us: int | None
    detail: str


class SentDecision(Struct, frozen=True, array_like=True, tag=4):
    allowed: bool
    reason: d.Reason | None
    constraints: tuple[SentConstraint, ...]
    affordable: tuple[int, int | None]
    need: int
    retry_at_us: int | None
    grants: tuple[tuple[str, int], ...]
    suggestions: tuple[str, ...]
    detail: str
    session: str
    age_us: int


class SentRecalling(Struct, frozen=True, array_like=True, tag=5):
    ticket: int
    decision: SentDecision
    leases: tuple[str, ...]


class SentRenewed(Struct, frozen=True, array_like=True, tag=6):
    lease: str
    seq: int
    amount: int
    measures: dict[str, int]
    counted: tuple[str, ...]
    lasts_us: int
    policy: int
    stale: bool
    refused: SentDecision | None
    recalling: SentRecalling | None
    is_open: bool
    strict: bool
    recall: tuple[str, ...]
    rules: Breaker | None
    told: int


class SentOpened(Struct, frozen=True, array_like=True, tag=7):
    sessions: tuple[str, ...]
    joined: bool
    refused: SentDecision | None


class SentSession(Struct, frozen=True, array_like=True, tag=8):
    value: d.SessionView


class SentCustomer(Struct, frozen=True, array_like=True, tag=9):
    value: d.CustomerView


class SentBalance(Struct, frozen=True, array_like=True, tag=10):
    value: d.BalanceView


class SentNothing(Struct, frozen=True, array_like=True, tag=11):
    """A view of many, of which there are none."""


class SentSessions(Struct, frozen=True, array_like=True, tag=12):
    value: tuple[d.SessionView, ...]


class SentGrants(Struct, frozen=True, array_like=True, tag=13):
    value: tuple[d.GrantView, ...]


class SentEntities(Struct, frozen=True, array_like=True, tag=14):
    value: tuple[d.EntityView, ...]


class SentLimits(Struct, frozen=True, array_like=True, tag=15):
    value: tuple[d.LimitView, ...]


class SentHolds(Struct, frozen=True, array_like=True, tag=16):
    value: tuple[d.HoldView, ...]


Sent: TypeAlias = (
    Failed | SentHeld | SentSettled | SentDone | SentDecision | SentRecalling | SentRenewed | SentOpened | SentSession
    | SentCustomer | SentBalance | SentNothing | SentSessions | SentGrants | SentEntities | SentLimits | SentHolds
)  # fmt: skip

_PLAIN: Final[dict[type, Any]] = {
    d.Held: SentHeld, d.Settled: SentSettled, d.Done: SentDone, d.SessionView: SentSession, d.CustomerView: SentCustomer,
    d.BalanceView: SentBalance,
}  # fmt: skip
_MANY: Final[dict[type, Any]] = {
    d.SessionView: SentSessions, d.GrantView: SentGrants, d.EntityView: SentEntities, d.LimitView: SentLimits,
    d.HoldView: SentHolds,
}  # fmt: skip
_VALUED: Final = frozenset((*_PLAIN.values(), *_MANY.values()))

_ERRORS: Final[dict[str, type[AgentBudgetError]]] = {
    kind.__name__: kind
    for kind in (
        AgentBudgetError, errors.KeyConflict, errors.HoldResolved, errors.OwnerUnavailable, errors.LedgerCorrupt,
        errors.InvalidAmount, errors.InvalidRequest, errors.OutOfOrder, errors.InvariantBroken,
    )
}  # fmt: skip
"""What an owner may answer; a closed set, so that no name that comes over the wire can name anything else."""


def to_send(answer: d.Answer | AgentBudgetError) -> Sent:
    """The answer as it travels."""
    plain = _PLAIN.get(type(answer))
    if plain is not None:
        return plain(answer)  # type: ignore[no-any-return]
    match answer:
        case AgentBudgetError():
            return _failed(answer)
        case d.Decision():
            return _sent_decision(answer)
        case d.Renewed():
            return SentRenewed(*_with_decisions(answer))
        case d.Opened():
            return SentOpened(*_with_decisions(answer))
        case d.Recalling():
            return SentRecalling(*_with_decisions(answer))
        case ():
            return SentNothing()
        case (first, *_):
            return _MANY[type(first)](answer)  # type: ignore[no-any-return]
    raise TypeError(f"{type(answer).__name__} is no answer")


def received(sent: Sent) -> d.Answer | AgentBudgetError:
    """The answer as the owner gave it."""
    if type(sent) in _VALUED:
        return sent.value  # type: ignore[union-attr]
    match sent:
        case Failed(name, args):
            return _ERRORS.get(name, AgentBudgetError)(*args)
        case SentDecision():
            return _decision(sent)
        case SentRenewed():
            return d.Renewed(*_with_decisions(sent))
        case SentOpened():
            return d.Opened(*_with_decisions(sent))
        case SentRecalling():
            return d.Recalling(*_with_decisions(sent))
    return ()


def _failed(error: AgentBudgetError) -> Failed:
    name = type(error).__name__
    fits = all(arg is None or isinstance(arg, str | int) for arg in error.args)
    return Failed(name, list(error.args)) if fits and name in _ERRORS else Failed("AgentBudgetError", [str(error)])


def _with_decisions(carrier: Struct) -> list[Any]:
    """Its fields, with every decision in them turned into its twin."""
    return [_turned(value) for value in astuple(carrier)]


def _turned(value: Any) -> Any:
    match value:
        case d.Decision():
            return _sent_decision(value)
        case SentDecision():
            return _decision(value)
        case d.Recalling():
            return SentRecalling(*_with_decisions(value))
        case SentRecalling():
            return d.Recalling(*_with_decisions(value))
    return value


def _sent_decision(decision: d.Decision) -> SentDecision:
    constraints = tuple(SentConstraint(*map(_nano, astuple(constraint))) for constraint in decision.constraints)
    fits = (decision.affordable.amount.nano, decision.affordable.max_output_tokens)
    grants = tuple((grant, amount.nano) for grant, amount in decision.grants)
    return SentDecision(
        decision.allowed, decision.reason, constraints, fits, decision.need.nano, decision.retry_at_us, grants,
        decision.suggestions, decision.detail, decision.session, decision.age_us,
    )  # fmt: skip


def _decision(sent: SentDecision) -> d.Decision:
    constraints = tuple(_constraint(constraint) for constraint in sent.constraints)
    fits = d.Affordable(Credits.of_nano(sent.affordable[0]), sent.affordable[1])
    grants = tuple((grant, Credits.of_nano(amount)) for grant, amount in sent.grants)
    return d.Decision(
        sent.allowed, sent.reason, constraints, fits, Credits.of_nano(sent.need), sent.retry_at_us, grants,
        sent.suggestions, sent.detail, sent.session, sent.age_us,
    )  # fmt: skip


_AMOUNTS: Final = slice(4, 9)
"""limit, used, held, remaining, need of a constraint."""


def _constraint(sent: SentConstraint) -> d.Constraint:
    fields = list(astuple(sent))
    fields[_AMOUNTS] = [None if units is None else d.quantity(sent.measure, units) for units in fields[_AMOUNTS]]
    return d.Constraint(*fields)


def _nano(value: Any) -> Any:
    return value.nano if isinstance(value, Credits) else value
