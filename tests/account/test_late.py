"""What a step really cost is booked however late, once (laws L4 and L11): corrections of what a policy booked."""

from __future__ import annotations

import pytest

from agentbudget.account import commands as c
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict
from tests.account.desk import DAY, HOUR, POSTPAID, START, Desk, allowed, reason


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.grant("g", 100)
    desk.open("s", budget=50)
    desk.open("free", on_unknown="release")
    return desk


# --- the policy ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "dispatched", "state", "charged"),
    [("s", True, "unknown", 8), ("s", False, "lapsed", 0), ("free", True, "lapsed", 0), ("free", False, "lapsed", 0)],
)
def test_a_hold_whose_holder_is_gone_ends_by_the_policy_of_its_session(
    desk: Desk, session: str, dispatched: bool, state: str, charged: int
) -> None:
    """L5 and peers §6.20: conservatively charged, never silently free."""
    desk.hold("h", session, 8, dispatched=dispatched)
    ended = desk.lapse("h")
    assert (ended.state, ended.charged) == (state, charged)
    assert (desk.balance.consumed, desk.balance.held) == (charged, 0)


def test_marking_the_dispatch_makes_the_unknown_chargeable(desk: Desk) -> None:
    desk.hold("h", "s", 8, dispatched=False)
    desk.send(c.DispatchHold("h"))
    assert desk.lapse("h").state == "unknown"


# --- corrections ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [0, 3, 8, 13])
@pytest.mark.parametrize("end", ["lapse charged", "lapse free", "unknown"])
def test_a_late_settlement_corrects_the_charge_to_the_true_cost(desk: Desk, end: str, cost: int) -> None:
    session = "free" if end == "lapse free" else "s"
    desk.hold("h", session, 8)
    if end == "unknown":
        desk.settle("h", 8, outcome="unknown", stated="policy")
    else:
        desk.lapse("h")
    corrected = desk.settle("h", cost)
    assert (corrected.state, corrected.charged) == ("corrected", cost)
    assert desk.balance.consumed == cost == desk.session(session).spent
    assert desk.balance.available == 100 - cost
    assert desk.settle("h", cost) == corrected
    assert desk.balance.consumed == cost


def test_only_one_correction_is_taken(desk: Desk) -> None:
    desk.hold("h", "s", 8)
    desk.lapse("h")
    desk.settle("h", 5)
    with pytest.raises(KeyConflict, match="late settlement"):
        desk.settle("h", 6)
    with pytest.raises(InvalidRequest, match="nanocredits"):
        desk.settle("h", -1)
    assert desk.balance.consumed == 5


def test_a_measured_settlement_stands(desk: Desk) -> None:
    desk.hold("h", "s", 8)
    desk.settle("h", 5)
    with pytest.raises(HoldResolved):
        desk.settle("h", 4)
    assert desk.balance.consumed == 5


def test_a_released_hold_is_not_charged_late(desk: Desk) -> None:
    desk.hold("h", "s", 8)
    desk.release("h")
    with pytest.raises(HoldResolved):
        desk.settle("h", 5)


def test_a_correction_upwards_burns_eligible_credits_then_becomes_overdraft(desk: Desk) -> None:
    desk.hold("h", "s", 8)
    desk.lapse("h")
    corrected = desk.settle("h", 110)
    assert (corrected.debt, desk.balance.overdraft, desk.balance.available) == (10, 10, 0)
    assert reason(desk.hold("next", "s", 1)) in ("session_budget", "overdraft")
    desk.grant("more", 10)
    assert desk.balance.overdraft == 0


def test_a_correction_of_a_postpaid_step_is_receivable() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    desk.hold("h", "s", 8)
    desk.lapse("h")
    assert desk.settle("h", 12).debt == 0
    assert (desk.balance.receivable, desk.balance.overdraft) == (12, 0)


def test_a_correction_downwards_gives_the_last_burnt_back_first_and_never_to_an_expired_grant() -> None:
    desk = Desk()
    desk.grant("first", 5, priority=1)
    desk.grant("last", 20, priority=2, expires_us=START + HOUR)
    desk.open("s")
    desk.hold("h", "s", 8)
    desk.lapse("h")
    desk.wait(HOUR)
    desk.settle("h", 4)
    assert (desk.grant_view("first").available, desk.grant_view("first").consumed) == (1, 4)
    assert (desk.grant_view("last").available, desk.grant_view("last").expired) == (0, 20)


def test_a_correction_counts_in_the_window_of_its_hold(desk: Desk) -> None:
    """DESIGN §5: it bills when booked and counts where the step was counted."""
    desk.limit("customer", 10, window="day")
    desk.hold("h", "s", 8)
    desk.lapse("h")
    desk.wait(HOUR)
    desk.settle("h", 3)
    assert desk.counted("customer") == (3, 0)
    desk.hold("i", "s", 7)
    desk.lapse("i")
    desk.wait(DAY)
    desk.hold("today", "s", 4)
    desk.settle("i", 10)
    assert desk.counted("customer") == (0, 4)
    assert allowed(desk.hold("more", "s", 6))


def test_a_correction_counts_the_measures_it_states(desk: Desk) -> None:
    desk.limit("customer", 100, measure="tokens")
    desk.hold("h", "s", 8, measures={"tokens": 40})
    desk.lapse("h")
    assert desk.counted("customer") == (40, 0)
    desk.settle("h", 8, measures={"tokens": 25})
    assert desk.counted("customer") == (25, 0)


def test_parts_that_were_measured_stand_and_the_correction_is_of_the_rest(desk: Desk) -> None:
    desk.hold("h", "s", 8)
    desk.settle("h", 3, part=1)
    assert desk.lapse("h").charged == 8
    corrected = desk.settle("h", 1)
    assert (corrected.charged, desk.balance.consumed) == (4, 4)


def test_a_correction_after_the_session_was_forgotten_still_reaches_the_wallet(desk: Desk) -> None:
    desk.hold("h", "s", 8)
    desk.send(c.CloseSession("s"))
    desk.lapse("h")
    assert all(view.id != "s" for view in desk.read("sessions"))
    assert desk.settle("h", 12).charged == 12
    assert desk.balance.consumed == 12


def test_a_correction_known_before_a_restart_is_known_after_it(desk: Desk) -> None:
    desk.hold("h", "s", 8)
    desk.lapse("h")
    corrected = desk.settle("h", 12)
    desk.account = desk.folded()
    assert desk.settle("h", 12) == corrected
    assert desk.balance.consumed == 12


# --- where a correction goes when what it corrects is gone ----------------------------------------------------------------------


def test_a_correction_reaches_the_parent_when_the_child_is_over() -> None:
    """L11: the real cost counts against the budget that the child was carved from."""
    desk = Desk()
    desk.grant("g", 100)
    desk.open("p", budget=20)
    desk.open("k", parent="p", budget=10)
    desk.hold("h", "k", 5)
    desk.send(c.CloseSession("k"))
    desk.lapse("h")
    desk.settle("h", 9)
    assert (desk.session("p").spent, desk.session("p").remaining) == (9, 11)


def test_what_billing_collected_too_much_comes_back_as_a_grant() -> None:
    """L2: no receivable below nothing; the payment no longer pays for use, so it is the customer's again."""
    desk = Desk(POSTPAID)
    desk.open("s")
    desk.hold("h", "s", 10)
    desk.lapse("h")
    desk.send(c.ClearReceivable(7, key="invoice-1"))
    desk.settle("h", 2)
    assert (desk.balance.receivable, desk.balance.consumed) == (0, 2)
    assert desk.free() == {"refund:h": 5}
    assert desk.folded().balances() == desk.account.balances()
    desk.spend("next", "s", 4)
    assert (desk.balance.receivable, desk.free()) == (0, {"refund:h": 1})


def test_a_late_settlement_of_a_lapsed_step_counts_the_measures_it_does_not_state() -> None:
    desk = Desk()
    desk.grant("g", 100)
    desk.open("s", on_unknown="release")
    desk.limit("customer", 5, measure="steps", window="day")
    desk.hold("h", "s", 5, measures={"steps": 1})
    desk.lapse("h")
    assert desk.counted("customer") == (0, 0)
    desk.settle("h", 3)
    assert desk.counted("customer") == (1, 0)
