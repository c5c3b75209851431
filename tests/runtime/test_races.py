"""Budget for exactly 20 of 64 slow calls: exactly 20 run, on threads and on tasks (law L3)."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from agentbudget import BudgetDenied, OwnerUnavailable, Runtime, Session
from agentbudget.account.commands import Hold
from agentbudget.runtime.customer import Customer
from tests.runtime.support import is_sound, nothing_is_open

AGENTS, FITTING = 64, 20
CALL_SECONDS = 0.2
"""How long the faked model takes: long enough that all 64 ask while the first 20 run. Not synchronisation."""


def test_sixty_four_threads_run_twenty_calls(runtime: Runtime, acme: Customer) -> None:
    """L3, L9."""
    ran: list[int] = []
    with acme.session(budget=FITTING) as session:
        barrier = threading.Barrier(AGENTS)

        def agent(n: int) -> None:
            barrier.wait()
            try:
                with session.step("llm", model="gpt-5", amount=1):
                    time.sleep(CALL_SECONDS)
                    ran.append(n)
            except BudgetDenied:
                return

        threads = [threading.Thread(target=agent, args=(n,)) for n in range(AGENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ran) == FITTING
        assert (session.status().spent, session.status().denials) == (FITTING, AGENTS - FITTING)
    assert nothing_is_open(acme)
    assert is_sound(runtime)


def test_sixty_four_tasks_run_twenty_calls(runtime: Runtime, acme: Customer) -> None:
    """L3, L9."""
    ran: list[int] = []

    async def agent(session: Session, n: int) -> None:
        try:
            async with session.step("llm", model="gpt-5", amount=1):
                await asyncio.sleep(CALL_SECONDS)
                ran.append(n)
        except BudgetDenied:
            return

    async def all_of_them() -> None:
        async with acme.session(budget=FITTING) as session:
            await asyncio.gather(*(agent(session, n) for n in range(AGENTS)))
            assert (await session.astatus()).denials == AGENTS - FITTING

    asyncio.run(all_of_them())
    assert len(ran) == FITTING
    assert nothing_is_open(acme)
    assert is_sound(runtime)


def test_tasks_that_are_cancelled_anywhere_leave_no_hold(runtime: Runtime, acme: Customer) -> None:
    """L5: cancelled while waiting for the hold, in the body, or while settling."""

    async def agent(session: Session) -> None:
        async with session.step("tool", name="search", amount="0.01"):
            await asyncio.sleep(0)

    async def run() -> None:
        async with acme.session(budget=1000, on_unknown="release") as session:
            for turns in range(12):
                tasks = [asyncio.create_task(agent(session)) for _ in range(8)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    runtime.sweep()
    assert nothing_is_open(acme)
    assert is_sound(runtime)


def test_an_interrupt_while_waiting_for_a_hold_gives_it_back(
    quick: Runtime, bolt: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L5: the owner holds it, but the caller never hears of it."""
    session = bolt.session(budget=1, mode="strict").open()
    real = quick.host.ask

    def interrupted(customer: str, command: object, timeout_seconds: float | None = None) -> object:
        answer = real(customer, command)  # type: ignore[arg-type]
        if isinstance(command, Hold):
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(quick.host, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.reserve("tool", name="search", amount=1, dispatched=True)
    monkeypatch.undo()
    quick.sweep()
    assert nothing_is_open(bolt)
    assert session.status().remaining == 1


def test_an_interrupt_before_the_hold_arrives_leaves_a_tombstone(
    quick: Runtime, bolt: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: whichever comes first, nothing stays held."""
    session = bolt.session(budget=1, mode="strict").open()
    late: list[Hold] = []

    def interrupted(customer: str, command: object, timeout_seconds: float | None = None) -> object:
        late.append(command)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(quick.host, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.reserve("tool", name="search", amount=1)
    monkeypatch.undo()
    with pytest.raises(Exception, match="released"):
        quick.host.ask("bolt", late[0])
    assert nothing_is_open(bolt)


def test_a_callers_own_key_survives_a_lost_answer(
    quick: Runtime, bolt: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: the same key again gets the hold that was made."""
    session = bolt.session(budget=1).open()
    real = quick.host.ask

    def lost(customer: str, command: object, timeout_seconds: float | None = None) -> object:
        real(customer, command)  # type: ignore[arg-type]
        raise OwnerUnavailable("planted")

    monkeypatch.setattr(quick.host, "ask", lost)
    with pytest.raises(OwnerUnavailable):
        session.reserve("tool", name="search", amount=1, key="call-1")
    monkeypatch.undo()
    assert session.reserve("tool", name="search", amount=1, key="call-1").settle().charged == 1


def test_a_settlement_whose_answer_was_lost_may_be_told_again(
    quick: Runtime, bolt: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: booked once."""
    session = bolt.session(budget=1, mode="strict").open()
    step = session.reserve("tool", name="search", amount=1)
    real = quick.host.ask

    def lost(customer: str, command: object, timeout_seconds: float | None = None) -> object:
        real(customer, command)  # type: ignore[arg-type]
        raise OwnerUnavailable("planted")

    monkeypatch.setattr(quick.host, "ask", lost)
    with pytest.raises(OwnerUnavailable):
        step.settle(amount="0.5")
    assert step.is_open
    monkeypatch.undo()
    assert step.fail(RuntimeError()).charged == step.settle().charged
    assert session.status().spent == step.settle().charged
