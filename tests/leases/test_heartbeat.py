"""What another process decides reaches a session that spends on a lease: at its next beat, no later."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from agentbudget import BudgetDenied, Catalog, Credits, Runtime, Session
from tests.leases.processes import Crew, Life
from tests.leases.spending import CUSTOMER, books, is_owner, is_sound, reason_of, url_of

PRICES: Final = """
    [plans.prepaid]
    wallet = "prepaid"
    [[rates]]
    id = "search"
    tool = "search"
    per_call = {price}
    """


def catalog(price: int) -> Catalog:
    return Catalog.loads(PRICES.format(price=price), source=f"price {price}")


class Scene(NamedTuple):
    """A live leased session of this process, and another process that governs it."""

    runtime: Runtime
    session: Session
    other: Life

    def order(self, *what: object) -> None:
        """The other process does it, and then this one beats once."""
        assert self.other.ask(*what) == "done"
        assert self.runtime.holder is not None
        self.runtime.holder.beat()

    def spend(self) -> Credits:
        """A step at the catalog's price: what was charged."""
        return self.session.reserve("tool", name="search", dispatched=True).settle().charged

    def refusal(self) -> str:
        with pytest.raises(BudgetDenied) as denied:
            self.spend()
        return reason_of(denied.value)

    @property
    def has_lease(self) -> bool:
        return self.session.leases is not None and bool(self.session.leases.leases)


def govern(path: Path, opens_first: bool, life: Life) -> None:
    """The other process: it may own the ledger, or be served by the one that runs the session."""
    if not opens_first:
        life.wait()
    runtime = Runtime.open(url_of(path), catalog=catalog(2))
    acme = runtime.customers.create(CUSTOMER, plan="prepaid")
    acme.wallet.grant(1_000, key="all")
    acme.entities.put("user:ana")
    acme.limits.set("user:ana", 400)
    life.say(is_owner(runtime))
    while (order := life.wait()) != "end":
        match order:
            case ["pause", entity]:
                acme.pause(entity)
            case ["resume", entity]:
                acme.resume(entity)
            case ["limit", entity, credits]:
                acme.limits.set(entity, credits)
            case ["close", session]:
                acme.sessions.close(session)
            case ["price", credits]:
                runtime.reload_catalog(catalog(credits))
        life.say("done")
    runtime.close()


@pytest.fixture(params=["served", "owner"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """The process with the session is served by the other one, or owns the ledger itself."""
    is_served = request.param == "served"
    with Crew() as crew:
        other = crew.start(partial(govern, tmp_path, is_served))
        if is_served:
            assert other.hear() is True
        with Runtime.open(url_of(tmp_path), catalog=catalog(2)) as runtime:
            if not is_served:
                assert other.ask("go") is False
            session = runtime.customer(CUSTOMER).session(id="run", budget=500, entities="user:ana").open()
            found = Scene(runtime, session, other)
            assert (found.spend(), found.has_lease) == (Credits(2), True)
            yield found
            runtime.settle_up()
            assert books(runtime.customer(CUSTOMER)).held == 0
            assert is_sound(runtime)
            other.tell("end")
            other.finish()


@pytest.mark.parametrize("entity", ["customer", "user:ana", "session:run"])
def test_a_pause_refuses_the_next_step_and_a_resume_allows_it(scene: Scene, entity: str) -> None:
    scene.order("pause", entity)
    assert scene.refusal() == "paused"
    scene.order("resume", entity)
    assert scene.spend() == Credits(2)


def test_a_lowered_limit_counts_from_the_next_step_on(scene: Scene) -> None:
    """L3: two credits are spent; what is left of the lower one is room for one more step, whatever was leased before."""
    scene.order("limit", "user:ana", 5)
    assert scene.spend() == Credits(2)
    assert scene.refusal() == "limit"
    scene.order("limit", "user:ana", 6)
    assert scene.spend() == Credits(2)


def test_a_limit_below_what_is_spent_lets_nothing_more_run(scene: Scene) -> None:
    scene.order("limit", "customer", 1)
    assert scene.refusal() == "limit"


def test_a_session_that_was_closed_elsewhere_runs_no_step_more(scene: Scene) -> None:
    """The kill switch; a step that was under way still settles at what it cost."""
    under_way = scene.session.reserve("tool", name="search", dispatched=True)
    scene.order("close", "run")
    assert scene.refusal() == "session_closed"
    assert under_way.settle(amount="1.5").charged == Credits("1.5")
    scene.runtime.settle_up()
    assert books(scene.runtime.customer(CUSTOMER)).consumed == Credits("3.5").nano


def test_a_new_catalog_prices_the_next_step(scene: Scene) -> None:
    """L10: each step is booked with the version that priced it, also the one that was under way."""
    under_way = scene.session.reserve("tool", name="search", dispatched=True)
    old = scene.runtime.catalog.version
    scene.order("price", 7)
    assert scene.spend() == Credits(7)
    assert under_way.settle().charged == Credits(2)
    versions = {line.amount: line.catalog for line in scene.runtime.customer(CUSTOMER).ledger.steps() if line.catalog}
    assert scene.runtime.catalog.version == catalog(7).version != old
    assert set(versions.values()) <= {old, catalog(7).version}


def test_a_new_catalog_of_this_process_reaches_the_others(scene: Scene) -> None:
    """The other way round, and back: whoever published last is right."""
    scene.runtime.reload_catalog(catalog(3))
    assert scene.spend() == Credits(3)
    scene.order("price", 5)
    assert scene.spend() == Credits(5)
