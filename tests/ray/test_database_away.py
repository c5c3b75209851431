"""PostgreSQL is away while a cluster works: leased steps go on as far as was set aside, everything else waits or is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agentbudget import Credits, OwnerUnavailable, Runtime, Session
from agentbudget.ledger import open_journal
from tests.leases.spending import CATALOG, books, is_sound, lines_of
from tests.postgres.server import PostgresServer
from tests.ray import work
from tests.ray.ending import end_owners

ray = pytest.importorskip("ray")

GRANTED = 10**9
PATIENCE = 120.0
"""Seconds until what never comes is a failure."""


def test_L1_L3_L4_L8_leases_go_on_while_postgresql_is_away_and_all_heals_when_it_is_back(ray_cluster: str) -> None:
    """Strict steps fail closed, leased ones when what was set aside is used up or the owner is silent for too long; nothing is
    lost, and nothing is booked twice."""
    with PostgresServer() as server:
        url = server.url(server.new_database())
        open_journal(url).close()
        with Runtime.open(url, CATALOG, owners=1) as runtime:
            acme = runtime.customers.create("acme", plan="prepaid")
            acme.wallet.grant(Credits.of_nano(GRANTED), key="all")
            leased, strict = acme.session(id="leased").open(), acme.session(id="strict", mode="strict").open()
            with Runtime.open(
                url, CATALOG, host="local", read_only=True
            ) as beside:  # asking here would give leases back
                spent = [work.spend(strict, 10), work.spend(leased, 10, 5)]
                aside = books(beside.customer("acme")).leased // 10 - 5  # steps; those above may not be reported yet
                server.stop()  # a lease that is idle for two seconds is given back: nothing slow comes before this
            assert aside > 0
            spent.append(work.spend(leased, 10, aside))  # nobody is asked: what was set aside is enough
            assert tried(strict, "strict") is None
            spent.append(until_refused(leased))
            server.start()
            spent += [until_served(session) for session in (strict, leased)]
            for session in (leased, strict):
                session.close()
            found = books(acme)
            assert (found.consumed, found.held) == (sum(spent), 0)
            assert found.consumed + found.available == GRANTED
            assert all(len(lines) == 1 for lines in lines_of(acme).values())
            assert is_sound(runtime)
        end_owners(runtime.settings.ledger)


def tried(session: Session, tool: str) -> int | None:
    """What a step cost that waits for a moment only; None when it was refused for want of an owner."""
    try:
        step = session.reserve("tool", name=tool, amount=Credits.of_nano(10), dispatched=True, timeout_seconds=0.5)
    except OwnerUnavailable:
        return None
    return step.settle().charged.nano


def until_refused(session: Session) -> int:
    """What was spent before."""
    return _spent(session, lambda cost: cost is None)


def until_served(session: Session) -> int:
    return _spent(session, lambda cost: cost is not None)


def _spent(session: Session, is_over: Any) -> int:
    deadline, spent = time.monotonic() + PATIENCE, 0
    while True:
        cost = tried(session, "search")
        spent += cost or 0
        if is_over(cost):
            return spent
        assert time.monotonic() < deadline
