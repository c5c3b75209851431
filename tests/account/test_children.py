"""Child budgets are carved from the parent's: no sub-agent mints budget, nothing is counted twice, overrun passes up (L3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account.decision import Opened
from agentbudget.catalog.terms import EntityTypeTerms
from agentbudget.errors import InvalidRequest, KeyConflict
from tests.account.desk import PREPAID, Desk, allowed, failing, reason


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.grant("g", 10**6)
    desk.open("p", budget=20)
    return desk


def child(name: str, budget: int | None = None, **rest: object) -> c.OpenSession:
    return c.OpenSession(name, parent="p", budget=budget, **rest)  # type: ignore[arg-type]


# --- carving ----------------------------------------------------------------------------------------------------------------


def test_a_carve_out_is_set_aside_at_the_parent_only(desk: Desk) -> None:
    desk.send(child("a", 12))
    assert (desk.session("p").remaining, desk.session("p").spent, desk.session("p").held) == (8, 0, 0)
    assert desk.balance.held == 0
    assert reason(desk.hold("h", "p", 9)) == "session_budget"
    refused = desk.send(child("b", 9))
    assert (reason(refused), refused.affordable.amount.nano) == ("session_budget", 8)
    assert desk.send(child("b", 8)) == Opened(("b",))


def test_a_child_draws_on_its_carve_out_and_is_counted_once(desk: Desk) -> None:
    desk.send(child("a", 12))
    desk.hold("h", "a", 5)
    assert (desk.session("p").remaining, desk.session("p").held, desk.session("a").remaining) == (8, 5, 7)
    desk.settle("h", 4)
    assert (desk.session("p").remaining, desk.session("p").spent, desk.session("a").remaining) == (8, 4, 8)


def test_closing_a_child_gives_back_what_it_did_not_use(desk: Desk) -> None:
    desk.send(child("a", 12))
    desk.spend("h", "a", 5)
    desk.send(c.CloseSession("a"))
    assert (desk.session("p").remaining, desk.session("p").spent, desk.session("p").children) == (15, 5, ())


def test_a_hold_that_outlives_its_closed_child_stays_on_the_parent(desk: Desk) -> None:
    desk.send(child("a", 12))
    desk.hold("h", "a", 5)
    desk.send(c.CloseSession("a"))
    assert (desk.session("p").remaining, desk.session("p").held) == (15, 5)
    desk.settle("h", 9)
    assert (desk.session("p").remaining, desk.session("p").spent) == (11, 9)


def test_a_child_without_a_budget_draws_on_its_parent(desk: Desk) -> None:
    desk.send(child("a"))
    desk.spend("h", "a", 15)
    assert (desk.session("a").remaining, desk.session("p").remaining) == (None, 5)
    assert failing(desk.hold("i", "a", 6)) == [("session_budget", "session:p")]
    assert allowed(desk.hold("j", "p", 5))


def test_an_overrun_uses_up_the_carve_out_and_then_passes_up(desk: Desk) -> None:
    desk.send(child("a", 10))
    desk.hold("h", "a", 10)
    desk.settle("h", 14)
    assert (desk.session("a").remaining, desk.session("p").remaining, desk.session("p").spent) == (-4, 6, 14)
    desk.send(c.CloseSession("a"))
    assert desk.session("p").remaining == 6


def test_a_child_may_not_have_what_its_parent_keeps_for_winding_down() -> None:
    desk = Desk()
    desk.grant("g", 100)
    desk.open("p", budget=10, wind_down=4)
    assert reason(desk.send(child("a", 7))) == "session_budget"
    assert desk.send(child("a", 6)) == Opened(("a",))


def test_nested_agents_are_bound_by_the_outermost_budget() -> None:
    """peers §6.3: 5 x 4 x 20 calls, each sub-task with a fresh cap; the parent's budget binds."""
    desk = Desk()
    desk.grant("g", 10**6)
    desk.open("root", budget=37)
    ran = 0
    for outer in range(5):
        desk.open(f"o{outer}", parent="root")
        for inner in range(4):
            desk.open(f"i{outer}.{inner}", parent=f"o{outer}")
            for call in range(20):
                name = f"h{outer}.{inner}.{call}"
                if allowed(desk.hold(name, f"i{outer}.{inner}", 1)):
                    desk.settle(name, 1)
                    ran += 1
    assert ran == 37 == desk.session("root").spent


def test_a_childs_terms_are_its_parents_where_it_states_none() -> None:
    desk = Desk()
    desk.send(c.PutEntity("user:ana"))
    desk.open("p", feature="f", workflow="w", on_unknown="release", on_denied="stop", entities=("user:ana",))
    desk.send(child("a"))
    view = desk.session("a")
    assert (view.feature, view.workflow, view.on_unknown, view.on_denied) == ("f", "w", "release", "stop")
    desk.limit("user:ana", 0)
    assert ("limit", "user:ana") in failing(desk.hold("h", "a", 1))


def test_a_child_of_a_closed_or_unknown_parent_is_refused(desk: Desk) -> None:
    desk.send(c.CloseSession("p"))
    assert reason(desk.send(child("a", 1))) == "session_closed"
    assert reason(desk.send(c.OpenSession("b", parent="nobody"))) == "session_closed"


def test_closing_a_parent_closes_all_below(desk: Desk) -> None:
    """peers §6.4: orphans die with the session."""
    desk.send(child("a", 10))
    desk.open("b", parent="a", budget=5)
    desk.hold("h", "b", 3)
    desk.send(c.CloseSession("p"))
    assert reason(desk.hold("i", "b", 1)) == "session_closed"
    assert [view.id for view in desk.read("sessions")] == ["p", "a", "b"]
    desk.settle("h", 3)
    assert desk.read("sessions") == ()


def test_a_stopped_or_paused_parent_stops_its_children(desk: Desk) -> None:
    desk.send(child("a", 10))
    desk.send(c.Latch("p", "refused"))
    assert failing(desk.hold("h", "a", 1)) == [("circuit_open", "session:p")]
    desk.pause("session:p", False)
    desk.pause("session:p")
    assert failing(desk.hold("i", "a", 1)) == [("paused", "session:p")]
    desk.pause("session:p", False)
    assert allowed(desk.hold("j", "a", 1))


# --- funding a child --------------------------------------------------------------------------------------------------------


def test_funding_a_child_needs_room_at_its_parent(desk: Desk) -> None:
    desk.send(child("a", 15))
    assert reason(desk.send(c.FundSession("a", 6))) == "session_budget"
    desk.send(c.FundSession("a", 5))
    assert (desk.session("a").budget, desk.session("p").remaining) == (20, 0)


def test_funding_a_child_that_overran_needs_only_what_is_new_to_the_parent(desk: Desk) -> None:
    desk.send(child("a", 10))
    desk.hold("h", "a", 10)
    desk.settle("h", 18)
    assert desk.session("p").remaining == 2
    desk.send(c.FundSession("a", 9))
    assert (desk.session("a").budget, desk.session("a").remaining, desk.session("p").remaining) == (19, 1, 1)


# --- fan-out -----------------------------------------------------------------------------------------------------------------


def fan(count: int, budget: int, at_least: int) -> c.FanOut:
    return c.FanOut("p", tuple(child(f"f{n}", budget) for n in range(count)), at_least)


def test_a_fan_out_opens_all_that_fit_in_order(desk: Desk) -> None:
    answer = desk.send(fan(4, 6, 2))
    assert answer.sessions == ("f0", "f1", "f2")
    assert reason(answer.refused) == "session_budget"
    assert desk.session("p").remaining == 2


def test_a_fan_out_that_cannot_open_enough_opens_none(desk: Desk) -> None:
    """claude-code #68110, #72566: 361 agents; the sum of what children get never passes the parent's room."""
    refused = desk.send(fan(4, 6, 4))
    assert reason(refused) == "session_budget"
    assert (desk.session("p").remaining, desk.session("p").children) == (20, ())
    assert desk.send(fan(3, 6, 3)) == Opened(("f0", "f1", "f2"))


def test_a_fan_out_sent_again_answers_what_it_opened(desk: Desk) -> None:
    first = desk.send(fan(4, 6, 2))
    again = desk.send(fan(4, 6, 2))
    assert (again.sessions, again.joined) == (first.sessions, True)
    assert desk.session("p").remaining == 2


def test_a_fan_out_creates_an_entity_that_its_children_share_once() -> None:
    desk = Desk(replace(PREPAID, entity_types=(EntityTypeTerms("agent", auto=True),)))
    desk.open("p", budget=20)
    children = tuple(child(f"f{n}", 1, entities=("agent:x", f"agent:{n}")) for n in range(3))
    desk.send(c.FanOut("p", children, 3))
    assert [entry.kind for entry in desk.entries].count("entity_put") == 4


@pytest.mark.parametrize(
    "command",
    [
        fan(2, 6, 0), fan(2, 6, 3), c.FanOut("p", (), 0), c.FanOut("p", (child("a", 1), child("b")), 1),
        c.FanOut("p", (c.OpenSession("a", parent="other", budget=1),), 1), c.FanOut("p", (child("a", 1), child("a", 2)), 1),
    ],
    ids=["at least none", "at least more", "no children", "no budget", "another parent", "the same child twice"],
)  # fmt: skip
def test_a_fan_out_that_makes_no_sense_is_refused_as_such(desk: Desk, command: c.FanOut) -> None:
    with pytest.raises(InvalidRequest):
        desk.send(command)


def test_a_child_of_a_fan_out_can_be_joined_by_its_terms(desk: Desk) -> None:
    desk.send(fan(2, 6, 2))
    assert desk.send(child("f0", 6)) == Opened(("f0",), joined=True)
    with pytest.raises(KeyConflict):
        desk.send(child("f0", 7))


# --- the sum ------------------------------------------------------------------------------------------------------------------

moves = st.lists(
    st.tuples(
        st.sampled_from(("open", "hold", "hold", "settle", "release", "close", "fund")), st.integers(0, 3), st.integers(0, 14)
    ),
    max_size=30,
)  # fmt: skip


@given(moves)
def test_whatever_children_do_the_parent_has_room_for_all_of_it(steps: list[tuple[str, int, int]]) -> None:
    """L3: without overruns the parent's remaining is never negative, and is what the sum over children says."""
    desk = Desk()
    desk.grant("g", 10**6)
    desk.open("p", budget=30)
    for number, (move, which, amount) in enumerate(steps):
        holds = desk.open_holds()
        if move == "open":
            desk.send(
                child(f"c{which}", amount if amount < 12 else None)
            ) if f"session:c{which}" not in desk.index else None
        elif move == "hold":
            desk.hold(f"h{number}", f"c{which}" if which else "p", amount)
        elif move in ("settle", "release") and holds:
            step = holds[which % len(holds)]
            held = next(view.amount for view in desk.read("holds") if view.step == step)
            desk.release(step) if move == "release" else desk.settle(step, min(amount, held))
        elif move == "close":
            desk.send(c.CloseSession(f"c{which}"))
        elif move == "fund" and any(v.id == f"c{which}" and v.budget is not None for v in desk.read("sessions")):
            desk.send(c.FundSession(f"c{which}", amount + 1))
        _in_balance(desk)


def _in_balance(desk: Desk) -> None:
    views = {view.id: view for view in desk.read("sessions")}
    parent, children = views["p"], [view for view in views.values() if view.parent == "p"]
    own_holds = sum(view.amount for view in desk.read("holds", "p"))
    assert parent.held == own_holds + sum(view.held for view in children)
    assert parent.remaining is not None
    assert 0 <= parent.remaining <= 30 - parent.spent - parent.held
    carved = sum(
        max(0, view.budget - view.spent - view.held)
        for view in children
        if view.budget is not None and view.state != "closed"
    )
    assert parent.remaining == 30 - parent.spent - parent.held - carved
