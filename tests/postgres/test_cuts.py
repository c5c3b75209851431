"""Connections that are cut around COMMIT: the outcome is unknown, and the key decides it (laws L1 and L4)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from agentbudget.account.commands import CreateCustomer, IssueGrant
from agentbudget.catalog import Catalog
from agentbudget.clock import SystemClock
from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger import Batch, verify, verify_ledger
from agentbudget.ledger.postgres.journal import COPY_FROM, PostgresJournal
from agentbudget.runtime.owner.owner import Owner
from agentbudget.testing import sample_chain
from tests.ledger.places import PostgresPlace
from tests.postgres.proxy import Cut, Proxy
from tests.postgres.server import PostgresServer
from tests.scale import Scale
from tests.summary import Record, publish

CUSTOMERS = 4


def writes(message: bytes) -> bool:
    """A prepared statement that carries records, or COMMIT itself."""
    return b'"postings"' in message or message.startswith(b"Q\x00\x00\x00\x0bCOMMIT")


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    opened = Proxy(postgres.port, writes)
    yield opened
    opened.close()


@pytest.fixture
def journal(place: PostgresPlace, proxy: Proxy) -> Iterator[PostgresJournal]:
    """A claimed journal behind the proxy."""
    opened = PostgresJournal.open(place.server.url(place.database, port=proxy.port))
    opened.claim("the test")
    yield opened
    opened.close()


def test_L1_L4_connections_cut_around_commit_lose_and_double_nothing(
    place: PostgresPlace, proxy: Proxy, journal: PostgresJournal, scale: Scale, record_property: Record
) -> None:
    """Every answer that a caller has is in the ledger, and every command has one effect, whichever way its cut went."""
    chance, cuts = random.Random(7), scale(100)
    owner = Owner(journal, SystemClock(), name="the test")
    terms = Catalog.bundled().terms("local")
    customers = [f"customer-{n}" for n in range(CUSTOMERS)]
    assert not [one for one in owner.handle([(name, CreateCustomer(terms)) for name in customers]) if is_error(one)]
    answered: dict[tuple[str, str], object] = {}
    unknown = retries = number = 0
    while proxy.cuts < cuts:
        number += 1
        requests = [
            (name, IssueGrant(f"g{number}", number, key=f"g{number}"))
            for name in chance.sample(customers, chance.randint(1, 4))
        ]
        proxy.cut_next(chance.choice(("before", "after")))
        for _ in range(5):
            replies = owner.handle(requests)
            if not any(map(is_error, replies)):
                break
            assert all(isinstance(reply, OwnerUnavailable) for reply in replies), replies
            unknown += 1
            retries += len(requests)
        answered.update({(name, command.key): reply for (name, command), reply in zip(requests, replies, strict=True)})
    check_effects(place, answered)
    assert unknown >= cuts  # each of them was seen as an unknown outcome, not passed over
    found = {"cuts": proxy.cuts, "retries": retries, "answers": len(answered), "lost": 0, "doubled": 0}
    publish(record_property, "PostgreSQL connections cut around COMMIT", found)


def is_error(reply: object) -> bool:
    return isinstance(reply, Exception)


def check_effects(place: PostgresPlace, answered: dict[tuple[str, str], object]) -> None:
    """One grant entry for each answered command, in chains that verify."""
    assert not [key for key, reply in answered.items() if is_error(reply)]
    archive = place.open()
    assert verify_ledger(archive).ok
    effects = [(name, one.key) for name in archive.customers() for one in archive.entries(name) if one.key]
    grants = [(name, key.removeprefix("grant:")) for name, key in effects if key.startswith("grant:")]
    assert sorted(grants) == sorted(answered)


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("size", [1, COPY_FROM])
def test_L4_what_became_of_a_cut_commit_is_known_when_the_owner_reads_on(
    proxy: Proxy, journal: PostgresJournal, how: Cut, size: int
) -> None:
    chain = sample_chain("acme", size)
    proxy.cut_next(how)
    if size >= COPY_FROM:
        proxy._is_commit = lambda message: message.startswith(b"Q\x00\x00\x00\x0bCOMMIT")
    with pytest.raises(OwnerUnavailable, match="retry with the same key"):
        journal.commit(Batch(entries=chain))
    is_there = bool(journal.find([("acme", "k1")]))
    assert is_there == (how == "after")
    assert (journal.load("acme") is not None) == is_there
    if not is_there:
        journal.commit(Batch(entries=chain))
    assert list(journal.entries("acme")) == chain


def test_a_commit_that_is_still_running_when_its_connection_is_cut_is_waited_for(
    place: PostgresPlace, proxy: Proxy, journal: PostgresJournal
) -> None:
    """The server is held up in the middle of it; without the wait the owner would read, find nothing, and be wrong."""
    first, second = sample_chain("acme", 2)
    journal.commit(Batch(entries=[first]))  # its statement is prepared now, which the lock below would hold up too
    with place.server.connect(place.database) as other:
        other.autocommit = False
        other.execute("LOCK TABLE agentbudget.entries IN EXCLUSIVE MODE")
        proxy.cut_next("after")
        proxy.waits_for_answer = False
        with pytest.raises(OwnerUnavailable):
            journal.commit(Batch(entries=[second]))
        assert [one.seq for one in journal.load("acme").entries] == [1]  # its session was ended first ...
    assert proxy.cuts == 1
    assert list(journal.entries("acme")) == [first]  # ... so this stays true when the lock is gone
    journal.commit(Batch(entries=[second]))
    assert verify(journal.entries("acme")).entries == 2
