"""A validated catalog file becomes values: plan terms for the account, rates and ceilings for pricing."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from agentbudget.amounts import MAX_NANO, NANO
from agentbudget.catalog.cards import MILLION, Card, Curve, GraduatedCard, QuantityCard, TokenCard, token_card
from agentbudget.catalog.rates import Ceiling, Override, Rate
from agentbudget.catalog.terms import (
    Breaker,
    EntitlementTerms,
    EntityTypeTerms,
    GrantTerms,
    LimitTerms,
    PlanTerms,
    Scope,
)

if TYPE_CHECKING:
    from agentbudget.catalog import model as m

DEFAULT_CEILING: Final = Ceiling(
    "default",
    max_output_tokens=128_000,
    context_window=1_048_576,
    max_seconds=3_600,
    max_documents=1_000,
    server_tools=NANO,
)
"""Stands last in every catalog: the largest output and window that the big providers sell today, an hour of audio, a
thousand pages, one credit of provider-run tools in a call. A catalog that writes its own bounds comes first."""


def plan_terms(file: m.CatalogFile, plan_id: str, version: str) -> PlanTerms:
    """The plan, complete."""
    plan = file.plans[plan_id]
    features, metered = _entitlements(file, plan)
    return PlanTerms(
        plan=plan_id,
        catalog=version,
        wallet=plan.wallet,
        credit_line=plan.credit_line,
        features=features,
        models=tuple(plan.models or ()),
        grants=tuple(_grant(grant) for grant in plan.grants),
        limits=(*(_limit(limit) for limit in plan.limits), *metered),
        breaker=Breaker(**plan.breaker.model_dump()),
        entity_types=tuple(_entity_type(name, section) for name, section in sorted(file.entity_types.items())),
        cycle=plan.cycle,
    )


def _entitlements(
    file: m.CatalogFile, plan: m.PlanSection
) -> tuple[tuple[EntitlementTerms, ...] | None, tuple[LimitTerms, ...]]:
    """The features of a plan (None: all), and the limits that its metered ones carry. A boolean set to false is not
    entitled."""
    if plan.features is None:
        return None, ()
    stated: dict[str, Any] = plan.features if isinstance(plan.features, dict) else dict.fromkeys(plan.features, True)
    terms, limits = [], []
    for name, value in stated.items():
        kind = file.features[name].type
        if value is False and kind != "config":
            continue
        terms.append(EntitlementTerms(feature=name, type=kind, value=value if kind == "config" else None))
        if kind == "metered" and value is not True:
            limits.append(LimitTerms("customer", value.limit, measure=name, window=value.window, mode=value.mode))
    return tuple(terms), tuple(limits)


def _grant(grant: m.GrantSection) -> GrantTerms:
    return GrantTerms(**{**grant.model_dump(exclude={"scope"}), "scope": _scope(grant.scope)})


def _limit(limit: m.LimitSection) -> LimitTerms:
    amount = int(limit.amount * (NANO if limit.measure == "credits" else 1))
    rest = limit.model_dump(exclude={"scope", "amount"})
    return LimitTerms(amount=amount, scope=_scope(limit.scope), **rest)


def _scope(scope: m.ScopeSection | None) -> Scope | None:
    return None if scope is None else Scope(**{name: tuple(globs or ()) for name, globs in scope.model_dump().items()})


def _entity_type(name: str, section: m.EntityTypeSection) -> EntityTypeTerms:
    return EntityTypeTerms(name, section.auto, section.parent, tuple(_limit(limit) for limit in section.limits))


def ceilings(file: m.CatalogFile) -> tuple[Ceiling, ...]:
    """The written ceilings in order, and last the default one."""
    return (*(_ceiling(section) for section in file.ceilings), DEFAULT_CEILING)


def _ceiling(section: m.CeilingSection) -> Ceiling:
    rest = section.model_dump(exclude={"models", "price"})
    price = section.price
    card = None if price is None else token_card({"input": _flat(price.input), "output": _flat(price.output)})
    return Ceiling(models=_lower(section.models), card=card, **rest)


def rates(file: m.CatalogFile) -> tuple[Rate, ...]:
    """The rates in order; one without an id is known by its place."""
    return tuple(_rate(rate, f"rates[{index}]") for index, rate in enumerate(file.rates))


def overrides(file: m.CatalogFile) -> tuple[Override, ...]:
    """The overrides in order."""
    found = []
    for index, section in enumerate(file.overrides):
        mine = tuple(_rate(rate, f"overrides[{index}].rates[{inner}]") for inner, rate in enumerate(section.rates))
        first = -MAX_NANO if section.from_ is None else section.from_
        last = MAX_NANO if section.until is None else section.until
        found.append(Override(section.customer, mine, first, last))
    return tuple(found)


def _rate(rate: m.RateSection, place: str) -> Rate:
    return Rate(
        id=rate.id or place,
        kinds=tuple(rate.kind or ()),
        models=_lower(rate.model),
        tools=tuple(rate.tool or ()),
        providers=_lower(rate.provider),
        features=tuple(rate.feature or ()),
        card=_card(rate),
        markup=Fraction(rate.cost_plus or 1),
    )


def _card(rate: m.RateSection) -> Card | None:
    if rate.tokens is not None:
        return _tokens(rate.tokens)
    if rate.per_second is not None:
        return QuantityCard(_curve(rate.per_second, MILLION), "second", (rate.max_seconds or 0) * MILLION)
    if rate.per_document is not None:
        return QuantityCard(_curve(rate.per_document), "document", rate.max_documents or 0)
    if rate.per_call is not None:
        return QuantityCard(_curve(rate.per_call), "call")
    return None if rate.fixed is None else QuantityCard(_curve(rate.fixed), "fixed")


def _tokens(tokens: m.TokensSection) -> TokenCard | GraduatedCard:
    classes = {name: getattr(tokens, name) for name in type(tokens).model_fields}
    stated = {name: price for name, price in classes.items() if price is not None}
    if any(getattr(price, "graduated", None) for price in stated.values()):
        return GraduatedCard(_curve(tokens.input), _curve(tokens.output))
    ends = [tier.up_to for price in stated.values() for tier in getattr(price, "volume", None) or ()]
    starts = tuple(sorted({end for end in ends if end is not None}))
    prices = {name: _volume(price, (1, *(start + 1 for start in starts))) for name, price in stated.items()}
    return token_card(prices, starts)


def _volume(price: Any, reached: tuple[int, ...]) -> Callable[[int], Fraction]:
    """The price of a token at each tier of the card, each known by the first input that reaches it."""
    if isinstance(price, int):
        return _flat(price)
    tiers = [Curve(_steps(price.volume, 1)).cost(tokens) for tokens in reached]
    return [Fraction(cost, tokens * MILLION) for cost, tokens in zip(tiers, reached, strict=True)].__getitem__


def _flat(nano_per_million: int) -> Callable[[int], Fraction]:
    return lambda tier: Fraction(nano_per_million, MILLION)


def _curve(price: Any, unit: int = 1) -> Curve:
    """A price as a curve over ``unit`` parts of what it is for (seconds are counted in microseconds)."""
    if isinstance(price, int):
        return Curve(((None, price),))
    return Curve(_steps(price.graduated or price.volume, unit), graduated=price.graduated is not None)


def _steps(tiers: Any, unit: int) -> tuple[tuple[int | None, int], ...]:
    return tuple((None if tier.up_to is None else tier.up_to * unit, tier.price) for tier in tiers)


def _lower(globs: list[str] | None) -> tuple[str, ...]:
    return tuple(glob.lower() for glob in globs or ())
