"""What one step really used, as the provider or the tool reported it.

Field names and meanings mirror genai-prices: ``input_tokens`` *includes* cached and audio input, ``output_tokens``
*includes* reasoning and audio output. ``cache_write_tokens`` is every cache write, ``cache_write_1h_tokens`` those of
them that live one hour.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import compress
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import Struct

from agentbudget.amounts import to_nano
from agentbudget.errors import InvalidAmount, InvalidRequest

MAX_COUNT: Final = 2**53 - 1
"""Largest count of one field: what every JSON reader and SQL integer keeps exactly."""

TOKEN_FIELDS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "cache_audio_read_tokens",
    "output_audio_tokens",
)
COUNT_FIELDS: Final = (*TOKEN_FIELDS, "web_searches", "documents", "calls")


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The usage of one step: token counts, and what else a rate may charge for.

    model: the model that was served, when the reply names one.  seconds: as the rate bills them (audio, compute); kept
    as Decimal.  documents: documents or pages.  web_searches: server-side searches.  cost: what the provider itself
    says the call cost, in ``currency``.

    Raises :class:`InvalidRequest` (``field`` names it) for a count that is no whole number from 0 to 2**53 - 1, and
    :class:`InvalidAmount` for a bad ``cost`` or ``seconds``.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    cache_audio_read_tokens: int = 0
    output_audio_tokens: int = 0
    model: str | None = None
    web_searches: int = 0
    seconds: Decimal | int | float = 0
    documents: int = 0
    calls: int = 1
    cost: Decimal | int | float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        for value in _counts(self):
            if type(value) is not int or not 0 <= value <= MAX_COUNT:
                name = next(name for name in COUNT_FIELDS if getattr(self, name) is value)
                raise InvalidRequest(f"{value!r} is no count: give a whole number from 0 to 2**53 - 1", name)
        if type(self.seconds) is not int or not 0 <= self.seconds < 10**10:
            msgspec.structs.force_setattr(self, "seconds", exact(self.seconds))
        if self.cost is not None:
            msgspec.structs.force_setattr(self, "cost", exact(self.cost))
        if self.model is not None and not isinstance(self.model, str):
            raise InvalidRequest(f"{self.model!r} is no model name", "model")
        if not isinstance(self.currency, str) or len(self.currency) != 3:
            raise InvalidRequest(f"{self.currency!r} is no currency: give its three letters, as 'USD'", "currency")

    @property
    def tokens(self) -> int:
        """Input and output together: what a limit on ``tokens`` counts."""
        return self.input_tokens + self.output_tokens

    @classmethod
    def of(cls, reply: Any) -> Usage:
        """The usage that a reply states: a LangChain message, an OpenAI, Anthropic or Google reply (object or dict), or
        a Usage.

        Anthropic's input leaves cached tokens out, Google's output leaves thoughts out; both are added here.
        Raises :class:`InvalidRequest` when the reply states none.
        """
        from agentbudget.catalog.usage_of import read_usage

        return read_usage(reply)

    @classmethod
    def merge_max(cls, a: Usage, b: Usage) -> Usage:
        """One call reported twice (chunks, callbacks): the fieldwise maximum, never the sum. A later model name
        wins."""
        counts = {name: max(getattr(a, name), getattr(b, name)) for name in (*COUNT_FIELDS, "seconds")}
        return cls(**counts, model=b.model or a.model, **_dearer_cost(a, b))


def counts_of(usage: Usage) -> dict[str, int]:
    """The counts of a usage that are not zero, by name."""
    counts = _counts(usage)
    return dict(zip(compress(COUNT_FIELDS, counts), filter(None, counts)))  # noqa: B905 (both leave out the same)


_counts = attrgetter(*COUNT_FIELDS)


def exact(value: Any) -> Decimal:
    """A non-negative number as an exact Decimal; raises :class:`InvalidAmount` by name."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise InvalidAmount(repr(value)[:80], "not_a_number")
    try:
        number = value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
    except (ArithmeticError, ValueError):
        raise InvalidAmount(repr(value)[:80], "not_a_number") from None
    if not number.is_finite():
        raise InvalidAmount(repr(value)[:80], "not_finite")
    if number.adjusted() >= 10 or len(number.as_tuple().digits) > 60:
        raise InvalidAmount(repr(value)[:80], "too_large" if number.adjusted() >= 10 else "too_fine")
    if number < 0:
        to_nano(-1)  # raises InvalidAmount: negative
    return number


def _dearer_cost(a: Usage, b: Usage) -> dict[str, Any]:
    stated = [usage for usage in (a, b) if usage.cost is not None]
    if not stated:
        return {}
    if len(stated) == 2 and a.currency == b.currency:
        return {"cost": max(a.cost, b.cost), "currency": a.currency}  # type: ignore[type-var]
    return {"cost": stated[-1].cost, "currency": stated[-1].currency}
