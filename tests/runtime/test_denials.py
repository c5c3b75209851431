"""After a denial: the three policies, clamping, and a stubborn agent."""

from __future__ import annotations

import pytest

from agentbudget import BudgetAbort, BudgetDenied, Credits, Runtime, Session, Usage, find_denied
from agentbudget.runtime.customer import Customer
from tests.runtime.support import HELLO, PREPAID, is_sound, kinds, nothing_is_open


@pytest.fixture
def customer(quick: Runtime) -> Customer:
    quick.reload_catalog(PREPAID)
    found = quick.customers.create("bolt", plan="prepaid")
    found.wallet.grant(100, key="welcome")
    return found


def spend(session: Session, amount: object) -> None:
    session.reserve("tool", name="work", amount=amount).settle()  # type: ignore[arg-type]


def test_refuse_judges_each_step_on_its_own(customer: Customer) -> None:
    with customer.session(budget=5) as session:
        with pytest.raises(BudgetDenied):
            spend(session, 6)
        spend(session, 5)
    assert customer.wallet.balance().consumed == 5


def test_stop_refuses_every_later_step_until_funded_or_resumed(customer: Customer) -> None:
    with customer.session(budget=5, on_denied="stop") as session:
        with pytest.raises(BudgetDenied):
            spend(session, 6)
        with pytest.raises(BudgetDenied):
            spend(session, 1)
        assert session.status().state == "stopped"
        session.fund(5)
        spend(session, 6)
        with pytest.raises(BudgetDenied):
            spend(session, 6)
        session.resume()
        spend(session, 1)


def test_abort_passes_every_except_exception(customer: Customer) -> None:
    session = customer.session(budget=5, on_denied="abort")
    reached = "no"

    def run() -> None:
        nonlocal reached
        with session:
            try:
                spend(session, 6)
            except Exception:
                reached = "swallowed"

    with pytest.raises(BudgetAbort) as aborted:
        run()
    assert reached == "no"
    assert aborted.value.decision is not None
    assert aborted.value.decision.reason == "session_budget"
    assert find_denied(aborted.value) is aborted.value


def test_a_stubborn_agent_is_refused_two_hundred_times_and_a_refusal_costs_nothing(
    quick: Runtime, customer: Customer
) -> None:
    """L12."""
    ran = 0
    with customer.session(budget=5) as session:
        spend(session, 3)
        entries = kinds(customer)
        for _ in range(200):
            try:
                with session.step("llm", model="m-1", request=HELLO, max_output_tokens=4000):
                    ran += 1
            except BudgetDenied:
                continue
        refusing = kinds(customer)
        assert session.status().spent == 3
        assert session.status().denials == 200
    assert ran == 0
    assert [kind for kind in refusing[len(entries) :] if kind.startswith("hold")] == []
    assert is_sound(quick)


def test_the_real_cost_of_a_step_thrice_its_hold_is_booked_and_the_next_grant_pays_it_first(
    quick: Runtime, customer: Customer
) -> None:
    """L11, L3: a declared overrun stops further holds."""
    customer.wallet.void("welcome")
    customer.wallet.grant(10, key="small")
    with customer.session(budget=1000, mode="strict") as session:
        step = session.reserve("tool", name="work", amount=10)
        settled = step.settle(amount=30)
        assert (settled.charged, settled.overrun, settled.debt) == (30, 20, 20)
        assert customer.wallet.balance().overdraft == 20
        with pytest.raises(BudgetDenied) as refused:
            spend(session, 1)
        assert refused.value.decision is not None
        assert refused.value.decision.reason == "overdraft"
        customer.wallet.grant(50, key="rescue")
        balance = customer.wallet.balance()
        assert (balance.overdraft, balance.available) == (0, 30)
        spend(session, 1)
    assert is_sound(quick)


def test_an_overrun_of_the_session_budget_is_booked_and_stops_the_session(customer: Customer) -> None:
    """L11."""
    with customer.session(budget=5) as session:
        session.reserve("tool", name="work", amount=5).settle(amount=15)
        assert session.status().spent == 15
        with pytest.raises(BudgetDenied):
            spend(session, "0.1")


def test_clamping_lowers_the_request_with_the_hold(customer: Customer) -> None:
    """1000 output tokens would cost 2 credits; what is left buys 495."""
    with customer.session(budget=1, on_short="clamp") as session:
        step = session.reserve("llm", model="m-1", input_tokens=10, max_output_tokens=1000)
        assert step.max_output_tokens == 495
        assert step.hold == customer.wallet.balance().held == 1
        step.settle(Usage(input_tokens=10, output_tokens=495))
        assert session.status().denials == 0


def test_clamping_stops_where_too_little_output_is_left_and_that_refusal_counts(customer: Customer) -> None:
    with customer.session(budget="0.03", on_short="clamp") as session:
        with pytest.raises(BudgetDenied) as refused:
            session.reserve("llm", model="m-1", input_tokens=10, max_output_tokens=1000)
        assert refused.value.decision is not None
        assert refused.value.decision.affordable.max_output_tokens == 10
        assert session.status().denials == 1


def test_clamping_respects_a_limit_on_tokens(customer: Customer) -> None:
    customer.limits.set("customer", 100, measure="tokens")
    with customer.session(budget=50, on_short="clamp") as session:
        assert session.reserve("llm", model="m-1", input_tokens=10, max_output_tokens=1000).max_output_tokens == 90


def test_clamping_does_not_help_where_no_size_would(customer: Customer) -> None:
    with customer.session(budget=50, on_short="clamp") as session:
        session.pause()
        with pytest.raises(BudgetDenied) as refused:
            session.reserve("llm", model="m-1", input_tokens=10, max_output_tokens=1000)
        assert refused.value.decision is not None
        assert refused.value.decision.reason == "paused"


def test_a_call_that_cannot_be_capped_is_never_clamped(customer: Customer) -> None:
    """Lowering the hold without lowering the request would be a lie."""
    with customer.session(budget=1, on_short="clamp") as session, pytest.raises(BudgetDenied):
        session.reserve("llm", model="m-1", input_tokens=10, max_output_tokens=1000, cap_enforced=False)


def test_a_call_that_cannot_be_capped_holds_the_models_maximum_and_its_denial_says_so(quick: Runtime) -> None:
    acme = quick.customers.create("acme", plan="local")
    with acme.session(budget="0.5") as session:
        with pytest.raises(BudgetDenied) as refused:
            session.reserve("llm", model="gpt-5", request=HELLO, cap_enforced=False)
        assert "set a cap" in str(refused.value)
        capped = session.child(assume_max_output_tokens=1000)
        assert capped.reserve("llm", model="gpt-5", request=HELLO, cap_enforced=False).hold < Credits("0.02")
        assert session.reserve("llm", model="gpt-5", request=HELLO).max_output_tokens == 4096


def test_a_denial_says_what_would_fit(customer: Customer) -> None:
    with customer.session(budget=1) as session, pytest.raises(BudgetDenied) as refused:
        session.reserve("llm", model="m-1", input_tokens=10, max_output_tokens=1000)
    decision = refused.value.decision
    assert decision is not None
    assert (decision.affordable.amount, decision.affordable.max_output_tokens) == (1, 495)
    assert "495 tokens" in str(decision)


def test_a_refused_step_changes_no_balance_on_any_level(customer: Customer) -> None:
    """L12."""
    customer.entities.put("user:ana")
    customer.limits.set("user:ana", 1)
    with customer.session(budget=50, entities=["user:ana"]) as session:
        with pytest.raises(BudgetDenied) as refused:
            spend(session, 2)
        assert refused.value.decision is not None
        assert refused.value.decision.reason == "limit"
        assert session.status().spent == session.status().held == 0
    assert customer.wallet.balance().available == 100
    assert all(limit.used == 0 for limit in customer.limits.list())
    assert nothing_is_open(customer)


def test_a_denial_is_found_through_causes_groups_and_ray_task_errors() -> None:
    denial = BudgetDenied("no")

    class RayTaskError(Exception):
        def __init__(self, cause: BaseException) -> None:
            super().__init__("task failed")
            self.cause = cause

    def nested() -> BaseException:
        try:
            try:
                raise denial
            except BudgetDenied as error:
                raise RuntimeError("a framework's") from error
        except RuntimeError as error:
            return error

    assert find_denied(nested()) is denial
    assert find_denied(ExceptionGroup("many", [ValueError(), ExceptionGroup("inner", [nested()])])) is denial  # type: ignore[list-item]
    assert find_denied(RayTaskError(nested())) is denial
    assert find_denied(ValueError()) is None
    assert find_denied(None) is None
