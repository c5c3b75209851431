"""Sessions travel into tasks and actors of a real cluster: handles, budgeted work, denials, retries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentbudget import BudgetAbort, BudgetDenied, Credits, InvalidRequest, Runtime, Session, find_denied
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.on_ray.host import RayHost
from tests.leases.spending import books, is_sound
from tests.ray import work

ray = pytest.importorskip("ray")


def remote(function: Any, **options: Any) -> Callable[..., Any]:
    """Run it as a task and wait."""
    task = ray.remote(function).options(num_cpus=0, **options)
    return lambda *args, **kwargs: ray.get(task.remote(*args, **kwargs), timeout=60)


@pytest.fixture
def session(acme: Customer) -> Iterator[Session]:
    with acme.session(budget=Credits.of_nano(1_000)) as opened:
        yield opened


def until_settled(customer: Customer, runtime: Runtime) -> None:
    """Workers report within a second; a dead one's spool is replayed by this process."""
    for _ in range(2_000):
        if books(customer).held == 0:
            return
        runtime.sweep()
    raise AssertionError(f"still held: {books(customer).held}")


def test_a_program_on_ray_has_its_owner_there_and_says_local_where_it_wants_it(
    runtime: Runtime, opened: Any, tmp_path: Path
) -> None:
    assert isinstance(runtime.host, RayHost)
    assert runtime.settings.ledger == f"sqlite:///{tmp_path}/budget.db"
    assert "owner-0" in runtime.host.owner
    with Runtime.open(f"sqlite:///{tmp_path}/other.db", host="local") as local:
        assert isinstance(local.host, MachineHost)
    assert isinstance(Runtime.open("memory://").host, object)


def test_workers_spend_a_session_by_its_handle(session: Session, acme: Customer, runtime: Runtime) -> None:
    spent = remote(work.spend_in)(session.handle(), 10, 20)
    until_settled(acme, runtime)
    assert session.status().spent.nano == spent == 200
    assert remote(work.who)(session.handle()) == (session.id, runtime.host.owner)
    assert is_sound(runtime)


def test_workers_make_owners_as_the_program_that_has_the_session_says(opened: Any) -> None:
    """Else a worker that finds no owner starts one that outlives the program."""
    acme = opened(owner_lifetime="driver").customers.create("acme", plan="postpaid")
    with acme.session(budget=1) as session:
        assert remote(work.owners_as_here)(session.handle()) == [(1, "driver")] * 2


def test_a_denial_crosses_ray_as_itself(session: Session) -> None:
    with pytest.raises(BudgetDenied) as denied:
        remote(work.greedy)(session.handle())
    found = find_denied(denied.value)
    assert isinstance(found, BudgetDenied)
    assert found.decision is not None
    assert found.decision.reason == "session_budget"
    assert found.decision.binding is not None
    assert found.decision.affordable.amount.nano <= 1_000
    assert denied.value.decision == found.decision


def test_an_abort_crosses_ray_too(session: Session) -> None:
    with pytest.raises(BudgetAbort) as denied:
        remote(work.greedy_in_a_child)(session.handle())
    assert isinstance(find_denied(denied.value), BudgetAbort)


def test_budgeted_tasks_have_children_of_their_own_that_end_with_them(session: Session, acme: Customer) -> None:
    """L3: a child's budget is carved out of the caller's session, and comes back."""
    task = ray.remote(work.research).options(num_cpus=0)
    found = ray.get([task.remote(session.handle(), 10, 3) for _ in range(4)], timeout=60)
    assert len({child for child, _, _ in found}) == 4
    assert {parent for _, parent, _ in found} == {session.id}
    status = session.status()
    assert (status.spent.nano, status.held.nano, status.remaining) == (120, 0, Credits.of_nano(880))
    assert [one.id for one in acme.sessions.list()] == [session.id]
    with pytest.raises(BudgetDenied):
        remote(work.research)(session.handle(), 101)


def test_async_work_is_budgeted_too(session: Session) -> None:
    topic, current = asyncio.run(work.research_async("bees", session=session))
    assert (topic, bool(current)) == ("bees", True)
    assert current != session.id
    assert session.status().spent.nano == 10


def test_a_task_that_ray_does_again_has_the_same_child_and_its_steps_are_new(
    session: Session, acme: Customer, runtime: Runtime, tmp_path: Path
) -> None:
    """L4, L11: the budget is not carved out twice, and what both executions spent is spent."""
    child, _ = remote(work.research_that_dies, max_retries=2)(session.handle(), str(tmp_path))
    until_settled(acme, runtime)
    assert {line.session for line in acme.ledger.steps()} == {child}
    assert session.status().spent.nano == 20
    assert session.status().remaining.nano == 980
    assert [one.id for one in acme.sessions.list()] == [session.id]


def test_grants_of_work_that_is_done_again_are_made_once(
    session: Session, acme: Customer, runtime: Runtime, tmp_path: Path
) -> None:
    """L4: they state no key."""
    grants = remote(work.grant_twice_and_die, max_retries=2)(session.handle(), str(tmp_path))
    assert len(set(grants)) == 2
    assert {grant.id for grant in acme.wallet.grants()} >= set(grants)
    assert sum(grant.issued.nano for grant in acme.wallet.grants()) == 10 * 10**9


def test_an_actor_has_one_child_for_its_life_also_after_a_restart(session: Session, runtime: Runtime) -> None:
    """L3: a restart mints no budget."""
    actor = (
        ray.remote(work.Researcher)
        .options(num_cpus=0, max_restarts=1, max_task_retries=1)
        .remote(session.handle(), name="ann")
    )
    child, _ = ray.get(actor.ask.remote(60), timeout=60)
    assert ray.get(actor.think.remote(20), timeout=60) == 20
    actor.die.options(max_task_retries=0).remote()
    runtime.sweep()
    again, _ = ray.get(actor.ask.options(max_task_retries=5).remote(10), timeout=60)
    assert again == child
    with pytest.raises(BudgetDenied):
        ray.get(actor.ask.remote(50), timeout=60)
    ray.kill(actor)


def test_a_killed_worker_leaves_nothing_open(
    session: Session, acme: Customer, runtime: Runtime, tmp_path: Path
) -> None:
    """L1, L5: another process of the machine books what it had settled, and what ran counts by the session's policy."""
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        remote(work.die_in_the_middle, max_retries=0)(session.handle(), str(tmp_path))
    until_settled(acme, runtime)
    assert session.status().spent.nano == 57
    assert sorted(line.amount for line in acme.ledger.steps()) == [7, 10, 10, 10, 10, 10]
    assert is_sound(runtime)


def test_the_child_session_of_a_killed_task_stays_open_until_it_is_closed(
    session: Session, acme: Customer, runtime: Runtime, tmp_path: Path
) -> None:
    """L5: nobody ends it before its time to live, since Ray may yet do the task again; what it has not spent comes back then."""
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        remote(work.research_that_dies, max_retries=0)(session.handle(), str(tmp_path))
    until_settled(acme, runtime)
    (child,) = (one for one in acme.sessions.list() if one.id != session.id)
    assert session.status().remaining == Credits.of_nano(900)
    acme.sessions.close(child.id)
    assert session.status().remaining == Credits.of_nano(990)
    assert [one.id for one in acme.sessions.list()] == [session.id]


def test_a_relative_path_is_another_file_in_a_worker_and_so_refused_there(ray_cluster: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="relative"):
        remote(work.open_relative)("sqlite:///budget.db")


def test_a_handle_of_a_local_ledger_is_served_locally_in_a_worker(ray_cluster: str, tmp_path: Path) -> None:
    """The driver said host='local' and owns the file: its workers reach it over the socket."""
    with Runtime.open(f"sqlite:///{tmp_path}/local.db", host="local") as local:
        acme = local.customers.create("acme", plan="local")
        with acme.session(budget=1) as session:
            _, owner = remote(work.who)(session.handle())
            assert owner == local.host.owner
