"""Lanes are for speed only: whenever one says yes, the judge says yes to the same slices and marks (laws L3 and L12)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.account import commands as c
from agentbudget.account.decision import Held
from agentbudget.account.lanes import request_of
from agentbudget.catalog.terms import Breaker, PlanTerms
from tests.account.desk import HOUR, PREPAID, START, Desk, hold
from tests.account.life import Life, born, holds, live, lives, plans
from tests.scale import SCALE


def compare(desk: Desk, probe: c.Hold) -> bool:
    """Both ways on the same state; True when the lane said yes."""
    books = desk.account._books
    desk.read("customer")  # what time alone brings comes first, as before any command
    session = books.rooms.get(probe.session)
    if session is None:
        return False
    now_us = max(desk.now_us, desk.account._now_us)
    lane = books.lanes.admit(books.lanes.of(probe, session), probe, now_us)
    verdict = books.judge.judge(request_of(books.rooms, probe, session), now_us)
    if lane is None:
        return False
    assert verdict.allowed, f"the lane allows what the judge refuses: {verdict.rows}"
    assert (list(lane.slices), tuple(lane.marks)) == (verdict.slices, tuple(verdict.marks))
    return True


@given(plans, lives, st.lists(holds, min_size=1, max_size=4))
@settings(max_examples=SCALE(100))
def test_a_lane_says_yes_only_where_the_judge_does_with_the_same_slices_and_marks(
    plan: PlanTerms, life: Life, probes: list[c.Hold]
) -> None:
    """The probes are asked after every command, so that a lane that remembers what is no longer so is found out."""
    desk = born(plan)
    for moment in life:
        live(desk, moment)
        for probe in probes:
            compare(desk, probe)


def test_the_lane_says_yes_to_ordinary_steps() -> None:
    """Else the comparison above would prove nothing."""
    desk = born()
    desk.limit("customer", 18, window="hour")
    for number in range(6):
        assert compare(desk, hold("x", "s0", 3))
        desk.spend(f"h{number}", "s0", 3)
    assert not compare(desk, hold("x", "s0", 3))
    desk.wait(HOUR)
    assert compare(desk, hold("x", "s0", 3))


@given(st.lists(holds, min_size=1, max_size=12))
def test_with_and_without_lanes_the_answers_are_the_same(steps: list[c.Hold]) -> None:
    quick, slow = born(), born()
    slow.account._books.lanes.admit = lambda *_: None  # type: ignore[method-assign,assignment]
    for desk in (quick, slow):
        desk.limit("user:*", 12, window="day")
        desk.limit("customer", 3, measure="steps", window="hour")
    for step in steps:
        assert repr(live(quick, (HOUR // 2, step))) == repr(live(slow, (HOUR // 2, step)))
    assert quick.account.snapshot() == slow.account.snapshot()
    assert [entry.body for entry in quick.entries] == [entry.body for entry in slow.entries]


def test_a_lane_forgets_what_a_change_made_untrue() -> None:
    changes: list[tuple[str, c.Command]] = [
        ("limit", c.SetLimit("user:ana", 2)), ("limit", c.SetLimit("session:s0", 0, "steps")),
        ("paused", c.SetPaused("team:eng", True)), ("circuit_open", c.Latch("s0", "x")),
        ("insufficient_credits", c.VoidGrant("g0")), ("session_closed", c.CloseSession("s0")),
        ("model_not_allowed", c.AssignPlan(PlanTerms("m", "v1", models=("mini",)))),
        ("feature_not_entitled", c.AssignPlan(PlanTerms("f", "v1", features=()))),
        ("circuit_open", c.AssignPlan(PlanTerms("b", "v1", breaker=Breaker(max_steps=1)))),
    ]  # fmt: skip
    for due, change in changes:
        desk = born(PREPAID)
        desk.spend("warm", "s0", 3, feature="f")
        assert isinstance(desk.hold("open", "s0", 0, feature="f"), Held)
        desk.send(change)
        answer = desk.hold("x", "s0", 3, feature="f")
        assert getattr(answer, "reason", "allowed") == due, change


def test_a_moved_user_is_under_the_limits_of_the_new_team_at_once() -> None:
    desk = born()
    desk.limit("team:eng", 5)
    desk.spend("warm", "s1", 4)
    assert compare(desk, hold("x", "s1", 6))
    desk.send(c.PutEntity("user:bob", "team:eng"))
    assert not compare(desk, hold("x", "s1", 6))
    assert desk.now_us == START
