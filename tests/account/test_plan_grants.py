"""Grants that a plan brings: once, or at the start of each window, with rollover (L2: nothing is issued twice)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.catalog.terms import GrantTerms
from tests.account.desk import DAY, HOUR, PREPAID, START, Desk, allowed, reason

WELCOME = GrantTerms("welcome", 100)
DAILY = GrantTerms("daily", 10, every="day", rollover=4)


def on(*grants: GrantTerms, plan: str = "team") -> Desk:
    desk = Desk(replace(PREPAID, plan=plan, grants=grants))
    desk.open("s")
    return desk


def test_a_one_time_grant_comes_with_the_plan_and_once_for_ever() -> None:
    desk = on(WELCOME)
    assert desk.free() == {"plan:welcome": 100}
    for plan in ("other", "team", "third"):
        desk.send(c.AssignPlan(replace(PREPAID, plan=plan, grants=(WELCOME,))))
    desk.wait(400 * DAY)
    assert desk.balance.issued == 100


def test_a_recurring_grant_comes_again_with_each_window_and_the_old_one_expires() -> None:
    desk = on(replace(DAILY, rollover=0))
    desk.spend("a", "s", 3)
    desk.wait(DAY)
    assert desk.balance.available == 10
    assert [view.state for view in desk.balance.grants] == ["expired", "active"]
    assert (desk.balance.expired, desk.balance.consumed) == (7, 3)


@pytest.mark.parametrize(("spent", "carried"), [(0, 4), (5, 4), (6, 4), (7, 3), (10, 0)])
def test_what_is_left_rolls_over_up_to_the_cap(spent: int, carried: int) -> None:
    desk = on(DAILY)
    desk.spend("a", "s", spent)
    desk.wait(DAY)
    assert desk.balance.available == 10 + carried
    assert desk.balance.expired == 10 - spent


@pytest.mark.parametrize("idle", [2, 3, 40])
def test_windows_in_which_nothing_happened_roll_over_too(idle: int) -> None:
    desk = on(replace(DAILY, amount=3, rollover=5))
    desk.spend("a", "s", 3)
    desk.wait(idle * DAY)
    carried = min(5, 3 * (idle - 1))
    assert desk.balance.available == 3 + carried
    assert [view.state for view in desk.balance.grants] == ["expired", "active"]


def test_credits_held_over_the_turn_do_not_roll_over() -> None:
    desk = on(DAILY)
    desk.hold("h", "s", 8)
    desk.wait(DAY)
    assert desk.balance.available == 12
    desk.release("h")
    assert (desk.balance.available, desk.balance.expired) == (12, 10)


def test_the_turn_is_found_by_whatever_command_comes_first_and_only_once() -> None:
    desk = on(DAILY)
    desk.wait(DAY)
    assert allowed(desk.hold("h", "s", 14))
    assert [entry.kind for entry in desk.entries[-3:]] == ["grant_issued", "grants_expired", "hold_opened"]
    desk.wait(HOUR)
    desk.read("balance")
    assert desk.entries[-1].kind == "hold_opened"


def test_the_turn_is_not_missed_when_a_longer_lived_grant_was_issued_meanwhile() -> None:
    desk = on(DAILY)
    desk.grant("g", 5, expires_us=START + 2 * DAY)
    desk.wait(DAY)
    assert desk.balance.available == 10 + 4 + 5


def test_the_plan_grant_burns_before_it_expires_as_any_other() -> None:
    desk = on(DAILY)
    desk.grant("bought", 100)
    held = desk.hold("h", "s", 12)
    assert held.slices == ((f"plan:daily:{START}", 10), ("bought", 2))  # type: ignore[union-attr]


def test_changing_the_plan_and_back_within_a_window_brings_nothing_new() -> None:
    desk = on(DAILY)
    desk.spend("a", "s", 10)
    desk.send(c.AssignPlan(replace(PREPAID, plan="free")))
    desk.send(c.AssignPlan(replace(PREPAID, grants=(DAILY,))))
    assert reason(desk.hold("b", "s", 1)) == "insufficient_credits"


def test_a_plan_grant_of_the_new_plan_comes_at_once() -> None:
    desk = on()
    desk.send(c.AssignPlan(replace(PREPAID, plan="big", grants=(DAILY, WELCOME))))
    assert desk.balance.available == 110


def test_an_anchored_cycle_turns_at_the_anchor() -> None:
    terms = replace(PREPAID, cycle="anchored", grants=(GrantTerms("m", 10, every="month"),))
    desk = Desk(terms, anchor_us=START + 30 * DAY + 5 * HOUR, now_us=START + 31 * DAY)
    desk.open("s")
    desk.spend("a", "s", 10)
    desk.now_us = START + 58 * DAY + 5 * HOUR - 1
    assert desk.balance.available == 0
    desk.wait(1)
    assert desk.balance.available == 10


def test_windows_turn_in_the_zone_of_the_customer() -> None:
    desk = Desk(replace(PREPAID, grants=(replace(DAILY, rollover=0),)), zone="Europe/Berlin")
    desk.open("s")
    desk.spend("a", "s", 10)
    desk.now_us = START + 22 * HOUR
    assert desk.balance.available == 0
    desk.now_us = START + 23 * HOUR
    assert desk.balance.available == 10


def test_time_spent_off_the_plan_rolls_nothing_over() -> None:
    monthly = GrantTerms("m", 100, every="day", rollover=50)
    desk = on(monthly)
    desk.spend("a", "s", 100)
    desk.send(c.AssignPlan(replace(PREPAID, plan="other")))
    desk.wait(3 * DAY)
    desk.send(c.AssignPlan(replace(PREPAID, grants=(monthly,))))
    assert desk.balance.available == 100


def test_a_one_time_grant_that_becomes_recurring_brings_no_windows_of_the_past() -> None:
    desk = on(GrantTerms("m", 10))
    desk.send(c.AssignPlan(replace(PREPAID, grants=(GrantTerms("m", 10, every="month", rollover=50),))))
    assert desk.balance.issued == 20
