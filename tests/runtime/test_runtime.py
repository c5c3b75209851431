"""The runtime's administration: customers, wallets, trees, limits, plans, reading beside a writer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from agentbudget import (
    USD,
    BudgetDenied,
    Catalog,
    CatalogError,
    Credits,
    InvalidAmount,
    InvalidRequest,
    KeyConflict,
    OwnerUnavailable,
    Runtime,
    Scope,
)
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.settings import settings_from
from agentbudget.testing import ManualClock, MemoryJournal
from tests.runtime.support import HELLO, PREPAID, is_sound, kinds


@pytest.fixture
def prepaid(quick: Runtime) -> Customer:
    quick.reload_catalog(PREPAID)
    return quick.customers.create("bolt", plan="prepaid")


def test_creating_a_customer_again_answers_the_existing_one(runtime: Runtime) -> None:
    """L4."""
    runtime.customers.create("acme", plan="local")
    assert runtime.customers.create("acme", plan="local").id == "acme"
    with pytest.raises(KeyConflict):
        runtime.customers.create("acme", plan="team")
    with pytest.raises(InvalidRequest, match="local"):
        runtime.customers.create("bolt", plan="no-such-plan")
    assert runtime.customers.list() == ["acme"]


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", None, 7])
def test_an_id_that_may_not_name_a_customer_is_refused(quick: Runtime, name: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        quick.customer(name)  # type: ignore[arg-type]
    assert refused.value.field == "customer"


def test_a_grant_is_issued_once_a_key(prepaid: Customer) -> None:
    """L4."""
    first = prepaid.wallet.grant("2.5", label="welcome", priority=1, category="promo", key="welcome")
    assert (first.id, first.issued, first.state) == ("welcome", Credits("2.5"), "active")
    assert prepaid.wallet.grant("2.5", label="welcome", priority=1, category="promo", key="welcome") == first
    with pytest.raises(KeyConflict):
        prepaid.wallet.grant(3, key="welcome")
    assert prepaid.wallet.balance().available == Credits("2.5")


def test_dollars_are_credits_by_the_catalogs_price(prepaid: Customer) -> None:
    assert prepaid.wallet.grant(USD("5")).issued == 5


@pytest.mark.parametrize("amount", ["NaN", -1, 10**30, "1e-10", None])
def test_an_amount_that_is_none_is_refused_by_name(prepaid: Customer, amount: object) -> None:
    with pytest.raises(InvalidAmount):
        prepaid.wallet.grant(amount)  # type: ignore[arg-type]


def test_times_are_aware_and_come_back_as_they_were(prepaid: Customer, clock: ManualClock) -> None:
    tokyo = timezone(timedelta(hours=9))
    grant = prepaid.wallet.grant(5, expires_at=datetime(2026, 3, 1, 9, tzinfo=tokyo))
    assert grant.expires_at == datetime(2026, 3, 1, tzinfo=UTC)
    with pytest.raises(InvalidRequest) as refused:
        prepaid.wallet.grant(5, expires_at=datetime(2026, 3, 1))
    assert refused.value.field == "expires_at"
    with pytest.raises(InvalidRequest):
        prepaid.wallet.grant(5, effective_at="tomorrow")  # type: ignore[arg-type]
    clock.set_us(clock.now_us() + 100 * 86_400 * 1_000_000)
    assert prepaid.wallet.balance().expired == 5


def test_a_wallet_is_voided_and_adjusted(prepaid: Customer) -> None:
    prepaid.wallet.grant(10, key="g")
    assert prepaid.wallet.void("g", 4).voided == 4
    assert prepaid.wallet.adjust("g", -1).available == 5
    assert prepaid.wallet.adjust("g", 2).available == 7
    assert prepaid.wallet.void("g").available == 0
    with pytest.raises(InvalidRequest):
        prepaid.wallet.void("nothing")


def test_a_statement_is_read_from_the_ledger_alone(prepaid: Customer, clock: ManualClock) -> None:
    prepaid.wallet.grant(10, key="g")
    clock.advance(60)
    with prepaid.session(budget=5, mode="strict") as session:
        session.reserve("tool", name="search").settle()
    lines = prepaid.wallet.statement()
    assert [line.kind for line in lines] == ["grant_issued", "hold_opened", "hold_settled"]
    assert [(line.available, line.held, line.consumed) for line in lines] == [(10, 0, 0), (-2, 2, 0), (0, -2, 2)]
    later = datetime.fromtimestamp(clock.now_us() // 1_000_000, UTC)
    assert len(prepaid.wallet.statement(since=later)) == 2
    assert len(prepaid.wallet.statement(until=later)) == 1


def test_what_is_owed_is_cleared_by_billing(runtime: Runtime, acme: Customer) -> None:
    with acme.session(budget=5) as session:
        session.reserve("tool", name="work", amount=3).settle()
    assert acme.wallet.balance().receivable == 3
    acme.wallet.clear_receivable(2, reference="invoice 7", key="invoice-7")
    acme.wallet.clear_receivable(2, reference="invoice 7", key="invoice-7")
    assert acme.wallet.balance().receivable == 1
    assert is_sound(runtime)


def test_limits_are_set_listed_and_removed(bolt: Customer) -> None:
    bolt.entities.put("team:eng")
    bolt.entities.put("user:ana", parent="team:eng")
    assert [(e.id, e.parent) for e in bolt.entities.list()] == [
        ("customer", None),
        ("team:eng", "customer"),
        ("user:ana", "team:eng"),
    ]
    bolt.limits.set("team:eng", 3, window="month")
    bolt.limits.set("user:ana", 2, measure="steps", scope=Scope(kinds=("tool",)))
    with bolt.session(budget=100, entities=["user:ana"]) as session:
        session.reserve("tool", name="work", amount=1).settle()
        with pytest.raises(BudgetDenied):
            session.reserve("tool", name="work", amount="2.5")
        session.reserve("tool", name="work", amount=0).settle()
        with pytest.raises(BudgetDenied):
            session.reserve("tool", name="work", amount=0)
        bolt.limits.remove("user:ana", measure="steps", scope=Scope(kinds=("tool",)))
        session.reserve("tool", name="work", amount=0).settle()
    (team,) = bolt.limits.list("team:eng")
    assert (team.limit, team.used, team.held, team.origin) == (3, 1, 0, "admin")
    with pytest.raises(InvalidRequest):
        bolt.limits.set("user:ana", "2.5", measure="steps")


def test_a_paused_customer_runs_nothing(bolt: Customer) -> None:
    with bolt.session(budget=1) as session:
        bolt.pause(reason="fraud?")
        with pytest.raises(BudgetDenied) as refused:
            session.reserve("tool", name="work")
        assert refused.value.decision is not None
        assert refused.value.decision.reason == "paused"
        bolt.resume()
        session.reserve("tool", name="work").settle()


def test_explaining_outside_a_session_goes_level_by_level(quick: Runtime, bolt: Customer) -> None:
    bolt.entities.put("user:ana")
    bolt.limits.set("user:ana", "0.001")
    decision = bolt.explain("user:ana", kind="llm", model="gpt-5", request=HELLO, max_output_tokens=1000)
    assert (decision.allowed, decision.reason) == (False, "limit")
    assert decision.binding is not None
    assert decision.binding.entity == "user:ana"
    assert bolt.explain(kind="tool", name="search").allowed
    assert bolt.explain("user:bob", kind="tool", name="search").reason == "unknown_entity"
    assert bolt.explain(kind="llm", model="no-such-model", request="hi").reason == "unknown_price"
    assert quick.customer("nobody").explain(kind="tool", name="search").reason == "unknown_customer"


def test_sessions_are_listed_and_closed_from_outside(bolt: Customer) -> None:
    session = bolt.session(budget=1, id="run-7").open()
    assert [status.id for status in bolt.sessions.list()] == ["run-7"]
    assert bolt.sessions.get("run-7").budget == 1
    bolt.sessions.close("run-7")
    with pytest.raises(BudgetDenied):
        session.reserve("tool", name="work")
    with pytest.raises(InvalidRequest):
        bolt.sessions.get("run-8")


def test_a_reloaded_catalog_prices_the_next_step_and_changes_plans_at_the_next_session(
    quick: Runtime, prepaid: Customer, tmp_path: Path
) -> None:
    prepaid.wallet.grant(100)
    with prepaid.session(budget=50) as session:
        old = session.reserve("tool", name="search")
        dearer = PREPAID.text.replace("per_call = 2", "per_call = 3").replace(
            'wallet = "prepaid"', 'wallet = "prepaid"\n    models = ["m-1"]'
        )
        path = tmp_path / "catalog.toml"
        path.write_text(dearer)
        quick.reload_catalog(path)
        assert old.settle().charged == 2  # quoted by the catalog before
        assert session.reserve("tool", name="search").hold == 3
        session.reserve("llm", model="m-2", input_tokens=1).release()  # this session keeps its plan
    with prepaid.session(budget=50) as session, pytest.raises(BudgetDenied) as refused:
        session.reserve("llm", model="m-2", input_tokens=1)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "model_not_allowed"
    assert kinds(prepaid).count("plan_assigned") == 1
    assert prepaid.info().catalog == quick.catalog.version


def test_a_broken_catalog_leaves_the_old_one_in_force(quick: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text("[plans.x]\nwallet = 'borrowed'\n")
    before = quick.catalog
    with pytest.raises(CatalogError):
        quick.reload_catalog(path)
    assert quick.catalog is before


def test_a_customer_is_put_under_another_plan(quick: Runtime) -> None:
    acme = quick.customers.create("acme", plan="local")
    acme.assign_plan("team")
    assert acme.info().plan == "team"
    with pytest.raises(InvalidRequest):
        acme.assign_plan("no-such-plan")


def test_a_read_only_runtime_reads_beside_the_writer_and_writes_nothing(tmp_path: Path, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path}/budget.db"
    with Runtime.open(url, clock=clock) as writer:
        acme = writer.customers.create("acme", plan="local")
        with acme.session(budget=5, id="run-7", mode="strict") as session:
            session.reserve("tool", name="work", amount=3).settle()
        with Runtime.open(url, clock=clock, read_only=True) as reader:
            read = reader.customer("acme")
            assert reader.customers.list() == ["acme"]
            assert read.wallet.balance() == acme.wallet.balance()
            assert read.sessions.get("run-7").spent == 3
            assert read.explain(kind="tool", name="work").allowed
            assert len(read.wallet.statement()) == 2
            assert reader.ledger.verify().ok
            assert reader.ledger.reconcile() == []
            for write in (
                lambda: read.wallet.grant(1),
                lambda: read.session(id="run-7").open(),
                lambda: reader.customers.create("bolt"),
            ):
                with pytest.raises(InvalidRequest, match="read-only"):
                    write()
            session.reserve("tool", name="work", amount=1).settle()
            assert read.wallet.balance().receivable == 4


def test_reading_a_ledger_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(OwnerUnavailable):
        Runtime.open(f"sqlite:///{tmp_path}/nothing.db", read_only=True)
    with pytest.raises(InvalidRequest):
        Runtime.open("memory://", read_only=True)


def test_a_runtime_is_a_context_manager_of_both_kinds(ledger: str) -> None:
    async def run() -> None:
        async with Runtime.open(ledger) as runtime:
            customer = runtime.customers.create("acme")
            async with customer.session(budget=1) as session:
                assert (await session.astatus()).remaining == 1
        with pytest.raises(OwnerUnavailable):
            customer.wallet.balance()

    asyncio.run(run())


def test_a_journal_may_be_given_instead_of_a_url(clock: ManualClock) -> None:
    journal = MemoryJournal()
    with Runtime.open(journal, clock=clock) as runtime:
        runtime.customers.create("acme")
    assert list(journal.store.entries) == ["acme"]


def test_settings_come_from_what_is_stated_then_the_environment_then_the_defaults() -> None:
    environ = {"AGENTBUDGET_LEDGER": "sqlite:///a.db", "AGENTBUDGET_SYNCHRONOUS": "normal"}
    found = settings_from(environ, ledger="memory://", host=None)
    assert (found.ledger, found.synchronous, found.host) == ("memory://", "NORMAL", "auto")
    assert settings_from(environ).ledger == "sqlite:///a.db"
    assert settings_from({}).ledger == "memory://"


def test_owners_on_ray_are_said_by_the_environment_where_nothing_is_stated() -> None:
    """For commands and workers, which have no other way to say it."""
    environ = {"AGENTBUDGET_OWNERS": "4", "AGENTBUDGET_OWNER_LIFETIME": "driver"}
    found = settings_from(environ)
    assert (found.owners, found.owner_lifetime) == (4, "driver")
    stated = settings_from(environ, owners=2, owner_lifetime="detached")
    assert (stated.owners, stated.owner_lifetime) == (2, "detached")
    for variable, field in (("AGENTBUDGET_OWNERS", "owners"), ("AGENTBUDGET_OWNER_LIFETIME", "owner_lifetime")):
        with pytest.raises(InvalidRequest) as refused:
            settings_from({variable: "many"})
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("stated", "field"),
    [
        ({"host": "moon"}, "host"),
        ({"synchronous": "OFF"}, "synchronous"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"hold_ttl_seconds": "x"}, "hold_ttl_seconds"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_setting_is_refused_by_name(stated: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        settings_from({}, **stated)
    assert refused.value.field == field


def test_the_denials_of_a_customer_can_be_looked_at(bolt: Customer) -> None:
    with bolt.session(budget=1) as session:
        for _ in range(3):
            with pytest.raises(BudgetDenied):
                session.reserve("tool", name="work", amount=2)
    assert sum(note.count for note in bolt.denials()) == 3
    assert bolt.denials()[0].reason == "session_budget"


def test_the_bundled_catalog_is_the_default(quick: Runtime) -> None:
    assert quick.catalog == Catalog.bundled()
