"""Shortage: what lacks only amounts that leases hold is not refused yet; leases are asked back, first come first served, and
within 1.5 s there is an answer (DESIGN.md §4)."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.account import commands as c
from agentbudget.account.account import Account
from agentbudget.account.decision import Decision, Held, Opened, Recalling, Renewed
from agentbudget.account.recall import MAX_TICKETS
from agentbudget.catalog.terms import Breaker, EntitlementTerms, PlanTerms, Scope
from tests.account.desk import HOUR, SECOND, Desk, failing, hold, reason
from tests.account.holder import held_by, opened, renew, spent, step

POLL = SECOND // 10


@pytest.fixture
def desk() -> Desk:
    """A wallet of 100 of which a lease of p1 holds 90."""
    desk = Desk()
    desk.grant("g", 100)
    desk.open("s")
    desk.open("t")
    opened(desk, "lease:L", 90)
    return desk


def ticket(answer: Any) -> Recalling:
    found = answer.recalling if isinstance(answer, Renewed) else answer
    assert isinstance(found, Recalling), answer
    return found


def give_back(desk: Desk, lease: str, seq: int, amount: int, session: str = "s", holder: str = "p1") -> None:
    """The holder is told that its lease is asked back, and answers."""
    assert lease in desk.account.recalled(holder)
    desk.send(renew(lease, seq, session, holder, back=amount, heard=desk.account.told))


# --- one ticket --------------------------------------------------------------------------------------------------------------


def test_a_shortage_that_leases_could_end_is_a_ticket_and_no_refusal(desk: Desk) -> None:
    waiting = ticket(desk.hold("h", "t", 50))
    assert (waiting.ticket, waiting.leases, reason(waiting.decision)) == (1, ("lease:L",), "insufficient_credits")
    assert desk.session("t").denials == 0
    assert desk.account.denial_notes() == []
    assert desk.account.recalled("p1") == ("lease:L",)
    assert desk.account.recalled("p2") == ()


def test_what_comes_back_serves_who_asks_again(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    give_back(desk, "lease:L", 2, 60)
    assert isinstance(desk.hold("h", "t", 50), Held)
    assert desk.account.recalled("p1") == ()


def test_when_every_lease_has_answered_and_it_is_still_short_the_refusal_is_final(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    assert ticket(desk.hold("h", "t", 50)).ticket == 1
    give_back(desk, "lease:L", 2, 30)
    refused = desk.hold("h", "t", 50)
    assert reason(refused) == "insufficient_credits"
    assert isinstance(refused, Decision)
    assert "silent" not in str(refused)
    assert desk.session("t").denials == 1


def test_a_renewal_that_writes_nothing_is_an_answer_too(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    desk.send(renew("lease:L", 2, heard=desk.account.told))
    assert reason(desk.hold("h", "t", 50)) == "insufficient_credits"


def test_a_renewal_of_a_holder_that_was_told_and_never_heard_is_no_answer(desk: Desk) -> None:
    """What told it was lost on its way: its idle credits must still serve who waits."""
    ticket(desk.hold("h", "t", 50))
    for seq in (2, 3):  # told by a beat and by each answer, none of which arrives
        assert desk.account.recalled("p1") == ("lease:L",)
        assert desk.send(renew("lease:L", seq, **spent("lease:L", 1, first=seq))).recall == ("lease:L",)
    assert ticket(desk.hold("h", "t", 50)).leases == ("lease:L",)
    give_back(desk, "lease:L", 4, 80)
    assert isinstance(desk.hold("h", "t", 50), Held)


def test_what_answers_an_earlier_recall_is_no_answer_to_a_later_one(desk: Desk) -> None:
    """What became idle since it was sent may be what the later one needs."""
    ticket(desk.hold("h", "t", 50))
    early = desk.account.told
    desk.wait(SECOND)  # nobody asks about that ticket any more
    ticket(desk.hold("other", "t", 50))
    desk.send(renew("lease:L", 2, back=20, heard=early))
    assert ticket(desk.hold("other", "t", 50)).leases == ("lease:L",)
    give_back(desk, "lease:L", 3, 60)
    assert isinstance(desk.hold("other", "t", 50), Held)


def test_one_answer_may_answer_the_first_of_two_recalls_only(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 99))
    early = desk.account.told
    ticket(desk.hold("other", "t", 99))
    answer = desk.send(renew("lease:L", 2, heard=early))
    assert (answer.recall, answer.told) == (("lease:L",), desk.account.told)
    assert reason(desk.hold("h", "t", 99)) == "insufficient_credits"
    assert ticket(desk.hold("other", "t", 99)).leases == ("lease:L",)
    desk.send(renew("lease:L", 2, heard=answer.told))
    assert desk.account.recalled("p1") == ()


def test_a_renewal_sent_before_its_holder_knew_is_no_answer_and_tells_it(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    crossing = desk.send(renew("lease:L", 2, **spent("lease:L", 1)))
    assert crossing.recall == ("lease:L",)
    assert ticket(desk.hold("h", "t", 50)).leases == ("lease:L",)
    desk.send(renew("lease:L", 3, back=80))
    assert isinstance(desk.hold("h", "t", 50), Held)


def test_an_old_message_again_is_no_answer(desk: Desk) -> None:
    first = renew("lease:L", 1, ask=step(90))
    ticket(desk.hold("h", "t", 50))
    assert desk.send(first).recall == ("lease:L",)
    desk.send(first)
    assert ticket(desk.hold("h", "t", 50)).leases == ("lease:L",)


def test_a_lease_that_ended_has_answered(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    desk.send(renew("lease:L", 2, close=True, **spent("lease:L", 90)))
    assert reason(desk.hold("h", "t", 50)) == "insufficient_credits"
    assert desk.account.recalled("p1") == ()


def test_after_its_patience_it_is_refused_and_the_silent_leases_are_named(desk: Desk) -> None:
    opened(desk, "lease:K", 5, session="t", holder="p2")
    ticket(desk.hold("h", "t", 50))
    give_back(desk, "lease:K", 2, 5, "t", "p2")
    for _ in range(14):
        desk.wait(POLL)
        ticket(desk.hold("h", "t", 50))
    desk.wait(POLL)
    refused = desk.hold("h", "t", 50)
    assert reason(refused) == "insufficient_credits"
    assert isinstance(refused, Decision)
    assert refused.detail == (
        "customer has 0.00000001 credits left, the step needs 0.00000005; held by leases whose holders are silent: lease:L"
    )


def test_a_long_list_of_silent_leases_is_cut(desk: Desk) -> None:
    for n in range(7):
        opened(desk, f"lease:K{n}", 1, session="t", holder="p2")
    ticket(desk.hold("h", "t", 50))
    desk.wait(SECOND - 1)
    ticket(desk.hold("h", "t", 50))
    desk.wait(SECOND - 1)
    assert str(desk.hold("h", "t", 50)).count("and 3 more") == 1


def test_a_ticket_that_nobody_asks_about_is_dropped(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    desk.wait(SECOND)
    assert ticket(desk.hold("other", "t", 50)).ticket == 2
    assert ticket(desk.hold("h", "t", 50)).ticket == 3


def test_what_was_asked_back_for_a_dropped_ticket_is_asked_for_no_longer(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    desk.wait(SECOND - 1)
    desk.read("customer")
    assert desk.account.recalled("p1") == ("lease:L",)
    desk.wait(1)
    desk.read("customer")
    assert desk.account.recalled("p1") == ()
    assert desk.account._books.recalls.tickets == {}


def test_after_a_refusal_the_same_step_is_judged_anew(desk: Desk) -> None:
    """L4: denials keep no key."""
    ticket(desk.hold("h", "t", 50))
    give_back(desk, "lease:L", 2, 1)
    assert reason(desk.hold("h", "t", 50)) == "insufficient_credits"
    assert ticket(desk.hold("h", "t", 50)).ticket == 2
    give_back(desk, "lease:L", 3, 60)
    assert isinstance(desk.hold("h", "t", 50), Held)


def test_probes_and_top_ups_recall_nothing(desk: Desk) -> None:
    assert reason(desk.hold("h", "t", 50, note_refusal=False)) == "insufficient_credits"
    opened(desk, "lease:K", 1, session="t", holder="p2")
    top_up = desk.send(renew("lease:K", 2, "t", "p2", ask=step(50, "t", note_refusal=False)))
    assert (reason(top_up.refused), top_up.recalling) == ("insufficient_credits", None)
    assert desk.account.recalled("p1") == ()


# --- what can be recalled ----------------------------------------------------------------------------------------------------


def test_an_ask_of_a_lease_recalls_the_others_and_not_itself(desk: Desk) -> None:
    opened(desk, "lease:K", 5, session="t", holder="p2")
    waiting = ticket(desk.send(renew("lease:L", 2, ask=step(50))))
    assert waiting.leases == ("lease:K",)
    give_back(desk, "lease:K", 2, 5, "t", "p2")
    assert reason(desk.send(renew("lease:L", 2, ask=step(50))).refused) == "insufficient_credits"
    desk.send(renew("lease:K", 3, "t", "p2", close=True))
    assert reason(desk.send(renew("lease:L", 2, ask=step(50))).refused) == "insufficient_credits"


def test_the_holder_of_what_is_asked_back_reads_it_in_the_answer_to_its_own_ask(desk: Desk) -> None:
    """Own idle leases are taken back first: one process may hold both."""
    answer = desk.send(renew("lease:K", 1, "t", ask=step(50, "t")))
    assert ticket(answer).leases == ("lease:L",)
    assert answer.recall == ("lease:L",)
    desk.send(renew("lease:L", 2, back=60))
    assert desk.send(renew("lease:K", 1, "t", ask=step(50, "t"))).amount == 50


def test_a_report_is_booked_while_its_ask_waits(desk: Desk) -> None:
    opened(desk, "lease:K", 5, session="t", holder="p2")
    answer = desk.send(renew("lease:K", 2, "t", "p2", ask=step(50, "t"), **spent("lease:K", 5)))
    assert (ticket(answer).ticket, answer.seq, answer.amount) == (1, 2, 0)
    assert desk.session("t").spent == 5
    give_back(desk, "lease:L", 2, 80)
    assert desk.send(renew("lease:K", 3, "t", "p2", ask=step(50, "t"))).amount == 50


def test_every_failing_constraint_must_be_in_somebodys_lease(desk: Desk) -> None:
    desk.open("small", budget=10)
    refused = desk.hold("h", "small", 50)
    assert sorted(failing(refused)) == [("insufficient_credits", "customer"), ("session_budget", "session:small")]


def test_a_refusal_for_another_reason_is_final() -> None:
    desk = Desk(PlanTerms("team", "v1", features=(EntitlementTerms("f", "boolean"),)))
    desk.grant("g", 100)
    desk.open("s")
    opened(desk, "lease:L", 90)
    assert reason(desk.hold("h", "s", 50, feature="x")) == "feature_not_entitled"
    desk.pause("customer")
    assert reason(desk.hold("h", "s", 50)) == "paused"


def test_a_limit_recalls_the_leases_that_it_counts(desk: Desk) -> None:
    desk.grant("more", 1000)
    for entity in ("user:ana", "user:bob"):
        desk.send(c.PutEntity(entity))
        desk.open(entity[5:], entities=(entity,))
    desk.limit("user:*", 40, window="hour", scope=Scope(kinds=("llm",)))
    desk.limit("user:*", 10, measure="tokens")
    opened(desk, "lease:A", 30, session="ana")
    opened(desk, "lease:B", 30, session="bob")
    desk.send(renew("lease:T", 1, "ana", ask=step(0, "ana", kind="tool", tool="x", measures={"tokens": 9}), times=1))
    assert ticket(desk.hold("h", "ana", 20)).leases == ("lease:A",)
    assert ticket(desk.hold("i", "ana", 0, measures={"tokens": 5})).leases == ("lease:T",)
    assert ticket(desk.hold("j", "ana", 20, measures={"tokens": 5})).leases == ("lease:A", "lease:T")


def test_leases_of_an_older_window_cannot_help_a_limit(desk: Desk) -> None:
    desk.grant("more", 1000)
    desk.limit("customer", 40, window="hour")
    opened(desk, "lease:A", 30)
    desk.wait(HOUR)
    desk.spend("x", "t", 30)
    assert failing(desk.hold("h", "t", 20)) == [("limit", "customer")]


def test_leases_on_other_credits_cannot_help_a_wallet() -> None:
    desk = Desk()
    desk.grant("tools", 100, priority=1, scope=Scope(kinds=("tool",)))
    desk.grant("soon", 10, expires_us=desk.now_us + HOUR)
    desk.open("s")
    assert desk.send(renew("lease:T", 1, ask=step(90, kind="tool", tool="x"))).amount == 90
    opened(desk, "lease:L", 10)
    assert ticket(desk.hold("h", "s", 5)).leases == ("lease:L",)
    desk.wait(HOUR)
    assert reason(desk.hold("i", "s", 5)) == "insufficient_credits"


def test_steps_that_leases_hold_are_asked_back(desk: Desk) -> None:
    desk.open("m", breaker=Breaker(max_steps=5))
    desk.open("n", parent="m", breaker=Breaker(max_steps=5))
    opened(desk, "lease:M", 0, 5, session="m")
    opened(desk, "lease:N", 0, 5, session="n")
    waiting = ticket(desk.hold("h", "m", 0))
    assert (waiting.leases, reason(waiting.decision)) == (("lease:M",), "circuit_open")
    assert desk.account.recalled("p1") == ("lease:M",)
    desk.send(renew("lease:M", 2, "m", back_measures={"steps": 2}))
    assert isinstance(desk.hold("h", "m", 0), Held)
    assert desk.session("m").state == "open"


def test_suspended_leases_are_named_and_not_waited_for(desk: Desk) -> None:
    desk.send(c.SuspendLease("lease:L"))
    refused = desk.hold("h", "t", 50)
    assert reason(refused) == "insufficient_credits"
    assert isinstance(refused, Decision)
    assert refused.detail.endswith("held by leases whose holders are silent: lease:L")


# --- the queue ---------------------------------------------------------------------------------------------------------------


def test_who_asked_first_is_served_first(desk: Desk) -> None:
    ticket(desk.hold("first", "t", 50))
    assert ticket(desk.hold("second", "t", 8)).ticket == 2  # 10 are free, but the first needs 50
    give_back(desk, "lease:L", 2, 44)
    waiting = ticket(desk.hold("second", "t", 8))  # 54 are free, 50 are the first's
    assert failing(waiting.decision) == [("insufficient_credits", "customer")]
    assert isinstance(desk.hold("first", "t", 50), Held)
    assert reason(desk.hold("second", "t", 8)) == "insufficient_credits"


def test_what_remains_beyond_earlier_needs_may_be_taken(desk: Desk) -> None:
    ticket(desk.hold("first", "t", 50))
    give_back(desk, "lease:L", 2, 60)
    assert isinstance(desk.hold("second", "t", 20), Held)
    assert isinstance(desk.hold("first", "t", 50), Held)


def test_who_lacks_only_its_turn_is_never_refused_for_it(desk: Desk) -> None:
    ticket(desk.hold("first", "t", 50))
    ticket(desk.hold("second", "t", 8))
    give_back(desk, "lease:L", 2, 1)
    ticket(desk.hold("second", "t", 8))
    assert reason(desk.hold("first", "t", 50)) == "insufficient_credits"
    assert isinstance(desk.hold("second", "t", 8), Held)


def test_who_no_longer_asks_keeps_nobody_waiting(desk: Desk) -> None:
    ticket(desk.hold("first", "t", 50))
    desk.wait(SECOND - 1)
    ticket(desk.hold("second", "t", 8))
    desk.wait(1)
    assert isinstance(desk.hold("second", "t", 8), Held)


def test_who_waits_by_a_lease_that_is_closed_keeps_nobody_waiting(desk: Desk) -> None:
    """Its holder asks anew by another lease, and nobody by this one."""
    opened(desk, "lease:K", 1, session="t", holder="p2")
    ticket(desk.send(renew("lease:K", 2, "t", "p2", ask=step(50, "t"))))
    ticket(desk.hold("second", "t", 8))
    desk.send(renew("lease:K", 2, "t", "p2", close=True))
    assert isinstance(desk.hold("second", "t", 8), Held)


def test_while_others_wait_a_lease_gets_one_step_and_a_top_up_none(desk: Desk) -> None:
    opened(desk, "lease:K", 1, session="t", holder="p2")
    ticket(desk.hold("first", "t", 50))
    give_back(desk, "lease:L", 2, 70)
    assert desk.send(renew("lease:K", 2, "t", "p2", ask=step(2, "t"), times=10)).amount == 2
    top_up = desk.send(renew("lease:K", 3, "t", "p2", ask=step(2, "t", note_refusal=False), times=10))
    assert (top_up.amount, top_up.refused is not None) == (0, True)


def test_who_needs_nothing_that_others_wait_for_is_not_held_up(desk: Desk) -> None:
    desk.grant("more", 100)
    desk.open("b", budget=10)
    opened(desk, "lease:B", 1, session="b", holder="p3")
    ticket(desk.hold("first", "b", 10))  # waits for the budget of b alone
    assert desk.send(renew("lease:K", 1, "t", ask=step(1, "t"), times=3)).amount == 3
    assert desk.send(renew("lease:K", 2, "t", ask=step(1, "t", note_refusal=False), times=3)).amount == 3


def test_steps_of_a_breaker_are_queued_for_too(desk: Desk) -> None:
    desk.open("m", breaker=Breaker(max_steps=4))
    opened(desk, "lease:M", 0, 4, session="m", holder="p1")
    ticket(desk.hold("first", "m", 0))
    give_back_steps = renew("lease:M", 2, "m", back_measures={"steps": 1})
    assert "lease:M" in desk.account.recalled("p1")
    desk.send(give_back_steps)
    waiting = ticket(desk.hold("second", "m", 0))
    assert reason(waiting.decision) == "circuit_open"
    assert isinstance(desk.hold("first", "m", 0), Held)


def test_the_queue_has_an_end(desk: Desk) -> None:
    for n in range(MAX_TICKETS):
        ticket(desk.account.handle(hold(f"h{n}", "t", 50), now_us=desk.now_us, hits={}).answer)
    assert reason(desk.hold("one more", "t", 50)) == "insufficient_credits"


def test_an_ask_that_comes_to_lack_something_else_asks_that_back_too(desk: Desk) -> None:
    desk.grant("more", 1000)
    desk.limit("session:t", 60)
    desk.limit("session:s", 1000)
    opened(desk, "lease:A", 30, session="t", holder="p2")
    ticket(desk.hold("h", "t", 40))
    give_back(desk, "lease:A", 2, 5, "t", "p2")
    opened(desk, "lease:C", 985, session="s", holder="p3")
    waiting = ticket(desk.hold("h", "t", 40))
    assert sorted(waiting.leases) == ["lease:A", "lease:C", "lease:L"]


# --- sessions ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def family() -> Desk:
    desk = Desk()
    desk.grant("g", 10_000)
    desk.open("p", budget=100)
    return desk


def test_a_carve_out_recalls_the_parents_leases(family: Desk) -> None:
    opened(family, "lease:L", 90, session="p")
    wanted = c.OpenSession("k", parent="p", budget=50)
    waiting = ticket(family.send(wanted))
    assert (waiting.leases, reason(waiting.decision)) == (("lease:L",), "session_budget")
    give_back(family, "lease:L", 2, 60, "p")
    assert isinstance(family.send(wanted), Opened)


def test_funding_a_child_and_fanning_out_recall_them_too(family: Desk) -> None:
    family.open("k", parent="p", budget=5)
    opened(family, "lease:L", 90, session="p")
    fund = c.FundSession("k", 20, key="more")
    fan = c.FanOut("p", tuple(c.OpenSession(f"k{n}", parent="p", budget=10) for n in range(3)), at_least=2)
    assert ticket(family.send(fund)).leases == ("lease:L",)
    assert ticket(family.send(fan)).leases == ("lease:L",)
    give_back(family, "lease:L", 2, 40, "p")
    family.send(fund)
    opened_now = family.send(fan)
    assert isinstance(opened_now, Opened)
    assert opened_now.sessions == ("k0", "k1")
    assert opened_now.refused is not None


def test_a_carve_out_waits_behind_who_asked_for_the_budget_before(family: Desk) -> None:
    opened(family, "lease:L", 90, session="p")
    ticket(family.hold("h", "p", 30))
    assert ticket(family.send(c.OpenSession("k", parent="p", budget=10))).ticket == 2


def test_a_lease_within_a_childs_carve_out_frees_nothing_at_the_parent(family: Desk) -> None:
    family.open("k", parent="p", budget=60)
    opened(family, "lease:K", 50, session="k")
    assert failing(family.hold("h", "p", 50)) == [("session_budget", "session:p")]
    family.open("q", parent="p")
    opened(family, "lease:Q", 30, session="q", holder="p2")
    assert ticket(family.hold("i", "p", 20)).leases == ("lease:Q",)


def test_another_lease_of_the_same_session_makes_room_for_a_step_of_another_kind(family: Desk) -> None:
    opened(family, "lease:L", 95, session="p")
    assert ticket(family.send(renew("lease:T", 1, "p", ask=step(10, "p", kind="tool", tool="x")))).leases == (
        "lease:L",
    )


# --- asked back by entries -------------------------------------------------------------------------------------------------


def restarted(desk: Desk) -> list[Account]:
    """The account as another process finds it: from a snapshot, and from the entries."""
    return [Account.restore("acme", desk.account.snapshot()), desk.folded()]


@pytest.mark.parametrize("end", [c.CloseSession("p"), c.Latch("p", "x"), c.SetPaused("session:p", True)])
def test_a_session_that_may_not_go_on_gives_its_leases_back_and_its_childrens(family: Desk, end: c.Command) -> None:
    family.open("k", parent="p", budget=20)
    family.open("other")
    opened(family, "lease:L", 10, session="p")
    opened(family, "lease:K", 10, session="k", holder="p2")
    opened(family, "lease:O", 10, session="other")
    family.send(end)
    for account in (*restarted(family), family.account):
        assert account.recalled("p1") == ("lease:L",)
        assert account.recalled("p2") == ("lease:K",)
    give_back(family, "lease:L", 2, 10, "p")
    assert family.account.recalled("p1") == ()
    assert [account.recalled("p1") for account in restarted(family)] == [("lease:L",), ("lease:L",)]


@pytest.mark.parametrize("back", [c.SetPaused("session:p", False), c.FundSession("p", 1)])
def test_a_session_that_may_go_on_again_keeps_what_was_not_given_back_yet(family: Desk, back: c.Command) -> None:
    opened(family, "lease:L", 10, session="p")
    family.send(c.Latch("p", "x"))
    family.send(back)
    for account in (*restarted(family), family.account):
        assert account.recalled("p1") == ()


def test_a_lease_of_an_older_policy_is_asked_back_by_the_next_owner_as_well(family: Desk) -> None:
    opened(family, "lease:L", 10, session="p")
    family.limit("customer", 5000)
    family.send(renew("lease:L", 2, "p", back=4, heard=family.account.told))
    opened(family, "lease:M", 10, session="p")
    assert family.account.recalled("p1") == ()
    assert [account.recalled("p1") for account in restarted(family)] == [("lease:L",), ("lease:L",)]


def test_tickets_are_forgotten_by_a_restart_and_simply_asked_for_again(desk: Desk) -> None:
    ticket(desk.hold("h", "t", 50))
    desk.account = Account.restore("acme", desk.account.snapshot())
    assert desk.account.recalled("p1") == ()
    assert ticket(desk.hold("h", "t", 50)).ticket == 1


def test_whoever_nudges_holders_learns_once_that_something_was_asked_back(desk: Desk) -> None:
    assert not desk.account.has_news()
    ticket(desk.hold("h", "t", 50))
    assert desk.account.has_news()
    ticket(desk.hold("h", "t", 50))
    assert not desk.account.has_news()
    assert held_by(desk, "lease:L") == 90
