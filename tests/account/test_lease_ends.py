"""What ends a lease besides its holder: windows, expiry, policy, silence; and what a late spool brings. Laws L1, L4, L5, L11."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.account import commands as c
from agentbudget.account.decision import Done, Settled
from agentbudget.catalog.terms import Breaker, PlanTerms
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict
from tests.account.desk import DAY, HOUR, POSTPAID, SECOND, Desk, reason
from tests.account.holder import NEVER, held_by, opened, renew, spent, step


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.grant("g", 1000)
    desk.open("s")
    return desk


# --- how long steps may start on it -----------------------------------------------------------------------------------------


def test_a_lease_lasts_until_its_first_window_ends(desk: Desk) -> None:
    desk.limit("customer", 500, window="day")
    desk.limit("session:s", 500, window="hour")
    desk.wait(HOUR // 4)
    assert opened(desk, "lease:L", 10).lasts_us == HOUR * 3 // 4
    desk.wait(HOUR // 2)
    assert desk.send(renew("lease:L", 2)).lasts_us == HOUR // 4


def test_past_a_windows_end_a_lease_is_stale_and_another_counts_in_the_new_window(desk: Desk) -> None:
    desk.limit("customer", 30, window="hour")
    opened(desk, "lease:L", 10, 3)
    desk.wait(HOUR)
    answer = desk.send(renew("lease:L", 2, ask=step(10), **spent("lease:L", 10)))
    assert (answer.stale, answer.amount, answer.lasts_us, answer.seq, answer.refused) == (True, 0, 0, 2, None)
    assert opened(desk, "lease:K", 10, 9).amount == 30
    assert desk.send(renew("lease:L", 3, close=True)).is_open is False
    assert desk.counted("customer") == (0, 30)


def test_a_stale_ask_with_nothing_else_uses_no_number(desk: Desk) -> None:
    desk.limit("customer", 30, window="hour")
    opened(desk, "lease:L", 10, 3)
    desk.wait(HOUR)
    before = len(desk.entries)
    answer = desk.send(renew("lease:L", 2, ask=step(10)))
    assert (answer.stale, answer.seq) == (True, 1)
    assert len(desk.entries) == before
    assert desk.session("s").denials == 0


def test_a_lease_lasts_until_the_first_of_the_grants_it_holds_of_expires(desk: Desk) -> None:
    desk.grant("soon", 20, expires_us=desk.now_us + DAY)
    assert opened(desk, "lease:L", 10, 5).lasts_us == DAY
    assert desk.send(renew("lease:L", 2, **spent("lease:L", 15))).lasts_us == DAY
    assert desk.send(renew("lease:L", 3, **spent("lease:L", 5, first=2))).lasts_us == NEVER


def test_what_is_added_may_shorten_it(desk: Desk) -> None:
    opened(desk, "lease:L", 10)
    desk.grant("soon", 20, expires_us=desk.now_us + HOUR)
    assert desk.send(renew("lease:L", 2, ask=step(10))).lasts_us == HOUR


def test_past_the_expiry_of_a_grant_it_holds_of_a_lease_is_stale(desk: Desk) -> None:
    """DESIGN.md §5: what it holds of it stays spendable until it ends; nothing is added."""
    desk.grant("soon", 20, expires_us=desk.now_us + HOUR)
    opened(desk, "lease:L", 10, 3)
    desk.wait(HOUR)
    answer = desk.send(renew("lease:L", 2, ask=step(10), **spent("lease:L", 15)))
    assert (answer.stale, answer.lasts_us) == (True, 0)
    assert desk.grant_view("soon").consumed == 15
    desk.send(renew("lease:L", 3, close=True))
    assert (desk.grant_view("soon").expired, desk.grant_view("g").available) == (5, 1000)


def test_a_session_may_start_steps_at_its_last_second_and_not_after(desk: Desk) -> None:
    desk.open("m", breaker=Breaker(max_seconds=60))
    assert opened(desk, "lease:L", 1, session="m").lasts_us == 60 * SECOND + 1
    desk.wait(60 * SECOND)
    assert desk.send(renew("lease:L", 2, "m", ask=step(1, "m"))).amount == 1
    desk.wait(1)
    assert desk.send(renew("lease:L", 3, "m", ask=step(1, "m"))).stale
    refused = desk.send(renew("lease:K", 1, "m", ask=step(1, "m"))).refused
    assert reason(refused) == "circuit_open"
    assert desk.session("m").state == "stopped"


# --- policy ----------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, c.Command] = {
    "a limit": c.SetLimit("customer", 900), "a removed limit": c.SetLimit("user:ana", None),
    "a plan": c.AssignPlan(PlanTerms("other", "v2")), "a moved entity": c.PutEntity("user:ana", "team:eng"),
    "a pause": c.SetPaused("team:eng", True), "a resumption": c.SetPaused("user:bob", False),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_policy_makes_every_lease_stale_and_asks_it_back(desk: Desk, what: str) -> None:
    for entity in ("team:eng", "user:ana", "user:bob"):
        desk.send(c.PutEntity(entity))
    desk.limit("user:ana", 500)
    desk.pause("user:bob")
    policy = opened(desk, "lease:L", 10, 3).policy
    desk.send(CHANGES[what])
    assert desk.account.recalled("p1") == ("lease:L",)
    said = desk.send(renew("lease:L", 2, **spent("lease:L", 4)))
    assert (said.stale, said.lasts_us, said.recall, said.told) == (True, 0, ("lease:L",), desk.account.told)
    answer = desk.send(renew("lease:L", 3, ask=step(10), back=5, heard=said.told, **spent("lease:L", 6, first=2)))
    assert (answer.stale, answer.lasts_us, answer.amount, answer.policy, answer.recall) == (True, 0, 0, policy, ())
    assert held_by(desk, "lease:L") == 15
    assert desk.account.recalled("p1") == ()
    fresh = desk.send(renew("lease:K", 1, ask=step(1)))
    assert (fresh.policy, fresh.is_open) == (len(desk.entries) - 3, True)


ENDS: dict[str, c.Command] = {
    "it is closed": c.CloseSession("s"), "it is stopped": c.Latch("s", "enough"),
    "it is paused": c.SetPaused("session:s", True), "the one above it is paused": c.SetPaused("session:top", True),
    "the policy turns": c.SetLimit("customer", 900),
}  # fmt: skip


@pytest.mark.parametrize("why", ENDS)
def test_every_answer_says_that_nothing_may_start_on_the_lease_any_more(why: str) -> None:
    """L8: also to a message that only reports, and to one that was lost and is sent again: what told its holder may never
    have arrived."""
    desk = Desk()
    desk.grant("g", 1_000)
    desk.open("top")
    desk.open("s", parent="top")
    last = renew("lease:L", 1, ask=step(10), times=3)
    desk.send(last)
    desk.send(ENDS[why])
    for message in (last, renew("lease:L", 2), renew("lease:L", 2, **spent("lease:L", 1))):
        answer = desk.send(message)
        assert (answer.stale, answer.lasts_us, answer.recall) == (True, 0, ("lease:L",))


def test_a_message_that_only_reports_is_told_that_the_leases_time_is_over() -> None:
    desk = Desk()
    desk.grant("g", 1_000, expires_us=desk.now_us + HOUR)
    desk.open("s")
    opened(desk, "lease:L", 10, 3)
    desk.wait(HOUR - 1)
    assert (desk.send(renew("lease:L", 2)).stale, desk.send(renew("lease:L", 2)).lasts_us) == (False, 1)
    desk.wait(1)
    assert (desk.send(renew("lease:L", 2)).stale, desk.send(renew("lease:L", 2)).lasts_us) == (True, 0)


def test_what_changes_no_policy_leaves_leases_alone(desk: Desk) -> None:
    opened(desk, "lease:L", 10)
    desk.send(c.PutEntity("user:new"))
    desk.grant("more", 5)
    desk.open("other")
    desk.pause("session:other")
    assert desk.account.recalled("p1") == ()
    assert desk.send(renew("lease:L", 2, ask=step(10))).stale is False


def test_a_limit_below_what_is_leased_refuses_more_and_lets_the_leases_end(desk: Desk) -> None:
    """L3: a lowered limit."""
    opened(desk, "lease:L", 10, 50)
    desk.limit("customer", 100)
    answer = desk.send(renew("lease:K", 1, ask=step(1)))
    assert (answer.is_open, answer.recalling, answer.refused) == (True, None, None)  # the limit counts from now on
    desk.send(renew("lease:L", 2, close=True, **spent("lease:L", 200)))
    assert desk.counted("customer") == (0, 1)


# --- silence ---------------------------------------------------------------------------------------------------------------


def test_a_suspended_lease_keeps_what_it_holds_until_it_is_heard_of_again(desk: Desk) -> None:
    """L1."""
    opened(desk, "lease:L", 10, 3)
    desk.wait(SECOND)
    assert desk.send(c.SuspendLease("lease:L")) == Done(True, "lease:L")
    assert desk.send(c.SuspendLease("lease:L")) == Done(False, "lease:L")
    assert (desk.balance.held, desk.balance.suspended) == (30, 30)
    assert desk.read("holds")[0].suspended_us == desk.now_us
    assert desk.account.recalled("p1") == ("lease:L",)
    answer = desk.send(renew("lease:L", 2))
    assert (answer.seq, answer.recall) == (2, ())
    assert desk.balance.suspended == 0
    assert desk.send(c.SuspendLease("nobody")) == Done(False, "nobody")


def test_what_a_silent_holder_never_reported_is_charged_as_unknown(desk: Desk) -> None:
    """L5: and then it is over."""
    desk.limit("customer", 500, measure="tokens")
    opened(desk, "lease:L", 10, 3, measures={"tokens": 5})
    desk.send(renew("lease:L", 2, measures=("tokens",), steps=(c.StepReport("lease:L.1", 8, (4,)),)))
    lapse = c.LapseLease("lease:L", True)
    assert desk.send(lapse) == Settled("lease:L", "unknown", 22)
    assert desk.send(c.LapseLease("lease:L", True)) == Settled("lease:L", "unknown", 22)
    assert (desk.session("s").spent, desk.balance.consumed, desk.balance.held) == (30, 30, 0)
    assert desk.counted("customer") == (15, 0)
    for command in (
        renew("lease:L", 3, **spent("lease:L", 1)),
        c.SettleHold("lease:L.9", 1, outcome="unknown", lease="lease:L"),
    ):
        with pytest.raises(HoldResolved) as error:
            desk.send(command)
        assert (error.value.hold, error.value.state) == ("lease:L", "lapsed")
    assert desk.send(renew("lease:L", 1, ask=step(10, measures={"tokens": 5}), times=3)).amount == 30
    assert isinstance(desk.answer(c.SettleHold("lease:L", 5)), HoldResolved)
    assert isinstance(desk.answer(renew("lease:L", 1, ask=step(9))), HoldResolved)


def test_or_given_back(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 3)
    assert desk.send(c.LapseLease("lease:L", False)) == Settled("lease:L", "lapsed", 0)
    assert (desk.balance.consumed, desk.balance.available) == (0, 1000)


@pytest.mark.parametrize(
    ("charge", "true", "after"), [(True, 12, 12), (True, 45, 45), (True, 30, 30), (False, 12, 12), (False, 0, 0)]
)
def test_a_spool_that_comes_after_the_lapse_books_what_really_ran_once(
    desk: Desk, charge: bool, true: int, after: int
) -> None:
    """L4, L11."""
    desk.limit("customer", 500, measure="tokens")
    opened(desk, "lease:L", 10, 3, measures={"tokens": 5})
    desk.send(c.LapseLease("lease:L", charge))
    steps = (c.StepReport("lease:L.1", true, (7,)),)
    late = c.CorrectLease("lease:L", ("tokens",), steps, (("r", "v"),))
    answer = desk.send(late)
    assert isinstance(answer, Settled)
    assert (answer.state, answer.charged) == ("corrected", true)
    assert desk.send(late) == answer
    assert (desk.balance.consumed, desk.session("s").spent, desk.session("s").steps) == (after, after, 1)
    assert desk.counted("customer") == (7, 0)
    with pytest.raises(KeyConflict):
        desk.send(c.CorrectLease("lease:L"))
    assert desk.folded().snapshot() == desk.account.snapshot()


def test_a_spool_without_steps_takes_back_all_that_the_lapse_charged(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 3)
    desk.send(c.LapseLease("lease:L", True))
    desk.send(c.CorrectLease("lease:L"))
    assert (desk.balance.consumed, desk.balance.available) == (0, 1000)


def test_a_lease_that_has_not_lapsed_is_renewed_not_corrected(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match="no lapsed lease"):
        desk.send(c.CorrectLease("lease:L"))
    opened(desk, "lease:L", 10, 3)
    with pytest.raises(InvalidRequest, match="renew it instead"):
        desk.send(c.CorrectLease("lease:L"))
    desk.send(renew("lease:L", 2, close=True))
    for command in (c.CorrectLease("lease:L"), c.LapseLease("lease:L", True)):
        with pytest.raises(InvalidRequest):
            desk.send(command)
    desk.hold("h", "s", 5)
    desk.lapse("h")
    with pytest.raises(InvalidRequest, match="no lapsed lease"):
        desk.send(c.CorrectLease("h"))


def test_renewals_that_come_before_the_lapse_are_booked_once_whatever_comes_after(desk: Desk) -> None:
    """A spool is replayed twice, and in between the lease lapses: renewal, lapse, the same renewal, correction."""
    opened(desk, "lease:L", 10, 3)
    first = renew("lease:L", 2, **spent("lease:L", 8))
    desk.send(first)
    desk.send(c.LapseLease("lease:L", True))
    assert desk.send(first).seq == 2
    assert isinstance(desk.answer(renew("lease:L", 3, **spent("lease:L", 9, first=2))), HoldResolved)
    desk.send(c.CorrectLease("lease:L", ("steps",), (c.StepReport("lease:L.2", 9, (1,)),)))
    assert (desk.balance.consumed, desk.balance.held) == (17, 0)


def test_a_late_spool_of_a_session_that_is_over_counts_above_it(desk: Desk) -> None:
    desk.open("p", budget=500)
    desk.open("k", parent="p", budget=100)
    opened(desk, "lease:L", 10, 3, session="k")
    desk.send(c.CloseSession("k"))
    desk.send(c.LapseLease("lease:L", True))
    assert desk.session("p").spent == 30
    desk.send(c.CorrectLease("lease:L", (), (c.StepReport("lease:L.1", 12),)))
    assert desk.session("p").spent == 12


def test_what_billing_collected_of_a_lapse_comes_back_as_a_grant() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    opened(desk, "lease:L", 10, 3)
    desk.send(c.LapseLease("lease:L", True))
    desk.send(c.ClearReceivable(30))
    desk.send(c.CorrectLease("lease:L", (), (c.StepReport("lease:L.1", 12),)))
    assert desk.grant_view("refund:lease:L").available == 18


# --- what the owner is told to end ----------------------------------------------------------------------------------------


def overdue(desk: Desk, silent: set[str], **rest: Any) -> list[c.Command]:
    return desk.account.overdue(desk.now_us, (), is_silent=silent.__contains__, **rest)


def test_leases_of_a_silent_holder_are_suspended_and_after_a_day_lapse(desk: Desk) -> None:
    opened(desk, "lease:L", 10, holder="p1")
    opened(desk, "lease:K", 10, holder="p2")
    assert overdue(desk, set()) == []
    assert overdue(desk, {"p1", "p9"}) == [c.SuspendLease("lease:L")]
    desk.send(c.SuspendLease("lease:L"))
    desk.wait(DAY - 1)
    assert overdue(desk, {"p1"}, lapse_after_us=DAY) == []
    desk.wait(1)
    assert overdue(desk, {"p1"}, lapse_after_us=DAY, charge=False) == [c.LapseLease("lease:L", False)]
    assert overdue(desk, set(), lapse_after_us=DAY) == []  # it is heard of again, only its message is not there yet


def test_no_rule_for_steps_ends_a_lease_and_a_session_with_one_stays_open(desk: Desk) -> None:
    desk.open("short", ttl_us=HOUR, max_step_us=HOUR)
    opened(desk, "lease:L", 10, session="short")
    desk.hold("h", "short", 1, ttl_us=SECOND)
    desk.wait(2 * DAY)
    assert overdue(desk, set()) == [c.LapseHold("h", "max_seconds"), c.CloseSession("s", "ttl")]
    desk.lapse("h")
    desk.wait(2 * HOUR)
    assert overdue(desk, set()) == [c.CloseSession("s", "ttl")]
    desk.send(renew("lease:L", 2, "short", close=True))
    desk.wait(2 * HOUR)
    assert c.CloseSession("short", "ttl") in overdue(desk, set())


def test_sessions_are_looked_at_again_when_the_first_of_them_may_be_over(desk: Desk) -> None:
    assert overdue(desk, set()) == []
    desk.open("short", ttl_us=HOUR)
    desk.wait(HOUR)
    assert overdue(desk, set()) == [c.CloseSession("short", "ttl")]
    desk.wait(DAY)
    assert overdue(desk, set()) == [c.CloseSession("s", "ttl"), c.CloseSession("short", "ttl")]
