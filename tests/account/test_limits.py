"""Limits: what each measure, mode, window, pattern and scope counts, and what changing them may not undo (law L3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.catalog.terms import MEASURES, EntityTypeTerms, LimitTerms, Scope
from agentbudget.errors import InvalidRequest
from tests.account.desk import DAY, HOUR, PREPAID, SECOND, START, Desk, allowed, failing, hold, reason


@pytest.fixture
def desk() -> Desk:
    """A rich customer with a tree: only limits bind."""
    return rich()


def rich(*plan: LimitTerms, **terms: object) -> Desk:
    desk = Desk(replace(PREPAID, limits=plan, **terms))
    desk.grant("g", 10**9)
    desk.send(c.PutEntity("team:eng"))
    for user in ("user:ana", "user:bob"):
        desk.send(c.PutEntity(user, "team:eng"))
    desk.open("s", entities=("user:ana",))
    desk.open("t", entities=("user:bob",))
    return desk


# --- what is counted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [*MEASURES, "exports"])
def test_every_measure_binds_at_its_own_amount(desk: Desk, measure: str) -> None:
    desk.limit("customer", 10, measure=measure)

    def step(name: str, units: int) -> object:
        return desk.hold(name, "s", units if measure == "credits" else 1, measures={measure: units})

    assert allowed(step("a", 7))
    refused = step("b", 4)
    assert failing(refused) == [("limit", "customer")]
    (row,) = [one for one in refused.constraints if one.kind == "limit"]  # type: ignore[attr-defined]
    assert (row.measure, row.window, row.mode) == (measure, "lifetime", "hard")
    assert allowed(step("c", 3))
    assert allowed(step("d", 0))


def test_a_measure_that_is_not_limited_is_not_counted(desk: Desk) -> None:
    desk.limit("customer", 10, measure="tokens")
    assert allowed(desk.hold("a", "s", 100, measures={"steps": 50, "seconds": 50}))


def test_settling_counts_what_was_used_and_frees_the_rest(desk: Desk) -> None:
    desk.limit("customer", 10, measure="tokens")
    desk.limit("user:ana", 100)
    desk.hold("a", "s", 20, measures={"tokens": 8})
    assert (desk.counted("customer"), desk.counted("user:ana")) == ((0, 8), (0, 20))
    desk.settle("a", 15, measures={"tokens": 5})
    assert (desk.counted("customer"), desk.counted("user:ana")) == ((5, 0), (15, 0))


def test_a_measure_that_the_settlement_does_not_state_counts_as_held(desk: Desk) -> None:
    desk.limit("customer", 10, measure="tokens")
    desk.hold("a", "s", 1, measures={"tokens": 8, "steps": 1})
    desk.settle("a", 1, measures={"steps": 1})
    assert desk.counted("customer") == (8, 0)


def test_parts_count_as_they_come(desk: Desk) -> None:
    desk.limit("customer", 10, measure="tokens")
    desk.hold("a", "s", 5, measures={"tokens": 8})
    desk.settle("a", 2, part=1, measures={"tokens": 3})
    assert desk.counted("customer") == (3, 5)
    desk.settle("a", 1, measures={"tokens": 1})
    assert desk.counted("customer") == (4, 0)


@pytest.mark.parametrize("end", ["release", "lapse"])
def test_what_is_given_back_is_not_counted(desk: Desk, end: str) -> None:
    desk.open("free", on_unknown="release")
    desk.limit("customer", 1, measure="steps")
    desk.hold("a", "free", 1)
    getattr(desk, end)("a")
    assert desk.counted("customer") == (0, 0)
    assert allowed(desk.hold("b", "free", 1))


def test_a_soft_limit_counts_and_refuses_nothing(desk: Desk) -> None:
    desk.limit("customer", 5, mode="soft")
    assert allowed(desk.hold("a", "s", 9))
    assert desk.counted("customer") == (0, 9)
    decision = desk.send(c.Explain(hold("x", "s", 1)))
    (row,) = [one for one in decision.constraints if one.kind == "limit"]
    assert (row.allowed, row.mode, row.remaining.nano) == (True, "soft", -4)
    desk.limit("customer", 5, mode="hard")
    assert reason(desk.hold("b", "s", 1)) == "limit"


def test_an_overrun_is_counted_past_the_limit_and_refuses_what_follows(desk: Desk) -> None:
    """L3 and L11: a declared overrun passes the limit, no hold does."""
    desk.limit("customer", 10)
    desk.hold("a", "s", 10)
    desk.settle("a", 25)
    assert desk.counted("customer") == (25, 0)
    assert reason(desk.hold("b", "s", 1)) == "limit"


# --- where and for whom ---------------------------------------------------------------------------------------------------


def test_a_pattern_counts_each_entity_of_the_type_by_itself(desk: Desk) -> None:
    desk.limit("user:*", 10)
    assert allowed(desk.hold("a", "s", 10))
    assert failing(desk.hold("b", "s", 1)) == [("limit", "user:ana")]
    assert allowed(desk.hold("c", "t", 10))
    assert {view.entity: view.held for view in desk.limits()} == {"user:ana": 10, "user:bob": 10}


def test_a_pattern_covers_sessions_and_entities_that_come_later(desk: Desk) -> None:
    desk.limit("session:*", 5)
    desk.limit("user:*", 7)
    desk.send(c.PutEntity("user:new"))
    desk.open("later", entities=("user:new",))
    assert failing(desk.hold("a", "later", 6)) == [("limit", "session:later")]
    assert allowed(desk.hold("b", "later", 5))
    assert failing(desk.hold("c", "later", 3)) == [("limit", "user:new"), ("limit", "session:later")]


def test_a_limit_of_a_team_counts_everybody_below_it(desk: Desk) -> None:
    desk.limit("team:eng", 10)
    assert allowed(desk.hold("a", "s", 6))
    assert failing(desk.hold("b", "t", 5)) == [("limit", "team:eng")]


def test_a_scoped_limit_counts_only_what_it_covers(desk: Desk) -> None:
    desk.limit("customer", 5, scope=Scope(models=("gpt-*",)))
    assert allowed(desk.hold("a", "s", 50, model="claude"))
    assert allowed(desk.hold("b", "s", 5, model="gpt-5"))
    assert reason(desk.hold("c", "s", 1, model="gpt-5-mini")) == "limit"
    assert allowed(desk.hold("d", "s", 50, kind="tool", tool="gpt-tool"))
    (view,) = desk.limits()
    assert (view.held, view.scope) == (5, '{"models":["gpt-*"]}')


def test_limits_that_differ_in_window_measure_or_scope_stand_beside_each_other(desk: Desk) -> None:
    desk.limit("customer", 100, window="month")
    desk.limit("customer", 10, window="day")
    desk.limit("customer", 3, measure="steps", window="day")
    desk.limit("customer", 5, scope=Scope(kinds=("tool",)))
    assert len(desk.limits()) == 4
    desk.limit("customer", 20, window="day")
    assert sorted(view.limit for view in desk.limits()) == [3, 5, 20, 100]


def test_a_session_itself_can_be_limited_while_it_is_open(desk: Desk) -> None:
    desk.limit("session:s", 2, measure="steps")
    desk.spend("a", "s", 1)
    desk.spend("b", "s", 1)
    assert reason(desk.hold("c", "s", 1)) == "limit"
    desk.send(c.CloseSession("s"))
    with pytest.raises(InvalidRequest):
        desk.limit("session:s", 5, measure="steps")


def test_an_entity_that_moves_is_under_the_limits_of_its_new_place(desk: Desk) -> None:
    desk.send(c.PutEntity("team:ops"))
    desk.limit("team:ops", 5)
    assert allowed(desk.hold("a", "s", 6))
    desk.send(c.PutEntity("user:ana", "team:ops"))
    assert failing(desk.hold("b", "s", 6)) == [("limit", "team:ops")]


# --- the same limit by every route ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["admin", "plan", "entity type"])
def test_the_same_limit_by_any_route_gives_the_same_decision(route: str) -> None:
    """LiteLLM #26672: a budget through a shared template was not applied."""
    terms = LimitTerms("user:*", 10, window="day")
    if route == "admin":
        desk = rich()
        desk.limit("user:*", 10, window="day")
    elif route == "plan":
        desk = rich(terms)
    else:
        desk = rich(entity_types=(EntityTypeTerms("user", limits=(replace(terms, entity="any"),)),))
    assert allowed(desk.hold("a", "s", 8))
    refused = desk.hold("b", "s", 3)
    (row,) = [one for one in refused.constraints if one.kind == "limit"]  # type: ignore[union-attr]
    assert (row.entity, row.allowed, row.limit.nano, row.held.nano, row.window) == ("user:ana", False, 10, 8, "day")
    assert refused.retry_at_us == START + DAY  # type: ignore[union-attr]


# --- changing limits --------------------------------------------------------------------------------------------------------


def test_a_removed_limit_goes_on_counting(desk: Desk) -> None:
    desk.limit("customer", 10)
    desk.spend("a", "s", 6)
    desk.limit("customer", None)
    desk.spend("b", "s", 6)
    assert desk.limits()[0].limit is None
    desk.limit("customer", 15)
    assert desk.counted("customer") == (12, 0)
    assert reason(desk.hold("c", "s", 4)) == "limit"


def test_a_new_limit_counts_from_the_moment_it_is_set(desk: Desk) -> None:
    desk.hold("before", "s", 50)
    desk.limit("customer", 10)
    assert desk.counted("customer") == (0, 0)
    assert allowed(desk.hold("after", "s", 10))
    desk.settle("before", 50)
    assert desk.counted("customer") == (0, 10)


def test_a_limit_lowered_below_what_is_used_refuses_new_holds_only(desk: Desk) -> None:
    """peers §6.30: what is held or settled stands."""
    desk.limit("customer", 100)
    desk.spend("a", "s", 40)
    desk.hold("b", "s", 40)
    desk.limit("customer", 10)
    assert reason(desk.hold("c", "s", 1)) == "limit"
    assert desk.settle("b", 45).state == "settled"
    desk.limit("customer", 86)
    assert allowed(desk.hold("d", "s", 1))


def test_setting_a_limit_as_it_is_writes_nothing(desk: Desk) -> None:
    desk.limit("customer", 10)
    entries = len(desk.entries)
    assert desk.send(c.SetLimit("customer", 10)).changed is False
    assert desk.send(c.SetLimit("team:eng", None)).changed is False
    assert len(desk.entries) == entries


def test_a_plan_change_keeps_what_was_counted_there_and_back() -> None:
    day = LimitTerms("customer", 10, window="day")
    desk = rich(day)
    desk.spend("a", "s", 6)
    desk.send(c.AssignPlan(replace(PREPAID, plan="none")))
    desk.spend("b", "s", 6)
    desk.send(c.AssignPlan(replace(PREPAID, plan="big", limits=(replace(day, amount=14),))))
    assert desk.counted("customer") == (12, 0)
    assert reason(desk.hold("c", "s", 3)) == "limit"
    assert allowed(desk.hold("d", "s", 2))


def test_a_plan_change_leaves_the_limits_of_administrators_alone(desk: Desk) -> None:
    desk.limit("customer", 10)
    desk.send(c.AssignPlan(replace(PREPAID, plan="big", limits=(LimitTerms("customer", 10**6),))))
    assert failing(desk.hold("a", "s", 11)) == [("limit", "customer")]
    assert len(desk.limits()) == 2


def test_a_plan_of_another_cycle_and_back_is_no_way_round_a_limit() -> None:
    """L3: the month that was used up is still used up after a visit to a plan with anchored months."""
    calendar = replace(PREPAID, limits=(LimitTerms("customer", 10, window="month"),))
    anchored = replace(calendar, plan="anchored", cycle="anchored")
    desk = Desk(calendar, anchor_us=START + 14 * DAY, now_us=START + 20 * DAY)
    desk.grant("g", 1_000)
    desk.open("s")
    desk.spend("a", "s", 10)
    for round_trip in range(2):
        desk.send(c.AssignPlan(anchored))
        desk.hold(f"visit{round_trip}", "s", 10)
        desk.send(c.AssignPlan(calendar))
        assert reason(desk.hold(f"back{round_trip}", "s", 1)) == "limit"


# --- windows ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "length"), [("hour", HOUR), ("day", DAY), ("week", 4 * DAY), ("month", 31 * DAY)])
def test_a_window_that_turns_counts_anew(desk: Desk, window: str, length: int) -> None:
    desk.limit("customer", 10, window=window)
    desk.spend("a", "s", 10)
    refused = desk.hold("b", "s", 1)
    assert (reason(refused), refused.retry_at_us) == ("limit", START + length)  # type: ignore[union-attr]
    desk.now_us = START + length - 1
    assert reason(desk.hold("c", "s", 1)) == "limit"
    desk.wait(1)
    assert desk.counted("customer") == (0, 0)
    assert allowed(desk.hold("d", "s", 10))


def test_a_hold_settles_in_the_window_in_which_it_was_opened(desk: Desk) -> None:
    desk.limit("customer", 10, window="day")
    desk.hold("old", "s", 8)
    desk.wait(DAY)
    assert desk.counted("customer") == (0, 0)
    desk.hold("new", "s", 4)
    desk.settle("old", 9)
    assert desk.counted("customer") == (0, 4)
    assert allowed(desk.hold("more", "s", 6))


def test_a_lifetime_limit_never_resets(desk: Desk) -> None:
    desk.limit("customer", 10)
    desk.spend("a", "s", 10)
    desk.wait(4_000 * DAY)
    desk.open("u")
    refused = desk.hold("b", "u", 1)
    assert (reason(refused), refused.retry_at_us) == ("limit", None)  # type: ignore[union-attr]


def test_the_day_of_the_customer_is_the_day_of_its_zone() -> None:
    desk = Desk(zone="America/New_York")
    desk.grant("g", 100)
    desk.open("s")
    desk.limit("customer", 10, window="day")
    desk.spend("a", "s", 10)
    desk.now_us = START + 5 * HOUR - SECOND
    assert reason(desk.hold("b", "s", 1)) == "limit"
    desk.now_us = START + 5 * HOUR
    assert allowed(desk.hold("c", "s", 10))


def test_windows_long_over_are_forgotten_but_not_those_with_open_holds(desk: Desk) -> None:
    desk.limit("customer", 10, window="hour")
    desk.hold("open", "s", 5)
    desk.wait(50 * HOUR)
    desk.spend("later", "s", 1)
    assert not allowed(desk.send(c.ExtendHold("open", 1, 6))), "what its window counted must still be known"
    assert desk.settle("open", 5).charged == 5
    sizes = []
    for number in range(40):
        desk.wait(HOUR)
        desk.spend(f"a{number}", "s", 1)
        sizes.append(len(desk.account.snapshot()))
    assert sizes[-1] - sizes[5] < 16


def test_more_of_a_hold_counts_in_the_window_it_was_opened_in_and_is_judged_there(desk: Desk) -> None:
    """L3: after its window has turned, a hold cannot grow past what that window allowed."""
    desk.limit("customer", 10, window="hour")
    desk.hold("h", "s", 10)
    desk.wait(HOUR)
    assert all(not allowed(desk.send(c.ExtendHold("h", part, 10))) for part in range(3))
    assert allowed(desk.hold("fresh", "s", 10))


def test_a_sessions_own_limits_go_with_it(desk: Desk) -> None:
    size = len(desk.account.snapshot())
    for number in range(20):
        desk.open(f"x{number}")
        desk.limit(f"session:x{number}", 5, measure="steps")
        desk.hold(f"h{number}", f"x{number}", 1)
        desk.lapse(f"h{number}")
        desk.send(c.CloseSession(f"x{number}"))
        desk.settle(f"h{number}", 2)
    assert len(desk.account.snapshot()) - size < 64


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from((0, 0, HOUR, 5 * HOUR, DAY))), max_size=12))
def test_used_and_held_of_a_window_never_pass_a_hard_limit(steps: list[tuple[int, int]]) -> None:
    """L3 at every instant, over windows that turn."""
    desk = rich(LimitTerms("customer", 12, window="day"), LimitTerms("user:*", 9, window="hour"))
    for number, (amount, wait_us) in enumerate(steps):
        desk.hold(f"h{number}", "s", amount)
        if number % 3 == 0 and f"h{number}" in desk.open_holds():
            desk.settle(f"h{number}", amount // 2)
        desk.wait(wait_us)
        assert all(view.used + view.held <= view.limit for view in desk.limits())  # type: ignore[operator]
