"""All levels bind (law L12): a step runs if each level allows it alone, and a refused one leaves no trace on any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.account import commands as c
from tests.account.desk import Desk, allowed, failing

LEVELS = ("customer", "team:eng", "user:ana", "agent:r", "session:parent", "session:child")
PLENTY = 1_000


def tree(caps: dict[str, int], *, budget: int = PLENTY, credits: int = PLENTY, carve: int | None = None) -> Desk:
    """Six levels with a cap on each of ``caps``, a session budget and a wallet."""
    desk = Desk()
    desk.grant("g", credits)
    desk.send(c.PutEntity("team:eng"))
    desk.send(c.PutEntity("user:ana", "team:eng"))
    desk.send(c.PutEntity("agent:r", "user:ana"))
    desk.open("parent", budget=budget, entities=("user:ana",))
    desk.open("child", parent="parent", budget=carve, entities=("agent:r",))
    for entity, amount in caps.items():
        desk.limit(entity, amount)
    return desk


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_alone_refuses(level: str) -> None:
    """LiteLLM #11962: a team's key skipped the user's budget."""
    desk = tree(dict.fromkeys(LEVELS, PLENTY) | {level: 4})
    assert failing(desk.hold("a", "child", 5)) == [("limit", level)]
    assert allowed(desk.hold("b", "child", 4))


@given(st.lists(st.integers(0, 12), min_size=len(LEVELS), max_size=len(LEVELS)), st.integers(0, 12), st.integers(0, 12),
       st.integers(0, 14))  # fmt: skip
def test_allowed_is_exactly_that_every_level_allows(caps: list[int], budget: int, credits: int, amount: int) -> None:
    if not credits:
        credits = 1
    desk = tree(dict(zip(LEVELS, caps, strict=True)), budget=budget, credits=credits)
    answer = desk.hold("a", "child", amount)
    due = {("limit", level) for level, cap in zip(LEVELS, caps, strict=True) if amount > cap}
    due |= {("session_budget", "session:parent")} if amount > budget else set()
    due |= {("insufficient_credits", "customer")} if amount > credits else set()
    assert allowed(answer) == (not due)
    assert not due or set(failing(answer)) == due


@given(st.integers(0, len(LEVELS) - 1), st.integers(1, 9))
def test_a_refused_step_leaves_no_trace_on_any_level(binding: int, amount: int) -> None:
    """peers §6.31. The desk compares the whole state to the byte; this looks at every level as readers do."""
    desk = tree(dict.fromkeys(LEVELS, PLENTY) | {LEVELS[binding]: amount - 1})
    before = (desk.limits(), desk.balance, desk.session("parent").spent, desk.session("child").steps, len(desk.entries))
    for attempt in range(5):
        assert not allowed(desk.hold(f"a{attempt}", "child", amount))
    assert before == (
        desk.limits(), desk.balance, desk.session("parent").spent, desk.session("child").steps, len(desk.entries),
    )  # fmt: skip


def test_an_allowed_step_counts_once_on_every_level() -> None:
    desk = tree(dict.fromkeys(LEVELS, PLENTY), carve=50)
    desk.hold("a", "child", 7)
    assert {view.entity: (view.used, view.held) for view in desk.limits()} == dict.fromkeys(LEVELS, (0, 7))
    desk.settle("a", 5)
    assert {view.entity: (view.used, view.held) for view in desk.limits()} == dict.fromkeys(LEVELS, (5, 0))


def test_an_entity_named_twice_or_reached_by_two_paths_counts_once() -> None:
    desk = tree({"team:eng": 10, "customer": 10})
    desk.send(c.PutEntity("user:bob", "team:eng"))
    desk.open("both", entities=("user:ana", "user:bob", "user:ana", "customer"))
    desk.hold("a", "both", 6)
    assert {view.entity: view.held for view in desk.limits()} == {"team:eng": 6, "customer": 6}


def test_parallel_holds_see_each_other_before_any_has_settled() -> None:
    """agent-os #823, nucleus #1179, LiteLLM #40095: check first and record later lets all of them through."""
    desk = tree({"user:ana": 20})
    answers = [desk.hold(f"h{n}", "child", 1) for n in range(64)]
    assert [allowed(answer) for answer in answers] == [True] * 20 + [False] * 44


def test_a_refused_step_in_the_middle_does_not_hold_back_smaller_ones() -> None:
    """peers §6.5: parallel tool calls; those that fit run, in call order."""
    desk = tree({"customer": 10})
    assert [allowed(desk.hold(f"h{n}", "child", amount)) for n, amount in enumerate((4, 7, 3, 4, 3))] == [
        True, False, True, False, True,
    ]  # fmt: skip
