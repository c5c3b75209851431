"""The provider price table: our cards charge what genai-prices computes, and every model it knows can be held."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from hypothesis import example, given
from hypothesis import strategies as st

from agentbudget import Catalog, Usage
from agentbudget.amounts import nano_half_even
from agentbudget.catalog import PriceRequest
from agentbudget.catalog.cards import CLASSES

CATALOG = Catalog.bundled()
AT_US = 1_790_000_000_000_000  # in September 2026
MODELS = [(provider.id, model.id) for provider in get_snapshot().providers for model in provider.models]


def found_by_genai_prices(provider: str, model: str) -> bool:
    try:
        get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return False
    return True


def prices_tokens(provider: str, model: str) -> bool:
    """Whether the table prices it by nothing that our usage does not carry in tokens (characters, hours, pages)."""
    _, found = get_snapshot().find_provider_model(model, None, provider, None)
    prices = found.get_prices(datetime.fromtimestamp(AT_US / 1e6, UTC))
    return not any(name.endswith(("hours", "mchars", "kpages", "messages_kcount")) for name in vars(prices))


COMPARED = [name for name in MODELS if found_by_genai_prices(*name) and prices_tokens(*name)]
TIERED = [
    name for name in COMPARED if "tiers" in repr(get_snapshot().find_provider_model(name[1], None, name[0], None)[1])
]


@st.composite
def usages(draw: st.DrawFn, most: int = 400_000) -> Usage:
    """A consistent report: no part larger than its whole."""
    count = st.integers(0, most // 4)
    cached_audio, read, heard, one_hour, short = (draw(count) for _ in range(5))
    thought, spoken = draw(count), draw(count)
    return Usage(
        input_tokens=cached_audio + read + heard + one_hour + short + draw(count),
        cache_read_tokens=read + cached_audio,
        cache_write_tokens=one_hour + short,
        cache_write_1h_tokens=one_hour,
        input_audio_tokens=heard + cached_audio,
        cache_audio_read_tokens=cached_audio,
        output_tokens=thought + spoken + draw(count),
        reasoning_tokens=thought,
        output_audio_tokens=spoken,
        web_searches=draw(st.integers(0, 20)),
    )


def genai_price(provider: str, model: str, usage: Usage, at_us: int = AT_US) -> int:
    names = {"reasoning_tokens": "output_reasoning_tokens"}
    fields = [name for name in Usage.__struct_fields__ if name.endswith("tokens")]
    stated = genai_prices.Usage(**{names.get(name, name): getattr(usage, name) for name in fields})
    stated.web_searches = usage.web_searches
    stated.audio_seconds = 0
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    price = genai_prices.calc_price(stated, model, provider_id=provider, genai_request_timestamp=at)
    return nano_half_even(price.total_price)


@given(st.sampled_from(COMPARED), usages())
def test_a_charge_is_what_genai_prices_computes(name: tuple[str, str], usage: Usage) -> None:
    request = PriceRequest(kind="llm", provider=name[0], model=name[1], at_us=AT_US)
    assert CATALOG.charge(request, usage).nano == genai_price(*name, usage)


@given(st.sampled_from(TIERED), usages(), st.sampled_from([0, 1, -1]))
def test_a_charge_is_what_genai_prices_computes_around_a_context_tier(
    name: tuple[str, str], usage: Usage, beside: int
) -> None:
    _, model = get_snapshot().find_provider_model(name[1], None, name[0], None)
    prices = model.get_prices(datetime.fromtimestamp(AT_US / 1e6, UTC))
    starts = [tier.start for price in vars(prices).values() for tier in getattr(price, "tiers", ())] or [200_000]
    at_start = Usage(input_tokens=starts[-1] + beside, output_tokens=usage.output_tokens)
    request = PriceRequest(kind="llm", provider=name[0], model=name[1], at_us=AT_US)
    assert CATALOG.charge(request, at_start).nano == genai_price(*name, at_start)


@given(st.integers(0, 86_400 * 1_000_000), usages())
@example(at_us=16 * 3_600_000_000 + 30 * 60_000_000, usage=Usage(input_tokens=10**6))
def test_a_daily_off_peak_price_counts_at_its_hour(at_us: int, usage: Usage) -> None:
    name = ("deepseek", "deepseek-chat")
    request = PriceRequest(kind="llm", provider=name[0], model=name[1], at_us=AT_US + at_us)
    assert CATALOG.charge(request, usage).nano == genai_price(*name, usage, AT_US + at_us)


def test_a_gemini_input_one_token_past_its_tier_doubles_the_whole_charge() -> None:
    request = PriceRequest(kind="llm", model="gemini-2.5-pro", at_us=AT_US)
    below = CATALOG.charge(request, Usage(input_tokens=200_000)).nano
    past = CATALOG.charge(request, Usage(input_tokens=200_001)).nano
    assert (below, past) == (250_000_000, 500_002_500)
    for tokens, charged in ((200_000, below), (200_001, past)):
        bounds: dict[str, Any] = {"input_tokens": tokens, "max_output_tokens": 0, "at_us": AT_US}
        quote = CATALOG.quote(PriceRequest(kind="llm", model="gemini-2.5-pro", **bounds))
        assert quote.amount >= charged


def test_every_model_of_the_table_is_quoted_and_charged_under_the_bundled_catalog() -> None:
    free = 0
    for provider, model in MODELS:
        request = PriceRequest(kind="llm", provider=provider, model=model, input_tokens=1_000, at_us=AT_US)
        quote = CATALOG.quote(request)
        charge = CATALOG.charge(request, Usage(input_tokens=1_000, output_tokens=quote.max_output_tokens, model=model))
        assert 0 < quote.max_output_tokens <= 128_000 or quote.output_cap_source == "price table"
        assert 0 <= charge.nano <= quote.amount
        assert charge.rate == "provider-price"
        free += quote.amount == 0
    assert len(MODELS) > 2_000
    assert free < len(MODELS) / 10


@given(st.sampled_from(MODELS), usages(), st.booleans())
def test_no_usage_within_its_bounds_charges_more_than_was_held_l3(
    name: tuple[str, str], usage: Usage, audio: bool
) -> None:
    heard = {} if audio else {"input_audio_tokens": 0, "cache_audio_read_tokens": 0, "output_audio_tokens": 0}
    fields = {field: getattr(usage, field) for field in Usage.__struct_fields__ if field.endswith("tokens")}
    within = Usage(**{**fields, **heard})
    request = PriceRequest(
        kind="llm",
        provider=name[0],
        model=name[1],
        input_tokens=within.input_tokens,
        max_output_tokens=within.output_tokens,
        audio=audio,
        at_us=AT_US,
    )
    assert CATALOG.charge(request, within).nano <= CATALOG.quote(request).amount


@given(st.sampled_from(MODELS), st.integers(0, 500_000), st.integers(0, 50 * 10**9), st.integers(1, 3))
def test_what_is_affordable_fits_and_one_token_more_does_not(
    name: tuple[str, str], input_tokens: int, nano: int, calls: int
) -> None:
    def quote(output: int | None) -> Any:
        return CATALOG.quote(
            PriceRequest(
                kind="llm",
                provider=name[0],
                model=name[1],
                input_tokens=input_tokens,
                max_output_tokens=output,
                quantity=calls,
                server_tools=calls == 2,
                at_us=AT_US,
            )
        )

    affordable = quote(None).affordable_output_tokens(nano)
    is_free = quote(1).amount == quote(10**9).amount
    if affordable:
        assert quote(affordable).amount <= nano
    if not is_free:
        assert quote(affordable + 1).amount > nano


def test_a_provider_name_of_a_framework_and_a_prefixed_model_find_the_same_price() -> None:
    usage = Usage(input_tokens=1_000)
    names = [
        ("openai", "gpt-5"),
        (None, "gpt-5"),
        (None, "openai:gpt-5"),
        (None, "openai/gpt-5"),
        ("my-gateway", "gpt-5"),
    ]
    charges = [CATALOG.charge(PriceRequest(kind="llm", provider=p, model=m, at_us=AT_US), usage).nano for p, m in names]
    assert charges == [1_250_000] * len(names)


def test_a_model_priced_by_audio_time_is_held_by_the_request_or_an_hour_and_charged_by_what_was_heard() -> None:
    def request(seconds: int | None) -> PriceRequest:
        return PriceRequest(kind="llm", provider="openai", model="whisper-1", seconds=seconds, at_us=AT_US)

    assert CATALOG.quote(request(None)).amount == 360_000_000
    assert CATALOG.quote(request(60)).amount == 6_000_000
    assert CATALOG.charge(request(60), Usage(seconds=30)).nano == 3_000_000
    assert CATALOG.charge(request(60), Usage()).nano == 6_000_000  # a silent report is charged as held, never free


def test_groq_bills_ten_seconds_at_least() -> None:
    request = PriceRequest(kind="llm", provider="groq", model="whisper-large-v3", seconds=2, at_us=AT_US)
    heard = genai_prices.Usage(audio_seconds=2, input_audio_seconds=2)
    ten_seconds = nano_half_even(genai_prices.calc_price(heard, "whisper-large-v3", provider_id="groq").total_price)
    assert ten_seconds == 308_333  # 10 seconds at $0.111 an hour
    assert CATALOG.charge(request, Usage(seconds=2)).nano == ten_seconds
    assert CATALOG.quote(request).amount >= ten_seconds


def test_a_free_model_says_so() -> None:
    charge = CATALOG.charge(PriceRequest(kind="llm", provider="openai", model="moderation"), Usage(input_tokens=5))
    assert (charge.nano, charge.notes) == (0, ("the price table lists this model as free",))


@pytest.fixture
def dearer_table() -> Iterator[None]:
    providers = [p for p in get_snapshot().providers if p.id == "anthropic"]
    yield set_custom_snapshot(DataSnapshot(providers=providers, from_auto_update=False))
    set_custom_snapshot(None)


def test_an_updated_price_table_is_noticed(dearer_table: None) -> None:
    catalog = Catalog.loads('rates = [{ cost_plus = "0%" }]', source="fresh")
    request = PriceRequest(kind="llm", model="gpt-5")
    with pytest.raises(Exception, match="no price is known"):
        catalog.quote(request)
    set_custom_snapshot(None)
    assert catalog.quote(request).amount > 0


def test_our_token_classes_nest_as_the_price_table_says() -> None:
    from genai_prices.units import _get_registry

    keys = {"reasoning": "output_reasoning_tokens"}
    units = {name: _get_registry().units[keys.get(name, f"{name}_tokens")] for name in CLASSES}
    for a in CLASSES:
        for b in CLASSES:
            ours = CLASSES[a] < CLASSES[b]
            assert ours == (a != b and units[a].dimensions.items() <= units[b].dimensions.items()), (a, b)
