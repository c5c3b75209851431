"""More is held for a step that runs, as if it were a new step of that size; a stream that gets no more is cut."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agentbudget import (
    Breaker,
    BudgetAbort,
    BudgetDenied,
    Credits,
    HoldResolved,
    InvalidRequest,
    OwnerUnavailable,
    Runtime,
    Session,
    Usage,
)
from agentbudget.runtime.customer import Customer
from tests.runtime.support import PREPAID, StatusError, is_sound, nothing_is_open

CALL: dict[str, Any] = {"model": "m-1", "input_tokens": 10, "max_output_tokens": 100}
"""Holds 0.01 for its input and 0.002 for each of 100 tokens of output."""
HELD = Credits("0.21")
modes = pytest.mark.parametrize("mode", ["leased", "strict"])


@pytest.fixture
def customer(quick: Runtime) -> Iterator[Customer]:
    quick.reload_catalog(PREPAID)
    found = quick.customers.create("bolt", plan="prepaid")
    found.wallet.grant(100, key="welcome")
    yield found
    gc.collect()
    quick.sweep()
    assert nothing_is_open(found)
    assert is_sound(quick)


def begin(customer: Customer, mode: Any, budget: Any = 50, **more: Any) -> tuple[Session, Any]:
    session = customer.session(budget=budget, mode=mode, **more).open()
    return session, session.reserve("llm", dispatched=True, **CALL)


@modes
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_step_is_extended_by_output_tokens_or_by_an_amount(customer: Customer, mode: str, how: str) -> None:
    """L3: what it holds is held of its session, in every mode."""
    session, step = begin(customer, mode)
    assert step.hold == HELD
    extend = step.extend if how == "sync" else lambda *a, **k: asyncio.run(step.aextend(*a, **k))
    assert extend(50) == Credits("0.31")
    assert extend(amount="0.1") == Credits("0.41")
    assert step.max_output_tokens == 150
    assert session.status().held == Credits("0.41")
    settled = step.settle(Usage(input_tokens=10, output_tokens=200))
    assert (settled.charged, settled.overrun) == (Credits("0.41"), 0)
    assert session.status().spent == Credits("0.41")


@modes
def test_a_step_may_be_extended_many_times_and_given_back_whole(customer: Customer, mode: str) -> None:
    session, step = begin(customer, mode)
    for _ in range(30):
        step.extend(7)
    assert step.hold == HELD + Credits("0.42")
    step.release()
    assert session.status().spent == 0
    session.close()


@modes
def test_an_extension_that_does_not_fit_is_refused_and_changes_nothing(customer: Customer, mode: str) -> None:
    """L3: the budget holds 0.21; 0.09 more does not fit beside it."""
    session, step = begin(customer, mode, budget="0.3")
    with pytest.raises(BudgetDenied) as refused:
        step.extend(46)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "session_budget"
    assert refused.value.decision.need == Credits("0.092")
    assert step.hold == HELD
    assert step.is_open
    assert step.extend(45) == Credits("0.3")
    step.release()
    session.close()


@modes
def test_extensions_leave_no_room_for_others(customer: Customer, mode: str) -> None:
    """L3."""
    session, step = begin(customer, mode, budget="0.5")
    step.extend(100)
    with pytest.raises(BudgetDenied):
        session.reserve("llm", **CALL)
    step.settle(Usage(input_tokens=10, output_tokens=0))
    session.reserve("llm", **CALL).release()
    session.close()


@modes
def test_idle_leases_give_back_what_an_extension_needs(customer: Customer, mode: str) -> None:
    """Another session's lease holds for sixteen steps more than it runs: what is idle comes back."""
    other = customer.session().open()
    other.reserve("tool", name="search").release()
    session, step = begin(customer, mode, budget=None)
    step.extend(amount=70 if mode == "leased" else 60)
    step.release()
    session.close()
    other.close()


@modes
def test_a_step_that_has_ended_gets_no_more(customer: Customer, mode: str) -> None:
    session, step = begin(customer, mode)
    step.settle(amount=0)
    with pytest.raises(HoldResolved):
        step.extend(1)
    session.close()


def test_what_an_extension_says_must_be_one_thing(customer: Customer) -> None:
    session, step = begin(customer, "leased")
    for wrong in ((), (0,), (-1,)):
        with pytest.raises(InvalidRequest):
            step.extend(*wrong)
    with pytest.raises(InvalidRequest):
        step.extend(1, amount=1)
    tool = session.reserve("tool", name="search")
    with pytest.raises(InvalidRequest, match="give an amount"):
        tool.extend(1)
    assert tool.extend(amount=1) == 3
    tool.release()
    step.release()
    session.close()


def test_a_breaker_on_the_cost_of_a_step_counts_its_extensions(customer: Customer) -> None:
    session, step = begin(customer, "leased", breaker=Breaker(max_step_cost=Credits("0.4").nano))
    step.extend(90)
    with pytest.raises(BudgetDenied, match="max_step_cost"):
        step.extend(10)
    step.release()
    session.close()


def test_a_limit_on_tokens_binds_extensions(customer: Customer) -> None:
    """L12."""
    customer.limits.set("customer", 150, window="month", measure="tokens")
    session, step = begin(customer, "leased")
    step.extend(40)
    with pytest.raises(BudgetDenied):
        step.extend(1)
    step.release()
    session.close()


def test_a_lease_that_a_changed_policy_ends_gives_no_more(customer: Customer) -> None:
    """L3: what binds it is not known here any more."""
    session, step = begin(customer, "leased")
    customer.limits.set("customer", 20, window="month")
    with pytest.raises(BudgetDenied, match="has changed"):
        step.extend(10_000)
    step.release()
    session.close()


# --- streams --------------------------------------------------------------------------------------------------------------


class Words:
    """An endless stream; ``closed`` when it was closed."""

    def __init__(self) -> None:
        self.given, self.closed = 0, False

    def __iter__(self) -> Words:
        return self

    def __next__(self) -> str:
        self.given += 1
        return "word"

    def close(self) -> None:
        self.closed = True


class AsyncWords:
    """The same, asynchronous."""

    def __init__(self) -> None:
        self.given, self.closed = 0, False

    def __aiter__(self) -> AsyncWords:
        return self

    async def __anext__(self) -> str:
        self.given += 1
        return "word"

    async def close(self) -> None:
        self.closed = True


def usage_of(item: object) -> Usage | None:
    return item if isinstance(item, Usage) else None


def consume(step: Any, how: str) -> tuple[Any, list[Any]]:
    items: list[Any] = []
    if how == "sync":
        words: Any = Words()
        with pytest.raises((BudgetDenied, BudgetAbort)) as cut:
            items.extend(item for item in _into(items, step.wrap(words, usage_of)))
    else:
        words = AsyncWords()

        async def read() -> None:
            async for item in step.awrap(words, usage_of):
                items.append(item)

        with pytest.raises((BudgetDenied, BudgetAbort)) as cut:
            asyncio.run(read())
    assert words.closed
    assert words.given == len(items) + 1
    return cut, items


def _into(items: list[Any], stream: Any) -> Iterator[Any]:
    for item in stream:
        items.append(item)
    yield from ()


@modes
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("on_unknown", ["charge", "release"])
def test_a_stream_is_cut_before_it_crosses_and_charged_what_came(
    customer: Customer, mode: str, how: str, on_unknown: str
) -> None:
    """L3, L11: it gets exactly what fits, whatever the policy for unknown outcomes is."""
    session, step = begin(customer, mode, budget="3.01", on_unknown=on_unknown)
    cut, items = consume(step, how)
    assert len(items) == 1_500
    assert cut.value.decision.reason == "session_budget"
    assert (step.state, step.settle().charged) == ("unknown", Credits("3.01"))
    assert session.status().spent == Credits("3.01")
    assert session.status().held == 0
    session.close()


@modes
def test_the_true_usage_of_a_stream_that_was_cut_corrects_the_guess(customer: Customer, mode: str) -> None:
    """L11, once."""
    session, step = begin(customer, mode, budget="3.01")
    consume(step, "sync")
    assert step.settle(Usage(input_tokens=5, output_tokens=1_000)).charged == Credits("2.005")
    session.close()


@pytest.mark.parametrize("on_denied", ["stop", "abort"])
def test_a_cut_refuses_by_the_policy_of_the_session(customer: Customer, on_denied: str) -> None:
    session, step = begin(customer, "leased", budget=1, on_denied=on_denied)
    cut, _ = consume(step, "sync")
    assert isinstance(cut.value, BudgetAbort) is (on_denied == "abort")
    assert session.status().state == "stopped"
    with pytest.raises((BudgetDenied, BudgetAbort)):
        session.raise_if_denied()
    session.close()


@modes
def test_a_stream_beyond_its_cap_is_whole_where_the_budget_allows(customer: Customer, mode: str) -> None:
    session, step = begin(customer, mode, budget=20)
    items = [*["word"] * 5_000, Usage(input_tokens=10, output_tokens=5_000)]
    assert list(step.wrap(iter(items), usage_of)) == items
    assert step.settle().charged == Credits("10.01")
    assert step.settle().overrun == 0
    session.close()


@modes
def test_a_stream_within_its_cap_asks_for_nothing(customer: Customer, mode: str) -> None:
    session, step = begin(customer, mode, budget=HELD)
    list(step.wrap(["word"] * 100, usage_of))
    assert step.settle().charged == HELD
    session.close()


def test_an_assumed_cap_is_metered_by_the_tokens_of_its_chunks(customer: Customer) -> None:
    with customer.session(budget=1, assume_max_output_tokens=100) as session:
        step = session.reserve("llm", model="m-1", input_tokens=10, cap_enforced=False, dispatched=True)
        assert step.hold == HELD
        with pytest.raises(BudgetDenied):
            list(step.wrap(["word " * 300] * 3, usage_of, lambda item: item.count(" ")))
        assert step.settle().charged == Credits("0.61")


def test_a_stream_that_keeps_its_cap_is_not_cut_for_a_count_that_is_too_high(customer: Customer) -> None:
    """Bytes say of English twice its tokens; what is charged is what the usage says."""
    session, step = begin(customer, "leased", budget=HELD)
    items = [*["word"] * 100, Usage(input_tokens=10, output_tokens=100)]
    assert list(step.wrap(items, usage_of, lambda item: 0 if isinstance(item, Usage) else 2)) == items
    assert step.settle().charged == HELD
    session.close()


def test_what_surely_came_cuts_a_request_with_a_cap(customer: Customer) -> None:
    session, step = begin(customer, "leased", budget=HELD)
    step.meter(400, at_least=100)
    with pytest.raises(BudgetDenied):
        step.meter(4, at_least=1)
    assert step.settle().charged == HELD
    session.close()


@modes
def test_output_metered_by_hand_is_cut_too(customer: Customer, mode: str) -> None:
    session, step = begin(customer, mode, budget=1)
    step.meter(400)
    assert step.hold >= Credits("0.81")
    with pytest.raises(BudgetDenied):
        asyncio.run(step.ameter(100))
    assert step.settle().charged <= 1
    session.close()


def test_output_that_was_held_for_by_hand_is_not_held_for_again(customer: Customer) -> None:
    session, step = begin(customer, "leased")
    stream = step.wrap(["word"] * 300, usage_of)
    next(stream)
    step.extend(200)
    list(stream)
    assert step.hold == Credits("0.61")
    session.close()


def test_a_fixed_price_is_not_metered(customer: Customer) -> None:
    with customer.session(budget=1) as session:
        step = session.reserve("llm", model="m-1", amount=1, dispatched=True)
        assert len(list(step.wrap(["word"] * 10_000, usage_of))) == 10_000
        assert step.settle().charged == 1


@modes
def test_a_stream_whose_owner_does_not_answer_is_cut(
    customer: Customer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L8: charged for what came."""
    session, step = begin(customer, mode, budget=3, on_unknown="release")
    words, host = Words(), step._link.host
    stream = step.wrap(words, usage_of)
    for _ in range(100):
        next(stream)
    if mode == "leased":
        session.leases.give_back()  # what is idle there could still be had
    for way in ("ask", "submit"):
        monkeypatch.setattr(host, way, _unavailable)
    with pytest.raises(OwnerUnavailable):
        list(stream)
    monkeypatch.undo()
    assert words.closed
    assert step.fail().charged == HELD
    session.close()


def _unavailable(*_: Any) -> None:
    raise OwnerUnavailable("nobody", "", "")


# --- usage ----------------------------------------------------------------------------------------------------------------

TOTALS = [Usage(input_tokens=10, output_tokens=n) for n in (1, 20, 30)]


@modes
@pytest.mark.parametrize("then", ["end", "close", "garbage", "error"])
def test_of_running_totals_the_largest_is_charged(customer: Customer, quick: Runtime, mode: str, then: str) -> None:
    """L11: also where the stream is left; what was stated is known, so no policy guesses."""
    session, step = begin(customer, mode, on_unknown="release")

    def totals() -> Iterator[Usage]:
        yield from TOTALS
        if then == "error":
            raise StatusError(502)

    stream = step.wrap(totals(), usage_of)
    for _ in TOTALS:
        assert isinstance(next(stream), Usage)
        assert step.is_open
    if then == "close":
        stream.close()
    elif then != "garbage":
        with pytest.raises(StopIteration if then == "end" else StatusError):
            next(stream)
    del stream
    gc.collect()
    quick.sweep()
    assert (step.settle().state, step.settle().charged) == ("settled", Credits("0.07"))
    session.close()


@pytest.mark.parametrize("counted", [True, False])
def test_a_usage_that_is_said_twice_counts_once(customer: Customer, counted: bool, caplog: Any) -> None:
    session, step = begin(customer, "leased")
    items: list[Any] = ["word", TOTALS[2], TOTALS[2], TOTALS[1]]
    tokens_of = (lambda item: int(item == "word")) if counted else None
    assert list(step.wrap(items, usage_of, tokens_of)) == items
    assert session.status().spent == Credits("0.07")
    assert caplog.records == []
    session.close()


def test_a_usage_that_grows_after_the_last_word_is_said_in_the_log(customer: Customer, caplog: Any) -> None:
    session, step = begin(customer, "leased")
    list(step.wrap(["word", TOTALS[1], TOTALS[2]], usage_of))
    assert "another one stated more" in caplog.text
    session.close()


def test_a_usage_beside_output_is_a_running_total(customer: Customer) -> None:
    """Where tokens are counted, a chunk that brings output is not the last word."""
    session, step = begin(customer, "leased")
    chunks = [("a", None), ("b", TOTALS[0]), ("c", TOTALS[1]), ("", TOTALS[2])]
    stream = step.wrap(iter(chunks), lambda chunk: chunk[1], lambda chunk: len(chunk[0]))
    states = [step.state for _ in stream]
    assert states == ["dispatched", "dispatched", "dispatched", "settled"]
    assert session.status().spent == Credits("0.07")
    session.close()


# --- left -----------------------------------------------------------------------------------------------------------------


@modes
def test_a_stream_that_is_dropped_while_its_step_lives_is_charged(
    customer: Customer, quick: Runtime, mode: str
) -> None:
    """L5: never iterated, or left in the middle."""
    for read in (0, 3):
        session, step = begin(customer, mode)
        stream = step.wrap(Words(), usage_of)
        for _ in range(read):
            next(stream)
        del stream
        gc.collect()
        quick.sweep()
        assert session.status().held == 0
        assert step.settle().charged == Credits("0.01") + Credits("0.002") * read
        session.close()


def test_an_asynchronous_stream_that_is_never_iterated_was_never_sent(customer: Customer) -> None:
    """It is dispatched with its first item: before that, leaving it is free."""
    session = customer.session(budget=50).open()
    step = session.reserve("llm", **CALL)

    async def never() -> AsyncIterator[str]:
        yield "word"

    stream = step.awrap(never(), usage_of)
    del stream
    gc.collect()
    session.close()
    assert step.settle().state == "released"


@modes
@pytest.mark.parametrize("how", ["sync", "async"])
def test_closing_a_stream_closes_what_is_below(customer: Customer, quick: Runtime, mode: str, how: str) -> None:
    session, step = begin(customer, mode)
    words: Any = Words() if how == "sync" else AsyncWords()

    async def leave() -> None:
        stream = step.awrap(words, usage_of)
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    if how == "sync":
        stream = step.wrap(words, usage_of)
        next(stream)
        stream.close()
        stream.close()
        assert list(stream) == []
    else:
        asyncio.run(leave())
    assert words.closed
    quick.sweep()
    assert step.settle().charged == Credits("0.012")
    session.close()
