"""What a caller states about a session, checked and in the units of the core."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.commands import OnDenied, OnShort, OnUnknown, OpenSession
from agentbudget.amounts import USD, Amount
from agentbudget.catalog.estimate import Estimator
from agentbudget.catalog.terms import Breaker
from agentbudget.clock import SECOND_US
from agentbudget.errors import InvalidAmount, InvalidRequest
from agentbudget.runtime.ids import id_for, new_id
from agentbudget.runtime.link import Link
from agentbudget.runtime.steps.asking import Caps

Mode: TypeAlias = Literal["leased", "strict"]
MAX_CAP: Final = 10_000_000
"""Largest output cap that is taken for meant: ten times what any model gives."""
_CHOICES: Final = {
    "mode": get_args(Mode), "on_denied": get_args(OnDenied), "on_short": get_args(OnShort),
    "on_unknown": get_args(OnUnknown), "estimate": get_args(Estimator),
}  # fmt: skip


class SessionArguments(TypedDict, total=False):
    """What ``session`` and ``child`` take. Where None is passed (the default) nothing is stated: a new session takes
    the default in brackets (a child its parent's choice), a joined one is not compared.

    budget: credits (or USD) that the session may spend [no budget of its own]. entities: whose limits bind it. feature:
    what the plan must entitle. workflow: for scopes of grants and limits. id: names the session, so that other threads
    and processes may join it. mode: ``leased`` decides most steps in this process, on credits the owner has set aside
    for it; ``strict`` makes each step durable at the owner before it runs [leased]. breaker: rules that stop runaway
    loops [the plan's]. on_denied: ``refuse`` judges each step, ``stop`` latches the session, ``abort`` latches it and
    raises through every ``except Exception`` [refuse]. on_short: ``deny``, or ``clamp`` the output cap to what fits
    [deny]. on_unknown: ``charge`` or ``release`` a step whose outcome is not known [charge]. wind_down: share of the
    budget (0 to 1) for steps marked ``wind_down=True`` [none]. max_output_tokens: the cap of a call that states none
    [4096]. assume_max_output_tokens: what a call holds whose cap nobody can write [the model's maximum]. estimate:
    ``bound``, ``exact`` or ``typical`` [bound]. max_step_seconds: a step open longer lapses [3600]. ttl: seconds (or a
    timedelta) without a command after which the session ends [a day]."""

    budget: Amount | USD | None
    entities: Sequence[str] | str | None
    feature: str | None
    workflow: str | None
    id: str | None
    mode: Mode | None
    breaker: Breaker | None
    on_denied: OnDenied | None
    on_short: OnShort | None
    on_unknown: OnUnknown | None
    wind_down: Amount | None
    max_output_tokens: int | None
    assume_max_output_tokens: int | None
    estimate: Estimator | None
    max_step_seconds: int | timedelta | None
    ttl: int | timedelta | None


class Terms(Struct, frozen=True):
    """The command that opens the session, and what only this process applies."""

    command: OpenSession
    is_named: bool
    on_short: OnShort
    caps: Caps
    mode: Mode = "leased"


def terms_of(
    link: Link, stated: SessionArguments, *, parent: str | None = None, inherited: Terms | None = None
) -> Terms:
    """Check what is stated; raises :class:`InvalidRequest` or :class:`InvalidAmount` by name."""
    unknown = set(stated) - SessionArguments.__annotations__.keys()
    if unknown:
        raise TypeError(f"a session has no argument {', '.join(sorted(unknown))}")
    for field, allowed in _CHOICES.items():
        value = stated.get(field)
        if value is not None and value not in allowed:
            raise InvalidRequest(f"{value!r} is none of {', '.join(allowed)}", field)
    named, budget = stated.get("id"), stated.get("budget")
    nano = None if budget is None else link.nano(budget)
    command = OpenSession(
        session=id_for("session", link.customer, parent, stated) if named is None else _session_id(named),
        parent=parent,
        budget=nano,
        wind_down=_kept_back(stated.get("wind_down"), nano),
        entities=_entities(stated.get("entities")),
        feature=stated.get("feature"),
        workflow=stated.get("workflow"),
        breaker=stated.get("breaker"),
        on_unknown=stated.get("on_unknown"),
        on_denied=stated.get("on_denied"),
        ttl_us=_microseconds(stated.get("ttl"), "ttl"),
        max_step_us=_microseconds(stated.get("max_step_seconds"), "max_step_seconds"),
    )
    on_short = stated.get("on_short") or (inherited.on_short if inherited else "deny")
    mode = stated.get("mode") or (inherited.mode if inherited else "leased")
    return Terms(command, named is not None, on_short, _caps(stated, inherited.caps if inherited else Caps()), mode)


def renamed(terms: Terms, *, again: bool = False) -> Terms:
    """The same for another session. ``again``: the id was of one that is over, so that the next is new in any case."""
    name = new_id() if again else id_for("session", terms)
    return replace(terms, command=replace(terms.command, session=name))


def _caps(stated: SessionArguments, known: Caps) -> Caps:
    cap, assumed = stated.get("max_output_tokens"), stated.get("assume_max_output_tokens")
    for field, value in (("max_output_tokens", cap), ("assume_max_output_tokens", assumed)):
        if value is not None and (type(value) is not int or not 1 <= value <= MAX_CAP):
            raise InvalidRequest(f"{value!r} is no cap: give a whole number from 1 to {MAX_CAP}", field)
    return Caps(
        known.max_output_tokens if cap is None else cap,
        known.assume_max_output_tokens if assumed is None else assumed,
        stated.get("estimate") or known.estimate,
    )


def _session_id(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 150 or not value.isprintable():
        raise InvalidRequest("must be 1 to 150 printable characters", "id")
    return value


def _entities(value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    entities = (value,) if isinstance(value, str) else tuple(value)
    for entity in entities:
        if not isinstance(entity, str) or not entity:
            raise InvalidRequest(f"{entity!r} is no entity: write it as 'user:ana'", "entities")
    return entities


def _kept_back(share: Amount | None, budget: int | None) -> int | None:
    """The nanocredits of a share of the budget, rounded up: what is kept is at least the share."""
    if share is None:
        return None
    try:
        part = Decimal(repr(share) if isinstance(share, float) else str(share))
    except InvalidOperation:
        raise InvalidAmount(repr(share)[:80], "not_a_number") from None
    if not part.is_finite() or not 0 <= part < 1:
        raise InvalidRequest(f"{share!r} is no share: give a number from 0 to below 1", "wind_down")
    if budget is None:
        raise InvalidRequest("is a share of the budget: state a budget", "wind_down")
    numerator, denominator = part.as_integer_ratio()
    return -(-budget * numerator // denominator)


def _microseconds(value: int | timedelta | None, field: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        found = value // timedelta(microseconds=1)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value * SECOND_US
    else:
        raise InvalidRequest(f"{value!r} is neither whole seconds nor a timedelta", field)
    if not 0 < found <= 366 * 86_400 * SECOND_US:
        raise InvalidRequest(f"{value!r} is not between 0 and a year", field)
    return found
