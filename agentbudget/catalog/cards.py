"""The arithmetic of one rate: what a step may cost at most (rounded up), what it cost (half to even), what credits
would buy.

Everything is an integer over a common denominator, so nothing is lost to rounding but the one named rounding at the
end. A *card* is a rate ready to compute with. Holds are at the dearest class that may apply, because which part of the
input is cached, written to a cache or audio is known only afterwards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import lcm
from operator import attrgetter
from typing import Final, Protocol

from msgspec import Struct

from agentbudget.catalog.usage import Usage

CLASSES: Final[dict[str, frozenset[str]]] = {
    "input": frozenset({"in"}),
    "cache_read": frozenset({"in", "read"}),
    "cache_write": frozenset({"in", "write"}),
    "cache_write_1h": frozenset({"in", "write", "1h"}),
    "input_audio": frozenset({"in", "audio"}),
    "cache_audio_read": frozenset({"in", "audio", "read"}),
    "output": frozenset({"out"}),
    "reasoning": frozenset({"out", "thought"}),
    "output_audio": frozenset({"out", "audio"}),
}
"""Token classes by what they are made of: a class whose set contains another's is a part of it (genai-prices' rule)."""

_OUTPUT: Final = list(CLASSES).index("output")


class Size(Struct, frozen=True):
    """The bounds of a step before it runs: what a hold must cover, for each of ``calls`` calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 1
    seconds_us: int = 0
    documents: int = 0
    audio: bool = False


class Card(Protocol):
    """A rate, ready to compute."""

    def hold(self, size: Size) -> int:
        """Most nanocredits the step can cost, rounded up."""
        ...

    def charge(self, usage: Usage, size: Size) -> int:
        """Nanocredits of this usage, half to even; ``size`` stands in for what the usage cannot state."""
        ...

    def affordable(self, size: Size, nano: int) -> int | None:
        """Output tokens a call that ``nano`` buys beside the input: 0 if even the input does not fit, None if output is
        free."""
        ...


class TokenCard(Struct, frozen=True):
    """Prices by token class, with context tiers: past ``starts[i]`` input tokens, *all* tokens pay row i + 1.

    ``rows`` hold for each tier (index of a class in CLASSES, coefficient), where that is not 0; a part's coefficient is the
    difference to the class it is part of, so a charge is one dot product with the reported (inclusive) counts.
    """

    denominator: int
    starts: tuple[int, ...]
    rows: tuple[tuple[tuple[int, int], ...], ...]
    dearest_input: tuple[int, ...]
    dearest_output: tuple[int, ...]
    dearest_input_audio: tuple[int, ...]
    dearest_output_audio: tuple[int, ...]
    per_call: int = 0
    per_microsecond: int = 0
    per_document: int = 0
    per_character: int = 0
    per_search: int = 0
    least_us: int = 0

    @property
    def priced_by_tokens(self) -> bool:
        return any(self.rows)

    def hold(self, size: Size) -> int:
        fixed, each_output = self._parts(size)
        return -(-(fixed + each_output * size.output_tokens) // self.denominator)

    def hold_of(self, input_tokens: int, output_tokens: int) -> int:
        """:meth:`hold` of one call by tokens alone."""
        tier = bisect_left(self.starts, input_tokens) if self.starts else 0
        total = self.dearest_input[tier] * input_tokens + self.dearest_output[tier] * output_tokens + self.per_call
        return -(-total // self.denominator)

    def affordable(self, size: Size, nano: int) -> int | None:
        fixed, each_output = self._parts(size)
        left = nano * self.denominator - fixed
        if left < 0:
            return 0
        return left // each_output if each_output else None

    def _parts(self, size: Size) -> tuple[int, int]:
        """Numerators: all but the output, and one output token of every call."""
        tier = bisect_left(self.starts, size.input_tokens) if self.starts else 0
        into, out = (
            (self.dearest_input_audio, self.dearest_output_audio)
            if size.audio
            else (self.dearest_input, self.dearest_output)
        )
        each = into[tier] * size.input_tokens + self.per_call + self.per_character * size.input_tokens
        fixed = each * size.calls + self.per_document * size.documents
        return fixed + self.per_microsecond * self._billed_us(size.seconds_us), out[tier] * size.calls

    def charge(self, usage: Usage, size: Size) -> int:
        counts, calls = consistent_counts(usage), usage.calls
        tier = bisect_left(self.starts, -(-counts[0] // calls) if calls > 1 else counts[0]) if self.starts else 0
        total = self.per_call * calls + self.per_search * usage.web_searches
        for index, coefficient in self.rows[tier]:
            total += coefficient * counts[index]
        if self.per_microsecond or self.per_document or self.per_character:
            total += self._unreported(usage, size)
        return half_even(total, self.denominator)

    def _unreported(self, usage: Usage, size: Size) -> int:
        """Durations, pages and characters: what the usage states, else what was held for (never free)."""
        seconds_us = micro(usage.seconds) or size.seconds_us
        if self.priced_by_tokens and not size.audio:
            seconds_us = 0  # a model of tokens and audio hours: the seconds are of the call, not of audio
        characters = max(usage.input_tokens, size.input_tokens)
        pages = usage.documents or size.documents
        return (
            self.per_microsecond * self._billed_us(seconds_us)
            + self.per_document * pages
            + self.per_character * characters
        )

    def _billed_us(self, seconds_us: int) -> int:
        return max(seconds_us, self.least_us) if seconds_us else 0


class Curve(Struct, frozen=True):
    """A price of a quantity in tiers: ``steps`` of (upper end or None, nanocredits a unit).

    graduated: each unit pays the price of the tier it falls in.  volume: all units pay the price of the tier the whole
    quantity falls in.
    """

    steps: tuple[tuple[int | None, int], ...]
    graduated: bool = False

    def cost(self, quantity: int) -> int:
        """Numerator of the cost of ``quantity`` units."""
        if not self.graduated:
            return quantity * next(price for end, price in self.steps if end is None or quantity <= end)
        total = start = 0
        for end, price in self.steps:
            stop = quantity if end is None else min(quantity, end)
            total += max(0, stop - start) * price
            start = stop
        return total

    def most(self, quantity: int) -> int:
        """The most that any quantity up to this one costs: with volume discounts a smaller one may cost more."""
        if self.graduated:
            return self.cost(quantity)
        most = 0
        for end, price in self.steps:
            most = max(most, price * (quantity if end is None else min(quantity, end)))
            if end is None or quantity <= end:
                break
        return most

    def within(self, budget: int) -> int | None:
        """The largest quantity of a graduated curve that costs at most ``budget``; None if there is no largest."""
        start = 0
        for end, price in self.steps:
            size = None if end is None else end - start
            if price and (size is None or price * size > budget):
                return start + budget // price
            if size is None:
                return None
            budget -= price * size
            start += size
        return None


class GraduatedCard(Struct, frozen=True):
    """Input and output tokens by graduated curves, in nanocredits a million tokens."""

    into: Curve
    out: Curve

    def hold(self, size: Size) -> int:
        each = self.into.cost(size.input_tokens) + self.out.cost(size.output_tokens)
        return -(-each * size.calls // MILLION)

    def charge(self, usage: Usage, size: Size) -> int:
        counts, calls = consistent_counts(usage), max(1, usage.calls)
        return half_even(_spread(self.into, counts[0], calls) + _spread(self.out, counts[_OUTPUT], calls), MILLION)

    def affordable(self, size: Size, nano: int) -> int | None:
        left = nano * MILLION // size.calls - self.into.cost(size.input_tokens)
        return 0 if left < 0 else self.out.within(left)


class QuantityCard(Struct, frozen=True):
    """Per call, second, document, or fixed: a curve over one quantity; ``limit`` bounds what a hold must cover."""

    curve: Curve
    unit: str
    limit: int = 0

    def hold(self, size: Size) -> int:
        return -(-self.curve.most(self._of_size(size)) // _UNITS[self.unit])

    def charge(self, usage: Usage, size: Size) -> int:
        quantity = {"call": usage.calls, "fixed": 1, "document": usage.documents or self._of_size(size)}.get(self.unit)
        if quantity is None:
            quantity = micro(usage.seconds) or self._of_size(size)
        return half_even(self.curve.cost(quantity), _UNITS[self.unit])

    def affordable(self, size: Size, nano: int) -> int | None:
        return None if self.hold(size) <= nano else 0

    def _of_size(self, size: Size) -> int:
        stated = {"call": size.calls, "fixed": 1, "document": size.documents, "second": size.seconds_us}[self.unit]
        return stated or self.limit


class FreeCard(Struct, frozen=True):
    """No rate: costs nothing, and counts as a step."""

    def hold(self, size: Size) -> int:
        return 0

    def charge(self, usage: Usage, size: Size) -> int:
        return 0

    def affordable(self, size: Size, nano: int) -> int | None:
        return None


MILLION: Final = 1_000_000
_UNITS: Final = {"call": 1, "fixed": 1, "document": 1, "second": MILLION}


def half_even(numerator: int, denominator: int) -> int:
    """``numerator / denominator`` to the nearest integer, halves to the even one."""
    whole, rest = divmod(numerator, denominator)
    twice = rest * 2
    return whole + (twice > denominator or (twice == denominator and whole % 2 == 1))


def micro(seconds: object) -> int:
    """Seconds as whole microseconds, rounded up."""
    numerator, denominator = seconds.as_integer_ratio()  # type: ignore[attr-defined]
    return -(-int(numerator) * MILLION // int(denominator))


def is_consistent(usage: Usage) -> bool:
    """Whether no part is larger than the whole it is reported inside."""
    written, heard = usage.cache_write_tokens, usage.input_audio_tokens
    parts = usage.cache_read_tokens + written + heard - usage.cache_audio_read_tokens
    return (
        parts <= usage.input_tokens
        and usage.cache_write_1h_tokens <= written
        and usage.cache_audio_read_tokens <= min(usage.cache_read_tokens, heard)
        and usage.reasoning_tokens + usage.output_audio_tokens <= usage.output_tokens
    )


def consistent_counts(usage: Usage) -> tuple[int, ...]:
    """The counts in the order of CLASSES, a whole never smaller than its parts (law L11: a faulty report is charged,
    not lost)."""
    counts: tuple[int, ...] = _by_class(usage)
    into, read, written, one_hour, heard, cached_audio, out, thought, spoken = counts
    if not (one_hour or heard or cached_audio) and into >= read + written and out >= thought + spoken:
        return counts  # as nearly every report
    read, written, heard = max(read, cached_audio), max(written, one_hour), max(heard, cached_audio)
    into, out = max(into, read + written + heard - cached_audio), max(out, thought + spoken)
    return (into, read, written, one_hour, heard, cached_audio, out, thought, spoken)


_by_class: Final = attrgetter(*(f"{name}_tokens" for name in CLASSES))


def token_card(
    prices: Mapping[str, Callable[[int], Fraction]],
    starts: tuple[int, ...] = (),
    *,
    least_us: int = 0,
    **units: Fraction,
) -> TokenCard:
    """A card from the price of each class: ``prices[name](tier)`` in nanocredits a token, ``units`` in nanocredits a
    unit."""
    tiers = range(len(starts) + 1)
    table = [{name: price(tier) for name, price in prices.items()} for tier in tiers]
    denominator = lcm(
        *(price.denominator for row in table for price in row.values()), *(unit.denominator for unit in units.values())
    )
    scaled = [{name: int(price * denominator) for name, price in row.items()} for row in table]
    return TokenCard(
        denominator,
        starts,
        tuple(_coefficients(row) for row in scaled),
        _dearest(scaled, "in", audio=False),
        _dearest(scaled, "out", audio=False),
        _dearest(scaled, "in", audio=True),
        _dearest(scaled, "out", audio=True),
        least_us=least_us,
        **{name: int(unit * denominator) for name, unit in units.items()},
    )


def _coefficients(prices: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """What one more token of a class adds: its price less what its wholes already charge for it."""
    found: dict[str, int] = {}
    for name in sorted(prices, key=lambda name: len(CLASSES[name])):
        wholes = sum(found[other] for other in found if CLASSES[other] < CLASSES[name])
        found[name] = prices[name] - wholes
    return tuple((index, found[name]) for index, name in enumerate(CLASSES) if found.get(name))


def _dearest(rows: list[dict[str, int]], direction: str, *, audio: bool) -> tuple[int, ...]:
    """For each tier, the dearest price a token may have in it or in a lower one (the input may turn out smaller)."""
    dearest: list[int] = []
    for row in rows:
        prices = [
            p for name, p in row.items() if direction in CLASSES[name] and (audio or "audio" not in CLASSES[name])
        ]
        dearest.append(max([0, *prices, *dearest[-1:]]))
    return tuple(dearest)


def _spread(curve: Curve, count: int, calls: int) -> int:
    """The cost of a count spread evenly over calls: where the provider reports only the sum."""
    each, rest = divmod(count, calls)
    return curve.cost(each + 1) * rest + curve.cost(each) * (calls - rest)
