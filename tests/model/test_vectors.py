"""Fixed vectors, with the figures written out: what the design promises in so many numbers, on the owner and the oracle."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentbudget.account import commands as ask
from agentbudget.account.decision import Decision, Held, Settled
from agentbudget.catalog.terms import PlanTerms, Window
from agentbudget.errors import InvalidRequest
from agentbudget.ledger.memory import MemoryJournal
from tests.model import universe
from tests.model.pair import Pair

HOUR, DAY = 3_600, 86_400
US = 1_000_000


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    """A time in UTC microseconds."""
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * US


def opened(
    start_us: int = universe.START_US,
    *,
    zone: str = "UTC",
    anchor_us: int | None = None,
    on_lapse: str = "charge",
    **terms: object,
) -> Pair:
    """A customer with an open session ``s``."""
    pair = Pair(MemoryJournal(), "acme", start_us=start_us, on_lapse=on_lapse)
    pair.send(ask.CreateCustomer(PlanTerms("team", "c1", **terms), zone, anchor_us))  # type: ignore[arg-type]
    pair.send(ask.OpenSession("s", ttl_us=universe.FOREVER_US, max_step_us=universe.FOREVER_US))
    return pair


def hold(step: str, amount: int, *, session: str = "s", **more: object) -> ask.Hold:
    return ask.Hold(step, session, "llm", amount, model="gpt-5", stated=f"{amount}", **more)  # type: ignore[arg-type]


def consumed(pair: Pair) -> dict[str, int]:
    """What was consumed, by grant; every view was compared with the oracle's on the way."""
    pair.check()
    pair.check_ledger()
    return {grant.id: grant.consumed for grant in pair.driver.read("balance")[0].grants}


def available(pair: Pair) -> dict[str, int]:
    pair.check()
    return {grant.id: grant.available for grant in pair.driver.read("balance")[0].grants}


def test_the_burn_order_vector_of_the_design() -> None:
    """A(p1, Sep 1, paid 50), B(p1, Sep 1, promo 20), C(p2, Aug 15, promo 100): 60 burn B 20, A 40, C 0."""
    pair = opened(at(2026, 8, 1))
    pair.send(ask.IssueGrant("A", 50, priority=1, expires_us=at(2026, 9, 1)))
    pair.send(ask.IssueGrant("B", 20, priority=1, expires_us=at(2026, 9, 1), category="promo"))
    pair.send(ask.IssueGrant("C", 100, priority=2, expires_us=at(2026, 8, 15), category="promo"))
    held = pair.send(hold("h", 60))
    assert held.slices == (("B", 20), ("A", 40))
    pair.send(ask.SettleHold("h", 60))
    assert consumed(pair) == {"A": 40, "B": 20, "C": 0}


def test_the_last_tie_breaks_are_effective_issued_and_id() -> None:
    pair = opened()
    for grant, effective in (("b", None), ("a", None), ("early", universe.START_US - US)):
        pair.send(ask.IssueGrant(grant, 1, effective_us=effective))
    assert pair.send(hold("h", 3)).slices == (("early", 1), ("a", 1), ("b", 1))


def test_a_partial_settlement_refunds_the_last_burnt_slice_first() -> None:
    """RO-1: r0 100, r1 100, main 100; hold 250, settle 180: left r0 0, r1 20, main 100."""
    pair = opened()
    for priority, grant in enumerate(("r0", "r1", "main")):
        pair.send(ask.IssueGrant(grant, 100, priority=priority))
    assert pair.send(hold("h", 250)).slices == (("r0", 100), ("r1", 100), ("main", 50))
    assert pair.send(ask.SettleHold("h", 180)) == Settled("h", "settled", 180)
    assert available(pair) == {"r0": 0, "r1": 20, "main": 100}


def test_a_hold_on_a_grant_that_expires_stays_spendable_and_the_rest_is_forfeited() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("short", 10, priority=0, expires_us=universe.START_US + HOUR * US))
    pair.send(ask.IssueGrant("long", 10))
    pair.send(hold("h", 8))
    pair.driver.clock.advance(HOUR)  # this very instant it is no longer active
    assert pair.send(hold("next", 1)).slices == (("long", 1),)
    pair.send(ask.SettleHold("h", 5))
    short = pair.driver.read("balance")[0].grants[0]
    assert (short.consumed, short.expired, short.available, short.state) == (5, 5, 0, "expired")
    pair.check()


def test_a_grant_counts_from_the_instant_it_is_effective() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("later", 5, effective_us=universe.START_US + HOUR * US))
    assert pair.send(hold("early", 1)).reason == "insufficient_credits"
    pair.driver.clock.advance(HOUR)
    assert isinstance(pair.send(hold("now", 1)), Held)
    pair.check()


def test_an_overrun_is_overdraft_and_is_paid_first_by_the_next_grant() -> None:
    """The actual is three times the hold (law L11): it is booked in full, stops further holds, and is paid first."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 10))
    pair.send(hold("h", 10))
    assert pair.send(ask.SettleHold("h", 30)) == Settled("h", "settled", 30, overrun=20, debt=20)
    refused = pair.send(hold("more", 1))
    assert isinstance(refused, Decision)
    assert {one.kind for one in refused.constraints if not one.allowed} >= {"overdraft"}
    pair.send(ask.IssueGrant("top-up", 25))
    assert pair.driver.read("balance")[0].overdraft == 0
    assert consumed(pair) == {"g": 10, "top-up": 20}
    assert isinstance(pair.send(hold("again", 5)), Held)


def test_overdraft_is_paid_when_a_grant_becomes_effective() -> None:
    pair = opened()
    pair.send(hold("h", 0))
    pair.send(ask.SettleHold("h", 4))
    pair.send(ask.IssueGrant("later", 9, effective_us=universe.START_US + HOUR * US))
    pair.driver.clock.advance(HOUR)
    pair.send(hold("next", 5))
    assert available(pair) == {"later": 0}


def test_a_guess_charges_at_most_the_hold_so_that_a_correction_never_has_overdraft_to_take_back() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 25))
    pair.send(hold("h", 7))
    assert isinstance(pair.send(ask.SettleHold("h", 8, outcome="unknown")), InvalidRequest)
    assert pair.send(ask.SettleHold("h", 7, outcome="unknown")) == Settled("h", "unknown", 7)
    assert pair.send(ask.SettleHold("h", 2)) == Settled("h", "corrected", 2)
    assert pair.driver.read("balance")[0].overdraft == 0
    assert consumed(pair) == {"g": 2}


def test_a_late_settlement_lands_once() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 50))
    pair.send(hold("h", 10))
    assert pair.send(ask.LapseHold("h")) == Settled("h", "unknown", 10)
    late = pair.send(ask.SettleHold("h", 13))
    assert late == Settled("h", "corrected", 13, overrun=3)
    assert pair.send(ask.SettleHold("h", 13)) == late
    assert consumed(pair) == {"g": 13}


def test_a_child_carves_from_its_parent_and_its_overrun_passes_up() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 1_000))
    pair.send(ask.OpenSession("p", budget=100, ttl_us=universe.FOREVER_US))
    pair.send(ask.OpenSession("p.c", parent="p", budget=60, ttl_us=universe.FOREVER_US))
    assert pair.send(hold("too much", 41, session="p")).reason == "session_budget"
    assert isinstance(pair.send(hold("fits", 40, session="p")), Held)
    assert pair.send(hold("beyond the carve", 61, session="p.c")).reason == "session_budget"
    pair.send(hold("h", 60, session="p.c"))
    pair.send(ask.SettleHold("h", 75))
    views = {view.id: view for view in pair.driver.read("sessions")[0]}
    assert (views["p"].spent, views["p"].held, views["p"].remaining) == (75, 40, -15)
    assert views["p.c"].remaining == -15
    pair.check()


def test_closing_a_child_gives_its_unused_carve_back() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 1_000))
    pair.send(ask.OpenSession("p", budget=100, ttl_us=universe.FOREVER_US))
    pair.send(ask.OpenSession("p.c", parent="p", budget=60, ttl_us=universe.FOREVER_US))
    pair.send(hold("h", 10, session="p.c"))
    pair.send(ask.SettleHold("h", 10))
    pair.send(ask.CloseSession("p.c"))
    assert isinstance(pair.send(hold("rest", 90, session="p")), Held)
    pair.check()


def test_a_fan_out_admits_as_many_as_fit_or_none() -> None:
    pair = opened()
    pair.send(ask.OpenSession("p", budget=25, ttl_us=universe.FOREVER_US))

    def children(stem: str) -> tuple[ask.OpenSession, ...]:
        return tuple(ask.OpenSession(f"p.{stem}{n}", "p", 10, ttl_us=universe.FOREVER_US) for n in range(4))

    assert pair.send(ask.FanOut("p", children("a"), 3)).reason == "session_budget"
    assert pair.send(ask.FanOut("p", children("b"), 2)).sessions == ("p.b0", "p.b1")
    pair.check()


def test_opening_again_what_was_funded_since_still_joins_it() -> None:
    """What is stated must equal what created the session; funding came after."""
    pair = opened()
    opening = ask.OpenSession("named", budget=10, ttl_us=universe.FOREVER_US)
    pair.send(opening)
    pair.send(ask.FundSession("named", 5))
    assert pair.send(opening).joined


def test_a_probe_that_is_refused_leaves_the_circuit_closed() -> None:
    """A clamped call probes with the whole answer first; that refusal must not stop the smaller one."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    rules = universe.Breaker(max_rate=10)
    pair.send(ask.OpenSession("slow", breaker=rules, ttl_us=universe.FOREVER_US))
    assert isinstance(pair.send(hold("probe", 50, session="slow", note_refusal=False)), Decision)
    assert isinstance(pair.send(hold("clamped", 5, session="slow")), Held)


def test_more_of_a_hold_is_judged_by_the_rules_about_time_and_cost() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    rules = universe.Breaker(max_step_cost=5, max_seconds=60, max_steps=1)
    pair.send(ask.OpenSession("t", breaker=rules, ttl_us=universe.FOREVER_US, max_step_us=universe.FOREVER_US))
    pair.send(hold("h", 4, session="t"))
    assert isinstance(pair.send(ask.ExtendHold("h", 1, 5)), Held)
    assert pair.send(ask.ExtendHold("h", 2, 6)).reason == "circuit_open"
    pair.driver.clock.advance(61)
    assert pair.send(ask.ExtendHold("h", 3, 1)).reason == "circuit_open"
    pair.check()


def test_a_resumed_session_counts_its_breaker_anew() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    rules = universe.Breaker(max_seconds=60, max_steps=2)
    pair.send(ask.OpenSession("t", breaker=rules, ttl_us=universe.FOREVER_US, max_step_us=universe.FOREVER_US))
    for step in ("a", "b"):
        pair.send(hold(step, 1, session="t"))
    assert pair.send(hold("c", 1, session="t")).reason == "circuit_open"
    pair.driver.clock.advance(61)
    pair.send(ask.SetPaused("session:t", False))
    assert isinstance(pair.send(hold("d", 1, session="t")), Held)
    pair.check()


_WINDOW_ENDS = [
    # Berlin's clocks go forward on 2026-03-29 at 01:00Z and back on 2026-10-25 at 01:00Z.
    ("day of 23 hours", "day", "Europe/Berlin", None, at(2026, 3, 29, 0, 30), at(2026, 3, 29, 22)),
    ("day of 25 hours", "day", "Europe/Berlin", None, at(2026, 10, 25, 0, 30), at(2026, 10, 25, 23)),
    ("week over a change", "week", "Europe/Berlin", None, at(2026, 3, 27), at(2026, 3, 29, 22)),
    ("month over a change", "month", "Europe/Berlin", None, at(2026, 3, 1), at(2026, 3, 31, 22)),
    ("quarter", "quarter", "America/Los_Angeles", None, at(2026, 2, 1), at(2026, 4, 1, 7)),
    ("leap day", "month", "UTC", None, at(2028, 2, 29, 23, 59), at(2028, 3, 1)),
    ("year in Kathmandu", "year", "Asia/Kathmandu", None, at(2026, 12, 31, 18), at(2026, 12, 31, 18, 15)),
    ("anchored on a 31st, short month", "month", "UTC", at(2026, 1, 31, 10), at(2026, 2, 10), at(2026, 2, 28, 10)),
    ("anchored on a 31st, next month", "month", "UTC", at(2026, 1, 31, 10), at(2026, 2, 28, 10), at(2026, 3, 31, 10)),
    ("anchored year of a leap day", "year", "UTC", at(2024, 2, 29), at(2026, 6, 1), at(2027, 2, 28)),
    ("anchored week", "week", "UTC", at(2026, 1, 7, 12), at(2026, 1, 14, 12), at(2026, 1, 21, 12)),
]


@pytest.mark.parametrize(
    ("window", "zone", "anchor_us", "now_us", "end_us"),
    [row[1:] for row in _WINDOW_ENDS],
    ids=[row[0] for row in _WINDOW_ENDS],
)
def test_a_window_ends_at_its_wall_clock_time(
    window: Window, zone: str, anchor_us: int | None, now_us: int, end_us: int
) -> None:
    cycle = "calendar" if anchor_us is None else "anchored"
    pair = opened(now_us, zone=zone, anchor_us=anchor_us, cycle=cycle)
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit(ask.ROOT, 10, window=window))
    pair.send(hold("full", 10))
    assert pair.driver.read("limits")[0][0].resets_at_us == end_us
    pair.driver.clock.set_us(end_us - 1)
    assert pair.send(hold("last instant", 1)).reason == "limit"
    pair.driver.clock.set_us(end_us)
    assert isinstance(pair.send(hold("next window", 10)), Held)
    pair.check()


def test_a_settlement_after_the_window_turned_counts_where_the_hold_was_opened() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit(ask.ROOT, 10, window="day"))
    pair.send(hold("h", 8))
    pair.driver.clock.advance(DAY)
    pair.send(ask.SettleHold("h", 9))
    assert isinstance(pair.send(hold("today", 10)), Held)
    pair.check()
