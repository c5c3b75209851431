"""A refusal that helps: the binding constraint, what is left, when it resets, what would fit; and explain says the same."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account.account import MAX_NOTES
from agentbudget.account.decision import Decision, Held, refusal_of_customer
from agentbudget.amounts import Credits
from agentbudget.catalog.terms import Breaker, Scope
from tests.account.desk import DAY, HOUR, POSTPAID, PREPAID, START, Desk, allowed, failing, hold


def nano(units: int) -> Credits:
    return Credits.of_nano(units)


@pytest.fixture
def desk() -> Desk:
    """20 in the wallet, 10 a session, 8 a day for ana, 6 an hour for the team."""
    desk = Desk()
    desk.grant("g", 20)
    desk.send(c.PutEntity("team:eng"))
    desk.send(c.PutEntity("user:ana", "team:eng"))
    desk.open("s", budget=10, entities=("user:ana",))
    desk.limit("user:ana", 8, window="day")
    desk.limit("team:eng", 6, window="hour")
    return desk


def refused(desk: Desk, amount: int, session: str = "s") -> Decision:
    answer = desk.hold("x", session, amount)
    assert isinstance(answer, Decision)
    return answer


def test_a_decision_lists_every_constraint_in_order(desk: Desk) -> None:
    decision = refused(desk, 30)
    assert [(row.kind, row.entity, row.allowed) for row in decision.constraints] == [
        ("session_budget", "session:s", False), ("limit", "team:eng", False), ("limit", "user:ana", False),
        ("insufficient_credits", "customer", False),
    ]  # fmt: skip


def test_the_binding_one_is_what_has_the_least_left(desk: Desk) -> None:
    desk.spend("a", "s", 3)
    decision = refused(desk, 4)
    binding = decision.binding
    assert binding is not None
    assert (decision.reason, binding.entity, binding.window) == ("limit", "team:eng", "hour")
    assert (binding.limit, binding.used, binding.held, binding.remaining, binding.need) == (
        nano(6), nano(3), nano(0), nano(3), nano(4),
    )  # fmt: skip
    assert decision.retry_at_us == binding.resets_at_us == START + HOUR
    assert decision.need == nano(4)
    assert decision.session == "s"


def test_what_would_fit_is_the_least_of_all_that_is_left(desk: Desk) -> None:
    desk.spend("a", "s", 3)
    decision = refused(desk, 4)
    assert decision.affordable.amount == nano(3)
    assert decision.suggestions == (
        "a step of at most 0.000000003 credits would fit now", "raise the limit of team:eng", "wait for the next hour",
    )  # fmt: skip
    assert str(decision).startswith("refused (limit): team:eng has 0.000000003 credits left per hour, the step needs")


def test_a_gate_without_an_amount_binds_before_any_amount(desk: Desk) -> None:
    desk.pause("team:eng")
    decision = refused(desk, 30)
    assert decision.reason == "paused"
    assert decision.affordable.amount == nano(0)
    assert decision.suggestions == ("resume team:eng",)
    assert decision.retry_at_us is None


def test_no_credits_help_where_steps_have_run_out(desk: Desk) -> None:
    desk.limit("customer", 0, measure="steps", window="day")
    decision = refused(desk, 1)
    assert (decision.reason, decision.affordable.amount, decision.retry_at_us) == ("limit", nano(0), START + DAY)
    assert decision.binding is not None
    assert (decision.binding.remaining, decision.binding.need) == (0, 1)
    assert not any("would fit" in one for one in decision.suggestions)


@pytest.mark.parametrize(
    ("change", "suggestion"),
    [
        (c.SetPaused("user:ana", True), "resume user:ana"), (c.Latch("s", "stop"), "resume or fund session:s"),
        (c.VoidGrant("g"), "grant credits to the wallet"), (c.CloseSession("s"), "open another session"),
        (c.AssignPlan(replace(PREPAID, plan="p", models=("mini",))), "assign a plan that includes it"),
        (c.SetLimit("user:ana", 0, window="day"), "raise the limit of user:ana"),
    ],
    ids=["paused", "stopped", "no credits", "closed", "model", "limit"],
)  # fmt: skip
def test_a_refusal_says_what_would_unblock_it(desk: Desk, change: c.Command, suggestion: str) -> None:
    desk.hold("keeps the closed session known", "s", 0)
    desk.send(change)
    assert any(one.startswith(suggestion) for one in refused(desk, 1).suggestions)


def test_the_share_kept_for_winding_down_is_not_affordable() -> None:
    desk = Desk()
    desk.grant("g", 100)
    desk.open("s", budget=10, wind_down=4)
    assert refused(desk, 7).affordable.amount == nano(6)


def test_a_carve_out_counts_as_affordable_though_the_parent_has_nothing_left() -> None:
    desk = Desk()
    desk.grant("g", 100)
    desk.open("p", budget=10)
    desk.open("k", parent="p", budget=5)
    desk.spend("a", "p", 5)
    desk.spend("b", "k", 3)
    assert refused(desk, 4, "k").affordable.amount == nano(2)
    assert allowed(desk.hold("fits", "k", 2))


@given(
    st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(0, 6), st.integers(0, 6),
    st.sampled_from((PREPAID, replace(POSTPAID, credit_line=5), POSTPAID)),
)  # fmt: skip
def test_what_a_refusal_calls_affordable_fits_and_nothing_more(
    parent: int, own: int, limit: int, credits: int, before: int, above: int, terms: object
) -> None:
    """The promise of ``affordable``: a step of that size runs, one nanocredit more does not."""
    desk = Desk(terms)  # type: ignore[arg-type]
    desk.grant("g", credits)
    desk.open("p", budget=parent)
    desk.open("k", parent="p", budget=min(own, parent))
    desk.limit("session:k", limit)
    desk.hold("b", "k", before)
    desk.hold("a", "p", above)
    answer = desk.hold("x", "k", 40)
    assert isinstance(answer, Decision)
    fits = answer.affordable.amount.nano
    assert not allowed(desk.hold("more", "k", fits + 1))
    assert allowed(desk.hold("fits", "k", fits))


# --- explain -----------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 12), st.sampled_from(("llm", "tool")), st.booleans(), st.booleans(), st.integers(0, 3))
def test_explain_answers_what_hold_would_and_holds_nothing(
    amount: int, kind: str, paused: bool, wind_down: bool, spent: int
) -> None:
    desk = Desk(replace(PREPAID, breaker=Breaker(max_step_cost=9)))
    desk.grant("tools", 5, scope=Scope(kinds=("tool",)), priority=1)
    desk.grant("g", 6)
    desk.open("s", budget=10, wind_down=2)
    desk.limit("customer", 8)
    desk.spend("a", "s", spent)
    if paused:
        desk.pause("customer")
    command = hold("x", "s", amount, kind=kind, wind_down=wind_down)
    before = desk.account.snapshot()
    explained = desk.send(c.Explain(command))
    assert desk.account.snapshot() == before
    assert desk.session("s").denials == 0
    answer = desk.send(command)
    if isinstance(answer, Held):
        assert explained.allowed
        assert tuple((grant, part.nano) for grant, part in explained.grants) == answer.slices
        assert explained.reason is None
        assert (explained.suggestions, explained.binding) == ((), None)
    else:
        assert explained == answer


def test_explain_outside_any_session_follows_the_entities(desk: Desk) -> None:
    explain = c.Explain(hold("x", "", 7), entities=("user:ana",))
    decision = desk.send(explain)
    assert failing(decision) == [("limit", "team:eng")]
    assert desk.send(replace(explain, entities=())).allowed
    assert desk.send(replace(explain, entities=("customer",))).grants == (("g", nano(7)),)
    unknown = desk.send(replace(explain, entities=("user:ana", "user:no")))
    assert (unknown.reason, unknown.constraints[0].entity) == ("unknown_entity", "user:no")


def test_explain_outside_a_session_knows_the_workflow(desk: Desk) -> None:
    desk.grant("nightly", 50, scope=Scope(workflows=("nightly",)), priority=1)
    explain = c.Explain(hold("x", "", 5), workflow="nightly")
    assert desk.send(explain).grants == (("nightly", nano(5)),)


# --- decisions as values -------------------------------------------------------------------------------------------------------


def test_decisions_pickle(desk: Desk) -> None:
    for decision in (refused(desk, 30), desk.send(c.Explain(hold("x", "s", 1))), refusal_of_customer("acme")):
        assert pickle.loads(pickle.dumps(decision)) == decision
        assert str(decision)


def test_refusals_are_noted_once_with_their_count_and_never_in_the_journal(desk: Desk) -> None:
    entries = len(desk.entries)
    for _ in range(3):
        refused(desk, 7)
    desk.hold("probe", "s", 7, note_refusal=False)
    desk.send(c.Explain(hold("x", "s", 7)))
    (note,) = desk.account.denial_notes()
    assert (note.customer, note.session, note.reason, note.kind, note.name, note.count) == (
        "acme", "s", "limit", "llm", "gpt-5", 3,
    )  # fmt: skip
    assert note.entity == "team:eng"
    assert desk.account.denial_notes() == []
    assert len(desk.entries) == entries


def test_notes_are_bounded(desk: Desk) -> None:
    for number in range(MAX_NOTES + 20):
        command = hold("x", "s", 7, model=f"gpt-{number}")
        desk.account.handle(command, now_us=desk.now_us, hits={})
    assert len(desk.account.denial_notes()) == MAX_NOTES


def test_times_of_a_decision_are_told_in_utc() -> None:
    desk = Desk()
    desk.grant("g", 100)
    desk.open("s")
    desk.limit("customer", 1, window="day")
    refused = desk.hold("h", "s", 2)
    tomorrow = datetime(2026, 1, 2, tzinfo=UTC)
    assert (refused.retry_at, refused.binding.resets_at, refused.age) == (tomorrow, tomorrow, timedelta(0))
    desk.limit("customer", 1, window="lifetime")
    assert all(c.resets_at is None for c in desk.hold("h", "s", 2).constraints if c.window == "lifetime")
