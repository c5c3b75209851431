"""Rates of a catalog: which one counts, what each form holds and charges, and what happens without one."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget import Catalog, InvalidAmount, InvalidRequest, Usage
from agentbudget.catalog import PriceRequest, UnknownPrice
from agentbudget.catalog.cards import Curve

CREDIT = 10**9
AT_US = 1_790_000_000_000_000


def priced(text: str, usage: Usage | None = None, **request: Any) -> tuple[int, int]:
    """(held, charged) nanocredits of a step under a catalog text."""
    catalog = Catalog.loads(text)
    step = PriceRequest(**{"kind": "llm", "model": "m", "at_us": AT_US, **request})
    return catalog.quote(step).amount, catalog.charge(step, usage or Usage()).nano


TOKENS = 'tokens = { input = "1", cache_read = "0.1", cache_write = "1.25", cache_write_1h = 2, output = 10 }'


def test_a_token_rate_holds_the_dearest_class_and_charges_the_reported_split() -> None:
    usage = Usage(
        input_tokens=1_000_000,
        cache_read_tokens=500_000,
        cache_write_tokens=300_000,
        cache_write_1h_tokens=100_000,
        output_tokens=1_000,
        reasoning_tokens=900,
    )
    held, charged = priced(f"rates = [{{ {TOKENS} }}]", usage, input_tokens=1_000_000, max_output_tokens=1_000)
    assert held == 2 * CREDIT + CREDIT // 100
    # 0.2 plain + 0.05 read + 0.25 written + 0.2 for an hour + 0.01 output, reasoning inside it
    assert charged == 710_000_000


def test_reasoning_has_its_own_price_where_one_is_written() -> None:
    text = "rates = [{ tokens = { input = 0, output = 1, reasoning = 3 } }]"
    usage = Usage(output_tokens=1_000_000, reasoning_tokens=400_000)
    assert priced(text, usage, max_output_tokens=1_000_000) == (3 * CREDIT, 1_800_000_000)


def test_volume_tiers_of_tokens_are_context_tiers() -> None:
    catalog = Catalog.loads(
        "[[rates]]\n[rates.tokens]\n"
        "input = { volume = [{ up_to = 200, price = 1 }, { price = 2 }] }\n"
        "output = { volume = [{ up_to = 200, price = 10 }, { price = 20 }] }\n"
    )
    request = PriceRequest(kind="llm", model="m")
    assert catalog.charge(request, Usage(input_tokens=200, output_tokens=1_000)).nano == 200 * 1_000 + 1_000 * 10_000
    assert catalog.charge(request, Usage(input_tokens=201, output_tokens=1)).nano == 201 * 2_000 + 20_000


GRADUATED = """
[[rates]]
[rates.tokens]
input = { graduated = [{ up_to = 100, price = 4 }, { price = 1 }] }
output = { graduated = [{ up_to = 10, price = 0 }, { up_to = 20, price = 8 }, { price = 2 }] }
"""


def test_graduated_tokens_pay_the_tier_each_of_them_falls_in() -> None:
    usage = Usage(input_tokens=150, output_tokens=25)
    held, charged = priced(GRADUATED, usage, input_tokens=150, max_output_tokens=25)
    assert held == charged == 100 * 4_000 + 50 * 1_000 + 10 * 8_000 + 5 * 2_000


@given(st.integers(0, 300), st.integers(0, 2_000_000), st.integers(1, 3))
def test_graduated_output_that_is_affordable_fits_and_one_more_does_not(into: int, nano: int, calls: int) -> None:
    catalog = Catalog.loads(GRADUATED)

    def quote(output: int) -> Any:
        request = PriceRequest(kind="llm", model="m", input_tokens=into, max_output_tokens=output, quantity=calls)
        return catalog.quote(request)

    affordable = quote(5).affordable_output_tokens(nano)
    if affordable:
        assert quote(affordable).amount <= nano
    assert quote(affordable + 1).amount > nano or quote(0).amount > nano


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), max_size=4), st.integers(0, 9), st.integers(0, 300))
def test_no_smaller_quantity_costs_more_than_a_curve_says_at_most(
    tiers: list[tuple[int, int]], last: int, quantity: int
) -> None:
    ends = [sum(size for size, _ in tiers[: index + 1]) for index in range(len(tiers))]
    steps = (*zip(ends, (price for _, price in tiers), strict=True), (None, last))
    for graduated in (False, True):
        curve = Curve(steps, graduated=graduated)
        assert curve.most(quantity) == max(curve.cost(smaller) for smaller in range(quantity + 1))


@pytest.mark.parametrize(
    ("form", "request_", "usage", "held", "charged"),
    [
        ("per_call = '0.5'", {"quantity": 3}, Usage(calls=2), 1_500_000_000, CREDIT),
        ("fixed = 2", {"quantity": 3}, Usage(calls=2), 2 * CREDIT, 2 * CREDIT),
        ("per_second = '0.1', max_seconds = 60", {}, Usage(seconds=1.5), 6 * CREDIT, 150_000_000),
        ("per_second = '0.1', max_seconds = 60", {"seconds": 10}, Usage(), CREDIT, CREDIT),
        ("per_document = '0.01', max_documents = 50", {}, Usage(documents=3), CREDIT // 2, 30_000_000),
        ("per_document = '0.01', max_documents = 50", {"documents": 7}, Usage(), 70_000_000, 70_000_000),
        (
            "per_document = { graduated = [{ up_to = 2, price = 1 }, { price = '0.5' }] }, max_documents = 4",
            {},
            Usage(documents=3),
            3 * CREDIT,
            2_500_000_000,
        ),
        (
            "per_call = { volume = [{ up_to = 9, price = 1 }, { price = '0.5' }] }",
            {"quantity": 10},
            Usage(calls=10),
            9 * CREDIT,  # nine calls would cost more than ten, so nine are held
            5 * CREDIT,
        ),
    ],
)
def test_each_form_holds_its_bound_and_charges_what_was_used(
    form: str, request_: dict[str, Any], usage: Usage, held: int, charged: int
) -> None:
    assert priced(f"rates = [{{ {form} }}]", usage, kind="tool", tool="search", model=None, **request_) == (
        held,
        charged,
    )


def test_the_first_rate_whose_globs_all_match_counts() -> None:
    catalog = Catalog.loads(
        """
rates = [
  { id = "vip", kind = "tool", tool = "web_*", feature = "research", fixed = 1 },
  { id = "web", kind = "tool", tool = ["web_*", "fetch"], fixed = 2 },
  { id = "azure", provider = "AZURE", fixed = 3 },
  { id = "gpt", model = "GPT-*", fixed = 4 },
]"""
    )

    def rate(**request: Any) -> str | None:
        return catalog.quote(PriceRequest(**request)).rate

    assert rate(kind="tool", tool="web_search", feature="research") == "vip"
    assert rate(kind="tool", tool="web_search") == "web"
    assert rate(kind="tool", tool="fetch", feature="research") == "web"
    assert rate(kind="llm", model="gpt-5", provider="azure") == "azure"
    assert rate(kind="llm", model="gpt-5") == "gpt"
    assert rate(kind="tool", tool="calculator") is None


@pytest.mark.parametrize("kind", ["tool", "retrieval", "agent"])
def test_a_step_of_no_model_without_a_rate_is_free(kind: Any) -> None:
    assert priced("", kind=kind, model=None, tool="anything") == (0, 0)


def test_an_unknown_model_is_refused_with_the_lines_to_add_and_they_work() -> None:
    name = 'my-"odd"*[model]?\x7f\n'
    catalog = Catalog.bundled()
    request = PriceRequest(kind="llm", model=name, input_tokens=1_000_000, max_output_tokens=0)
    with pytest.raises(UnknownPrice) as refused:
        catalog.quote(request)
    with pytest.raises(UnknownPrice):
        catalog.charge(request, Usage(input_tokens=1))
    assert (refused.value.model, refused.value.line in str(refused.value)) == (name, True)
    mended = Catalog.loads(f"{catalog.text}\n{refused.value.line}\n")
    assert mended.quote(request).amount == 2_500_000_000
    copy = pickle.loads(pickle.dumps(refused.value))
    assert (copy.model, copy.provider, copy.line) == (name, "", refused.value.line)


@pytest.mark.parametrize("model", [None, ""])
def test_a_model_step_that_names_no_model_is_refused(model: str | None) -> None:
    with pytest.raises(UnknownPrice, match="names no model"):
        Catalog.bundled().quote(PriceRequest(kind="llm", model=model))


def test_a_written_price_ceiling_stands_in_for_an_unknown_price_and_a_stated_cost_replaces_it() -> None:
    catalog = Catalog.loads(
        'rates = [{ cost_plus = "50%" }]\nceilings = [{ name = "unknown", price = { input = 10, output = 40 } }]'
    )
    request = PriceRequest(kind="llm", model="house-model", input_tokens=1_000_000, max_output_tokens=0)
    assert (catalog.quote(request).amount, catalog.quote(request).rate) == (10 * CREDIT, "unknown")
    charge = catalog.charge(request, Usage(input_tokens=500_000))
    assert (charge.nano, charge.notes) == (5 * CREDIT, ("priced by the ceiling unknown: no price is known",))
    stated = catalog.charge(request, Usage(input_tokens=500_000, cost=Decimal("0.2")))
    assert (stated.nano, stated.notes) == (300_000_000, ("the provider's own cost was used",))
    known = catalog.charge(PriceRequest(kind="llm", model="gpt-5"), Usage(input_tokens=1_000, cost=99))
    assert known.nano == 1_875_000  # the table knows it: its price, marked up


def test_a_tool_that_states_its_cost_is_charged_it_with_the_markup() -> None:
    text = 'rates = [{ cost_plus = "1.5x" }]'
    assert priced(text, Usage(cost="0.2"), kind="tool", tool="paid", model=None) == (0, 300_000_000)  # type: ignore[arg-type]


@pytest.mark.parametrize(("markup", "held"), [("0%", 1_250_000), ("20%", 1_500_000), ("1.2x", 1_500_000), ("0x", 0)])
def test_cost_plus_marks_the_provider_price_up(markup: str, held: int) -> None:
    text = f'rates = [{{ cost_plus = "{markup}" }}]'
    assert priced(text, Usage(input_tokens=1_000), model="gpt-5", input_tokens=1_000, max_output_tokens=0) == (
        held,
        held,
    )


def test_a_credit_of_another_price_converts_once_up_when_holding_and_half_even_when_charging() -> None:
    text = 'credit.price = 3\nrates = [{ cost_plus = "0%" }]'
    usage = Usage(input_tokens=1_000)
    assert priced(text, usage, model="gpt-5", input_tokens=1_000, max_output_tokens=0) == (416_667, 416_667)
    assert priced(text, Usage(input_tokens=1), model="gpt-5", input_tokens=1, max_output_tokens=0) == (417, 417)
    assert priced(text, Usage(input_tokens=4), model="gpt-5", input_tokens=4, max_output_tokens=0) == (1_667, 1_667)
    # 1,250 / 9 * 1.2: rounding once
    assert priced("rates = [{ tokens = { input = '0.0005' } }]", Usage(input_tokens=1), input_tokens=1) == (1, 0)
    assert priced("rates = [{ tokens = { input = '0.0005' } }]", Usage(input_tokens=3), input_tokens=3) == (2, 2)


OVERRIDDEN = """
rates = [{ id = "list", fixed = 10 }]
[[overrides]]
customer = "acme"
from = 2026-01-01
until = 2026-02-01T00:00:00Z
rates = [{ id = "deal", model = "m", fixed = 7 }]
[[overrides]]
customer = "acme"
rates = [{ id = "always", model = "n", fixed = 8 }]
"""


@pytest.mark.parametrize(
    ("customer", "model", "at_us", "rate"),
    [
        ("acme", "m", 1_767_225_600_000_000, "deal"),
        ("acme", "m", 1_767_225_599_999_999, "list"),
        ("acme", "m", 1_769_903_999_999_999, "deal"),
        ("acme", "m", 1_769_904_000_000_000, "list"),
        ("acme", "n", 0, "always"),
        ("other", "m", 1_767_225_600_000_000, "list"),
        (None, "m", 1_767_225_600_000_000, "list"),
    ],
)
def test_an_override_counts_for_its_customer_between_its_dates(
    customer: str | None, model: str, at_us: int, rate: str
) -> None:
    request = PriceRequest(kind="llm", model=model, customer=customer, at_us=at_us)
    assert Catalog.loads(OVERRIDDEN).quote(request).rate == rate


def test_the_model_served_prices_the_step_where_it_has_a_price() -> None:
    request = PriceRequest(kind="llm", model="gpt-5", at_us=AT_US)
    served = Catalog.bundled().charge(request, Usage(input_tokens=1_000, model="gpt-5-mini"))
    assert (served.nano, served.priced_model) == (250_000, "gpt-5-mini")
    assert served.notes == ("priced by the model served: gpt-5-mini",)
    unknown = Catalog.bundled().charge(request, Usage(input_tokens=1_000, model="mystery"))
    assert (unknown.nano, unknown.priced_model) == (1_250_000, "gpt-5")
    assert "no price for the model served" in unknown.notes[0]


def test_a_dated_name_of_the_model_asked_for_keeps_its_written_rate_but_has_its_own_listed_price() -> None:
    catalog = Catalog.loads('rates = [{ model = "gpt-5", fixed = 1 }, { cost_plus = "0%" }]')
    dated = Usage(input_tokens=1_000, model="gpt-5-2025-08-07")
    assert catalog.charge(PriceRequest(kind="llm", model="gpt-5"), dated).nano == CREDIT
    request = PriceRequest(kind="llm", model="gpt-4o", at_us=AT_US)
    may = Catalog.bundled().charge(request, Usage(input_tokens=1_000, model="gpt-4o-2024-05-13"))
    assert (may.nano, may.notes) == (5_000_000, ())


def test_the_output_cap_comes_from_the_request_the_price_table_or_a_named_ceiling() -> None:
    catalog = Catalog.loads(
        'rates = [{ cost_plus = "0%" }]\n'
        'ceilings = [{ name = "small", models = "GPT-5*", max_output_tokens = 500 }, '
        '{ name = "window", context_window = 900 }]'
    )

    def cap(**request: Any) -> tuple[int, str]:
        quote = catalog.quote(PriceRequest(**{"kind": "llm", "model": "gpt-5", **request}))
        return quote.max_output_tokens, quote.output_cap_source

    assert cap(max_output_tokens=7) == (7, "request")
    assert cap() == (500, "small")
    assert cap(model="claude-sonnet-4-5") == (128_000, "default")
    assert cap(model="gpt-4") == (8_192, "price table")
    assert cap(kind="embedding", model="text-embedding-3-small") == (0, "price table")


def test_an_input_by_reference_holds_the_context_window() -> None:
    catalog = Catalog.bundled()
    request = PriceRequest(kind="llm", model="gpt-4", input_tokens=10, by_reference=True)
    assert catalog.quote(request).input_tokens == catalog.context_window(request) == 8_192
    assert catalog.context_window(PriceRequest(kind="llm", model="mystery")) == 1_048_576


def test_server_tools_hold_their_ceiling_for_each_call_beside_the_tokens() -> None:
    request = PriceRequest(kind="llm", model="gpt-5", max_output_tokens=0, server_tools=True, quantity=2)
    quote = Catalog.bundled().quote(request)
    assert quote.amount == 2 * CREDIT
    assert quote.affordable_output_tokens(2 * CREDIT - 1) == 0
    assert quote.affordable_output_tokens(2 * CREDIT + 20_000) == 1


def test_what_is_affordable_of_free_output_is_the_most_the_model_gives() -> None:
    catalog = Catalog.loads("rates = [{ fixed = 1 }]\nceilings = [{ name = 'c', max_output_tokens = 99 }]")
    quote = catalog.quote(PriceRequest(kind="llm", model="m"))
    assert (quote.affordable_output_tokens(CREDIT), quote.affordable_output_tokens(CREDIT - 1)) == (99, 0)


def test_a_faulty_report_is_charged_by_its_parts_and_says_so_l11() -> None:
    usage = Usage(input_tokens=0, cache_read_tokens=1_000, reasoning_tokens=100)
    charge = Catalog.bundled().charge(PriceRequest(kind="llm", model="gpt-5", at_us=AT_US), usage)
    assert charge.nano == 1_000 * 125 + 100 * 10_000
    assert "part larger than its whole" in charge.notes[0]


def test_several_calls_reported_as_one_sum_pay_the_tier_of_each() -> None:
    request = PriceRequest(kind="llm", model="gemini-2.5-pro", at_us=AT_US)
    assert Catalog.bundled().charge(request, Usage(input_tokens=300_000, calls=2)).nano == 375_000_000
    graduated = Catalog.loads(GRADUATED)
    charge = graduated.charge(PriceRequest(kind="llm", model="m"), Usage(input_tokens=301, calls=10**12))
    assert charge.nano == 301 * 4_000


def test_more_than_64_bits_of_nanocredits_is_refused_by_name() -> None:
    request = PriceRequest(kind="llm", model="gpt-5", input_tokens=2**53 - 1, max_output_tokens=2**53 - 1)
    with pytest.raises(InvalidAmount) as refused:
        Catalog.bundled().quote(request)
    with pytest.raises(InvalidAmount):
        Catalog.bundled().charge(request, Usage(input_tokens=2**53 - 1, output_tokens=2**53 - 1))
    assert refused.value.fault == "too_large"


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "chat"), ("input_tokens", -1), ("max_output_tokens", 1.5), ("quantity", 0), ("documents", True)],
)
def test_a_bad_request_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        PriceRequest(**{"kind": "llm", field: value})
    assert refused.value.field == field


def test_threads_that_share_a_catalog_see_the_same_prices() -> None:
    catalog = Catalog.loads(Catalog.bundled().text)
    models = ["gpt-5", "claude-sonnet-4-5", "gemini-2.5-pro", "mistral-large-latest"] * 50

    def amount(model: str) -> int:
        return catalog.quote(PriceRequest(kind="llm", model=model, input_tokens=300_000, at_us=AT_US)).amount

    with ThreadPoolExecutor(8) as threads:
        shared = list(threads.map(amount, models))
    assert shared == [amount(model) for model in models]
    assert len(set(shared)) == 4


def test_names_made_up_by_callers_do_not_fill_the_memory() -> None:
    from agentbudget.catalog.table import REMEMBERED

    catalog = Catalog.loads("rates = [{ fixed = 1 }]")
    for number in range(REMEMBERED + 100):
        catalog.quote(PriceRequest(kind="tool", tool=f"tool-{number}"))
    assert len(catalog._pricer._candidates) <= REMEMBERED + 1
