"""What a step may cost (a quote, before) and what it cost (a charge, after), by the rates of one catalog.

The rule, in order: the customer's overrides in force, then the catalog's rates, first match wins; a ``cost_plus`` rate
matches only models that the provider price table knows; then a written price ceiling; then, for a model, refusal
(:class:`UnknownPrice`), and for a tool, a retrieval or a sub-agent nothing (it costs 0 and counts as a step).
"""

from __future__ import annotations

import re
import time
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec import Struct

from agentbudget.amounts import MAX_NANO
from agentbudget.catalog.cards import Card, FreeCard, Size, TokenCard, half_even, is_consistent, micro
from agentbudget.catalog.quotes import Charge, Kind, PriceRequest, Quote, unknown_price
from agentbudget.catalog.rates import Ceiling, Override, Rate, covers
from agentbudget.catalog.table import REMEMBERED, Listed, PriceTable, table_in_force
from agentbudget.catalog.usage import Usage, exact
from agentbudget.errors import InvalidAmount

PlainKey: TypeAlias = tuple[str | None, "Kind", str | None, str | None, str | None, str | None]
_MODEL_KINDS: Final = ("llm", "embedding")


class _Candidate(NamedTuple):
    """A rate that covers a step, when it is in force, and (for cost_plus) the price table at its markup."""

    rate: Rate
    from_us: int
    until_us: int
    table: PriceTable


class _Priced(NamedTuple):
    """A rate applied to a model at a time. listed: by the price table.  ceiling: for want of a price, so a stated cost
    wins."""

    rate: str | None
    card: Card
    model: str | None
    listed: bool = False
    ceiling: bool = False


class Plain(Struct, frozen=True):
    """What steps of one shape cost by tokens alone, at any time: the common case of :meth:`Pricer.quote` and ``charge`` ready
    to compute. ``most``: output that the model gives at most; ``window``: its context window, in tokens; the rest as in
    :class:`Quote`."""

    card: TokenCard
    rate: str | None
    model: str | None
    most: int
    window: int

    def hold(self, input_tokens: int, output_tokens: int) -> int:
        """Nanocredits to hold, rounded up."""
        return self.card.hold_of(input_tokens, output_tokens)

    def charge(self, usage: Usage) -> int | None:
        """Nanocredits of this usage, half to even; None where more must be looked at (another model was served)."""
        if usage.model is not None and usage.model != self.model:
            return None
        return self.card.charge(usage, _NO_SIZE)


class Pricer:
    """Prices steps by compiled rates. Immutable but for what it remembers; safe to share across threads."""

    __slots__ = (
        "_candidates",
        "_ceilings",
        "_currency",
        "_nano_per_unit",
        "_overridden",
        "_overrides",
        "_plain",
        "_rates",
        "_table",
        "_tables",
    )

    def __init__(
        self,
        *,
        nano_per_unit: Fraction,
        currency: str = "USD",
        rates: tuple[Rate, ...],
        overrides: tuple[Override, ...] = (),
        ceilings: tuple[Ceiling, ...] = (),
    ) -> None:
        """``nano_per_unit``: nanocredits that one unit of ``currency`` buys; the price table is in US dollars."""
        self._nano_per_unit, self._currency = nano_per_unit, currency
        self._rates, self._overrides, self._ceilings = rates, overrides, ceilings
        self._overridden = frozenset(override.customer for override in overrides)
        every_rate = [*rates, *(rate for override in overrides for rate in override.rates)]
        markups = {Fraction(1), *(rate.markup for rate in every_rate if rate.card is None)}
        self._tables = {markup: PriceTable(nano_per_unit * markup) for markup in markups}
        self._table = self._tables[Fraction(1)]
        self._candidates: dict[tuple[str | None, ...], tuple[_Candidate, ...]] = {}
        self._plain: dict[PlainKey, tuple[Any, Plain | None]] = {}

    def quote(self, request: PriceRequest) -> Quote:
        """See :meth:`Catalog.quote`."""
        priced = self._price(request, request.model, _time_of(request))
        if priced is None:
            raise unknown_price(request)
        size, most, source = self._size(request, priced)
        beside = self._ceiling(request.model, "server_tools")[1] * request.quantity if request.server_tools else 0
        amount = priced.card.hold(size) + beside
        if amount > MAX_NANO:
            raise InvalidAmount(f"a hold of {amount} nanocredits", "too_large")
        tokens = (size.input_tokens + size.output_tokens) * size.calls
        return Quote(
            amount, tokens, size.input_tokens, size.output_tokens, source, priced.rate, most, priced.card, size, beside
        )

    def charge(self, request: PriceRequest, usage: Usage) -> Charge:
        """See :meth:`Catalog.charge`."""
        priced, notes = self._price_served(request, usage)
        stated = self._stated_cost(usage, priced, request)
        if stated is not None:
            nano, notes = stated, [*notes, "the provider's own cost was used"]
        elif priced is not None:
            size = _NO_SIZE if _reads_no_size(priced.card) else self._size(request, priced)[0]
            nano = priced.card.charge(usage, size)
            notes += _notes_on(usage, priced, nano)
        else:
            raise unknown_price(request)
        if nano > MAX_NANO:
            raise InvalidAmount(f"a charge of {nano} nanocredits", "too_large")
        rate, model = (priced.rate, priced.model) if priced else (None, request.model)
        return Charge(nano, usage.tokens, rate, model, tuple(notes))

    def plain(self, key: PlainKey) -> Plain | None:
        """The price of steps of this shape, where it rests on their tokens alone and does not change with time; None
        where :meth:`quote` has to look. ``key``: customer, kind, model, tool, provider, feature."""
        table, known = table_in_force(), self._plain.get(key)
        if known is None or known[0] is not table:
            if len(self._plain) > REMEMBERED:
                self._plain = {}
            known = self._plain[key] = (table, self._find_plain(key))
        return known[1]

    def _find_plain(self, key: PlainKey) -> Plain | None:
        customer, kind, model, tool, provider, feature = key
        if kind not in _MODEL_KINDS or model is None:
            return None
        request = PriceRequest(
            kind=kind, model=model, tool=tool, provider=provider, feature=feature, customer=customer, at_us=0
        )  # fmt: skip
        always = all(c.from_us <= -MAX_NANO and c.until_us >= MAX_NANO for c in self._matching(request, model))
        listed = self._table.find(model, provider) if model else None
        if not always or (listed is not None and not listed.is_timeless):
            return None
        priced = self._price(request, model, 0)
        if (
            priced is None
            or priced.ceiling
            or not isinstance(priced.card, TokenCard)
            or not _reads_no_size(priced.card)
        ):
            return None
        window = self._window(model, provider)[0]
        return Plain(priced.card, priced.rate, model, self._most_output(request, window)[0], window)

    def window(self, request: PriceRequest) -> int:
        """The context window in tokens: the price table's, else the named ceiling's."""
        return self.window_of(request.model, request.provider)

    def window_of(self, model: str | None, provider: str | None) -> int:
        """The same by name."""
        return self._window(model, provider)[0]

    def _price_served(self, request: PriceRequest, usage: Usage) -> tuple[_Priced | None, list[str]]:
        """By the model that was served where it has a price; a dated name of the model asked for keeps the asked one's
        rate."""
        at_us, asked, served = _time_of(request), request.model, usage.model
        if served is None or served == asked:
            return self._price(request, asked, at_us), []
        by_asked, by_served = self._price(request, asked, at_us), self._price(request, served, at_us)
        same = asked is not None and _undated(served) == _undated(asked)
        if same and by_asked is not None and not (by_asked.listed or by_asked.ceiling):
            return by_asked, []
        if by_served is not None and not by_served.ceiling:
            return by_served, [] if same else [f"priced by the model served: {served}"]
        return by_asked or by_served, [f"no price for the model served ({served}): priced by the model asked for"]

    def _price(self, request: PriceRequest, model: str | None, at_us: int) -> _Priced | None:
        for rate, from_us, until_us, table in self._matching(request, model):
            if not from_us <= at_us < until_us:
                continue
            if rate.card is not None:
                return _Priced(rate.id, rate.card, model)
            listed = table.find(model, request.provider) if model else None
            if listed is not None:
                return _Priced(rate.id, listed.card(at_us), model, listed=True)
        if request.kind not in _MODEL_KINDS:
            return _Priced(None, FreeCard(), model, ceiling=True)
        name, card = self._ceiling(model, "card", none=None)
        return None if card is None else _Priced(name, card, model, ceiling=True)

    def _matching(self, request: PriceRequest, model: str | None) -> tuple[_Candidate, ...]:
        customer = request.customer if request.customer in self._overridden else None
        key = (customer, request.kind, model, request.tool, request.provider, request.feature)
        found = self._candidates.get(key)
        if found is None:
            found = tuple(c for c in self._in_order(customer) if _rate_covers(c.rate, request, model))
            if len(self._candidates) > REMEMBERED:
                self._candidates = {}
            self._candidates[key] = found
        return found

    def _in_order(self, customer: str | None) -> list[_Candidate]:
        mine = [override for override in self._overrides if override.customer == customer]
        timed = [(rate, override.from_us, override.until_us) for override in mine for rate in override.rates]
        timed += [(rate, -MAX_NANO, MAX_NANO) for rate in self._rates]
        return [_Candidate(*found, self._tables.get(found[0].markup, self._table)) for found in timed]

    def _markup(self, request: PriceRequest, model: str | None, at_us: int) -> Fraction:
        """Of the first cost_plus rate in force that covers the step: what multiplies a cost the provider states."""
        matching = self._matching(request, model)
        in_force = (c.rate for c in matching if c.rate.card is None and c.from_us <= at_us < c.until_us)
        return next((rate.markup for rate in in_force), Fraction(1))

    def _stated_cost(self, usage: Usage, priced: _Priced | None, request: PriceRequest) -> int | None:
        """The provider's own cost in nanocredits, where no rate and no table prices the step; else None."""
        if usage.cost is None or usage.currency != self._currency or (priced is not None and not priced.ceiling):
            return None
        markup = self._markup(request, request.model, _time_of(request))
        cost = Fraction(usage.cost) * self._nano_per_unit * markup
        return half_even(cost.numerator, cost.denominator)

    def _size(self, request: PriceRequest, priced: _Priced) -> tuple[Size, int, str]:
        """The bounds to hold for, the most output the model gives, and where the output cap comes from."""
        if request.kind not in _MODEL_KINDS and request.model is None:
            cap, most, source, into = request.max_output_tokens or 0, 0, "request", request.input_tokens
        else:
            window, _ = self._window(request.model, request.provider)
            into = max(window, request.input_tokens) if request.by_reference else request.input_tokens
            most, source = self._most_output(request, window)
            cap = most if request.max_output_tokens is None else request.max_output_tokens
            source = source if request.max_output_tokens is None else "request"
        seconds_us, documents = self._quantities(request, priced.card)
        size = Size(into, cap, request.quantity, seconds_us, documents, request.audio)
        return size, most, source

    def _most_output(self, request: PriceRequest, window: int) -> tuple[int, str]:
        if request.kind == "embedding":
            return 0, "price table"
        name, most = self._ceiling(request.model, "max_output_tokens")
        return (most, name) if most <= window else (window, "price table")

    def _quantities(self, request: PriceRequest, card: Card) -> tuple[int, int]:
        """Seconds (in microseconds) and documents as bounded by the request, else, where the price table counts them,
        by a ceiling."""
        seconds_us = micro(exact(request.seconds)) if request.seconds is not None else 0
        documents = request.documents or 0
        if isinstance(card, TokenCard) and not (card.priced_by_tokens and not request.audio):
            if card.per_microsecond and not seconds_us:
                seconds_us = self._ceiling(request.model, "max_seconds")[1] * 1_000_000
            if card.per_document and not documents:
                documents = self._ceiling(request.model, "max_documents")[1]
        elif isinstance(card, TokenCard):
            seconds_us = 0
        return seconds_us, documents

    def _window(self, model: str | None, provider: str | None) -> tuple[int, str]:
        listed: Listed | None = self._table.find(model, provider) if model else None
        if listed is not None and listed.window:
            return listed.window, "price table"
        name, window = self._ceiling(model, "context_window")
        return window, name

    def _ceiling(self, model: str | None, field: str, none: Any = 0) -> tuple[str, Any]:
        """The first ceiling that covers the model and states the field, and its value."""
        for ceiling in self._ceilings:
            value = getattr(ceiling, field)
            if value is not None and covers(ceiling.models, model and model.lower()):
                return ceiling.name, value
        return "", none


def _rate_covers(rate: Rate, request: PriceRequest, model: str | None) -> bool:
    return (
        covers(rate.kinds, request.kind)
        and covers(rate.models, model and model.lower())
        and covers(rate.tools, request.tool)
        and covers(rate.providers, request.provider and request.provider.lower())
        and covers(rate.features, request.feature)
    )


def _time_of(request: PriceRequest) -> int:
    return time.time_ns() // 1_000 if request.at_us is None else request.at_us


_DATE: Final = re.compile(r"[-@:](latest|20\d{2}-?\d{2}-?\d{2}|\d{2}-\d{2}|\d{4})$")


@lru_cache(maxsize=REMEMBERED)
def _undated(model: str) -> str:
    """``gpt-5-2025-08-07`` and ``gpt-5-latest`` are ``gpt-5``; a provider prefix is no part of the name."""
    return _DATE.sub("", re.split(r"[/:](?=[^/:]*[a-z])", model.lower())[-1])


def _notes_on(usage: Usage, priced: _Priced, nano: int) -> list[str]:
    notes = []
    if not is_consistent(usage):
        notes.append("the usage reports a part larger than its whole: the whole was raised to its parts")
    if priced.ceiling and priced.rate:
        notes.append(f"priced by the ceiling {priced.rate}: no price is known")
    if nano == 0 and priced.listed and isinstance(priced.card, TokenCard) and _is_free(priced.card):
        notes.append("the price table lists this model as free")
    return notes


_NO_SIZE: Final = Size()


def _reads_no_size(card: Card) -> bool:
    """Whether a charge by this card rests on the usage alone, so that the bounds need not be found again."""
    return isinstance(card, TokenCard) and not (card.per_microsecond or card.per_document or card.per_character)


def _is_free(card: TokenCard) -> bool:
    return not (
        card.priced_by_tokens or card.per_call or card.per_microsecond or card.per_document or card.per_character
    )
