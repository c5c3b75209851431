"""The short way of pricing by tokens alone says what the long way says, for every model it takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.catalog import Catalog, PriceRequest, Usage
from agentbudget.catalog.quotes import UnknownPrice

_TOKENS = st.integers(0, 3_000_000)
_RATES = """
[[rates]]
model = "house-*"
tokens = { input = "2.50", output = "10.00" }

[[rates]]
kind = "llm"
model = "call-*"
fixed = "0.01"

[[rates]]
model = "*"
cost_plus = "1.25x"
"""


def _models() -> list[tuple[str, str]]:
    from genai_prices.data_snapshot import get_snapshot

    return [(maker.id, model.id) for maker in get_snapshot().providers for model in maker.models]


MODELS = _models()
CATALOGS = (Catalog.bundled(), Catalog.loads(_RATES))


@given(st.sampled_from(CATALOGS), st.sampled_from([*MODELS, (None, "house-7b"), (None, "call-me"), (None, "nobody-knows-it")]),
       st.sampled_from(("llm", "embedding")), _TOKENS, _TOKENS, _TOKENS)  # fmt: skip
def test_a_plain_price_is_the_full_price(catalog, model, kind, tokens, out, cached) -> None:
    maker, name = model
    plain = catalog.plain(("acme", kind, name, None, maker, None))
    if plain is None:
        return
    request = PriceRequest(kind=kind, model=name, provider=maker, input_tokens=tokens, max_output_tokens=out, at_us=1)
    quote = catalog.quote(request)
    assert (plain.hold(tokens, out), plain.rate, plain.most) == (quote.amount, quote.rate, quote.most_output_tokens)
    usage = Usage(
        input_tokens=tokens, cache_read_tokens=min(cached, tokens), output_tokens=out, web_searches=cached % 3
    )
    assert plain.charge(usage) == catalog.charge(request, usage).nano


def test_what_time_limits_overrides_and_other_units_decide_is_not_plain() -> None:
    catalog = Catalog.loads(_RATES)
    assert catalog.plain(("acme", "llm", "house-7b", None, None, None)) is not None
    assert catalog.plain(("acme", "llm", "call-me", None, None, None)) is None
    assert catalog.plain(("acme", "tool", None, "search", None, None)) is None
    assert catalog.plain(("acme", "llm", None, None, None, None)) is None


def test_another_model_served_is_looked_at() -> None:
    plain = Catalog.bundled().plain(("acme", "llm", "gpt-5-mini", None, None, None))
    assert plain is not None
    assert plain.charge(Usage(input_tokens=1, model="gpt-5")) is None
    assert plain.charge(Usage(input_tokens=1, model="gpt-5-mini")) is not None


def test_a_model_that_nothing_prices_is_not_plain() -> None:
    catalog = Catalog.bundled()
    assert catalog.plain(("acme", "llm", "nobody-knows-it", None, None, None)) is None
    try:
        catalog.quote(PriceRequest(kind="llm", model="nobody-knows-it"))
    except UnknownPrice:
        return
    raise AssertionError("a price came from nowhere")
