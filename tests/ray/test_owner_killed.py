"""Owners on a real cluster are killed and moved under load: nothing is lost, nothing is done twice (laws L1, L3, L4, L9)."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentbudget import Credits, OwnerUnavailable
from agentbudget.account.commands import CreateCustomer, IssueGrant, OpenSession, SettleHold
from agentbudget.account.decision import Held
from agentbudget.ledger.shards import shard_of
from agentbudget.ledger.store import open_journal
from agentbudget.runtime.auditing import reconcile_ledger
from agentbudget.runtime.on_ray.host import RayHost, owner_name
from agentbudget.runtime.on_ray.owners import Owners
from agentbudget.runtime.owner.owner import Owner
from tests.leases.spending import books, is_sound
from tests.ray import driver, work
from tests.ray.ending import kill_owner, pid_of, seat_of
from tests.ray.folder_store import FolderStore
from tests.scale import SCALE
from tests.sockets.support import BALANCE, GRANTED, PREPAID, START, balance, hold

ray = pytest.importorskip("ray")

DRAINED = SCALE(5 * 10**9)
"""Nanocredits of the wallet that workers drain to the last one."""
WORKERS, THREADS, DRIVERS = 4, 16, 8
KILLS = 3


def test_workers_and_drivers_drain_a_wallet_while_its_owner_is_killed(
    opened: Any, ray_cluster: str, tmp_path: Path
) -> None:
    """L1, L3, L4: 4 workers of 16 threads and 8 drivers, the owner is killed every two seconds; exact to the nanocredit, and
    nobody is refused while there is something left."""
    runtime = opened()
    acme = runtime.customers.create("acme", plan="prepaid")
    acme.wallet.grant(Credits.of_nano(DRAINED), key="all")
    ledger, pids = runtime.settings.ledger, set()
    sessions = [acme.session(id=f"run-{n}").open() for n in range(WORKERS + DRIVERS)]
    handles = list(enumerate(session.handle() for session in sessions))
    task = ray.remote(work.drain_together).options(num_cpus=0)
    tasks = [task.remote(handle, str(tmp_path), 10**6, n, THREADS) for n, handle in handles[:WORKERS]]
    drivers = [driver.started(ray_cluster, handle, tmp_path, n, 10**6, 2) for n, handle in handles[WORKERS:]]
    try:
        until(lambda: len(list(tmp_path.glob("*.ready"))) == WORKERS + DRIVERS)
        (tmp_path / "go").touch()
        while (
            not pids or any(one.poll() is None for one in drivers) or ray.wait(tasks, num_returns=WORKERS, timeout=0)[1]
        ):
            pids.add(kill_owner(ledger))
            ray.wait(tasks, num_returns=WORKERS, timeout=2.0)
        spent = [*ray.get(tasks), *(int(one.communicate()[0].split("spent ")[1]) for one in drivers)]
    finally:
        for one in drivers:
            one.kill()
            one.wait()
    assert len(pids) >= KILLS
    for session in sessions:
        session.close()
    found = books(acme)
    assert (found.consumed, found.held, found.available) == (DRAINED, 0, 0)
    assert sum(spent) == DRAINED
    assert all(spent)
    assert is_sound(runtime)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_strict_callers_get_one_answer_each_whatever_happens_to_the_owner(opened: Any) -> None:
    """L4: what is under way when the owner dies is carried out again by Ray, and once by the ledger."""
    runtime = opened()
    host = runtime.host
    for command in START:
        host.ask("acme", command)
    each, count = 40, 8
    failed: list[BaseException] = []

    def strict(n: int) -> None:
        try:
            for i in range(each):
                assert isinstance(host.ask("acme", hold(f"{n}-{i}")), Held)
                host.ask("acme", SettleHold(f"{n}-{i}", 7))
                host.ask("acme", IssueGrant(f"{n}-{i}", 1))  # states no key
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=strict, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        threads[0].join(0.3)
        kill_owner(runtime.settings.ledger)
    for thread in threads:
        thread.join(60)
    assert failed == []
    view = balance(host)
    assert (view.consumed, view.held) == (each * count * 7, 0)
    assert view.issued == GRANTED + each * count


def test_a_killed_owner_serves_again_within_seconds_and_callers_wait_for_it(opened: Any) -> None:
    runtime = opened()
    acme = runtime.customers.create("acme", plan="postpaid")
    with acme.session(budget=1, mode="strict") as session:
        work.spend(session, 10)
        first = runtime.host.owner
        kill_owner(runtime.settings.ledger)
        work.spend(session, 10)
        assert runtime.host.owner != first
        assert session.status().spent.nano == 20


def test_an_owner_that_is_ended_while_it_is_asked_is_ended_and_made_again(opened: Any) -> None:
    """L4: whoever ends it waits for that actor to be gone, not for its name: another has it at once."""
    runtime = opened()
    acme = runtime.customers.create("acme", plan="postpaid")
    ledger, stop, failed = runtime.settings.ledger, threading.Event(), list[BaseException]()

    def go_on(session: Any) -> None:
        try:
            while not stop.is_set():
                work.spend(session, 1)
        except BaseException as error:
            failed.append(error)

    with acme.session(budget=1, mode="strict") as session:
        asking = threading.Thread(target=go_on, args=(session,))
        asking.start()
        first = pid_of(ledger)
        for _ in range(KILLS):
            work.spend(session, 1)
            seat_of(ledger).kill()
        work.spend(session, 1)
        assert pid_of(ledger) != first
        stop.set()
        asking.join(60)
    assert failed == []
    assert is_sound(runtime)


def test_nobody_is_made_to_hear_that_a_process_leaves(ray_cluster: str, tmp_path: Path) -> None:
    """Else each worker that ends after its owner would leave one behind."""
    from agentbudget.runtime.on_ray.cluster import Post, Seat, names

    post = Post(hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12], partial(open_folder, str(tmp_path)), Owner)
    Seat("owner-0", post).leave(b"")
    assert names(post.ledger) == []


def test_who_cannot_wait_is_told_that_the_owner_is_gone(opened: Any) -> None:
    """L8."""
    runtime = opened()
    runtime.customers.create("acme", plan="postpaid")
    os.kill(pid_of(runtime.settings.ledger), 19)  # SIGSTOP: it is there, and answers nobody
    try:
        with pytest.raises(OwnerUnavailable) as late:
            runtime.host.ask("acme", hold("a"), timeout_seconds=0.2)
        assert "owner-0" in late.value.owner
        assert "same key" in late.value.advice
    finally:
        _go_on(runtime)


def _go_on(runtime: Any) -> None:
    pid = int(runtime.host.owner.split("process ")[1].split()[0])
    os.kill(pid, 18)  # SIGCONT


# --- several owners ----------------------------------------------------------------------------------------------------------

CUSTOMERS = [f"customer-{n}" for n in range(12)]


def open_folder(folder: str) -> Any:
    """As the actors open it."""
    return FolderStore(folder)


@contextmanager
def sharded(folder: Path, count: int) -> Iterator[tuple[RayHost, Owners]]:
    from agentbudget.runtime.on_ray.cluster import Post

    post = Post(hashlib.sha256(str(folder).encode()).hexdigest()[:12], partial(open_folder, str(folder)), Owner)
    host, owners = RayHost(post, owners=count), Owners(post)
    try:
        yield host, owners
    finally:
        host.close()
        for name in owners.names():
            owners.end(name)


def found(host: RayHost, customers: list[str]) -> None:
    for customer in customers:
        for command in (CreateCustomer(PREPAID), IssueGrant("g", GRANTED, key="g"), OpenSession("run")):
            host.ask(customer, command)


def test_customers_are_spread_over_owners_and_moved_between_them_under_load(ray_cluster: str, tmp_path: Path) -> None:
    """L1, L9: every step is held and settled once, whoever has the shard, and an owner is killed meanwhile."""
    with sharded(tmp_path, 2) as (host, owners):
        found(host, CUSTOMERS)
        names = {owners.owner_of(shard_of(customer)) for customer in CUSTOMERS}
        assert names == {"owner-0", "owner-1"}
        failed: list[BaseException] = []
        stop = threading.Event()
        done = dict.fromkeys(CUSTOMERS, 0)

        def spend(customer: str) -> None:
            try:
                while not stop.is_set():
                    step = f"s-{done[customer]}"
                    host.ask(customer, hold(step))
                    host.ask(customer, SettleHold(step, 7))
                    done[customer] += 1
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=spend, args=(customer,)) for customer in CUSTOMERS]
        for thread in threads:
            thread.start()
        shards = sorted({shard_of(customer) for customer in CUSTOMERS})
        chance = random.Random(4)
        for n in range(6):
            owners.move(chance.sample(shards, 4), owner_name(n % 2))
        os.kill(owners.status()[0]["pid"], 9)
        owners.move(shards, "owner-2")
        owners.drain("owner-2")
        deadline = time.monotonic() + 30
        while min(done.values()) < 3 and not failed and time.monotonic() < deadline:
            threads[0].join(0.1)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert failed == []
        for customer in CUSTOMERS:
            view: Any = host.ask(customer, BALANCE)
            assert (view.consumed, view.held) == (done[customer] * 7, 0)
        assert "owner-2" not in {owners.owner_of(shard) for shard in shards}
    assert reconcile_ledger(FolderStore(str(tmp_path))) == []


def test_an_owner_that_was_drained_is_gone_and_comes_back_when_it_is_asked(opened: Any) -> None:
    """The ledger's lock is given up with it, so that a program without Ray can open the file."""
    runtime = opened()
    runtime.customers.create("acme", plan="postpaid")
    owners = Owners.of(runtime.settings)
    (status,) = owners.status()
    assert (status["name"], status["shards"]) == ("owner-0", 64)
    owners.drain("owner-0")
    assert owners.names() == []
    open_journal(runtime.settings.ledger).close()
    assert runtime.customer("acme").wallet.balance().available == 0
    assert owners.names() == ["owner-0"]
    with pytest.raises(Exception, match="one owner for all"):
        owners.move([3], "owner-1")
