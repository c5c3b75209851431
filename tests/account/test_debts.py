"""What is used beyond all grants: overdraft on prepaid plans, receivable on postpaid ones (laws L3 and L11)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.catalog.terms import GrantTerms, Scope
from agentbudget.errors import InvalidRequest
from agentbudget.ledger.entry import OVERDRAFT, RECEIVABLE
from tests.account.desk import DAY, HOUR, POSTPAID, PREPAID, START, Desk, allowed, hold, reason

MODELS = Scope(models=("gpt-*",))
TOOLS = Scope(kinds=("tool",))


def indebted(owed: int = 5, **rest: object) -> Desk:
    """A prepaid customer whose step cost ``owed`` more than there was."""
    desk = Desk()
    desk.open("s")
    desk.grant("g", 10)
    desk.hold("h", "s", 10, **rest)
    desk.settle("h", 10 + owed)
    return desk


# --- overrun ------------------------------------------------------------------------------------------------------------


def test_an_overrun_burns_free_credits_first_and_is_no_debt() -> None:
    desk = Desk()
    desk.open("s")
    desk.grant("g", 10)
    desk.hold("h", "s", 4)
    ended = desk.settle("h", 9)
    assert (ended.charged, ended.overrun, ended.debt) == (9, 5, 0)
    assert desk.free() == {"g": 1}
    assert desk.balance.overdraft == 0


def test_an_overrun_burns_only_grants_that_cover_the_step() -> None:
    desk = Desk()
    desk.open("s")
    desk.grant("models", 4, scope=MODELS)
    desk.grant("tools", 50, scope=TOOLS)
    desk.hold("h", "s", 4)
    assert desk.settle("h", 9).debt == 5
    assert desk.free()["tools"] == 50


def test_an_actual_of_three_times_the_hold_is_booked_in_full_and_stops_the_customer() -> None:
    """L11 and peers §6.9: never dropped, blocks until paid."""
    desk = indebted(20)
    balance = desk.balance
    assert (balance.consumed, balance.overdraft, balance.issued) == (30, 20, 30)
    assert desk.session("s").spent == 30
    refused = desk.hold("next", "s", 1)
    assert reason(refused) == "overdraft"
    assert allowed(desk.hold("free", "s", 0))


def test_the_next_grant_pays_the_overdraft_in_its_own_entry() -> None:
    desk = indebted(5)
    entries = len(desk.entries)
    desk.grant("rescue", 8)
    assert len(desk.entries) == entries + 1
    assert (desk.balance.overdraft, desk.free()["rescue"]) == (0, 3)
    assert desk.grant_view("rescue").consumed == 5
    assert allowed(desk.hold("next", "s", 3))


def test_a_grant_that_is_too_small_pays_part_and_the_stop_stays() -> None:
    desk = indebted(5)
    desk.grant("little", 2)
    assert (desk.balance.overdraft, desk.balance.available) == (3, 0)
    assert reason(desk.hold("next", "s", 1)) == "overdraft"
    desk.send(c.AdjustGrant("little", 3))
    assert desk.balance.overdraft == 0


def test_released_and_partly_settled_holds_pay_it_too() -> None:
    desk = Desk()
    desk.open("s")
    desk.grant("g", 20)
    for step in ("other", "third"):
        desk.hold(step, "s", 5)
    desk.hold("h", "s", 10)
    desk.settle("h", 16)
    assert desk.balance.overdraft == 6
    desk.release("other")
    assert (desk.balance.overdraft, desk.balance.available) == (1, 0)
    desk.settle("third", 3)
    assert (desk.balance.overdraft, desk.balance.available) == (0, 1)


def test_a_grant_pays_only_debts_of_steps_that_its_scope_covers() -> None:
    desk = indebted(5)
    desk.grant("tools", 50, scope=TOOLS)
    assert (desk.balance.overdraft, desk.free()["tools"]) == (5, 50)
    assert reason(desk.hold("t", "s", 1, kind="tool", tool="x")) == "overdraft"
    desk.grant("models", 50, scope=MODELS)
    assert (desk.balance.overdraft, desk.free()["models"]) == (0, 45)


def test_the_oldest_debt_is_paid_first_and_no_credit_pays_twice() -> None:
    desk = Desk()
    desk.open("s")
    desk.grant("g", 2)
    desk.hold("old", "s", 1)
    desk.hold("young", "s", 1)
    desk.settle("old", 5)
    desk.settle("young", 4)
    desk.grant("rescue", 5)
    paid = [entry for entry in desk.entries if entry.kind == "grant_issued"][-1]
    assert b'"paid":[["old",4],["young",1]]' in bytes(paid.body)
    assert (desk.balance.overdraft, desk.balance.available) == (2, 0)


def test_a_grant_that_becomes_effective_pays_when_its_time_comes() -> None:
    desk = indebted(5)
    desk.grant("later", 8, effective_us=START + HOUR)
    assert desk.balance.overdraft == 5
    desk.wait(HOUR)
    assert (desk.balance.overdraft, desk.free()["later"]) == (0, 3)
    assert desk.entries[-1].kind == "debt_paid"


def test_the_plan_grant_of_the_next_window_pays_it() -> None:
    desk = Desk(replace(PREPAID, grants=(GrantTerms("m", 10, every="day"),)))
    desk.open("s")
    desk.hold("h", "s", 10)
    desk.settle("h", 14)
    desk.wait(DAY)
    assert (desk.balance.overdraft, desk.balance.available) == (0, 6)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), max_size=6), st.lists(st.integers(1, 15), max_size=4))
def test_credits_used_are_credits_consumed_whatever_was_held(steps: list[tuple[int, int]], grants: list[int]) -> None:
    """L2 and L11: consumed is the sum of true costs; debt is what no grant covered."""
    desk = Desk()
    desk.open("s")
    desk.grant("first", 10)
    cost = 0
    for number, (held, actual) in enumerate(steps):
        if allowed(desk.hold(f"h{number}", "s", held)):
            desk.settle(f"h{number}", actual)
            cost += actual
    for number, amount in enumerate(grants):
        desk.grant(f"g{number}", amount)
    balance, issued = desk.balance, 10 + sum(grants)
    assert balance.consumed == cost == desk.session("s").spent
    assert balance.overdraft == max(0, cost - issued)
    assert balance.available == max(0, issued - cost)


# --- receivable ---------------------------------------------------------------------------------------------------------


def test_a_postpaid_plan_burns_grants_and_then_owes() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    desk.grant("g", 4)
    held = desk.hold("h", "s", 10)
    assert held.slices == (("g", 4), (RECEIVABLE, 6))  # type: ignore[union-attr]
    assert desk.balance.receivable == 0
    desk.settle("h", 7)
    assert (desk.balance.receivable, desk.balance.held, desk.free()["g"]) == (3, 0, 0)


def test_an_overrun_of_a_postpaid_step_is_receivable_and_stops_nothing() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    desk.hold("h", "s", 2)
    ended = desk.settle("h", 9)
    assert (ended.overrun, ended.debt, desk.balance.receivable, desk.balance.overdraft) == (7, 0, 9, 0)
    assert allowed(desk.hold("next", "s", 5))


def test_a_credit_line_bounds_what_is_owed_and_held_together() -> None:
    desk = Desk(replace(POSTPAID, credit_line=10))
    desk.open("s")
    desk.spend("a", "s", 4)
    desk.hold("b", "s", 4)
    refused = desk.hold("c", "s", 3)
    assert reason(refused) == "insufficient_credits"
    assert refused.affordable.amount.nano == 2  # type: ignore[union-attr]
    assert allowed(desk.hold("d", "s", 2))


def test_an_overrun_beyond_the_credit_line_is_booked_and_stops_further_holds() -> None:
    desk = Desk(replace(POSTPAID, credit_line=10))
    desk.open("s")
    desk.hold("a", "s", 10)
    desk.settle("a", 30)
    assert desk.balance.receivable == 30
    assert reason(desk.hold("b", "s", 1)) == "insufficient_credits"
    desk.grant("g", 3)
    assert desk.balance.receivable == 30, "only billing clears receivables"
    assert allowed(desk.hold("c", "s", 3))


def test_a_payment_lowers_what_is_owed_and_frees_the_line() -> None:
    desk = Desk(replace(POSTPAID, credit_line=10))
    desk.open("s")
    desk.spend("a", "s", 10)
    with pytest.raises(InvalidRequest, match="owed"):
        desk.send(c.ClearReceivable(11))
    desk.send(c.ClearReceivable(6))
    assert desk.balance.receivable == 4
    assert allowed(desk.hold("b", "s", 6))
    assert reason(desk.hold("c", "s", 1)) == "insufficient_credits"
    with pytest.raises(InvalidRequest):
        desk.send(c.ClearReceivable(5))  # a hold of the receivable is not owed yet


def test_moving_to_a_prepaid_plan_keeps_what_is_owed() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    desk.spend("a", "s", 10)
    desk.send(c.AssignPlan(PREPAID))
    assert desk.balance.receivable == 10
    assert reason(desk.hold("b", "s", 1)) == "insufficient_credits"


def test_moving_to_a_postpaid_plan_does_not_forgive_an_overdraft() -> None:
    desk = indebted(5)
    desk.send(c.AssignPlan(POSTPAID))
    assert reason(desk.hold("b", "s", 1)) == "overdraft"
    desk.grant("rescue", 5)
    assert allowed(desk.hold("c", "s", 1))


def test_what_is_drawn_keeps_the_identity_of_every_grant() -> None:
    """L2 for the grants that nobody issued."""
    desk = indebted(5)
    desk.grant("rescue", 2)
    sums = desk.account.balances()
    assert sums[OVERDRAFT] == {"issued": -3, "available": 0, "held": 0, "consumed": 3, "expired": 0, "voided": 0}
    assert all(sum(accounts.values()) == 0 for accounts in sums.values())


def test_explain_of_an_indebted_customer_says_what_to_do() -> None:
    desk = indebted(5)
    decision = desk.send(c.Explain(hold("x", "s", 1)))
    assert decision.reason == "overdraft"
    assert decision.suggestions == ("grant credits: they pay the overdraft first",)
