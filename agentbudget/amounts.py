"""Money as integers: one credit is 10**9 nanocredits, and nothing inside counts in anything else.

Public edges take ``Credits | int | Decimal | str | float`` (always whole *credits*, a float by its shortest decimal
form) and turn them into an ``int`` of nanocredits once, with :func:`to_nano`. A value that is not exactly a whole number
of nanocredits is refused rather than rounded: rounding is a decision, so it has named functions
(:func:`nano_up` when holding, :func:`nano_half_even` when settling).
"""

from __future__ import annotations

import decimal
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from functools import total_ordering
from typing import Final, TypeAlias

from agentbudget.errors import InvalidAmount

NANO: Final = 1_000_000_000
"""Nanocredits in one credit."""

MAX_NANO: Final = 2**63 - 1
"""The largest amount: a signed 64-bit integer, so that it fits every SQL column it may be written to."""

_DECIMALS: Final = 9
_CONTEXT: Final = decimal.Context(prec=60, Emin=-999_999, Emax=999_999, traps=[decimal.InvalidOperation])
_MAX_TEXT: Final = 80
"""Longest amount text that is parsed: more digits than any legal amount has, short enough to quote in an error."""


_new, _set = object.__new__, object.__setattr__


@total_ordering
class Credits:
    """An exact, immutable number of credits. ``Credits("2.5").nano == 2_500_000_000``.

    Compares and adds with other ``Credits`` only (and with plain numbers read as credits); raises
    :class:`~agentbudget.errors.InvalidAmount` for NaN, infinity, anything finer than a nanocredit or beyond 64 bits.
    """

    __slots__ = ("nano",)
    nano: int

    def __init__(self, value: Amount = 0) -> None:
        object.__setattr__(self, "nano", to_nano(value, allow_negative=True))

    @classmethod
    def of_nano(cls, nano: int) -> Credits:
        """The credits of a whole number of nanocredits."""
        if not -MAX_NANO <= nano <= MAX_NANO:
            _in_bounds(nano, nano, allow_negative=True)
        credits = _new(cls)
        _set(credits, "nano", nano)
        return credits

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Credits are immutable: {name} cannot be set")

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return (Credits.of_nano, (self.nano,))

    def __str__(self) -> str:
        return format_nano(self.nano)

    def __repr__(self) -> str:
        return f"Credits('{self}')"

    def __format__(self, spec: str) -> str:
        return format(self.decimal, spec) if spec else str(self)

    @property
    def decimal(self) -> Decimal:
        """The same amount as an exact ``Decimal`` of credits."""
        return Decimal(self.nano).scaleb(-_DECIMALS, _CONTEXT)

    def __hash__(self) -> int:
        return hash(self.decimal)

    def __bool__(self) -> bool:
        return self.nano != 0

    def __eq__(self, other: object) -> bool:
        nano = _nano_or_none(other)
        return NotImplemented if nano is None else self.nano == nano

    def __lt__(self, other: object) -> bool:
        nano = _nano_or_none(other)
        return NotImplemented if nano is None else self.nano < nano

    def __add__(self, other: Amount) -> Credits:
        return Credits.of_nano(self.nano + to_nano(other, allow_negative=True))

    def __sub__(self, other: Amount) -> Credits:
        return Credits.of_nano(self.nano - to_nano(other, allow_negative=True))

    __radd__ = __add__

    def __neg__(self) -> Credits:
        return Credits.of_nano(-self.nano)

    def __mul__(self, times: int) -> Credits:
        if isinstance(times, bool) or not isinstance(times, int):
            return NotImplemented
        return Credits.of_nano(self.nano * times)

    __rmul__ = __mul__


class USD:
    """An amount of US dollars; the catalog's credit price turns it into credits (``USD("5")``)."""

    __slots__ = ("amount",)
    amount: Decimal

    def __init__(self, value: str | int | float | Decimal) -> None:
        object.__setattr__(self, "amount", _exact_decimal(value))
        _in_bounds(0 if self.amount >= 0 else -1, value, allow_negative=False)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"USD is immutable: {name} cannot be set")

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (USD, (str(self.amount),))

    def __eq__(self, other: object) -> bool:
        return self.amount == other.amount if isinstance(other, USD) else NotImplemented

    def __hash__(self) -> int:
        return hash(("USD", self.amount))

    def __repr__(self) -> str:
        return f"USD('{self.amount}')"


Amount: TypeAlias = Credits | int | Decimal | str | float
"""What public edges accept where credits are meant."""


def to_nano(value: Amount, *, allow_negative: bool = False) -> int:
    """The exact nanocredits of an amount of credits.

    Raises :class:`InvalidAmount`, naming what is wrong: NaN or infinite, not a number, negative, finer than a
    nanocredit, or beyond 64 bits.
    """
    if isinstance(value, Credits):
        return _in_bounds(value.nano, value, allow_negative=allow_negative)
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_bounds(value * NANO, value, allow_negative=allow_negative)
    number = _exact_decimal(value)
    scaled = number.scaleb(_DECIMALS, _CONTEXT) if number.adjusted() < 30 else None
    if scaled is None:
        raise InvalidAmount(_quote(value), "too_large")
    if scaled != scaled.to_integral_value(context=_CONTEXT):
        raise InvalidAmount(_quote(value), "too_fine")
    return _in_bounds(int(scaled), value, allow_negative=allow_negative)


def nano_up(credits: Decimal) -> int:
    """Nanocredits of a computed cost, rounded up: the rule for holds."""
    return _rounded(credits, ROUND_CEILING)


def nano_half_even(credits: Decimal) -> int:
    """Nanocredits of a computed cost, rounded half to even: the rule for settlements."""
    return _rounded(credits, ROUND_HALF_EVEN)


def format_nano(nano: int) -> str:
    """Nanocredits as a decimal number of credits without trailing zeros: ``format_nano(2_500_000_000) == "2.5"``."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, part = divmod(nano, NANO)
    return f"{sign}{whole}" + (f".{part:09d}".rstrip("0") if part else "")


def _rounded(credits: Decimal, rounding: str) -> int:
    if not credits.is_finite():
        raise InvalidAmount(str(credits), "not_finite")
    if credits.adjusted() >= 30:
        raise InvalidAmount(_quote(credits), "too_large")
    nano = credits.scaleb(_DECIMALS, _CONTEXT).to_integral_value(rounding=rounding, context=_CONTEXT)
    return _in_bounds(int(nano), credits, allow_negative=False)


def _exact_decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise InvalidAmount(_quote(value), "not_a_number")
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise InvalidAmount(_quote(value), "too_large")
    if isinstance(value, int) and abs(value) > 10**40:
        raise InvalidAmount("an integer of more than 40 digits", "too_large")
    try:
        number = value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
    except (decimal.InvalidOperation, ValueError):
        raise InvalidAmount(_quote(value), "not_a_number") from None
    if not number.is_finite():
        raise InvalidAmount(_quote(value), "not_finite")
    if len(number.as_tuple().digits) > _MAX_TEXT:
        raise InvalidAmount(_quote(value), "too_fine")
    return number


def _in_bounds(nano: int, value: object, *, allow_negative: bool) -> int:
    if nano < 0 and not allow_negative:
        raise InvalidAmount(_quote(value), "negative")
    if not -MAX_NANO <= nano <= MAX_NANO:
        raise InvalidAmount(_quote(value), "too_large")
    return nano


def _nano_or_none(value: object) -> int | None:
    if isinstance(value, Credits):
        return value.nano
    if isinstance(value, (int, Decimal, float)) and not isinstance(value, bool):
        try:
            return to_nano(value, allow_negative=True)
        except InvalidAmount:
            return None
    return None


def _quote(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "an integer of more than 40 digits"
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
