"""What the workers of these tests do, in functions that every process can import."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import agentbudget
from agentbudget import BudgetAbort, BudgetDenied, Credits, OwnerUnavailable, Session, SessionHandle, current_session


def spend(session: Session, nano: int, times: int = 1) -> int:
    """Steps that cost what they hold."""
    for _ in range(times):
        session.reserve("tool", name="search", amount=Credits.of_nano(nano), dispatched=True).settle()
    return nano * times


def spend_in(handle: SessionHandle, nano: int, times: int = 1) -> int:
    with handle.join() as session:
        assert current_session() is session
        return spend(session, nano, times)


def drain_together(handle: SessionHandle, folder: str, most: int, seed: int, threads: int) -> int:
    """As ``drain``, once ``go`` is there: who is ready says so by a file."""
    with handle.join() as session:
        Path(folder, f"{seed}.ready").touch()
        while not Path(folder, "go").exists():
            time.sleep(0.01)
        return _drained_by(session, most, seed, threads)


def drain(handle: SessionHandle, most: int, seed: int, threads: int = 1) -> int:
    """Spend steps of random sizes, in so many threads at once, until not even a nanocredit is left; what was spent."""
    with handle.join() as session:
        return _drained_by(session, most, seed, threads)


def _drained_by(session: Session, most: int, seed: int, threads: int) -> int:
    with ThreadPoolExecutor(threads) as pool:
        chances = [random.Random(f"{seed} {n}") for n in range(threads)]
        return sum(pool.map(lambda chance: _drained(session, most, chance), chances))


def _drained(session: Session, most: int, chance: random.Random) -> int:
    size, spent = most, 0
    while True:
        nano = max(1, int(size ** chance.random()))
        try:
            spent += spend(session, nano)
        except BudgetDenied:
            if nano == 1:
                return spent
            size = max(1, nano // 1_000)
        except OwnerUnavailable:
            continue  # the next owner is on its way


def die_in_the_middle(handle: SessionHandle, folder: str) -> int:
    """Settle some steps, leave one open, and be killed; the second time do without that."""
    with handle.join() as session:
        spent = spend(session, 10, 5)
        step = session.reserve("tool", name="search", amount=Credits.of_nano(7), dispatched=True)
        if _is_first_time(folder):
            os.kill(os.getpid(), signal.SIGKILL)
        step.settle()
        return spent + 7


def _is_first_time(folder: str) -> bool:
    path = Path(folder) / "was-here"
    first = not path.exists()
    path.touch()
    return first


def who(handle: SessionHandle) -> tuple[str, str]:
    """The session and trace of a worker."""
    with handle.join() as session:
        return session.id, session.link.host.owner


def owners_as_here(handle: SessionHandle) -> list[tuple[int, str]]:
    """How many owners, and for how long, a worker would make; then as its own handles say it."""
    with handle.join() as session:
        host: Any = session.link.host
        further = session.handle()
        return [(host.owners, host.owner_lifetime), (further.owners or 0, further.owner_lifetime or "")]


def open_relative(url: str) -> str:
    return agentbudget.Runtime.open(url).settings.ledger


@agentbudget.budgeted
def greedy(session: Session) -> None:
    spend(session, 10**12)


@agentbudget.budgeted
def modest(session: Session) -> int:
    return spend(session, 1)


@agentbudget.budgeted
class Assistant:
    """An actor that spends its caller's session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def ask(self, nano: int) -> int:
        return spend(self.session, nano)

    async def think(self, nano: int) -> None:
        async with self.session.step("tool", name="search", amount=Credits.of_nano(nano)):
            raise AssertionError("it ran")


@agentbudget.budgeted(on_denied="abort")
def greedy_in_a_child(session: Session) -> None:
    try:
        spend(session, 10**12)
    except BudgetAbort:
        raise


@agentbudget.budgeted(budget=Credits.of_nano(100))
def research(session: Session, nano: int, times: int = 1) -> tuple[str, str | None, int]:
    """Its own child session; the id of it and of its parent."""
    assert current_session() is session
    return session.id, session.parent and session.parent.id, spend(session, nano, times)


@agentbudget.budgeted(budget=Credits.of_nano(100))
def research_that_dies(session: Session, folder: str) -> tuple[str, int]:
    """Killed after a step the first time."""
    spend(session, 10)
    if _is_first_time(folder):
        os.kill(os.getpid(), signal.SIGKILL)
    remaining: Any = session.status().remaining
    return session.id, remaining.nano


@agentbudget.budgeted(budget=Credits.of_nano(100))
async def research_async(topic: str, *, session: Session) -> tuple[str, str]:
    async with session.step("tool", name="search", amount=Credits.of_nano(10)):
        current = current_session()
    return topic, "" if current is None else current.id


@agentbudget.budgeted
def grant_twice_and_die(session: Session, folder: str) -> list[str]:
    """Two grants that state no key; killed after them the first time."""
    runtime = agentbudget.Runtime.open(session.link.ledger)
    wallet = runtime.customer(session.link.customer).wallet
    grants = [wallet.grant(5).id, wallet.grant(5).id]
    if _is_first_time(folder):
        os.kill(os.getpid(), signal.SIGKILL)
    return grants


@agentbudget.budgeted(budget=Credits.of_nano(100))
class Researcher:
    """An actor with a budget for its life."""

    def __init__(self, session: Session, name: str) -> None:
        self.name, self.session = name, session

    def ask(self, nano: int) -> tuple[str, int]:
        session = current_session()
        assert session is self.session
        return session.id, spend(session, nano)

    async def think(self, nano: int) -> int:
        session = current_session()
        assert session is self.session
        async with session.step("tool", name="search", amount=Credits.of_nano(nano)):
            return nano

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
