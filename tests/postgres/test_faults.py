"""When PostgreSQL is away, slow, paused, read-only or restarted: a clear error within a stated time, and the same journal
heals by itself (laws L1 and L8)."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable

import pytest

from agentbudget import Runtime
from agentbudget.errors import InvalidRequest, LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger import Batch, DenialNote, open_archive, open_journal, verify_ledger
from agentbudget.ledger.postgres import database as limits
from agentbudget.ledger.postgres.journal import PostgresJournal
from agentbudget.testing import sample_chain
from tests.ledger.places import PostgresPlace
from tests.postgres.proxy import Proxy
from tests.postgres.server import PostgresServer
from tests.summary import Record, publish

CHAIN = sample_chain("acme", 6)


def test_a_session_that_was_ended_while_idle_is_replaced_and_nobody_notices(
    own_server: PostgresServer, own_place: PostgresPlace
) -> None:
    journal = own_place.open()
    journal.claim("the test")
    journal.commit(Batch(entries=CHAIN[:1]))
    own_server.stop()
    own_server.start()
    journal.commit(Batch(entries=CHAIN[1:2]))
    own_server.kill()
    own_server.start()
    assert journal.find([("acme", "k1")])
    journal.commit(Batch(entries=CHAIN[2:]))
    assert list(journal.entries("acme")) == CHAIN


def test_a_server_that_is_down_is_told_and_heals(own_server: PostgresServer, own_place: PostgresPlace) -> None:
    journal = own_place.open()
    journal.claim("the test")
    own_server.stop()
    for call in (lambda: journal.commit(Batch(entries=CHAIN[:1])), lambda: journal.load("acme"), own_place.open):
        with pytest.raises(OwnerUnavailable, match="cannot be reached"):
            call()
    own_server.start()
    journal.commit(Batch(entries=CHAIN[:1]))
    assert list(journal.entries("acme")) == CHAIN[:1]


def test_L8_a_paused_server_is_given_up_in_the_stated_time(
    own_server: PostgresServer, own_place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine still acknowledges packets, so nothing but a deadline of our own ends the wait."""
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 1)
    journal = own_place.open()
    journal.claim("the test")
    own_server.pause()
    try:
        with pytest.raises(OwnerUnavailable, match="no answer within 1 s"):
            journal.commit(Batch(entries=CHAIN[:1]))
        with pytest.raises(OwnerUnavailable, match="no connection within 3 s"):
            journal.commit(Batch(entries=CHAIN[:1]))
    finally:
        own_server.pause(until_resumed=False)
    journal = finish(journal, CHAIN[:1])
    assert list(journal.entries("acme")) == CHAIN[:1]


def finish(journal: PostgresJournal, chain: list[object]) -> PostgresJournal:
    """What an owner does after an unknown outcome: look, and write what is not there."""
    if not journal.find([("acme", "k1")]):
        journal.commit(Batch(entries=chain))  # type: ignore[arg-type]
    return journal


def test_L8_a_network_that_swallows_packets_is_given_up_and_healed(
    postgres: PostgresServer, place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 1)
    proxy = Proxy(postgres.port, lambda message: False)
    journal = PostgresJournal.open(postgres.url(place.database, port=proxy.port))
    journal.claim("the test")
    proxy.swallow()
    with pytest.raises(OwnerUnavailable, match="no answer within 1 s"):
        journal.commit(Batch(entries=CHAIN[:1]))
    proxy.swallow(everything=False)
    assert list(finish(journal, CHAIN[:1]).entries("acme")) == CHAIN[:1]
    journal.close()
    proxy.close()


def test_a_statement_that_is_held_up_is_refused_by_name_and_the_next_goes_through(
    place: PostgresPlace, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.commit(Batch(entries=CHAIN[:1]))
    assert journal._line is not None
    with place.server.connect(place.database) as other:
        other.autocommit = False
        other.execute("LOCK TABLE agentbudget.entries IN ACCESS EXCLUSIVE MODE")
        journal._line.script("SET lock_timeout = '200ms'")
        with pytest.raises(OwnerUnavailable, match="locked by another program"):
            journal.commit(Batch(entries=CHAIN[1:2]))
        journal._line.script("SET lock_timeout = 0; SET statement_timeout = '200ms'")
        with pytest.raises(OwnerUnavailable, match="did not answer within"):
            journal.commit(Batch(entries=CHAIN[1:2]))
    journal._line.script("SET statement_timeout = '5s'")
    journal.commit(Batch(entries=CHAIN[1:]))
    assert list(journal.entries("acme")) == CHAIN


def test_a_read_only_database_refuses_writers_by_name_and_serves_readers(
    place: PostgresPlace, journal: PostgresJournal
) -> None:
    journal.commit(Batch(entries=CHAIN[:1]))
    journal.close()
    place.server.sql(f'ALTER DATABASE "{place.database}" SET default_transaction_read_only = on')
    with pytest.raises(OwnerUnavailable, match="is read-only") as refused:
        place.open()
    assert "primary" in refused.value.advice
    assert verify_ledger(open_archive(place.url)).entries == 1
    assert list(open_journal(place.url, read_only=True).entries("acme")) == CHAIN[:1]


def test_a_database_that_becomes_read_only_refuses_the_commit_and_heals(
    place: PostgresPlace, journal: PostgresJournal
) -> None:
    assert journal._line is not None
    journal._line.script("SET default_transaction_read_only = on")
    with pytest.raises(OwnerUnavailable, match="is read-only"):
        journal.commit(Batch(entries=CHAIN[:1]))
    journal._line.script("SET default_transaction_read_only = off")
    journal.commit(Batch(entries=CHAIN[:1]))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg://postgres@127.0.0.1:{free}/x", "cannot be reached"),
        ("postgresql+psycopg://postgres@127.0.0.1:{port}/no_such_database", "refused the session .*does not exist"),
        ("postgresql+psycopg://nobody-here@127.0.0.1:{port}/postgres", "refused the session .*nobody-here"),
        ("postgresql+psycopg://postgres@/x?host=/no/such/folder", "cannot be reached"),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(postgres: PostgresServer, url: str, said: str) -> None:
    stated = url.format(free=1, port=postgres.port)
    for opening in (open_journal, open_archive):
        with pytest.raises(OwnerUnavailable, match=said):
            opening(stated)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://host", "postgresql+psycopg://ana:secret@host/", "postgresql+psycopg://ana:secret@[/x"]
)
def test_a_url_that_names_nothing_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidRequest, match="ledger: the PostgreSQL URL") as refused:
        open_journal(url)
    assert "secret" not in str(refused.value)


def test_no_error_tells_the_password(postgres: PostgresServer) -> None:
    with pytest.raises(OwnerUnavailable) as refused:
        open_journal(f"postgresql+psycopg://ana:secret@127.0.0.1:{postgres.port}/no_such_database")
    assert "secret" not in str(refused.value)


def test_a_database_in_another_encoding_is_refused(postgres: PostgresServer) -> None:
    postgres.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(OwnerUnavailable, match="encoded in LATIN1"):
            open_journal(postgres.url("latin"))
    finally:
        postgres.drop_database("latin")


def test_a_user_without_rights_is_refused_and_a_reader_needs_only_to_read(
    place: PostgresPlace, journal: PostgresJournal
) -> None:
    journal.commit(Batch(entries=CHAIN))
    server, name = place.server, place.database
    role = f"reader_{name}"
    server.sql(f"CREATE ROLE {role} LOGIN")
    url = server.url(name, user=role)
    with pytest.raises(OwnerUnavailable, match="may not be used so by this user"):
        open_archive(url)
    server.sql(f"GRANT USAGE ON SCHEMA agentbudget TO {role}", name)
    server.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA agentbudget TO {role}", name)
    assert list(open_archive(url).entries("acme")) == CHAIN
    beside = open_journal(url)
    with pytest.raises(OwnerUnavailable):
        beside.claim("a reader")
    beside.close()


def test_a_missing_table_is_damage(place: PostgresPlace, journal: PostgresJournal) -> None:
    journal.commit(Batch(entries=CHAIN))
    place.server.sql("DROP TABLE agentbudget.snapshots", place.database)
    with pytest.raises(LedgerCorrupt, match=r"a table is missing .*snapshots"):
        journal.load("acme")


def test_a_denial_with_text_that_postgres_cannot_hold_does_not_stop_its_batch(journal: PostgresJournal) -> None:
    note = DenialNote("acme", 1, "s", "user:ana", "limit", "tool", "rm\0-rf")
    journal.commit(Batch(entries=CHAIN[:1], denials=[note]))
    assert list(journal.entries("acme")) == CHAIN[:1]
    assert [one.name for one in journal.denials("acme")] == ["rm\ufffd-rf"]


def test_L1_commits_reach_the_disk_even_where_an_administrator_lets_them_answer_before(place: PostgresPlace) -> None:
    place.server.sql(f'ALTER DATABASE "{place.database}" SET synchronous_commit = off')
    journal = place.open()
    assert journal._line is not None
    assert journal._line.script("SHOW synchronous_commit") == [("on",)]


def test_it_works_over_a_unix_socket(place: PostgresPlace) -> None:
    journal = PostgresJournal.open(place.server.socket_url(place.database))
    journal.claim("the test")
    journal.commit(Batch(entries=CHAIN))
    assert list(journal.entries("acme")) == CHAIN
    journal.close()


def test_L1_L4_a_server_that_is_restarted_again_and_again_under_load_heals_by_itself(
    own_server: PostgresServer,
    own_place: PostgresPlace,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
    tmp_path: object,
) -> None:
    """Strict steps on many threads while the server is stopped, and killed, and comes back: each is repeated until it is
    answered, and the books hold each once."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    restarts, threads, steps = 4, 6, itertools.count()
    is_over, failures, done = threading.Event(), list[BaseException](), list[str]()
    with Runtime.open(own_place.url) as runtime:
        session = runtime.customers.create("acme", plan="local").session(budget=10**6, mode="strict").open()

        def work() -> None:
            while not is_over.is_set():
                key = f"step-{next(steps)}"
                try:
                    until_answered(
                        lambda key=key: session.reserve("tool", name="search", amount=1, key=key).settle(amount=1)
                    )
                    done.append(key)
                except BaseException as error:
                    failures.append(error)
                    raise

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for number in range(restarts):
            wait_for_more(done)
            own_server.stop(signal.SIGKILL if number % 2 else signal.SIGINT)
            own_server.start()
        wait_for_more(done)
        is_over.set()
        for worker in workers:
            worker.join()
        assert not failures
        assert session.status().spent == len(done)
        assert runtime.ledger.verify().ok
        assert runtime.ledger.reconcile() == []
    publish(
        record_property,
        "PostgreSQL restarted under load",
        {"restarts": restarts, "steps": len(done), "lost": 0, "doubled": 0},
    )


def until_answered(step: Callable[[], object]) -> None:
    """Repeat a step under its key until the ledger answers."""
    for _ in range(100):
        try:
            step()
        except OwnerUnavailable:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the ledger never healed")


def wait_for_more(done: list[str]) -> None:
    """Until some more steps are done."""
    enough, deadline = len(done) + 5, time.monotonic() + 60
    while len(done) < enough:
        assert time.monotonic() < deadline
        time.sleep(0.01)
