"""A step ends once, in the way that the first caller decided, with its true cost."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

import agentbudget
from agentbudget import Credits, HoldResolved, InvalidRequest, KeyConflict, Runtime, Session, Usage
from agentbudget.account.commands import LEASE_PREFIX
from agentbudget.catalog.terms import Breaker
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.steps.step import Step
from agentbudget.testing import ManualClock
from tests.runtime.support import HELLO, PREPAID, StatusError, body_of, is_sound, nothing_is_open


@pytest.fixture
def session(quick: Runtime) -> Session:
    quick.reload_catalog(PREPAID)
    customer = quick.customers.create("bolt", plan="prepaid")
    customer.wallet.grant(100, key="welcome")
    return customer.session(budget=50).open()


@pytest.fixture
def bolt(quick: Runtime, session: Session) -> Customer:
    return quick.customer("bolt")


def model_step(session: Session, **what: object) -> Step:
    """Holds 10 input tokens and 1000 output tokens: 2.01 credits."""
    stated = {"model": "m-1", "input_tokens": 10, "max_output_tokens": 1000, **what}
    return session.reserve("llm", **stated)  # type: ignore[arg-type]


def test_a_model_step_holds_its_most_and_settles_its_usage(session: Session, bolt: Customer) -> None:
    step = model_step(session)
    assert (step.state, step.hold, step.max_output_tokens) == ("reserved", Credits("2.01"), 1000)
    assert bolt.wallet.balance().held == Credits("2.01")
    settled = step.settle(Usage(input_tokens=10, output_tokens=100))
    assert (settled.state, settled.charged) == ("settled", Credits("0.21"))
    assert bolt.wallet.balance().consumed == Credits("0.21")
    assert nothing_is_open(bolt)


def test_settling_twice_returns_the_first_answer(session: Session, bolt: Customer) -> None:
    """L4, L5."""
    step = model_step(session)
    first = step.settle(amount="0.5")
    assert step.settle(amount=9) == first
    assert step.release() == first
    assert step.fail(RuntimeError()) == first
    assert bolt.wallet.balance().consumed == Credits("0.5")


def test_of_many_ends_at_once_one_counts_and_all_get_its_answer(session: Session, bolt: Customer) -> None:
    """L5: threads race settle, release and fail on one step."""
    for _ in range(20):
        step = model_step(session)
        barrier, answers = threading.Barrier(3), []

        def end(how: object, barrier: threading.Barrier = barrier, answers: list[object] = answers) -> None:
            barrier.wait()
            answers.append(how())  # type: ignore[operator]

        ends = [lambda s=step: s.settle(amount=1), lambda s=step: s.release(), lambda s=step: s.fail(OSError())]
        threads = [threading.Thread(target=end, args=(how,)) for how in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers[0] == answers[1] == answers[2]
    assert nothing_is_open(bolt)


def test_settling_without_usage_books_the_hold(session: Session) -> None:
    assert model_step(session).settle().charged == Credits("2.01")


def test_what_passes_the_hold_is_booked_too(session: Session) -> None:
    """L11."""
    settled = model_step(session, max_output_tokens=10).settle(Usage(input_tokens=10, output_tokens=1000))
    assert (settled.charged, settled.overrun) == (Credits("2.01"), Credits("1.98"))


def test_a_reply_may_be_given_instead_of_its_usage(session: Session) -> None:
    reply = {"usage": {"prompt_tokens": 10, "completion_tokens": 100}, "model": "m-1"}
    assert model_step(session).settle(reply).charged == Credits("0.21")


def test_a_reply_without_usage_leaves_the_step_open_for_a_better_answer(session: Session) -> None:
    step = model_step(session)
    with pytest.raises(InvalidRequest):
        step.settle(object())
    assert step.is_open
    assert step.settle(amount=1).charged == 1


def test_releasing_gives_the_whole_hold_back(session: Session, bolt: Customer) -> None:
    step = model_step(session)
    assert step.release().state == "released"
    assert bolt.wallet.balance().available == 100


def test_a_tool_costs_what_the_catalog_says_and_a_fixed_amount_wins(session: Session) -> None:
    assert session.reserve("tool", name="search").hold == 2
    assert session.reserve("tool", name="search", quantity=3).hold == 6
    fixed = session.reserve("tool", name="search", amount="0.1")
    assert fixed.hold == Credits("0.1")
    assert fixed.settle(Usage(documents=3)).charged == Credits("0.1")
    assert session.reserve("tool", name="other").hold == 0


def test_an_input_that_is_not_stated_holds_the_context_window(quick: Runtime) -> None:
    """L3: nobody can say how small it is."""
    session = quick.customers.create("acme", plan="local").session(budget=100)
    stated = session.reserve("llm", model="gpt-5-mini", request=HELLO, max_output_tokens=1)
    unstated = session.reserve("llm", model="gpt-5-mini", max_output_tokens=1)
    assert unstated.hold > stated.hold * 1000


def test_a_cap_is_given_to_a_call_that_states_none(session: Session) -> None:
    assert session.reserve("llm", model="m-1", request=HELLO).max_output_tokens == 4096
    assert session.child(max_output_tokens=100).reserve("llm", model="m-1", request=HELLO).max_output_tokens == 100


def test_the_bodies_end_settles_and_entering_it_marks_dispatch(session: Session, bolt: Customer) -> None:
    with session.step("tool", name="search") as step:
        assert step.state == "dispatched"
        assert agentbudget.current_step() is step
    assert (step.state, agentbudget.current_step()) == ("settled", None)
    assert bolt.wallet.balance().consumed == 2


def test_a_reserved_step_may_be_a_context_manager_of_its_own(session: Session) -> None:
    with session.reserve("tool", name="search") as step:
        assert step.state == "dispatched"
        step.settle(amount=1)
    assert step.state == "settled"


def test_a_failure_before_dispatch_is_free(session: Session) -> None:
    assert model_step(session).fail(RuntimeError("no network")).state == "released"


@pytest.mark.parametrize("error", [ValueError("cannot parse"), TimeoutError(), StatusError(502), KeyboardInterrupt()])
def test_a_failure_after_dispatch_is_never_free(session: Session, bolt: Customer, error: BaseException) -> None:
    with pytest.raises(type(error)), session.step("tool", name="search") as step:
        raise error
    assert step.state == "unknown"
    assert bolt.wallet.balance().consumed == 2
    (ended,) = [body_of(entry) for entry in bolt.ledger.entries() if entry.kind == "hold_settled"]
    assert (ended["state"], ended["error"]) == ("unknown", type(error).__name__)


def test_a_failure_after_dispatch_is_free_where_that_was_chosen(session: Session, bolt: Customer) -> None:
    child = session.child(on_unknown="release")
    with pytest.raises(TimeoutError), child.step("tool", name="search") as step:
        raise TimeoutError
    assert step.state == "released"
    assert bolt.wallet.balance().consumed == 0


def test_a_refusal_by_the_provider_is_free(session: Session) -> None:
    with pytest.raises(StatusError), session.step("llm", model="m-1", input_tokens=1) as step:
        raise StatusError(429)
    assert step.state == "released"


def test_a_step_that_is_forgotten_before_dispatch_is_given_back(
    quick: Runtime, session: Session, bolt: Customer
) -> None:
    """L5."""
    model_step(session)
    gc.collect()
    quick.sweep()  # answered after everything that was handed over before it
    assert nothing_is_open(bolt)
    assert bolt.wallet.balance().consumed == 0
    assert quick.host.live == set()


def test_a_step_that_is_forgotten_after_dispatch_is_charged(quick: Runtime, session: Session, bolt: Customer) -> None:
    """L5, L11: also from a reference cycle that only the collector finds."""
    step = model_step(session, dispatched=True)
    cycle: list[object] = [step]
    cycle.append(cycle)
    del step, cycle
    gc.collect()
    quick.sweep()
    assert nothing_is_open(bolt)
    assert bolt.wallet.balance().consumed == Credits("2.01")


def test_a_hold_of_a_silent_holder_lapses_and_a_late_settlement_corrects_it_once(
    quick: Runtime, session: Session, bolt: Customer, clock: ManualClock
) -> None:
    """L5, L11, L4."""
    step = model_step(session.child(mode="strict"), dispatched=True)
    quick.host.live.clear()  # as if the process that holds it had stopped
    clock.advance(61)
    quick.sweep()
    assert nothing_is_open(bolt)
    assert bolt.wallet.balance().consumed == Credits("2.01")
    late = step.settle(amount="0.5")
    assert (late.state, late.charged) == ("corrected", Credits("0.5"))
    assert step.settle(amount="0.5") == late
    assert bolt.wallet.balance().consumed == Credits("0.5")


def test_a_live_holder_keeps_its_hold_until_the_longest_step(
    quick: Runtime, session: Session, bolt: Customer, clock: ManualClock
) -> None:
    child = session.child(max_step_seconds=600)
    step = model_step(child)
    clock.advance(500)
    quick.sweep()
    assert bolt.wallet.balance().held == Credits("2.01")
    clock.advance(101)
    quick.sweep()
    assert nothing_is_open(bolt)
    assert step.settle(amount=1).state == "corrected"


def test_releasing_what_a_policy_has_charged_is_told_so(
    quick: Runtime, session: Session, bolt: Customer, clock: ManualClock
) -> None:
    step = model_step(session.child(mode="strict"), dispatched=True)
    quick.host.live.clear()
    clock.advance(61)
    quick.sweep()
    with pytest.raises(HoldResolved):
        step.release()
    assert bolt.wallet.balance().consumed == Credits("2.01")


def test_a_key_of_the_callers_has_one_step_for_ever(session: Session, bolt: Customer) -> None:
    """L4."""
    first = model_step(session, key="call-1")
    again = model_step(session, key="call-1")
    assert (again.id, again.hold) == (first.id, first.hold)
    with pytest.raises(KeyConflict):
        model_step(session, key="call-1", max_output_tokens=5)
    first.settle(amount=1)
    assert again.settle(amount=1).charged == 1
    assert bolt.wallet.balance().consumed == 1


def test_a_step_under_a_callers_key_that_is_forgotten_is_left_to_lapse(
    quick: Runtime, session: Session, bolt: Customer, clock: ManualClock
) -> None:
    """L5: another process may hold the same key, and go on with it."""
    kept = model_step(session, key="call-1")
    model_step(session, key="call-1")
    gc.collect()
    assert kept.settle(amount=1).charged == 1
    model_step(session, key="call-2")
    gc.collect()
    quick.sweep()
    assert bolt.wallet.balance().held == Credits("2.01")
    clock.advance(61)
    quick.sweep()
    assert nothing_is_open(bolt)


@pytest.mark.parametrize("key", ["", "a#end", "customer", "session:x", "grant:x", "lease:x", "x" * 151])
def test_a_key_that_could_be_another_commands_is_refused(session: Session, key: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        model_step(session, key=key)
    assert refused.value.field == "key"


def test_L4_the_id_of_a_lease_or_of_its_step_is_no_key_for_a_caller(session: Session) -> None:
    """It is refused in words, and the step whose id it is is booked once, at its own cost."""
    step = model_step(session)
    lease = step.id.rpartition(".")[0]
    assert lease.startswith(LEASE_PREFIX)
    for key in (step.id, lease, f"{lease}.99"):
        with pytest.raises(InvalidRequest, match="begins like another command's key"):
            model_step(session, key=key)
    step.settle(amount="0.25")
    status = session.status()
    assert (status.spent, status.held, status.steps) == (Credits("0.25"), Credits(0), 1)


def test_a_step_that_was_given_back_counts_as_a_step_in_every_mode(session: Session, bolt: Customer) -> None:
    """And for max_steps: ten are allowed, whatever they cost."""
    for mode in ("leased", "strict"):
        session = bolt.session(mode=mode, breaker=Breaker(max_steps=10)).open()  # type: ignore[arg-type]
        for number in range(10):
            step = session.reserve("tool", name="search", amount=1)
            step.release() if number % 2 else step.settle()
        assert session.status().steps == 10
        with pytest.raises(agentbudget.BudgetDenied) as denied:
            session.reserve("tool", name="search", amount=1)
        assert denied.value.decision.reason == "circuit_open"
        assert session.status().steps == 10


def test_an_unknown_model_price_refuses_and_quotes_the_catalog_line(session: Session) -> None:
    with pytest.raises(agentbudget.BudgetDenied) as refused:
        session.reserve("llm", model="nobody/knows", request=HELLO)
    decision = refused.value.decision
    assert decision is not None
    assert decision.reason == "unknown_price"
    assert "nobody/knows" in decision.suggestions[0]


def test_the_asynchronous_face_does_the_same(session: Session, bolt: Customer) -> None:
    async def run() -> None:
        step = await session.areserve("llm", model="m-1", input_tokens=10, max_output_tokens=1000)
        await step.adispatched()
        assert (await step.asettle(Usage(input_tokens=10, output_tokens=100))).charged == Credits("0.21")
        assert (await (await session.areserve("tool", name="search")).arelease()).state == "released"
        async with session.step("tool", name="search") as inner:
            assert agentbudget.current_step() is inner
        with pytest.raises(ValueError, match="parse"):
            async with session.step("tool", name="search") as failed:
                raise ValueError("cannot parse")
        assert failed.state == "unknown"
        assert (await session.aexplain("tool", name="search")).allowed

    asyncio.run(run())
    assert bolt.wallet.balance().consumed == Credits("4.21")
    assert nothing_is_open(bolt)


def test_everything_is_in_the_ledger(quick: Runtime, session: Session) -> None:
    model_step(session).settle(Usage(input_tokens=10, output_tokens=100))
    assert is_sound(quick)
