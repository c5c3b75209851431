"""A session is carried to threads, pools and processes; all of them spend its one budget, in its trace."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agentbudget import BudgetDenied, Credits, Runtime, Session, SessionHandle, carry, current_session
from agentbudget.runtime.customer import Customer
from tests.leases.processes import PATIENCE, Crew, Life
from tests.leases.spending import CATALOG, CREDIT, CUSTOMER, books, found, is_sound, open_ledger, step_of
from tests.leases.work import current, join_and_spend, join_or_say_why_not, spend, spend_all, traced

GRANTED = 1_000 * CREDIT
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    found(tmp_path, GRANTED)
    with open_ledger(tmp_path) as opened:
        yield opened
        acme = opened.customer(CUSTOMER)
        after = books(acme)
        assert after.consumed + after.available + after.held == GRANTED
        assert is_sound(opened)


@pytest.fixture
def acme(runtime: Runtime) -> Customer:
    return runtime.customer(CUSTOMER)


@contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(workers, mp_context=SPAWN) as opened:
        yield opened


@contextmanager
def spawned(work: Callable[..., object], *args: Any) -> Iterator[Any]:
    """A process that runs the work, whose last argument is where it sends its result: what it sent."""
    here, there = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=work, args=(*args, there), daemon=True)
    process.start()
    there.close()
    try:
        assert here.poll(PATIENCE), "it says nothing"
        yield here.recv()
        process.join(PATIENCE)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        here.close()


# --- threads ------------------------------------------------------------------------------------------------------------


def test_a_thread_knows_the_session_only_if_it_is_carried(acme: Customer) -> None:
    seen: list[str | None] = []
    with acme.session(budget=5) as session:
        for target in (lambda: seen.append(current()), carry(lambda: seen.append(current()))):
            thread = Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, session.id]


def test_the_workers_of_a_thread_pool_spend_one_budget(acme: Customer) -> None:
    """L3: one carried function, run many times and at once; ten of twenty steps fit."""
    with acme.session(budget=10) as session, ThreadPoolExecutor(4) as threads:
        pay = carry(spend)
        results = [threads.submit(pay, CREDIT) for _ in range(20)]
        refused = [isinstance(result.exception(PATIENCE), BudgetDenied) for result in results]
        assert (refused.count(False), refused.count(True)) == (10, 10)
        assert session.status().spent == Credits(10)


def test_what_was_carried_stays_when_the_body_is_left_and_changes_nothing_here(acme: Customer) -> None:
    with acme.session(budget=5, id="kept") as session:
        pay = carry(spend)
    assert current_session() is None
    assert pay(CREDIT) == CREDIT
    assert current_session() is None
    assert session.status().spent == Credits(1)


# --- processes ----------------------------------------------------------------------------------------------------------


def test_a_handle_pickles_and_joins_in_this_process(acme: Customer) -> None:
    with acme.session(budget=5) as session:
        handle: SessionHandle = pickle.loads(pickle.dumps(session.handle()))
        assert (handle, hash(handle)) == (session.handle(), hash(session.handle()))
        with handle.join() as joined:
            assert (joined.id, current()) == (session.id, session.id)
            assert joined.link.holder is session.link.holder
            spend(CREDIT)
        assert current_session() is session
        assert session.status().state == "open"
        assert session.status().spent == Credits(1)


def test_a_spawned_process_joins_by_a_handle_and_spends_the_same_budget(acme: Customer) -> None:
    with acme.session(budget=50) as session:
        spend(CREDIT, 3)
        with spawned(join_and_spend, session.handle(), CREDIT // 4, 20) as spent:
            assert spent == 5 * CREDIT
        assert session.status().spent == Credits(8)
        assert session.status().held == 0


def test_L3_a_process_pool_spends_a_carried_session_to_the_end_and_no_further(acme: Customer) -> None:
    """The handle carries the function; the workers keep the session joined between two calls."""
    with acme.session(budget=30) as session, pool(2) as workers:
        pay = session.handle().carry(spend)
        assert sum(workers.map(pay, [CREDIT] * 10)) == 10 * CREDIT
        rest = list(workers.map(session.handle().carry(spend_all), [CREDIT] * 2))
        assert sum(nano for nano, _ in rest) == 20 * CREDIT
        assert {why for _, why in rest} == {"session_budget"}
        assert (session.status().spent, session.status().remaining) == (Credits(30), Credits(0))
        with pytest.raises(BudgetDenied):
            spend(1)


def test_the_children_of_a_fan_out_are_the_budgets_of_workers(acme: Customer) -> None:
    """L3: no worker spends another's share, and none the parent's."""
    with acme.session(budget=20) as session, pool(2) as workers:
        children = session.fan_out(3, budget_each=5)
        results = [workers.submit(child.handle().carry(spend_all), CREDIT) for child in children]
        assert [result.result(PATIENCE) for result in results] == [(5 * CREDIT, "session_budget")] * 3
        assert [child.status().spent for child in children] == [Credits(5)] * 3
        assert spend_all(CREDIT) == (5 * CREDIT, "session_budget")
        assert session.status().spent == Credits(20)


@pytest.mark.parametrize("mode", ["leased", "strict"])
def test_how_a_session_is_served_travels_with_its_handle(acme: Customer, mode: Any) -> None:
    with acme.session(budget=5, mode=mode) as session:
        assert session.handle().mode == mode
        with session.handle().join() as joined:
            assert joined.mode == mode
        with spawned(join_and_spend, session.handle(), CREDIT, 2) as spent:
            assert spent == 2 * CREDIT
        kinds = {entry.kind for entry in acme.ledger.entries()}
        assert ("lease_renewed" in kinds, "hold_settled" in kinds) == (mode == "leased", mode == "strict")


def test_a_memory_ledger_is_refused_in_another_process_and_says_what_to_use() -> None:
    with (
        Runtime.open("memory://", catalog=CATALOG) as runtime,
        runtime.customers.create(CUSTOMER, plan="postpaid").session(budget=5) as session,
    ):
        with session.handle().join() as joined:
            assert joined.id == session.id
        with spawned(join_or_say_why_not, session.handle()) as (field, why):
            assert field == "ledger"
            assert "sqlite:///" in why


# --- traces -------------------------------------------------------------------------------------------------------------


def test_the_trace_is_carried_to_threads_and_processes(acme: Customer) -> None:
    """W3C Trace Context: spans of the workers belong to the trace, and hang below the span, of who carried the session."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("tests")
    with acme.session(budget=5) as session, pool(1) as workers, tracer.start_as_current_span("agent") as span:
        here = span.get_span_context()
        expected = (here.trace_id, here.span_id)
        with ThreadPoolExecutor(1) as threads:
            assert isinstance(threads.submit(traced).exception(PATIENCE), BudgetDenied)  # not carried: no session
            assert threads.submit(carry(traced)).result(PATIENCE) == expected
        assert workers.submit(session.handle().carry(traced)).result(PATIENCE) == expected
        handle = session.handle()
    assert here.trace_id == int(handle.trace["traceparent"].split("-")[1], 16)


def test_without_a_trace_a_handle_carries_none(acme: Customer) -> None:
    with acme.session(budget=5) as session:
        assert session.handle().trace == {}


# --- a server that loads the application and then forks its workers -----------------------------------------------------


def preload(path: Path, ends_in_order: bool, life: Life) -> None:
    """Opens the ledger and a session, spends on it, forks workers that use the very same objects, and goes on."""
    runtime = open_ledger(path)
    session = runtime.customer(CUSTOMER).session(id="served", budget=100).open()
    under_way = step_of(session, 2 * CREDIT)
    for _ in range(10):
        step_of(session, CREDIT // 10).settle()
    workers = [_forked(partial(_serve, runtime, session, ends_in_order, life)) for _ in range(3)]
    for _ in range(10):
        step_of(session, CREDIT // 10).settle()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    under_way.settle(amount=1)
    life.say("codes", codes)
    life.wait()
    runtime.sweep()
    life.say("served", session.status().spent.nano)
    runtime.close()


def _serve(runtime: Runtime, session: Session, ends_in_order: bool, life: Life) -> None:
    total = sum(step_of(session, n + 1).settle().charged.nano for n in range(200))
    life.say("spent", os.getpid(), total)
    if ends_in_order:
        runtime.close()


def _forked(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


@pytest.mark.parametrize("ends_in_order", [True, False], ids=["closed", "vanished"])
def test_L2_workers_forked_after_the_ledger_was_opened_spend_one_budget_exactly(
    tmp_path: Path, ends_in_order: bool
) -> None:
    """The parent owns the ledger; its step under way stays its own, and what workers leave without a word is replayed."""
    found(tmp_path, GRANTED)
    with Crew() as crew:
        parent = crew.start(partial(preload, tmp_path, ends_in_order))
        said = sorted(parent.hear() for _ in range(4))
        assert said[0] == ["codes", [0, 0, 0]]
        assert [total for _, _, total in said[1:]] == [sum(range(201))] * 3
        assert len({pid for _, pid, _ in said[1:]} | {parent.pid}) == 4
        expected = 3 * sum(range(201)) + 2 * CREDIT + CREDIT
        parent.tell("end")
        name, _ = parent.hear()
        assert name == "served"
        parent.finish()
    with open_ledger(tmp_path) as runtime:
        acme = runtime.customer(CUSTOMER)
        after = books(acme)
        assert (after.consumed, after.held, after.available) == (expected, 0, GRANTED - expected)
        assert acme.sessions.get("served").spent.nano == expected
        assert is_sound(runtime)
