"""A lease: opened by its first message, drawn on by reports, topped up, given back, closed (DESIGN.md §4). Laws L2 to L5, L11."""

from __future__ import annotations

import msgspec
import pytest

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.decide import event_of
from agentbudget.account.decision import Renewed, Settled
from agentbudget.catalog.terms import Breaker, EntitlementTerms, PlanTerms, Scope
from agentbudget.errors import AgentBudgetError, InvalidRequest, KeyConflict, OutOfOrder
from tests.account.desk import DAY, POSTPAID, Desk, hold, reason
from tests.account.holder import NEVER, held_by, opened, renew, spent, step


@pytest.fixture
def desk() -> Desk:
    """Three grants: B burns first, then A, then C; a session of 1,000."""
    desk = Desk()
    desk.grant("lease:A", 50, priority=1)
    desk.grant("lease:B", 20, priority=1, category="promo")
    desk.grant("lease:C", 500, priority=2)
    desk.open("s", budget=1000)
    return desk


def last(desk: Desk) -> e.LeaseRenewed:
    event = event_of(desk.entries[-1])
    assert isinstance(event, e.LeaseRenewed)
    return event


# --- opening ---------------------------------------------------------------------------------------------------------------


def test_a_lease_holds_its_step_as_many_times_as_asked_in_burn_order(desk: Desk) -> None:
    answer = opened(desk, "lease:L", 10, 8)
    assert answer == Renewed("lease:L", 1, 80, lasts_us=NEVER)
    assert last(desk).slices == (("lease:B", 20), ("lease:A", 50), ("lease:C", 10))
    assert (desk.session("s").held, desk.session("s").spent, desk.session("s").steps) == (80, 0, 0)
    assert (desk.balance.held, desk.balance.leased, desk.balance.suspended) == (80, 80, 0)


def test_the_entry_that_opens_a_lease_says_for_what_it_is() -> None:
    desk = Desk()
    desk.grant("g", 100)
    desk.send(c.PutEntity("user:ana"))
    desk.limit("user:ana", 100)
    desk.open("s", entities=("user:ana",), feature="f", workflow="w")
    opened(desk, "lease:L", 5)
    event = last(desk)
    assert (event.kind, event.model, event.workflow, event.holder) == ("llm", "gpt-5", "w", "p1")
    assert event.path == ("customer", "user:ana", "session:s")
    assert [entity for _, entity, _ in event.marks] == ["user:ana"]


def test_a_view_of_holds_names_the_holder_of_a_lease(desk: Desk) -> None:
    opened(desk, "lease:L", 10)
    (view,) = desk.read("holds")
    assert (view.step, view.holder, view.amount, view.suspended_us) == ("lease:L", "p1", 10, None)


def test_a_lease_counts_what_something_on_its_path_limits_and_no_more(desk: Desk) -> None:
    desk.limit("customer", 100, measure="tokens")
    desk.limit("session:s", 9, measure="tool_calls", mode="soft")
    answer = opened(desk, "lease:L", 1, 3, measures={"steps": 1, "tokens": 7})
    assert answer.counted == ("tokens", "tool_calls")
    assert answer.measures == {"tokens": 21}
    assert desk.counted("customer") == (0, 21)


def test_a_refused_ask_opens_nothing_and_uses_no_number(desk: Desk) -> None:
    answer = desk.send(renew("lease:L", 1, ask=step(2000)))
    assert (answer.seq, answer.is_open, reason(answer.refused)) == (0, False, "insufficient_credits")
    assert desk.session("s").denials == 1
    assert opened(desk, "lease:L", 10).seq == 1


def test_a_session_that_is_not_there_leases_nothing(desk: Desk) -> None:
    assert reason(desk.send(renew("lease:L", 1, "nobody", ask=step(1, "nobody"))).refused) == "session_closed"
    desk.send(c.CloseSession("s"))
    assert reason(desk.send(renew("lease:L", 1, ask=step(1))).refused) == "session_closed"


def test_an_ask_meets_every_gate_that_a_hold_meets() -> None:
    """L12."""
    desk = Desk(PlanTerms("team", "v1", features=(EntitlementTerms("f", "boolean"),), models=("gpt-*",)))
    desk.grant("g", 10)
    desk.open("s")
    assert reason(desk.send(renew("lease:a", 1, ask=step(1, feature="x"))).refused) == "feature_not_entitled"
    assert reason(desk.send(renew("lease:b", 1, ask=step(1, model="claude"))).refused) == "model_not_allowed"
    assert reason(desk.send(renew("lease:c", 1, ask=step(11))).refused) == "insufficient_credits"
    desk.pause("customer")
    assert reason(desk.send(renew("lease:d", 1, ask=step(1))).refused) == "paused"


def test_a_step_that_costs_nothing_can_be_leased(desk: Desk) -> None:
    answer = opened(desk, "lease:L", 0, 5)
    assert (answer.amount, answer.seq) == (0, 1)
    desk.send(renew("lease:L", 2, **spent("lease:L", 0, 0)))
    assert desk.session("s").steps == 2


# --- reports and what comes back ---------------------------------------------------------------------------------------------


def test_what_was_settled_burns_in_order_and_what_is_given_back_is_last_burnt_first(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 8)
    answer = desk.send(renew("lease:L", 2, back=15, **spent("lease:L", 7, 18)))
    assert (answer.seq, answer.amount, answer.is_open) == (2, 0, True)
    event = last(desk)
    assert event.charged == (("lease:B", 20), ("lease:A", 5))
    assert event.back_slices == (("lease:A", 5), ("lease:C", 10))
    assert held_by(desk, "lease:L") == 80 - 25 - 15
    assert (desk.session("s").spent, desk.session("s").held, desk.session("s").steps) == (25, 40, 2)
    assert desk.free() == {"lease:B": 0, "lease:A": 5, "lease:C": 500}


def test_a_message_without_news_writes_nothing(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 8)
    before = len(desk.entries)
    answer = desk.send(renew("lease:L", 2))
    assert (answer.seq, answer.is_open, answer.lasts_us) == (1, True, NEVER)
    assert len(desk.entries) == before


def test_measures_move_from_held_to_used(desk: Desk) -> None:
    desk.limit("customer", 100, measure="tokens")
    opened(desk, "lease:L", 1, 8, measures={"steps": 1, "tokens": 10})
    steps = (c.StepReport("lease:L.1", 1, (1, 4)), c.StepReport("lease:L.2", 1, (1, 12)))
    desk.send(renew("lease:L", 2, measures=("steps", "tokens"), steps=steps, back_measures={"tokens": 20}))
    assert desk.counted("customer") == (16, 80 - 16 - 20)


def test_what_open_steps_hold_is_an_overrun_and_burns_free_credits(desk: Desk) -> None:
    """L11: a step of 30 settled while another holds 70 of the 80: 10 come out of the lease, 20 are burnt."""
    opened(desk, "lease:L", 10, 8)
    desk.send(renew("lease:L", 2, overrun=20, **spent("lease:L", 30)))
    event = last(desk)
    assert (event.amount, event.charged, event.burnt, event.debt) == (30, (("lease:B", 10),), (("lease:C", 20),), 0)
    assert held_by(desk, "lease:L") == 70
    assert (desk.session("s").spent, desk.session("s").held, desk.session("s").remaining) == (30, 70, 900)


def test_an_overrun_burns_only_what_covers_its_steps() -> None:
    desk = Desk()
    desk.grant("tools", 50, priority=0, scope=Scope(kinds=("tool",)))
    desk.grant("any", 30)
    desk.open("s")
    opened(desk, "lease:L", 10)
    desk.send(renew("lease:L", 2, overrun=15, **spent("lease:L", 25)))
    assert last(desk).burnt == (("any", 15),)


def test_an_overrun_beyond_all_grants_is_overdraft_named_after_the_message() -> None:
    desk = Desk()
    desk.grant("g", 10)
    desk.open("s", feature="f")
    opened(desk, "lease:L", 10)
    desk.send(renew("lease:L", 2, overrun=6, **spent("lease:L", 16)))
    assert (last(desk).debt, last(desk).feature, desk.balance.overdraft) == (6, "f", 6)
    assert reason(desk.send(renew("lease:L", 3, ask=step(1))).refused) == "overdraft"
    desk.grant("more", 10)
    assert desk.balance.overdraft == 0
    assert dict(event_of(desk.entries[-1]).paid) == {"lease:L#2": 6}  # type: ignore[union-attr]
    assert desk.folded().snapshot() == desk.account.snapshot()


def test_what_a_message_gives_back_pays_the_overdraft_it_leaves_before_its_ask_is_judged() -> None:
    """As if report, payment and ask were entries of their own."""
    desk = Desk()
    desk.grant("g", 30)
    desk.open("s")
    opened(desk, "lease:L", 10, 3)
    answer = desk.send(renew("lease:L", 2, overrun=5, back=12, ask=step(7), **spent("lease:L", 15)))
    assert (answer.amount, answer.refused, desk.balance.overdraft) == (7, None, 0)
    assert held_by(desk, "lease:L") == 30 - 10 - 12 + 7
    assert dict(last(desk).paid) == {"lease:L#2": 5}
    assert desk.folded().snapshot() == desk.account.snapshot()


def test_an_overrun_under_a_postpaid_plan_is_receivable() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    opened(desk, "lease:L", 10)
    desk.send(renew("lease:L", 2, overrun=5, **spent("lease:L", 15)))
    assert (last(desk).charged, last(desk).burnt) == ((("@receivable", 10),), (("@receivable", 5),))
    assert desk.balance.receivable == 15


def test_an_overrun_of_measures_is_counted_though_the_lease_has_not_as_many(desk: Desk) -> None:
    desk.limit("customer", 30, measure="tokens")
    opened(desk, "lease:L", 1, 3, measures={"tokens": 10})
    steps = (c.StepReport("lease:L.1", 1, (25,)),)
    desk.send(renew("lease:L", 2, measures=("tokens",), steps=steps, over={"tokens": 15}))
    assert desk.counted("customer") == (25, 20)


def test_closing_gives_everything_back_and_ends_the_lease(desk: Desk) -> None:
    """L5."""
    opened(desk, "lease:L", 10, 8)
    answer = desk.send(renew("lease:L", 2, close=True, **spent("lease:L", 30)))
    assert (answer.is_open, answer.seq) == (False, 2)
    assert last(desk).back_slices == (("lease:A", 40), ("lease:C", 10))
    assert desk.open_holds() == []
    assert (desk.session("s").spent, desk.session("s").held) == (30, 0)
    with pytest.raises(InvalidRequest, match="no open lease"):
        desk.send(renew("lease:L", 3))


def test_what_comes_back_to_an_expired_grant_is_forfeited() -> None:
    desk = Desk()
    desk.grant("soon", 10, expires_us=desk.now_us + DAY)
    desk.grant("later", 10)
    desk.open("s")
    opened(desk, "lease:L", 5, 4)
    desk.wait(DAY)
    desk.send(renew("lease:L", 2, close=True, **spent("lease:L", 4)))
    assert (desk.grant_view("soon").expired, desk.grant_view("later").available) == (6, 10)


def test_a_closed_session_is_remembered_until_its_last_lease_has_ended(desk: Desk) -> None:
    opened(desk, "lease:L", 10)
    desk.send(c.CloseSession("s"))
    desk.send(renew("lease:L", 2, **spent("lease:L", 4)))
    desk.send(renew("lease:L", 3, close=True))
    assert desk.read("sessions") == ()
    assert desk.balance.consumed == 4


def test_a_report_ends_errors_in_a_row_and_refusals_in_a_row(desk: Desk) -> None:
    desk.open("e", breaker=Breaker(error_burst=2, refusals_in_row=2))
    opened(desk, "lease:L", 1, 9, session="e")
    desk.send(c.SettleHold("lease:L.1", 0, outcome="unknown", lease="lease:L"))
    desk.send(renew("lease:L", 2, "e", **spent("lease:L", 1, first=2)))
    desk.send(c.SettleHold("lease:L.3", 0, outcome="unknown", lease="lease:L"))
    assert desk.session("e").state == "open"
    desk.send(renew("lease:L", 3, "e", ask=step(5000, "e")))
    assert desk.send(renew("lease:L", 3, "e", ran=True)).seq == 2
    desk.send(renew("lease:L", 3, "e", ask=step(5000, "e")))
    assert desk.session("e").state == "open"
    desk.send(renew("lease:L", 3, "e", ask=step(5000, "e")))
    assert desk.session("e").state == "stopped"


# --- asking for more ---------------------------------------------------------------------------------------------------------


def test_an_ask_is_judged_after_what_the_message_reports(desk: Desk) -> None:
    """The wallet has 570; with what comes back in the same message, and only then, 560 fit."""
    opened(desk, "lease:L", 100)
    answer = desk.send(renew("lease:L", 2, back=90, ask=step(560), **spent("lease:L", 10)))
    assert (answer.seq, answer.amount) == (2, 560)
    assert held_by(desk, "lease:L") == 560
    assert desk.folded().snapshot() == desk.account.snapshot()


def test_a_refused_ask_does_not_undo_what_the_message_reports(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 4)
    answer = desk.send(renew("lease:L", 2, ask=step(900), **spent("lease:L", 10)))
    assert (answer.seq, answer.amount, reason(answer.refused)) == (2, 0, "insufficient_credits")
    assert held_by(desk, "lease:L") == 30
    assert desk.folded().snapshot() == desk.account.snapshot()


def test_what_is_added_burns_after_what_was_there(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 3)
    desk.grant("first", 50, priority=0)
    desk.send(renew("lease:L", 2, ask=step(10), times=2))
    desk.send(renew("lease:L", 3, **spent("lease:L", 35)))
    assert last(desk).charged == (("lease:B", 20), ("lease:A", 10), ("first", 5))


def test_a_top_up_that_is_refused_counts_and_says_nothing(desk: Desk) -> None:
    opened(desk, "lease:L", 10)
    answer = desk.send(renew("lease:L", 2, ask=step(900, note_refusal=False)))
    assert (answer.amount, reason(answer.refused), answer.recalling) == (0, "insufficient_credits", None)
    assert desk.session("s").denials == 0
    assert desk.account.denial_notes() == []


def test_a_refused_ask_is_noted_for_whoever_watches(desk: Desk) -> None:
    desk.send(renew("lease:L", 1, ask=step(2000)))
    (note,) = desk.account.denial_notes()
    assert (note.session, note.reason, note.name) == ("s", "insufficient_credits", "gpt-5")


# --- breakers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [Breaker(max_parallel=3), Breaker(max_rate=100)])
def test_rules_that_must_see_every_process_leave_no_leases(desk: Desk, rules: Breaker) -> None:
    desk.open("strict", breaker=rules)
    answer = desk.send(renew("lease:L", 1, "strict", ask=step(1, "strict")))
    assert (answer.strict, answer.is_open, answer.seq, answer.refused) == (True, False, 0, None)


@pytest.mark.parametrize("rules", [Breaker(repeat=(2, 3)), Breaker(error_burst=2), Breaker(max_step_cost=50)])
def test_rules_that_each_process_watches_come_with_the_lease_and_with_its_replay(desk: Desk, rules: Breaker) -> None:
    desk.open("w", breaker=rules)
    first = renew("lease:L", 1, "w", ask=step(1, "w"))
    assert desk.send(first).rules == rules
    assert desk.send(first).rules == rules
    assert desk.send(renew("lease:L", 2, "w", ask=step(1, "w"))).rules is None


def test_leases_never_hold_more_steps_than_the_breaker_allows(desk: Desk) -> None:
    desk.open("m", breaker=Breaker(max_steps=5))
    answer = opened(desk, "lease:L", 1, 9, session="m")
    assert (answer.amount, answer.measures, answer.counted) == (5, {"steps": 5}, ("steps",))
    refused = desk.hold("h", "m", 1, note_refusal=False)
    assert (reason(refused), desk.session("m").state) == ("circuit_open", "open")
    desk.send(renew("lease:L", 2, "m", back=2, back_measures={"steps": 2}, **spent("lease:L", 1, 1)))
    assert desk.session("m").steps == 2
    desk.spend("h", "m", 1)
    opened(desk, "lease:K", 1, 9, session="m")
    desk.send(renew("lease:L", 3, "m", close=True, **spent("lease:L", 1, first=3)))
    desk.send(renew("lease:K", 2, "m", **spent("lease:K", 1)))
    assert (desk.session("m").steps, desk.session("m").state) == (5, "open")
    assert reason(desk.hold("h2", "m", 1)) == "circuit_open"
    assert desk.session("m").state == "stopped"


def test_a_step_that_does_not_say_it_is_one_counts_as_one_all_the_same(desk: Desk) -> None:
    desk.open("m", breaker=Breaker(max_steps=2))
    assert opened(desk, "lease:L", 1, 9, session="m", measures={}).measures == {"steps": 2}


# --- once (L4) -----------------------------------------------------------------------------------------------------------------


def test_a_message_again_answers_what_it_granted_and_does_nothing(desk: Desk) -> None:
    first = renew("lease:L", 1, ask=step(10), times=3)
    desk.send(first)
    second = renew("lease:L", 2, ask=step(10), times=2, **spent("lease:L", 10))
    answer = desk.send(second)
    before = len(desk.entries)
    assert desk.send(second) == answer
    again = desk.send(first)
    assert (again.amount, again.seq, again.is_open) == (30, 2, True)
    desk.send(renew("lease:L", 3, close=True))
    late = desk.send(first)
    assert (late.amount, late.seq, late.is_open, late.lasts_us) == (30, 1, False, 0)
    assert len(desk.entries) == before + 1


def test_another_message_under_a_used_number_and_a_gap_are_out_of_order(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 3)
    desk.send(renew("lease:L", 2, **spent("lease:L", 10)))
    for seq in (1, 2, 4, 0):
        with pytest.raises(OutOfOrder) as error:
            desk.send(renew("lease:L", seq, **spent("lease:L", 9, first=2)))
        assert (error.value.lease, error.value.expected) == ("lease:L", 3)
    assert held_by(desk, "lease:L") == 20


def test_a_lease_that_nobody_opened_has_no_second_message(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match="no open lease"):
        desk.send(renew("lease:L", 2, **spent("lease:L", 10)))
    opened(desk, "lease:L", 10)
    desk.send(renew("lease:L", 2, close=True))
    with pytest.raises(InvalidRequest, match="no open lease"):
        desk.send(renew("lease:L", 1, ask=step(11)))


LIKE_A_LEASE = ("lease:L", "lease:L.1", "lease:L.2", "lease:M", "lease:", "lease:L#2", "lease:L#end", "lease:L.1#end")


@pytest.mark.parametrize("key", LIKE_A_LEASE)
def test_L4_no_step_of_a_callers_may_look_like_a_lease_or_a_step_of_one(desk: Desk, key: str) -> None:
    """It is refused and leaves nothing: everything of the lease is booked as if it had never been said."""
    opened(desk, "lease:L", 10, 3)
    for command in (hold(key, "s", 1), c.ReleaseHold(key)):
        with pytest.raises(InvalidRequest):
            desk.send(command)
    desk.send(renew("lease:L", 2, **spent("lease:L", 4)))
    guess = c.SettleHold("lease:L.2", 5, outcome="unknown", lease="lease:L")
    assert desk.send(guess).charged == 5
    assert desk.send(c.SettleHold("lease:L.2", 3)).state == "corrected"
    desk.send(c.LapseLease("lease:L", True))
    desk.send(c.CorrectLease("lease:L"))
    assert (desk.balance.consumed, desk.balance.held) == (7, 0)


@pytest.mark.parametrize("lease", ["L", "h", "old", "session:s", "lease:", "lease:a.b", "lease:a#1", "customer"])
def test_L4_no_lease_may_look_like_a_step_of_a_callers(desk: Desk, lease: str) -> None:
    """Nor like a step of another lease."""
    desk.hold("h", "s", 1)
    desk.spend("old", "s", 1)
    with pytest.raises(InvalidRequest):
        desk.send(renew(lease, 1, ask=step(1)))


def test_sessions_grants_and_payments_of_any_name_are_no_leases(desk: Desk) -> None:
    """Their keys have prefixes of their own."""
    for number, name in enumerate(("lease:L", "lease:L.1", "lease:L#2", "lease:L#end")):
        desk.open(name, budget=5)
        desk.send(c.FundSession(name, 1, key=name))
        desk.send(c.IssueGrant(f"g{number}", 1, key=name))
    opened(desk, "lease:L", 10, 3)
    desk.send(renew("lease:L", 2, **spent("lease:L", 4)))
    desk.send(c.LapseLease("lease:L", False))
    assert (desk.balance.consumed, desk.balance.held) == (4, 0)


def test_more_of_a_lease_is_not_added_as_to_a_step(desk: Desk) -> None:
    opened(desk, "lease:L", 10)
    with pytest.raises(KeyConflict):
        desk.send(c.ExtendHold("lease:L", 1, 5))


@pytest.mark.parametrize(
    "command",
    [
        c.SettleHold("lease:L", 5),
        c.SettleHold("lease:L", 5, part=9),
        c.ReleaseHold("lease:L"),
        c.LapseHold("lease:L"),
        c.DispatchHold("lease:L"),
    ],
)
def test_a_lease_is_not_ended_like_a_step(desk: Desk, command: c.Command) -> None:
    opened(desk, "lease:L", 10)
    with pytest.raises(InvalidRequest, match="is a lease"):
        desk.send(command)


# --- what cannot be ------------------------------------------------------------------------------------------------------------

WRONG = {
    "closes and asks": renew("lease:L", 2, close=True, ask=step(1)),
    "of another session": renew("lease:L", 2, "t"),
    "of another holder": renew("lease:L", 2, holder="p2"),
    "of another key": renew("lease:L", 2, key=("tool", None, "search", None)),
    "winds down": renew("lease:L", 2, wind_down=True),
    "asks for another step": renew("lease:L", 2, key=("llm", "gpt-5", None, None), ask=step(1, model="claude")),
    "no times": renew("lease:L", 2, ask=step(1), times=0),
    "more than it holds": renew("lease:L", 2, **spent("lease:L", 31)),
    "gives back more than it holds": renew("lease:L", 2, back=31),
    "gives back what it does not count": renew("lease:L", 2, back_measures={"seconds": 1}),
    "gives back more steps than it holds": renew("lease:L", 2, back_measures={"tokens": 4}),
    "takes back": renew("lease:L", 2, back=-1),
    "more beyond it than there is": renew("lease:L", 2, overrun=6, **spent("lease:L", 5)),
    "more beyond it than was used": renew("lease:L", 2, over={"tokens": 1}),
    "another's steps": renew("lease:L", 2, **spent("lease:K", 1)),
    "costs less than nothing": renew("lease:L", 2, **spent("lease:L", -1)),
    "uses what has no name": renew("lease:L", 2, steps=(c.StepReport("lease:L.1", 1, (1,)),)),
    "uses less than nothing": renew("lease:L", 2, measures=("tokens",), steps=(c.StepReport("lease:L.1", 1, (-1,)),)),
    "no such tariff": renew("lease:L", 2, tariffs=(("r", "v1"),), steps=(c.StepReport("lease:L.1", 1, (), 1),)),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_true_changes_nothing(what: str) -> None:
    desk = Desk()
    desk.grant("g", 100)
    desk.limit("customer", 3, measure="tokens")
    desk.open("s")
    desk.open("t")
    opened(desk, "lease:L", 10, 3, measures={"tokens": 1})
    before = len(desk.entries)
    with pytest.raises(InvalidRequest):
        desk.send(WRONG[what])
    assert len(desk.entries) == before
    assert desk.send(renew("lease:L", 2, **spent("lease:L", 1))).seq == 2


@pytest.mark.parametrize(
    "first",
    [renew("lease:L", 1), renew("lease:L", 1, back=1, ask=step(1)), renew("lease:L", 1, ask=step(1), **spent("lease:L", 1)),
     renew("lease:L", 1, close=True), renew("lease:L", 1, released=1, ask=step(1)),
     renew("lease:a#b", 1, ask=step(1)), renew("lease:L", 1, holder="", ask=step(1)), renew("lease:L", 1, ask=step(-1))],
)  # fmt: skip
def test_the_first_message_asks_and_says_nothing_else(desk: Desk, first: c.Renew) -> None:
    assert isinstance(desk.answer(first), InvalidRequest)
    assert desk.open_holds() == []


def test_the_body_of_a_renewal_reads_back_as_it_was_written(desk: Desk) -> None:
    opened(desk, "lease:L", 10, 3)
    report = c.StepReport("lease:L.1", 7, (1, 90), 0, {"input_tokens": 80, "output_tokens": 10}, "gpt-5", 5, 9)
    desk.send(renew("lease:L", 2, measures=("steps", "tokens"), steps=(report,), tariffs=(("gpt", "v1"),)))
    event = last(desk)
    assert (event.steps, event.names, event.tariffs) == ((report,), ("steps", "tokens"), (("gpt", "v1"),))
    raw = msgspec.json.decode(desk.entries[-1].body)
    assert raw["steps"][0][:3] == ["lease:L.1", 7, [1, 90]]


def test_a_step_of_unknown_cost_leaves_the_lease_and_its_true_cost_corrects_it(desk: Desk) -> None:
    """L11: 12 guessed, 5 true: 7 go back."""
    desk.limit("customer", 10, measure="steps")
    opened(desk, "lease:L", 10, 3)
    unknown = c.SettleHold("lease:L.1", 12, {"steps": 1}, outcome="unknown", lease="lease:L", error="Timeout")
    assert desk.send(unknown) == Settled("lease:L.1", "unknown", 12)
    assert desk.send(unknown) == Settled("lease:L.1", "unknown", 12)
    assert (held_by(desk, "lease:L"), desk.session("s").spent, desk.session("s").steps) == (18, 12, 1)
    assert desk.counted("customer") == (1, 2)
    assert desk.settle("lease:L.1", 5) == Settled("lease:L.1", "corrected", 5)
    assert (desk.session("s").spent, desk.balance.consumed, desk.free()["lease:B"]) == (5, 5, 7)
    with pytest.raises(KeyConflict):
        desk.settle("lease:L.1", 6)
    desk.send(renew("lease:L", 2, close=True, **spent("lease:L", 18, first=2)))
    assert desk.balance.held == 0
    assert desk.folded().snapshot() == desk.account.snapshot()


def test_only_a_guess_within_the_lease_leaves_it_as_unknown(desk: Desk) -> None:
    opened(desk, "lease:L", 10)
    wrong: list[c.Command] = [
        c.SettleHold("lease:L.1", 11, outcome="unknown", lease="lease:L"),
        c.SettleHold("lease:K.1", 1, outcome="unknown", lease="lease:L"),
        c.SettleHold("lease:L.1", 1, lease="lease:L"),
        c.SettleHold("lease:L.1", 1, {"steps": -1}, outcome="unknown", lease="lease:L"),
        c.SettleHold("lease:K.1", 1, outcome="unknown", lease="lease:K"),
    ]  # fmt: skip
    for command in wrong:
        assert isinstance(desk.answer(command), AgentBudgetError), command
    assert held_by(desk, "lease:L") == 10
