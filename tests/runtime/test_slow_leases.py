"""How many messages a session costs its owner that makes a step every few seconds. On one thread and a clock of the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from agentbudget.account.commands import Command, CreateCustomer, Hold, IssueGrant, OpenSession, Read, Renew, SettleHold
from agentbudget.account.decision import BalanceView
from agentbudget.runtime.leases.claims import Claim
from agentbudget.runtime.leases.holder import Holder
from agentbudget.runtime.leases.lease import Key
from agentbudget.runtime.leases.session_leases import SessionLeases, nothing
from agentbudget.runtime.leases.upkeep import tick
from agentbudget.runtime.owner.owner import Owner
from agentbudget.testing import ManualClock, MemoryJournal, MemoryStore
from tests.runtime.support import PREPAID

KEY = Key("tool", None, "search", None, False)


class Desk:
    """A host whose owner answers at once."""

    def __init__(self, owner: Owner) -> None:
        self.owner, self.said = owner, list[Renew]()

    def submit(self, customer: str, command: Command, done: Callable[[Any], None]) -> None:
        if isinstance(command, Renew):
            self.said.append(command)
        done(self.owner.handle([(customer, command)])[0])


@pytest.fixture
def desk(clock: ManualClock) -> Desk:
    owner = Owner(MemoryJournal(MemoryStore()), clock, name="test")
    begin: list[Command] = [CreateCustomer(PREPAID.terms("prepaid")), IssueGrant("g", 10_000), OpenSession("run")]
    owner.handle([("acme", command) for command in begin])
    return Desk(owner)


@pytest.fixture
def own(desk: Desk, clock: ManualClock) -> SessionLeases:
    holder = Holder(cast("Any", desk), clock)
    holder._keeper = threading.current_thread()  # the test looks after the leases
    holder._finalizer.detach()
    return SessionLeases(holder, "acme", "run")


def step(own: SessionLeases) -> None:
    begun = own.begin(KEY, 10, {"steps": 1}, True)
    if begun is None:
        lease = own.lease_for(KEY)
        assert lease is not None
        answers: list[Any] = []
        Claim(own, lease, Hold(lease.id, "run", "tool", 10, {"steps": 1}, tool="search")).start(answers.append)
        n = answers[0]
    else:
        lease, n, _ = begun
    own.settle(lease, n, SettleHold(f"{lease.id}.{n}", 5, {"steps": 1}), nothing)


def said_in(desk: Desk, own: SessionLeases, clock: ManualClock, seconds: int) -> list[tuple[bool, int, bool]]:
    """What the owner was told in so many seconds after a step: whether more was asked for, steps reported, and the end."""
    desk.said.clear()
    step(own)
    for _ in range(seconds):
        clock.advance(1)
        tick(own, clock.monotonic_us())
    return [(renew.ask is not None, len(renew.steps), renew.close) for renew in desk.said]


def test_a_slow_session_asks_and_then_reports_and_gives_back_in_one(
    desk: Desk, own: SessionLeases, clock: ManualClock
) -> None:
    assert said_in(desk, own, clock, 5) == [(True, 0, False), (False, 1, False), (False, 0, True)]
    for _ in range(3):
        assert said_in(desk, own, clock, 5) == [(True, 0, False), (False, 1, True)]
    view = desk.owner.handle([("acme", Read("balance"))])[0]
    assert isinstance(view, BalanceView)
    assert (view.consumed, view.held, view.available) == (20, 0, 9_980)


def test_a_session_that_has_become_quick_keeps_its_lease(desk: Desk, own: SessionLeases, clock: ManualClock) -> None:
    for _ in range(2):
        said_in(desk, own, clock, 5)
    assert said_in(desk, own, clock, 1) == [(True, 0, False), (False, 1, True)]
    assert said_in(desk, own, clock, 1) == [(True, 0, False), (False, 1, False)]
    for _ in range(3):
        assert said_in(desk, own, clock, 1) == [(False, 1, False)]
