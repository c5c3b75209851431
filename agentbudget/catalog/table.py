"""The provider price table (genai-prices), read once per model and turned into cards.

genai-prices computes a price in about 70 microseconds; a card does it in a few, with the same result (a property test
compares them). It is imported at the first price that needs it, and never reaches for the network unless the
application itself starts its updater, which is noticed here and empties the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any, Final

from agentbudget.catalog.cards import TokenCard, token_card

REMEMBERED: Final = 4096
"""Models remembered at a time: more than the table has, and a bound on what names made up by callers can take."""

_TOKEN_KEYS: Final = {
    "input_mtok": "input",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "cache_audio_read_mtok": "cache_audio_read",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "output_audio_mtok": "output_audio",
}
_UNIT_KEYS: Final = {
    "requests_kcount": ("per_call", 1_000),
    "input_text_messages_kcount": ("per_call", 1_000),
    "audio_hours": ("per_microsecond", 3_600_000_000),
    "input_document_kpages": ("per_document", 1_000),
    "input_mchars": ("per_character", 1_000_000),
    "web_searches_kcount": ("per_search", 1_000),
}
"""What is not a token: our name and how many units the price is for. Where two keys share a name the dearer one
counts."""

_LEAST_US: Final = {("groq", "whisper-large-v3"): 10_000_000, ("groq", "whisper-large-v3-turbo"): 10_000_000}
"""Shortest duration billed, as genai-prices has it."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ABSENT: Final[Any] = object()


class Listed:
    """A model of the price table: its context window (None: not listed) and its card at a time."""

    __slots__ = ("_cards", "_model", "_nano_per_usd", "_timeless", "provider", "ref", "window")

    def __init__(self, provider: Any, model: Any, nano_per_usd: Fraction) -> None:
        self.provider: str = provider.id
        self.ref: str = model.id
        self.window: int | None = model.context_window
        self._model, self._nano_per_usd = model, nano_per_usd
        self._cards: dict[int, TokenCard] = {}
        self._timeless = None if isinstance(model.prices, list) else self._to_card(model.prices)

    @property
    def is_timeless(self) -> bool:
        """Whether its prices are the same at every time."""
        return self._timeless is not None

    def card(self, at_us: int) -> TokenCard:
        """The prices in force at a time (introductions and daily off-peak hours are part of the table)."""
        if self._timeless is not None:
            return self._timeless
        prices = self._model.get_prices(_EPOCH + timedelta(microseconds=at_us))
        card = self._cards.get(id(prices))  # the model keeps its prices alive, so the id stays theirs
        if card is None:
            card = self._cards[id(prices)] = self._to_card(prices)
        return card

    def _to_card(self, prices: Any) -> TokenCard:
        return card_of_prices(prices, self._nano_per_usd, least_us=_LEAST_US.get((self.provider, self.ref), 0))


class PriceTable:
    """Looks models up in genai-prices for one price of a credit and one markup. Safe to share across threads: what is
    remembered is only ever added whole, and two threads that add the same model add equal values."""

    __slots__ = ("_found", "_nano_per_usd", "_snapshot")

    def __init__(self, nano_per_usd: Fraction) -> None:
        self._nano_per_usd = nano_per_usd
        self._found: dict[tuple[str | None, str], Listed | None] = {}
        self._snapshot: Any = None

    def find(self, model: str, provider: str | None = None) -> Listed | None:
        """The model in the table, or None. A provider that the table does not know is as good as none."""
        found = self._remembered().get((provider, model), _ABSENT)
        return self._look_up(model, provider) if found is _ABSENT else found

    def _remembered(self) -> dict[tuple[str | None, str], Listed | None]:
        snapshot = table_in_force()
        if snapshot is not self._snapshot or len(self._found) > REMEMBERED:
            self._found, self._snapshot = {}, snapshot
        return self._found

    def _look_up(self, model: str, provider: str | None) -> Listed | None:
        found = _search(self._snapshot, model, provider)
        listed = None if found is None else Listed(*found, self._nano_per_usd)
        self._found[(provider, model)] = listed
        return listed


def table_in_force() -> Any:
    """genai-prices' data as it is now: another object whenever the application's own updater has replaced it."""
    return _snapshots()()


@cache
def _snapshots() -> Callable[[], Any]:
    """genai-prices' own choice of data, imported at the first use (0.3 s)."""
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot


def card_of_prices(prices: Any, nano_per_usd: Fraction, *, least_us: int = 0) -> TokenCard:
    """A card of one genai-prices ``ModelPrice``. Classes that no usage field reports (images, video) are priced as
    their whole."""
    values = {key: value for key, value in vars(prices).items() if value is not None}
    starts = sorted({tier.start for value in values.values() for tier in getattr(value, "tiers", ())})
    # tier i of a card is reached past starts[i - 1] input tokens; 0 stands for any input below the first threshold
    reached = [0, *(start + 1 for start in starts)]
    classes = {
        name: _price_by_tier(values[key], reached, nano_per_usd / 1_000_000)
        for key, name in _TOKEN_KEYS.items()
        if key in values
    }
    units: dict[str, Fraction] = {}
    for key, (name, count) in _UNIT_KEYS.items():
        if key in values:
            unit = Fraction(_base(values[key])) * nano_per_usd / count
            units[name] = max(units.get(name, unit), unit)
    return token_card(classes, tuple(starts), least_us=least_us, **units)


def _price_by_tier(value: Any, reached: list[int], scale: Fraction) -> Callable[[int], Fraction]:
    prices = []
    for tokens in reached:
        price = _base(value)
        for tier in getattr(value, "tiers", ()):
            price = tier.price if tokens > tier.start else price
        prices.append(Fraction(price) * scale)
    return prices.__getitem__


def _base(value: Any) -> Any:
    return getattr(value, "base", value)


def _search(snapshot: Any, model: str, provider: str | None) -> tuple[Any, Any] | None:
    """As genai-prices finds it; else by the table's own id; else by a ``provider:model`` or ``provider/model`` name."""
    from genai_prices.data_snapshot import find_provider_by_id

    known = find_provider_by_id(snapshot.providers, provider) if provider else None
    found = _match(snapshot, model, provider if known else None)
    if found is None:
        # without a provider, its maker's own list decides: genai-prices guesses makers by name, and misses embeddings
        lists = [known] if known else [maker for maker in snapshot.providers if maker.model_match is not None]
        found = next(((maker, listed) for maker in lists for listed in maker.models if listed.id == model), None)
    for mark in (":", "/") if found is None and known is None else ():
        prefix, _, rest = model.partition(mark)
        if rest and find_provider_by_id(snapshot.providers, prefix):
            return _match(snapshot, rest, prefix)
    return found


def _match(snapshot: Any, model: str, provider: str | None) -> tuple[Any, Any] | None:
    try:
        found: tuple[Any, Any] = snapshot.find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    return found
