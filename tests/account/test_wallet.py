"""The wallet: burn order, scope, expiry, void and adjust (laws L2 and L3; DESIGN.md §5)."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.account import commands as c
from agentbudget.account.decision import Held
from agentbudget.catalog.terms import Scope
from agentbudget.errors import InvalidRequest, KeyConflict
from tests.account.desk import DAY, HOUR, START, Desk, allowed, reason

SEP_1, AUG_15 = START + 243 * DAY, START + 226 * DAY


def slices(answer: object) -> tuple[tuple[str, int], ...]:
    assert isinstance(answer, Held), answer
    return answer.slices


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.open("s")
    return desk


# --- burn order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations("ABC")), ids="".join)
def test_the_vector_of_the_design_burns_b_then_a_and_spares_c(desk: Desk, order: tuple[str, ...]) -> None:
    grants = {
        "A": c.IssueGrant("A", 50, priority=1, expires_us=SEP_1, category="paid"),
        "B": c.IssueGrant("B", 20, priority=1, expires_us=SEP_1, category="promo"),
        "C": c.IssueGrant("C", 100, priority=2, expires_us=AUG_15, category="promo"),
    }
    for name in order:
        desk.send(grants[name])
    assert slices(desk.hold("h", "s", 60)) == (("B", 20), ("A", 40))
    assert desk.free() == {"A": 10, "B": 0, "C": 100}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"priority": 0}, {"priority": 1, "expires_us": SEP_1, "category": "promo"}),
        ({"expires_us": AUG_15}, {"expires_us": SEP_1, "category": "promo"}),
        ({"expires_us": SEP_1}, {"category": "promo"}),
        ({"category": "promo"}, {"effective_us": START - DAY}),
        ({"effective_us": START - DAY}, {"effective_us": START}),
        ({}, {}),
    ],
    ids=["priority", "expiry", "never expires last", "promo before paid", "effective", "id"],
)
def test_each_rule_of_the_order_beats_the_ones_below_it(desk: Desk, first: dict, second: dict) -> None:  # type: ignore[type-arg]
    desk.grant("a-first", 5, **first)
    desk.grant("b-second", 5, **second)
    assert slices(desk.hold("h", "s", 6)) == (("a-first", 5), ("b-second", 1))


def test_of_equal_grants_the_one_issued_earlier_burns_first(desk: Desk) -> None:
    desk.grant("z-earlier", 5, effective_us=START - HOUR)
    desk.wait(1)
    desk.grant("a-later", 5, effective_us=START - HOUR)
    assert slices(desk.hold("h", "s", 5)) == (("z-earlier", 5),)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.sampled_from((None, 1, 2, 3))), max_size=8), st.data()
)
def test_a_hold_takes_exactly_its_amount_in_burn_order_or_nothing(
    grants: list[tuple[int, int, int | None]], data: st.DataObject
) -> None:
    """L3: what is free is the sum of the eligible grants, and no hold passes it."""
    desk = Desk()
    desk.open("s")
    for number, (amount, priority, days) in enumerate(grants):
        desk.grant(f"g{number}", amount, priority=priority, expires_us=None if days is None else START + days * DAY)
    total = sum(amount for amount, _, _ in grants)
    need = data.draw(st.integers(0, total + 3))
    answer = desk.hold("h", "s", need)
    assert allowed(answer) == (need <= total)
    if not isinstance(answer, Held):
        return
    assert sum(part for _, part in answer.slices) == need
    order = sorted(range(len(grants)), key=lambda n: (grants[n][1], grants[n][2] or 99, f"g{n}"))
    taken = [name for name, _ in answer.slices]
    assert taken == [f"g{n}" for n in order][: len(taken)]
    assert all(desk.free()[name] == 0 for name in taken[:-1])


# --- scope --------------------------------------------------------------------------------------------------------------

STEP = {"kind": "tool", "tool": "search", "feature": "research"}


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        (Scope(kinds=("tool",)), True), (Scope(kinds=("llm",)), False), (Scope(tools=("sea*",)), True),
        (Scope(tools=("run",)), False),
        (Scope(models=("*",)), False), (Scope(features=("res*",)), True), (Scope(features=("chat",)), False),
        (Scope(workflows=("nightly",)), True), (Scope(workflows=("weekly",)), False), (Scope(entities=("team:eng",)), True),
        (Scope(entities=("session:s*",)), True), (Scope(entities=("customer",)), True), (Scope(entities=("user:bob",)), False),
        (Scope(kinds=("tool",), tools=("run",)), False), (Scope(tools=("run", "search")), True),
        (Scope(features=("RESEARCH",)), False),
    ],
)  # fmt: skip
def test_a_grant_serves_only_the_steps_its_scope_covers(scope: Scope, covered: bool) -> None:
    desk = Desk()
    desk.send(c.PutEntity("team:eng"))
    desk.send(c.PutEntity("user:ana", "team:eng"))
    desk.open("s", entities=("user:ana",), workflow="nightly")
    desk.grant("g", 5, scope=scope)
    answer = desk.hold("h", "s", 5, **STEP)
    assert allowed(answer) is covered
    assert covered or reason(answer) == "insufficient_credits"


def test_model_globs_cover_models_only(desk: Desk) -> None:
    desk.grant("g", 10, scope=Scope(models=("gpt-*",)))
    assert allowed(desk.hold("a", "s", 1, model="gpt-5-mini"))
    assert reason(desk.hold("b", "s", 1, model="claude")) == "insufficient_credits"
    assert reason(desk.hold("c", "s", 1, kind="tool", tool="gpt-tool")) == "insufficient_credits"


def test_a_scoped_grant_and_a_general_one_burn_in_one_common_order(desk: Desk) -> None:
    desk.grant("general", 5, priority=10)
    desk.grant("tools", 5, priority=5, scope=Scope(kinds=("tool",)))
    desk.grant("rest", 5, priority=20)
    assert slices(desk.hold("a", "s", 12, kind="tool", tool="x")) == (("tools", 5), ("general", 5), ("rest", 2))


def test_the_feature_of_the_session_is_the_feature_of_its_steps(desk: Desk) -> None:
    desk.open("research", feature="research")
    desk.grant("g", 5, scope=Scope(features=("research",)))
    assert allowed(desk.hold("a", "research", 1))
    assert reason(desk.hold("b", "research", 1, feature="chat")) == "insufficient_credits"
    assert reason(desk.hold("c", "s", 1)) == "insufficient_credits"


# --- time ---------------------------------------------------------------------------------------------------------------


def test_a_pending_grant_is_shown_but_not_spendable_until_its_time(desk: Desk) -> None:
    desk.grant("g", 10, effective_us=START + HOUR)
    assert (desk.balance.available, desk.balance.pending, desk.grant_view("g").state) == (0, 10, "pending")
    assert reason(desk.hold("early", "s", 1)) == "insufficient_credits"
    desk.wait(HOUR - 1)
    assert reason(desk.hold("early", "s", 1)) == "insufficient_credits"
    desk.wait(1)
    assert (desk.balance.available, desk.balance.pending) == (10, 0)
    assert allowed(desk.hold("late", "s", 10))


def test_a_grant_is_spendable_until_the_instant_it_expires_and_not_after(desk: Desk) -> None:
    """L3. The expiry is noticed whenever the grant was issued, also long after the account last looked at the time."""
    desk.grant("g", 10, expires_us=START + HOUR)
    desk.wait(HOUR - 1)
    assert allowed(desk.hold("a", "s", 1))
    desk.wait(1)
    assert reason(desk.hold("b", "s", 1)) == "insufficient_credits"
    assert (desk.grant_view("g").expired, desk.grant_view("g").held) == (9, 1)


def test_grants_issued_at_different_times_each_expire_at_their_own(desk: Desk) -> None:
    for hours in (3, 1, 2):
        desk.grant(f"g{hours}", 10, expires_us=START + hours * HOUR)
    for hours, left in ((0, 30), (1, 20), (2, 10), (3, 0)):
        desk.now_us = START + hours * HOUR
        assert desk.balance.available == left


def test_a_hold_on_a_grant_that_expires_meanwhile_stays_spendable_and_forfeits_its_rest(desk: Desk) -> None:
    desk.grant("old", 10, expires_us=START + HOUR)
    desk.grant("new", 10)
    desk.hold("h", "s", 8)
    desk.wait(2 * HOUR)
    assert (desk.grant_view("old").held, desk.grant_view("old").expired) == (8, 2)
    desk.settle("h", 5)
    old = desk.grant_view("old")
    assert (old.consumed, old.held, old.expired, old.available) == (5, 0, 5, 0)
    assert desk.grant_view("new").available == 10


def test_releasing_after_the_expiry_forfeits_everything(desk: Desk) -> None:
    desk.grant("old", 10, expires_us=START + HOUR)
    desk.hold("h", "s", 8)
    desk.wait(HOUR)
    desk.release("h")
    assert (desk.grant_view("old").expired, desk.balance.available) == (10, 0)


def test_what_a_refused_command_finds_expired_is_booked_all_the_same(desk: Desk) -> None:
    desk.grant("g", 10, expires_us=START + HOUR)
    desk.wait(HOUR)
    with pytest.raises(InvalidRequest, match="expired"):
        desk.send(c.VoidGrant("g"))
    assert desk.entries[-1].kind == "grants_expired"
    assert desk.folded().balances() == desk.account.balances()


def test_thousands_of_grants_expire_at_once(desk: Desk) -> None:
    for number in range(1_100):
        desk.account.handle(c.IssueGrant(f"g{number}", 1, expires_us=START + HOUR), now_us=START, hits={})
    outcome = desk.account.handle(c.Read("balance"), now_us=START + HOUR, hits={})
    assert len(outcome.drafts) == 2
    assert (outcome.answer.expired, outcome.answer.available) == (1_100, 0)  # type: ignore[union-attr]


def test_time_that_goes_back_revives_nothing(desk: Desk) -> None:
    """peers §6.22: an operator or NTP sets the clock back."""
    desk.grant("g", 10, expires_us=START + HOUR)
    desk.wait(HOUR)
    assert reason(desk.hold("a", "s", 1)) == "insufficient_credits"
    desk.now_us = START
    assert reason(desk.hold("b", "s", 1)) == "insufficient_credits"
    assert [entry.time_us for entry in desk.entries] == sorted(entry.time_us for entry in desk.entries)


# --- giving back --------------------------------------------------------------------------------------------------------


def test_a_partial_settlement_gives_the_last_burnt_slice_back_first(desk: Desk) -> None:
    desk.grant("first", 5, priority=1)
    desk.grant("second", 5, priority=2)
    desk.grant("third", 5, priority=3)
    desk.hold("h", "s", 12)
    desk.settle("h", 7)
    assert desk.free() == {"first": 0, "second": 3, "third": 5}


def test_parts_burn_in_order_and_the_end_gives_the_rest_back(desk: Desk) -> None:
    desk.grant("first", 5, priority=1)
    desk.grant("second", 10, priority=2)
    desk.hold("h", "s", 12)
    assert desk.settle("h", 3, part=1).charged == 3
    assert desk.settle("h", 3, part=2).charged == 6
    assert (desk.grant_view("first").consumed, desk.grant_view("second").consumed) == (5, 1)
    ended = desk.settle("h", 1)
    assert (ended.charged, ended.state, ended.overrun) == (7, "settled", 0)
    assert desk.free() == {"first": 0, "second": 8}


def test_a_part_may_not_pass_what_is_held(desk: Desk) -> None:
    desk.grant("g", 10)
    desk.hold("h", "s", 5)
    desk.settle("h", 4, part=1)
    with pytest.raises(InvalidRequest, match="extend"):
        desk.settle("h", 2, part=2)
    assert desk.settle("h", 1, part=3).charged == 5


def test_an_extension_adds_slices_that_settle_after_the_first(desk: Desk) -> None:
    desk.grant("first", 5, priority=1)
    desk.grant("second", 10, priority=2)
    desk.hold("h", "s", 4)
    extended = desk.send(c.ExtendHold("h", 1, 6))
    assert extended.slices == (("first", 1), ("second", 5))
    desk.settle("h", 6)
    assert desk.free() == {"first": 0, "second": 9}


def test_an_extension_that_does_not_fit_changes_nothing(desk: Desk) -> None:
    desk.grant("g", 10)
    desk.hold("h", "s", 8)
    assert reason(desk.send(c.ExtendHold("h", 1, 3))) == "insufficient_credits"
    assert desk.grant_view("g").held == 8


# --- void and adjust ----------------------------------------------------------------------------------------------------


def test_voiding_takes_free_credits_only(desk: Desk) -> None:
    desk.grant("g", 10)
    desk.hold("h", "s", 4)
    with pytest.raises(InvalidRequest, match="held"):
        desk.send(c.VoidGrant("g", 7))
    desk.send(c.VoidGrant("g", 2))
    desk.send(c.VoidGrant("g"))
    view = desk.grant_view("g")
    assert (view.available, view.held, view.voided) == (0, 4, 6)
    assert desk.send(c.VoidGrant("g")).changed is False
    desk.release("h")
    assert desk.grant_view("g").available == 4


def test_an_adjustment_adds_or_takes_free_credits(desk: Desk) -> None:
    desk.grant("g", 10)
    desk.send(c.AdjustGrant("g", 5))
    desk.send(c.AdjustGrant("g", -3))
    view = desk.grant_view("g")
    assert (view.issued, view.available, view.voided) == (15, 12, 3)
    with pytest.raises(InvalidRequest):
        desk.send(c.AdjustGrant("g", -13))


def test_a_pending_grant_that_was_voided_can_be_filled_again_and_becomes_effective(desk: Desk) -> None:
    desk.grant("g", 10, effective_us=START + HOUR)
    desk.send(c.VoidGrant("g"))
    desk.send(c.AdjustGrant("g", 4))
    desk.wait(HOUR)
    assert allowed(desk.hold("h", "s", 4))


def test_a_used_up_grant_that_is_adjusted_serves_again_in_its_place(desk: Desk) -> None:
    desk.grant("first", 5, priority=1)
    desk.grant("second", 5, priority=2)
    desk.spend("a", "s", 5)
    desk.send(c.AdjustGrant("first", 2))
    assert slices(desk.hold("b", "s", 3)) == (("first", 2), ("second", 1))


@pytest.mark.parametrize("name", ["@overdraft", "@receivable", "@payments", "nobody"])
def test_only_issued_grants_can_be_voided_or_adjusted(desk: Desk, name: str) -> None:
    desk.grant("g", 1)
    desk.hold("h", "s", 1)
    desk.settle("h", 5)
    for command in (c.VoidGrant(name), c.AdjustGrant(name, 1)):
        with pytest.raises(InvalidRequest):
            desk.send(command)


def test_a_grant_id_is_taken_once_and_the_reserved_ones_never(desk: Desk) -> None:
    desk.grant("g", 1)
    for name in ("g", "plan:x", "@overdraft"):
        with pytest.raises(KeyConflict):
            desk.grant(name, 1)


def test_a_step_that_costs_nothing_runs_on_an_empty_wallet(desk: Desk) -> None:
    """peers §6.27: cache hits and models without a cost."""
    assert slices(desk.hold("h", "s", 0)) == ()
    assert desk.settle("h", 0).charged == 0
