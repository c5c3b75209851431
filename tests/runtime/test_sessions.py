"""Sessions: opening, joining, detaching, closing, funding, pausing; and the session that a thread or task is in."""

from __future__ import annotations

import asyncio
import threading

import pytest

import agentbudget
from agentbudget import Breaker, BudgetDenied, Credits, InvalidAmount, InvalidRequest, KeyConflict, Runtime
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.steps.current import require_session
from agentbudget.testing import ManualClock
from tests.runtime.support import is_sound, kinds, nothing_is_open


def denied(session: agentbudget.Session, **what: object) -> agentbudget.Decision:
    with pytest.raises(BudgetDenied) as refused:
        session.reserve("tool", name="search", **what)  # type: ignore[arg-type]
    assert refused.value.decision is not None
    return refused.value.decision


def test_a_session_spends_its_budget_and_no_more(runtime: Runtime, acme: Customer) -> None:
    """L3."""
    with acme.session(budget=1) as session:
        session.reserve("tool", name="search", amount="0.6").settle()
        decision = denied(session, amount="0.5")
        assert decision.reason == "session_budget"
        assert decision.affordable.amount == Credits("0.4")
        session.reserve("tool", name="search", amount="0.4").settle()
        status = session.status()
    assert (status.budget, status.spent, status.held, status.remaining) == (1, 1, 0, 0)
    assert (status.steps, status.denials, status.state) == (2, 1, "open")
    assert nothing_is_open(acme)
    assert is_sound(runtime)


def test_a_session_is_opened_by_its_first_use_only(bolt: Customer) -> None:
    session = bolt.session(budget=1)
    assert kinds(bolt) == ["customer_created"]
    session.reserve("tool", name="search").settle()
    session.reserve("tool", name="search").settle()
    assert kinds(bolt).count("session_opened") == 1


def test_leaving_with_closes_an_unnamed_session(bolt: Customer) -> None:
    with bolt.session(budget=1) as session:
        pass
    assert denied(session).reason == "session_closed"


def test_what_a_session_came_to_can_be_read_after_it_was_closed(bolt: Customer) -> None:
    with bolt.session(budget=2) as session:
        session.reserve("tool", name="search", amount="0.5").settle()
    status = session.status()
    assert (status.state, status.spent, status.remaining) == ("closed", Credits("0.5"), Credits("1.5"))
    session.close()
    assert session.status().spent == Credits("0.5")


def test_leaving_with_detaches_from_a_named_session_and_another_joins_it(bolt: Customer) -> None:
    with bolt.session(budget=1, id="run-7") as first:
        first.reserve("tool", name="search", amount="0.7").settle()
    with bolt.session(id="run-7") as second:
        assert second.status().spent == Credits("0.7")
        assert denied(second, amount="0.5").reason == "session_budget"
    second.close()
    with pytest.raises(BudgetDenied) as refused:
        bolt.session(id="run-7").open()
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "session_closed"


def test_two_objects_of_one_named_session_share_one_budget(bolt: Customer) -> None:
    one, other = bolt.session(budget=1, id="run-7"), bolt.session(budget=1, id="run-7")
    step = one.reserve("tool", name="search", amount="0.7")
    assert step.is_open
    assert denied(other, amount="0.7").reason == "session_budget"


def test_a_named_session_is_joined_after_a_restart(tmp_path: object, clock: ManualClock) -> None:
    """L1, L6."""
    url = f"sqlite:///{tmp_path}/budget.db"
    with Runtime.open(url, clock=clock) as runtime:
        acme = runtime.customers.create("acme")
        with acme.session(budget=1, id="run-7", on_denied="stop") as session:
            session.reserve("tool", name="search", amount="0.7").settle()
    with Runtime.open(url, clock=clock) as runtime, runtime.customer("acme").session(id="run-7") as session:
        assert session.status().spent == Credits("0.7")
        assert session.on_denied == "stop"  # chosen by its creator, and not stated here
        assert denied(session, amount="0.7").reason == "session_budget"
        assert session.status().state == "stopped"


@pytest.mark.parametrize(
    "other", [{"budget": 2}, {"entities": ["user:ana"]}, {"feature": "x"}, {"on_denied": "abort"}, {"wind_down": "0.5"}]
)
def test_joining_with_something_else_stated_is_a_conflict(bolt: Customer, other: dict[str, object]) -> None:
    """L4."""
    bolt.session(budget=1, id="run-7").open()
    with pytest.raises(KeyConflict):
        bolt.session(**{"budget": 1, "id": "run-7", **other}).open()  # type: ignore[arg-type]


def test_an_unknown_entity_or_customer_refuses_the_session(quick: Runtime, bolt: Customer) -> None:
    with pytest.raises(BudgetDenied) as refused:
        bolt.session(entities=["robot:x"]).open()
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "unknown_entity"
    with pytest.raises(BudgetDenied) as refused, quick.customer("nobody").session(budget=1):
        pass
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "unknown_customer"


@pytest.mark.parametrize(
    ("stated", "field"),
    [
        ({"on_denied": "explode"}, "on_denied"),
        ({"on_short": "guess"}, "on_short"),
        ({"on_unknown": "forget"}, "on_unknown"),
        ({"mode": "loose"}, "mode"),
        ({"estimate": "wild"}, "estimate"),
        ({"wind_down": "0.2"}, "wind_down"),
        ({"budget": 1, "wind_down": 1}, "wind_down"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"ttl": -1}, "ttl"),
        ({"max_step_seconds": 1.5}, "max_step_seconds"),
        ({"id": ""}, "id"),
        ({"entities": [""]}, "entities"),
    ],
)
def test_what_can_never_be_right_is_refused_by_name(bolt: Customer, stated: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bolt.session(**stated)  # type: ignore[arg-type]
    assert refused.value.field == field


@pytest.mark.parametrize("budget", ["NaN", "Infinity", -1, 10**30, "a lot", True])
def test_a_budget_that_is_no_amount_is_refused_by_name(bolt: Customer, budget: object) -> None:
    with pytest.raises(InvalidAmount):
        bolt.session(budget=budget)  # type: ignore[arg-type]


def test_a_misspelt_argument_is_a_type_error(bolt: Customer) -> None:
    with pytest.raises(TypeError, match="bugdet"):
        bolt.session(bugdet=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="modell"):
        bolt.session(budget=1).reserve("llm", modell="gpt-5")  # type: ignore[call-arg]


def test_funding_raises_the_budget_once_a_key(bolt: Customer) -> None:
    """L4."""
    with bolt.session(budget=1) as session:
        session.fund(2, key="more")
        session.fund(2, key="more")
        assert session.status().budget == 3


def test_pausing_refuses_steps_until_resumed(bolt: Customer) -> None:
    with bolt.session(budget=1) as session:
        session.pause("looking into it")
        assert denied(session).reason == "paused"
        session.resume()
        session.reserve("tool", name="search").settle()


def test_a_breaker_of_the_session_stops_a_tool_loop(bolt: Customer) -> None:
    with bolt.session(budget=1, breaker=Breaker(repeat=(3, 5))) as session:
        for _ in range(2):
            session.reserve("tool", name="search", arguments={"q": "same"}).settle()
        assert denied(session, arguments={"q": "same"}).reason == "circuit_open"


def test_the_share_kept_for_winding_down_is_only_for_steps_marked_so(bolt: Customer) -> None:
    with bolt.session(budget=10, wind_down="0.2") as session:
        session.reserve("tool", name="work", amount=8).settle()
        assert denied(session, amount=1).reason == "session_budget"
        session.reserve("tool", name="checkpoint", amount=2, wind_down=True).settle()
        assert session.status().spent == 10


def test_explaining_holds_and_counts_nothing(bolt: Customer) -> None:
    with bolt.session(budget=1) as session:
        before = kinds(bolt)
        assert session.explain("tool", name="search", amount="0.5").allowed
        refused = session.explain("tool", name="search", amount=2)
        assert (refused.allowed, refused.reason) == (False, "session_budget")
        assert session.status().denials == 0
        assert kinds(bolt) == before


def test_the_current_session_is_the_innermost_one(bolt: Customer) -> None:
    assert agentbudget.current_session() is None
    with bolt.session(budget=2) as outer:
        with outer.child(budget=1) as inner:
            assert agentbudget.current_session() is inner
        assert agentbudget.current_session() is outer
    assert agentbudget.current_session() is None


def test_without_a_session_a_step_is_refused_by_name() -> None:
    with pytest.raises(BudgetDenied) as refused:
        require_session()
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "no_session"


def test_tasks_see_their_own_current_session(bolt: Customer) -> None:
    async def one(name: str) -> bool:
        async with bolt.session(budget=1, id=name) as session:
            await asyncio.sleep(0)
            return agentbudget.current_session() is session

    async def both() -> list[bool]:
        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(both()) == [True, True]


def test_threads_may_share_a_session_object_and_open_it_at_once(acme: Customer) -> None:
    session = acme.session(budget=1)
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        session.reserve("tool", name="search", amount="0.1").settle()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.status().spent == Credits("0.8")
    assert kinds(acme).count("session_opened") == 1


def test_the_last_refusal_can_be_raised_after_a_framework_swallowed_it(bolt: Customer) -> None:
    with bolt.session(budget=1) as session:
        session.raise_if_denied()
        child = session.child(budget="0.5")
        denied(child, amount=3)
        with pytest.raises(BudgetDenied) as raised:
            session.raise_if_denied()
    assert raised.value.decision is not None
    assert raised.value.decision.reason == "session_budget"


def test_a_session_that_nobody_uses_ends_by_its_time_to_live(
    quick: Runtime, bolt: Customer, clock: ManualClock
) -> None:
    session = bolt.session(budget=1, ttl=60).open()
    clock.advance(61)
    quick.sweep()
    assert denied(session).reason == "session_closed"
