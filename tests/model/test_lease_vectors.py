"""Fixed vectors of leases, with the figures written out: tranches, order in a message, ends, silence, shortage."""

from __future__ import annotations

from msgspec.structs import replace

from agentbudget.account import commands as ask
from agentbudget.account.decision import Held, Recalling, Settled
from agentbudget.catalog.terms import Breaker
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict, OutOfOrder
from tests.model import universe
from tests.model.pair import LAPSE_AFTER_US, SILENCE_US, Pair
from tests.model.test_vectors import DAY, HOUR, US, at, available, consumed, hold, opened

FOREVER = universe.FOREVER_US


def lease(
    name: str, amount: int, times: int, *, session: str = "s", holder: str = "p1", seq: int = 1, **more: object
) -> ask.Renew:
    """A message that asks for ``times`` steps of ``amount`` each."""
    wants = ask.Hold(f"{name}.{seq}", session, "llm", amount, {"steps": 1}, "gpt-5", stated=f"{amount}")
    return ask.Renew(name, seq, session, holder, "llm", "gpt-5", ask=wants, times=times, **more)  # type: ignore[arg-type]


def tell(name: str, seq: int, *costs: int, session: str = "s", holder: str = "p1", **more: object) -> ask.Renew:
    """A message that reports steps and asks for nothing."""
    steps = tuple(ask.StepReport(f"{name}.{seq}{place}", cost, (1,)) for place, cost in enumerate(costs))
    measures = ("steps",) if costs else ()
    return ask.Renew(name, seq, session, holder, "llm", "gpt-5", measures=measures, steps=steps, **more)  # type: ignore[arg-type]


def another_session(pair: Pair, name: str = "t", **more: object) -> None:
    pair.send(ask.OpenSession(name, ttl_us=FOREVER, max_step_us=FOREVER, **more))  # type: ignore[arg-type]


def held(pair: Pair) -> dict[str, int]:
    pair.check()
    return {grant.id: grant.held for grant in pair.driver.read("balance")[0].grants}


# --- how much ---


def test_a_session_alone_is_leased_all_that_it_wants_and_there_is() -> None:
    """100 remain, steps of 3: 33 of 64 fit."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    answer = pair.send(lease("lease:a", 3, 64))
    assert (answer.amount, answer.seq, answer.is_open, answer.stale) == (99, 1, True, False)
    assert answer.lasts_us == 2**62
    assert held(pair) == {"g": 99}


def test_where_others_live_a_lease_takes_a_sixteenth_of_what_remains_and_its_step_at_least() -> None:
    """100 remain, shared: 100 // 16 is 6, so two steps of 3; a step of 10 gets its 10; then 84 // 16 is 5: one of 3."""
    pair = opened()
    another_session(pair)
    pair.send(ask.IssueGrant("g", 100))
    assert pair.send(lease("lease:a", 3, 64)).amount == 6
    assert pair.send(lease("lease:b", 10, 64, session="t")).amount == 10
    assert pair.send(lease("lease:a", 3, 64, seq=2)).amount == 3
    assert held(pair) == {"g": 19}


def test_a_lease_of_another_process_shares_a_level_as_a_session_does() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 116))
    assert pair.send(lease("lease:a", 4, 4)).amount == 16
    assert pair.send(lease("lease:b", 3, 64, holder="p2")).amount == 6
    pair.check()


def test_the_least_level_decides_how_much() -> None:
    """Alone: the budget of 20 lets 6 steps of 3, the limit of 5 steps a day lets 5."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit(ask.ROOT, 5, "steps", "day"))
    pair.send(ask.CloseSession("s"))
    another_session(pair, budget=20)
    answer = pair.send(lease("lease:a", 3, 64, session="t"))
    assert (answer.amount, answer.measures, answer.counted) == (15, {"steps": 5}, ("steps",))
    pair.check()


def test_a_child_is_leased_its_carve_out_and_only_a_part_of_what_it_shares_with_its_parent() -> None:
    """The parent's 100 have a carve-out of 60 for the child: all 60 are the child's own; the parent's other 40 are shared with
    the child's open session, so the parent leases 40 // 16 = 2 at a time."""
    pair = opened()
    pair.send(ask.CloseSession("s"))
    pair.send(ask.IssueGrant("g", 10_000))
    another_session(pair, "p", budget=100)
    another_session(pair, "p.c", parent="p", budget=60)
    assert pair.send(lease("lease:c", 1, 64, session="p.c")).amount == 60
    assert pair.send(lease("lease:p", 1, 64, session="p")).amount == 2
    pair.check()


# --- one message ---


def test_a_message_reports_then_gives_back_then_asks() -> None:
    """A 10 burns before B: a lease of 20 is A 10, B 10; 12 are used (A 10, B 2), 5 of B go back, 4 are asked for again."""
    pair = opened()
    pair.send(ask.IssueGrant("A", 10, priority=1))
    pair.send(ask.IssueGrant("B", 100, priority=2))
    assert pair.send(lease("lease:a", 5, 4)).amount == 20
    wants = replace(lease("lease:a", 4, 1, seq=2).ask, step="lease:a.9")
    answer = pair.send(tell("lease:a", 2, 7, 5, back=5, ask=wants))
    assert (answer.seq, answer.amount) == (2, 4)
    assert held(pair) == {"A": 0, "B": 7}
    assert consumed(pair) == {"A": 10, "B": 2}
    assert {view.id: view.steps for view in pair.driver.read("sessions")[0]} == {"s": 2}


def test_what_goes_back_is_what_was_burnt_last() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("A", 10, priority=1))
    pair.send(ask.IssueGrant("B", 100, priority=2))
    pair.send(lease("lease:a", 5, 4))
    pair.send(tell("lease:a", 2, back=10))
    assert held(pair) == {"A": 10, "B": 0}
    pair.send(tell("lease:a", 3, close=True))
    assert available(pair) == {"A": 10, "B": 100}


def test_what_open_steps_hold_does_not_pay_for_others() -> None:
    """Of 10 an open step holds 8; the other cost 5: 2 come out of the lease, 3 burn what is free (law L11)."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 12))
    pair.send(lease("lease:a", 10, 1))
    pair.send(tell("lease:a", 2, 5, overrun=3))
    balance = pair.driver.read("balance")[0]
    assert (balance.held, balance.consumed, balance.overdraft) == (8, 5, 1)
    assert pair.send(lease("lease:a", 1, 1, seq=3)).refused.reason == "overdraft"
    pair.send(ask.IssueGrant("more", 5))
    assert consumed(pair) == {"g": 4, "more": 1}


def test_a_message_twice_has_one_effect_and_a_gap_none() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    first, second = lease("lease:a", 10, 2), tell("lease:a", 2, 4)
    for message in (first, first, second, second, first):
        answer = pair.send(message)
    assert (answer.amount, answer.seq) == (20, 2)  # what the first granted, and what was applied last
    gap = pair.send(tell("lease:a", 4, 4))
    assert isinstance(gap, OutOfOrder)
    assert gap.expected == 3
    other = pair.send(tell("lease:a", 2, 5))
    assert isinstance(other, OutOfOrder)
    assert consumed(pair) == {"g": 4}
    assert held(pair) == {"g": 16}


def test_a_message_that_changes_nothing_uses_no_number() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 10))
    pair.send(lease("lease:a", 10, 1))
    assert pair.send(tell("lease:a", 2)).seq == 1
    assert pair.send(lease("lease:a", 5, 1, seq=2)).seq == 1
    assert pair.send(tell("lease:a", 2, back=10)).seq == 2
    pair.check()


def test_what_no_lease_can_say_changes_nothing() -> None:
    pair = opened()
    another_session(pair)
    pair.send(ask.IssueGrant("g", 100))
    pair.send(lease("lease:a", 10, 1))
    lies = (
        tell("lease:a", 2, back=11), tell("lease:a", 2, 11), tell("lease:a", 2, -1), tell("lease:a", 2, back=-1),
        tell("lease:a", 2, overrun=1), tell("lease:a", 2, released=-1), tell("lease:a", 2, back=1, session="t"),
        tell("lease:a", 2, back=1, holder="p2"), lease("lease:a", 1, 1, seq=2, close=True), lease("lease:a", 1, 0, seq=2),
        replace(tell("lease:a", 2, back=1), model="mini"), tell("lease:b", 2, back=1), tell("lease:b", 1, 4),
    )  # fmt: skip
    for message in lies:
        assert isinstance(pair.send(message), InvalidRequest), message
    assert held(pair) == {"g": 10}


# --- how long ---


def test_a_lease_lives_in_one_window() -> None:
    """Two minutes before midnight: what is asked after it needs another lease; what was used counts before it."""
    pair = opened(at(2026, 5, 1, 23, 58))
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit(ask.ROOT, 10, window="day"))
    assert pair.send(lease("lease:a", 2, 5)).lasts_us == 120 * US
    pair.driver.clock.advance(120)
    answer = pair.send(lease("lease:a", 2, 1, seq=2, steps=(ask.StepReport("lease:a.1", 4),)))
    assert (answer.stale, answer.amount, answer.seq, answer.lasts_us) == (True, 0, 2, 0)
    assert pair.send(lease("lease:b", 2, 5)).amount == 10
    limit = pair.driver.read("limits")[0][0]
    assert (limit.used, limit.held) == (0, 10)
    pair.check()


def test_a_lease_ends_with_the_first_of_its_grants_and_forfeits_what_is_left_of_it() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("short", 6, priority=0, expires_us=universe.START_US + HOUR * US))
    pair.send(ask.IssueGrant("long", 100))
    answer = pair.send(lease("lease:a", 5, 2))
    assert (answer.amount, answer.lasts_us) == (10, HOUR * US)
    pair.driver.clock.advance(HOUR)
    assert pair.send(lease("lease:a", 5, 1, seq=2)).stale
    pair.send(tell("lease:a", 2, 2, close=True))
    short = pair.driver.read("balance")[0].grants[0]
    assert (short.consumed, short.expired, short.held) == (2, 4, 0)
    assert available(pair) == {"short": 0, "long": 100}


def test_a_lowered_limit_ends_leases_and_asks_them_back_until_they_answer() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit(ask.ROOT, 50))
    first = pair.send(lease("lease:a", 5, 4))
    pair.send(ask.SetLimit(ask.ROOT, 12))
    assert pair.beat("p1") == {"lease:a"}
    assert pair.beat("p2") == frozenset()
    answer = pair.send(lease("lease:a", 5, 1, seq=2, back=10, heard=pair.told["p1"]))
    assert (answer.stale, answer.amount, answer.seq) == (True, 0, 2)
    assert pair.beat("p1") == frozenset()
    assert pair.send(tell("lease:a", 3, close=True)).seq == 3
    again = pair.send(lease("lease:b", 5, 4))
    assert again.amount == 10
    assert again.policy > first.policy
    pair.check()


def test_a_paused_session_asks_its_own_leases_back() -> None:
    pair = opened()
    another_session(pair)
    pair.send(ask.IssueGrant("g", 100))
    pair.send(lease("lease:a", 5, 1))
    pair.send(lease("lease:b", 5, 1, session="t"))
    pair.send(ask.SetPaused("session:t", True))
    assert pair.beat("p1") == {"lease:b"}
    assert pair.send(tell("lease:b", 2, back=5, session="t", heard=pair.told["p1"])).recall == ()


def test_max_seconds_bounds_a_lease() -> None:
    pair = opened()
    another_session(pair, breaker=Breaker(max_seconds=60))
    pair.send(ask.IssueGrant("g", 100))
    pair.driver.clock.advance(20)
    assert (
        pair.send(lease("lease:a", 5, 1, session="t")).lasts_us == 40 * US + 1
    )  # a step may start at that age exactly


def test_max_steps_counts_the_steps_that_a_lease_holds() -> None:
    """Four steps are allowed: the lease holds all four, so a fifth waits for them."""
    pair = opened()
    another_session(pair, breaker=Breaker(max_steps=4))
    pair.send(ask.IssueGrant("g", 1_000))
    answer = pair.send(lease("lease:a", 1, 64, session="t"))
    assert (answer.measures, answer.counted) == ({"steps": 4}, ("steps",))
    assert isinstance(pair.send(hold("fifth", 1, session="t")), Recalling)
    pair.send(tell("lease:a", 2, 1, session="t", back=3, back_measures={"steps": 3}))
    assert isinstance(pair.send(hold("fifth", 1, session="t")), Held)
    pair.check()


def test_a_session_whose_rules_must_see_every_step_has_no_leases() -> None:
    pair = opened()
    another_session(pair, breaker=Breaker(max_parallel=2))
    pair.send(ask.IssueGrant("g", 100))
    answer = pair.send(lease("lease:a", 5, 1, session="t"))
    assert (answer.strict, answer.amount, answer.seq) == (True, 0, 0)
    assert held(pair) == {"g": 0}


# --- silence ---


def silent(pair: Pair) -> None:
    pair.driver.clock.advance(microseconds=SILENCE_US + 1)
    pair.tick()


def lapsed(pair: Pair) -> None:
    silent(pair)
    pair.driver.clock.advance(microseconds=LAPSE_AFTER_US)
    pair.tick()


def test_a_silent_holder_keeps_what_it_has_not_reported_until_it_speaks() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    pair.send(lease("lease:a", 5, 4))
    pair.send(lease("lease:b", 5, 1, holder="p2"))
    pair.driver.clock.advance(microseconds=SILENCE_US)
    pair.tick()
    pair.beat("p2")
    assert pair.driver.read("balance")[0].suspended == 0
    pair.driver.clock.advance(microseconds=1)
    pair.tick()
    balance = pair.driver.read("balance")[0]
    assert (balance.leased, balance.suspended) == (balance.held, 20)
    pair.restart(snapshot=False)
    assert pair.driver.read("balance")[0].suspended == 20
    pair.send(tell("lease:a", 2, 3))
    assert pair.driver.read("balance")[0].suspended == 0
    pair.check()


def test_a_lease_that_lapses_is_charged_and_a_late_spool_corrects_it_once() -> None:
    """20 held, 4 reported in time: the lapse books 16; the spool says 3 + 2, so 11 come back (laws L4, L11)."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    first = lease("lease:a", 5, 4)
    pair.send(first)
    pair.send(tell("lease:a", 2, 4))
    early = ask.CorrectLease(
        "lease:a", ("steps",), (ask.StepReport("lease:a.2", 3, (1,)), ask.StepReport("lease:a.3", 2, (1,)))
    )
    assert isinstance(pair.send(early), InvalidRequest)
    lapsed(pair)
    assert consumed(pair) == {"g": 20}
    assert pair.send(first).amount == 20
    assert isinstance(pair.send(tell("lease:a", 3, 3)), HoldResolved)
    corrected = pair.send(early)
    assert (corrected.state, corrected.overrun) == ("corrected", 0)
    assert pair.send(early) == corrected
    assert isinstance(pair.send(replace(early, steps=())), KeyConflict)
    assert consumed(pair) == {"g": 9}


def test_a_lease_that_lapses_may_be_released_and_a_late_spool_is_an_overrun() -> None:
    pair = opened(on_lapse="release")
    pair.send(ask.IssueGrant("g", 10))
    pair.send(lease("lease:a", 5, 2))
    lapsed(pair)
    assert available(pair) == {"g": 10}
    late = ask.CorrectLease("lease:a", ("steps",), (ask.StepReport("lease:a.1", 12, (1,)),))
    assert pair.send(late) == Settled("lease:a", "corrected", 12, overrun=12, debt=2)
    assert consumed(pair) == {"g": 10}


def test_a_step_of_unknown_cost_leaves_its_lease_and_is_corrected_late() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit(ask.ROOT, 50, window="day"))
    pair.send(lease("lease:a", 5, 4))
    guess = ask.SettleHold("lease:a.1", 5, {"steps": 1}, outcome="unknown", lease="lease:a")
    assert pair.send(guess) == Settled("lease:a.1", "unknown", 5)
    assert pair.send(guess) == Settled("lease:a.1", "unknown", 5)
    assert held(pair) == {"g": 15}
    assert isinstance(pair.send(replace(guess, step="lease:a.2", amount=16)), InvalidRequest)
    pair.driver.clock.advance(2 * DAY)
    assert pair.send(ask.SettleHold("lease:a.1", 7, {"steps": 1})) == Settled("lease:a.1", "corrected", 7, overrun=2)
    assert consumed(pair) == {"g": 7}
