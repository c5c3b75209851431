"""Sessions: opened once, joined by the same terms, funded, latched, closed, forgotten (laws L4 and L5)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account.decision import Opened
from agentbudget.account.sessions import MAX_DEPTH
from agentbudget.catalog.terms import Breaker, EntityTypeTerms, LimitTerms
from agentbudget.errors import InvalidRequest, KeyConflict
from tests.account.desk import DAY, HOUR, MINUTE, PREPAID, Desk, allowed, failing, hold, reason


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.grant("g", 10**6)
    desk.send(c.PutEntity("user:ana"))
    return desk


STATED = {
    "budget": 10, "wind_down": 2, "entities": ("user:ana",), "feature": "f", "workflow": "w", "breaker": Breaker(max_steps=9),
    "on_unknown": "release", "on_denied": "stop",
}  # fmt: skip
OTHERS = {
    "budget": 11, "wind_down": 1, "entities": (), "feature": "g", "workflow": "v", "breaker": Breaker(), "on_unknown": "charge",
    "on_denied": "abort",
}  # fmt: skip


# --- open and join ---------------------------------------------------------------------------------------------------------


def test_opening_an_open_session_again_joins_it(desk: Desk) -> None:
    assert desk.open("s", **STATED) == Opened(("s",))
    assert desk.open("s", **STATED) == Opened(("s",), joined=True)
    assert desk.open("s") == Opened(("s",), joined=True), "what is not stated is not compared"
    assert len(desk.read("sessions")) == 1


@pytest.mark.parametrize("field", sorted(STATED))
def test_joining_with_another_value_is_a_conflict(desk: Desk, field: str) -> None:
    desk.open("s", **STATED)
    assert desk.open("s", **{field: STATED[field]}) == Opened(("s",), joined=True)
    with pytest.raises(KeyConflict, match=field):
        desk.open("s", **{field: OTHERS[field]})


def test_a_funded_session_is_still_joined_by_what_created_it(desk: Desk) -> None:
    desk.open("s", budget=5)
    desk.send(c.FundSession("s", 3))
    assert desk.open("s", budget=5) == Opened(("s",), joined=True)
    with pytest.raises(KeyConflict, match="budget"):
        desk.open("s", budget=8)


def test_a_closed_id_is_refused_for_ever(desk: Desk) -> None:
    desk.open("s", budget=5)
    desk.send(c.CloseSession("s"))
    for _ in range(2):
        assert reason(desk.open("s", budget=5)) == "session_closed"
        assert reason(desk.hold("h", "s", 1)) == "session_closed"
        desk.wait(400 * DAY)


def test_a_step_of_a_session_nobody_opened_is_refused(desk: Desk) -> None:
    assert reason(desk.hold("h", "nobody", 1)) == "session_closed"
    assert reason(desk.send(c.Explain(hold("h", "nobody", 1)))) == "session_closed"
    assert reason(desk.send(c.FundSession("nobody", 1))) == "session_closed"
    with pytest.raises(InvalidRequest):
        desk.session("nobody")


def test_a_session_of_an_unknown_entity_is_refused_and_says_how_to_create_it(desk: Desk) -> None:
    refused = desk.open("s", entities=("user:ana", "user:no"))
    assert reason(refused) == "unknown_entity"
    assert "user:no" in str(refused)
    assert "create it" in str(refused)
    assert desk.open("s", entities=("user:ana",)) == Opened(("s",))


def test_an_entity_of_an_automatic_type_is_created_with_its_limits() -> None:
    desk = Desk(
        replace(
            PREPAID,
            entity_types=(
                EntityTypeTerms("agent", auto=True, parent="team:eng", limits=(LimitTerms("x", 3, measure="steps"),)),
            ),
        )
    )
    desk.grant("g", 100)
    desk.send(c.PutEntity("team:eng"))
    desk.open("s", entities=("agent:new",))
    assert {view.id: view.parent for view in desk.read("entities")}["agent:new"] == "team:eng"
    for number in range(3):
        desk.spend(f"h{number}", "s", 1)
    assert failing(desk.hold("h", "s", 1)) == [("limit", "agent:new")]
    assert reason(desk.open("t", entities=("agent:*",))) == "unknown_entity"


def test_an_automatic_entity_whose_parent_is_missing_hangs_below_the_customer() -> None:
    desk = Desk(replace(PREPAID, entity_types=(EntityTypeTerms("agent", auto=True, parent="team:gone"),)))
    desk.open("s", entities=("agent:a", "agent:a"))
    assert desk.read("entities")[1].parent == c.ROOT


# --- the budget -------------------------------------------------------------------------------------------------------------


def test_the_budget_counts_what_is_spent_and_held(desk: Desk) -> None:
    desk.open("s", budget=10)
    desk.spend("a", "s", 4)
    desk.hold("b", "s", 4)
    view = desk.session("s")
    assert (view.spent, view.held, view.remaining, view.steps) == (4, 4, 2, 2)
    assert failing(desk.hold("c", "s", 3)) == [("session_budget", "session:s")]
    desk.settle("b", 1)
    assert allowed(desk.hold("d", "s", 5))


def test_a_refusal_costs_nothing_and_stays_a_refusal(desk: Desk) -> None:
    """peers §6.2: an agent that swallows the refusal and tries again, 200 times."""
    desk.open("s", budget=5)
    desk.spend("a", "s", 5)
    for number in range(200):
        assert reason(desk.hold(f"again{number}", "s", 1)) == "session_budget"
    assert (desk.session("s").spent, desk.session("s").denials) == (5, 200)


def test_an_overrun_passes_the_budget_is_booked_and_stops_the_session(desk: Desk) -> None:
    desk.open("s", budget=10)
    desk.hold("a", "s", 10)
    desk.settle("a", 30)
    view = desk.session("s")
    assert (view.spent, view.remaining) == (30, -20)
    assert reason(desk.hold("b", "s", 1)) == "session_budget"


def test_a_share_is_kept_for_winding_down(desk: Desk) -> None:
    desk.open("s", budget=10, wind_down=3)
    assert allowed(desk.hold("a", "s", 7))
    assert reason(desk.hold("b", "s", 1)) == "session_budget"
    assert reason(desk.hold("c", "s", 4, wind_down=True)) == "session_budget"
    assert allowed(desk.hold("d", "s", 3, wind_down=True))


def test_funding_raises_the_budget_and_ends_a_latch(desk: Desk) -> None:
    desk.open("s", budget=5)
    desk.spend("a", "s", 5)
    desk.send(c.Latch("s", "refused"))
    assert (desk.session("s").state, desk.session("s").stopped_because) == ("stopped", "refused")
    assert reason(desk.hold("free", "s", 0)) == "circuit_open"
    desk.send(c.FundSession("s", 5))
    assert (desk.session("s").state, desk.session("s").budget) == ("open", 10)
    assert allowed(desk.hold("b", "s", 5))


def test_a_latch_ends_by_resuming_too(desk: Desk) -> None:
    desk.open("s")
    desk.send(c.Latch("s", "refused"))
    assert desk.send(c.Latch("s", "again")).changed is False
    assert desk.send(c.SetPaused("session:s", False)).changed is True
    assert allowed(desk.hold("a", "s", 1))


def test_a_session_without_a_budget_cannot_be_funded(desk: Desk) -> None:
    desk.open("s")
    with pytest.raises(InvalidRequest, match="no budget"):
        desk.send(c.FundSession("s", 1))


# --- the end ---------------------------------------------------------------------------------------------------------------


def test_closing_lets_open_holds_end_and_forgets_the_session_after_the_last(desk: Desk) -> None:
    desk.open("s", budget=10)
    desk.hold("a", "s", 3)
    desk.hold("b", "s", 3)
    desk.send(c.CloseSession("s"))
    assert desk.session("s").state == "closed"
    assert reason(desk.hold("c", "s", 1)) == "session_closed"
    assert reason(desk.send(c.ExtendHold("a", 1, 1))) == "session_closed"
    desk.settle("a", 5)
    assert desk.session("s").spent == 5
    desk.release("b")
    assert desk.read("sessions") == ()
    assert desk.send(c.CloseSession("s")).changed is False


def test_a_settlement_replayed_after_the_session_was_forgotten_answers_the_same(desk: Desk) -> None:
    desk.open("s")
    desk.hold("a", "s", 3)
    desk.send(c.CloseSession("s"))
    first = desk.settle("a", 2)
    assert desk.settle("a", 2) == first


def test_sessions_that_came_and_went_leave_nothing_behind(desk: Desk) -> None:
    """An account serves many runs: its size follows what is open, not what ever was."""
    desk.limit("session:*", 50, window="day")
    sizes = []
    for number in range(30):
        desk.open(f"run{number}", budget=10, entities=("user:ana",))
        desk.spend(f"h{number}", f"run{number}", 3)
        desk.send(c.CloseSession(f"run{number}"))
        sizes.append(len(desk.account.snapshot()))
    assert sizes[-1] - sizes[2] < 16


def test_a_session_nobody_touches_is_over_after_its_ttl(desk: Desk) -> None:
    desk.open("s", ttl_us=HOUR)
    desk.open("busy", ttl_us=HOUR)
    desk.wait(HOUR - 1)
    assert desk.account.overdue(desk.now_us, ()) == []
    desk.spend("a", "busy", 1)
    desk.wait(1)
    assert desk.account.overdue(desk.now_us, ()) == [c.CloseSession("s", "ttl")]
    for command in desk.account.overdue(desk.now_us, ()):
        desk.send(command)
    assert desk.account.overdue(desk.now_us, ()) == []
    assert reason(desk.open("s")) == "session_closed"


def test_a_session_with_open_holds_or_children_is_not_over(desk: Desk) -> None:
    desk.open("s", ttl_us=HOUR)
    desk.open("child", parent="s", ttl_us=3 * HOUR)
    desk.wait(2 * HOUR)
    assert desk.account.overdue(desk.now_us, ()) == []
    desk.hold("a", "child", 1, ttl_us=DAY)
    desk.wait(2 * HOUR)
    assert desk.account.overdue(desk.now_us, {"a"}) == [c.LapseHold("a", "max_seconds")]
    desk.settle("a", 1)
    desk.send(c.CloseSession("child"))
    assert desk.account.overdue(desk.now_us, ()) == [c.CloseSession("s", "ttl")]


def test_only_holds_of_silent_holders_lapse_until_the_longest_step_is_over(desk: Desk) -> None:
    """peers §6.18, §6.19: a ten-minute call keeps its hold while its process lives; a leaked one ends."""
    desk.open("s", max_step_us=10 * MINUTE)
    desk.hold("a", "s", 1, ttl_us=MINUTE)
    desk.wait(MINUTE)
    assert desk.account.overdue(desk.now_us, {"a"}) == []
    assert desk.account.overdue(desk.now_us, ()) == [c.LapseHold("a", "silent")]
    desk.wait(9 * MINUTE)
    assert desk.account.overdue(desk.now_us, {"a"}) == [c.LapseHold("a", "max_seconds")]


def test_idle_means_that_no_hold_is_open(desk: Desk) -> None:
    desk.open("s")
    assert desk.account.idle
    desk.hold("a", "s", 1)
    assert (desk.account.idle, desk.account.is_open("a")) == (False, True)
    desk.release("a")
    assert (desk.account.idle, desk.account.is_open("a")) == (True, False)


# --- bounds -----------------------------------------------------------------------------------------------------------------


def test_sessions_nest_only_so_deep(desk: Desk) -> None:
    desk.open("s1")
    for depth in range(2, MAX_DEPTH + 1):
        desk.open(f"s{depth}", parent=f"s{depth - 1}")
    with pytest.raises(InvalidRequest, match="deep"):
        desk.open("deeper", parent=f"s{MAX_DEPTH}")
    assert allowed(desk.hold("a", f"s{MAX_DEPTH}", 1))
    assert desk.session("s1").held == 1


def test_a_wind_down_may_not_be_more_than_the_budget(desk: Desk) -> None:
    for terms in ({"budget": 5, "wind_down": 6}, {"wind_down": 1}):
        with pytest.raises(InvalidRequest):
            desk.open("s", **terms)
