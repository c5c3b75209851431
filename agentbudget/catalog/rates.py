"""Rates, overrides and ceilings as values: what a catalog file compiles into, and how globs cover a step."""

from __future__ import annotations

from fnmatch import fnmatchcase
from fractions import Fraction

from msgspec import Struct

from agentbudget.amounts import MAX_NANO
from agentbudget.catalog.cards import Card, TokenCard


class Rate(Struct, frozen=True):
    """One rate: globs by dimension (empty: everything) and a card; ``card`` None prices by the table times
    ``markup``."""

    id: str
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    card: Card | None = None
    markup: Fraction = Fraction(1)


class Override(Struct, frozen=True):
    """Rates that come first for one customer, from ``from_us`` (included) until ``until_us`` (not included)."""

    customer: str
    rates: tuple[Rate, ...]
    from_us: int = -MAX_NANO
    until_us: int = MAX_NANO


class Ceiling(Struct, frozen=True):
    """Written bounds for what the price table leaves open. ``card`` is a price ceiling, for models without a price."""

    name: str
    models: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    context_window: int | None = None
    max_seconds: int | None = None
    max_documents: int | None = None
    server_tools: int | None = None
    card: TokenCard | None = None


def covers(globs: tuple[str, ...], value: str | None) -> bool:
    """Whether a value matches one of the globs; no globs cover everything, and no value is covered by no glob."""
    return not globs or (value is not None and any(fnmatchcase(value, glob) for glob in globs))
