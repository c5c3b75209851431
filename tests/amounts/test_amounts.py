"""Money is integer nanocredits: exact at the edge, refused by name when it cannot be (peers: floats drift, NaN spends)."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.amounts import MAX_NANO, NANO, USD, Credits, format_nano, nano_half_even, nano_up, to_nano
from agentbudget.errors import InvalidAmount

nanos = st.integers(-MAX_NANO, MAX_NANO)
HALF = Decimal("0.0000000005")


def fault(value: object) -> str:
    with pytest.raises(InvalidAmount) as refused:
        to_nano(value)  # type: ignore[arg-type]
    return refused.value.fault


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        ("2.5", 2_500_000_000), (3, 3 * NANO), (0.1, 100_000_000), (Decimal("1e-9"), 1), ("0", 0), ("-0", 0),
        (" 7 ", 7 * NANO),
        ("1e3", 1_000 * NANO), (Credits("0.000000001"), 1), (1e-9, 1), ("9223372036.854775807", MAX_NANO),
        ("1_000", 1_000 * NANO),
    ],
)  # fmt: skip
def test_an_amount_is_exactly_its_nanocredits(value: object, nano: int) -> None:
    assert to_nano(value) == nano  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (float("nan"), "not_finite"), ("NaN", "not_finite"), (Decimal("sNaN"), "not_finite"), (float("inf"), "not_finite"),
        ("-Infinity", "not_finite"), (-1, "negative"), ("-0.000000001", "negative"), (-0.5, "negative"),
        ("0.0000000001", "too_fine"), (0.1 + 0.2, "too_fine"), (Decimal("1e-30"), "too_fine"), (10**30, "too_large"),
        ("1e30", "too_large"), (Decimal(10) ** 30, "too_large"), (1e30, "too_large"),
        pytest.param(10**5_000, "too_large", id="huge"),
        ("9" * 200, "too_large"), ("9223372036.854775808", "too_large"), (True, "not_a_number"), (None, "not_a_number"),
        ("five", "not_a_number"), ("", "not_a_number"), (b"5", "not_a_number"), ([5], "not_a_number"),
        ("1e999999999", "too_large"),
    ],
)  # fmt: skip
def test_a_value_that_is_no_amount_is_refused_by_name(value: object, named: str) -> None:
    assert fault(value) == named


@given(nanos)
def test_text_decimal_and_pickle_give_the_same_credits_back(nano: int) -> None:
    credits = Credits.of_nano(nano)
    assert Credits(str(credits)) == Credits(credits.decimal) == pickle.loads(pickle.dumps(credits)) == credits
    assert copy.deepcopy(credits).nano == nano
    assert eval(repr(credits), {"Credits": Credits}) == credits


@given(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15), st.integers(-100, 100))
def test_credits_add_and_compare_like_their_integers(a: int, b: int, times: int) -> None:
    left, right = Credits.of_nano(a), Credits.of_nano(b)
    assert ((left + right).nano, (left - right).nano, (-left).nano, (left * times).nano) == (
        a + b,
        a - b,
        -a,
        a * times,
    )
    assert ((left < right), (left <= right), (left == right), bool(left)) == (a < b, a <= b, a == b, a != 0)
    assert (left == right) is (hash(left) == hash(right)) or a != b


@given(st.floats(0, 1_000, allow_nan=False))
def test_a_float_is_its_shortest_decimal_form_or_refused(value: float) -> None:
    shortest = Decimal(repr(value))
    if shortest == shortest.quantize(Decimal("1e-9")):
        assert Credits(value).decimal == shortest
    else:
        assert fault(value) == "too_fine"


@given(st.decimals(0, 10**6, allow_nan=False, places=12))
def test_a_hold_is_rounded_up_and_a_settlement_to_the_nearest(cost: Decimal) -> None:
    exact = cost * NANO
    assert 0 <= nano_up(cost) - exact < 1
    assert abs(nano_half_even(cost) - exact) <= Decimal("0.5")
    assert nano_half_even(cost) <= nano_up(cost)


def test_half_a_nanocredit_settles_to_the_even_neighbour() -> None:
    assert [nano_half_even(HALF * odd) for odd in (1, 3, 5)] == [0, 2, 2]
    assert [nano_up(HALF * odd) for odd in (1, 3, 5)] == [1, 2, 3]


@pytest.mark.parametrize("cost", [Decimal("NaN"), Decimal("-1"), Decimal("1e40"), Decimal("Infinity")])
def test_a_computed_cost_that_is_no_amount_is_refused(cost: Decimal) -> None:
    for rounding in (nano_up, nano_half_even):
        with pytest.raises(InvalidAmount):
            rounding(cost)


def test_a_sum_beyond_64_bits_is_refused_not_wrapped() -> None:
    most = Credits.of_nano(MAX_NANO)
    for overflow in (lambda: most + Credits.of_nano(1), lambda: most * 2, lambda: -most - most):
        with pytest.raises(InvalidAmount):
            overflow()


def test_credits_are_immutable_and_compare_with_plain_numbers() -> None:
    with pytest.raises(AttributeError):
        Credits(1).nano = 2
    assert Credits("2.5") == Decimal("2.5") == 2.5
    assert Credits(2) == 2
    assert {Credits(2): "two"}[2] == "two"  # type: ignore[index]
    assert Credits(1) != True  # noqa: E712
    assert Credits(1) != "1"
    assert Credits(1) != float("nan")
    with pytest.raises(TypeError):
        _ = Credits(1) < "2"  # type: ignore[operator]
    with pytest.raises(TypeError):
        _ = Credits(1) * 1.5  # type: ignore[operator]


def test_credits_are_shown_without_trailing_zeros() -> None:
    assert [format_nano(n) for n in (0, 1, -1, NANO, 2_500_000_000)] == ["0", "0.000000001", "-0.000000001", "1", "2.5"]
    assert f"{Credits('2.5')}" == "2.5"
    assert f"{Credits('2.5'):.2f}" == "2.50"


def test_dollars_are_exact_immutable_and_never_negative() -> None:
    assert USD("5") == USD(5)
    assert USD("0.1") == pickle.loads(pickle.dumps(USD(0.1)))
    assert hash(USD(5)) == hash(USD("5.0"))
    assert USD(5) != 5
    for bad in (-1, "NaN", "five", True):
        with pytest.raises(InvalidAmount):
            USD(bad)
    with pytest.raises(AttributeError):
        USD(1).amount = Decimal(2)


@pytest.mark.parametrize("value", [pytest.param(10**5_000, id="huge"), "9" * 10_000, Decimal("1." + "1" * 5_000)])
def test_a_refused_amount_is_quoted_briefly(value: object) -> None:
    with pytest.raises(InvalidAmount) as refused:
        to_nano(value)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 200
