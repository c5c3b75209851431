"""Child sessions carve from their parent's budget; nobody mints any."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agentbudget import BudgetDenied, InvalidRequest, Runtime, Session
from agentbudget.runtime.customer import Customer
from tests.runtime.support import is_sound, nothing_is_open


def spend(session: Session, amount: object) -> None:
    session.reserve("tool", name="work", amount=amount).settle()  # type: ignore[arg-type]


def test_a_child_carves_its_budget_out_of_its_parents(bolt: Customer) -> None:
    """L3."""
    with bolt.session(budget=10) as parent:
        child = parent.child(budget=6).open()
        assert parent.status().remaining == 4
        with pytest.raises(BudgetDenied):
            parent.child(budget=5).open()
        with pytest.raises(BudgetDenied):
            spend(parent, 5)
        spend(child, 6)
        with pytest.raises(BudgetDenied):
            spend(child, 1)
        assert parent.status().spent == 6


def test_closing_a_child_gives_back_what_it_did_not_use(bolt: Customer) -> None:
    with bolt.session(budget=10) as parent:
        with parent.child(budget=6) as child:
            spend(child, 2)
        assert parent.status().remaining == 8


def test_a_child_without_a_budget_draws_on_its_parent(bolt: Customer) -> None:
    with bolt.session(budget=10) as parent, parent.child() as child:
        spend(child, 6)
        with pytest.raises(BudgetDenied):
            spend(child, 5)
        assert parent.status().spent == 6


def test_a_child_adds_entities_and_never_replaces_its_parents(bolt: Customer) -> None:
    """L12."""
    bolt.entities.put("user:ana")
    bolt.entities.put("agent:writer")
    bolt.limits.set("user:ana", 1)
    with (
        bolt.session(budget=10, entities=["user:ana"]) as parent,
        parent.child(budget=5, entities=["agent:writer"]) as child,
        pytest.raises(BudgetDenied) as refused,
    ):
        spend(child, 2)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "limit"


def test_a_child_takes_its_parents_choices_unless_it_states_its_own(bolt: Customer) -> None:
    with bolt.session(
        budget=10, on_denied="stop", on_unknown="release", max_output_tokens=77, feature="f", workflow="w"
    ) as parent:
        child = parent.child(budget=1)
        assert (child.on_denied, child.on_unknown, child.max_output_tokens) == ("stop", "release", 77)
        assert (child.feature, child.workflow) == ("f", "w")
        assert parent.child(on_denied="refuse").on_denied == "refuse"


def test_closing_a_parent_ends_its_children(bolt: Customer) -> None:
    parent = bolt.session(budget=10).open()
    child = parent.child(budget=5).open()
    parent.close()
    with pytest.raises(BudgetDenied) as refused:
        spend(child, 1)
    assert refused.value.decision is not None
    assert refused.value.decision.reason == "session_closed"


def test_a_fan_out_opens_all_children_or_none(bolt: Customer) -> None:
    with bolt.session(budget=10) as parent:
        with pytest.raises(BudgetDenied):
            parent.fan_out(4, 3)
        assert parent.status().remaining == 10
        children = parent.fan_out(3, 3, entities=["agent:worker"])
        assert len(children) == 3
        assert parent.status().remaining == 1
        for child in children:
            spend(child, 3)


def test_a_fan_out_may_be_content_with_fewer(bolt: Customer) -> None:
    with bolt.session(budget=10) as parent:
        assert len(parent.fan_out(5, 3, at_least=2)) == 3


def test_a_fan_out_of_nothing_is_no_request(bolt: Customer) -> None:
    with bolt.session(budget=10) as parent:
        for n in (0, -1, True):
            with pytest.raises(InvalidRequest):
                parent.fan_out(n, 1)
        with pytest.raises(InvalidRequest):
            parent.fan_out(2, 1, id="named")


def test_children_have_an_asynchronous_face(bolt: Customer) -> None:
    async def run() -> None:
        async with bolt.session(budget=10) as parent:
            child = await parent.achild(budget=2)
            children = await parent.afan_out(2, 3)
            await child.afund(1)
            assert (await child.astatus()).budget == 3
            await child.apause()
            await child.aresume()
            await child.aclose()
            assert (await parent.astatus()).remaining == 4
            assert len(children) == 2

    asyncio.run(run())


def test_five_by_four_by_twenty_agents_are_bound_by_the_parents_budget(runtime: Runtime, acme: Customer) -> None:
    """L3: 400 leaves want 1 credit each, the run has 100."""
    ran: list[int] = []
    with acme.session(budget=100) as run:

        def team(lead: Session) -> None:
            for _ in range(4):
                with lead.child() as worker:
                    for _ in range(20):
                        try:
                            spend(worker, 1)
                        except BudgetDenied:
                            continue
                        ran.append(1)

        leads = [run.child() for _ in range(5)]
        threads = [threading.Thread(target=team, args=(lead,)) for lead in leads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ran) == 100
        assert run.status().spent == 100
    assert nothing_is_open(acme)
    assert is_sound(runtime)
