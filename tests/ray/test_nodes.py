"""Nodes of a real cluster are paused and killed while their owner is at work on a real PostgreSQL (laws L1, L3, L4, L8, L9)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentbudget import OwnerUnavailable, Runtime
from agentbudget.account.commands import SettleHold
from agentbudget.account.decision import BalanceView, Held, Settled
from agentbudget.ledger import verify_ledger
from agentbudget.ledger.store import open_archive, open_journal
from agentbudget.runtime.auditing import reconcile_ledger
from agentbudget.runtime.on_ray.actor import RayOwner
from agentbudget.runtime.on_ray.host import RayHost
from agentbudget.runtime.on_ray.opening import ledger_id
from agentbudget.runtime.owner.owner import Owner
from tests.leases.spending import CATALOG, books, is_sound
from tests.ray import work
from tests.ray.ending import end_owners, pid_of
from tests.ray.nodes import Node, Nodes, cluster_of_nodes
from tests.ray.restless import COST, REPLACED, Diary, RestlessOwner
from tests.sockets.support import BALANCE, START, hold

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.xdist_group("ray")

PATIENCE = 120.0
"""Seconds until what never comes is a failure."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """This process is on the head of a cluster of its own."""
    with cluster_of_nodes() as found:
        ray.init(address=found.address, log_to_driver=False, configure_logging=False)
        yield found
        ray.shutdown()


@pytest.fixture
def url(postgres: Any, postgres_template: str) -> str:
    return str(postgres.url(postgres.new_database(template=postgres_template)))


@contextmanager
def two_nodes(nodes: Nodes, url: str, kind: type[RayOwner], *more: object) -> Iterator[Node]:
    """The owner of a ledger runs on this one; there is one other that it can be started on. It has the options of every owner."""
    from agentbudget.runtime.on_ray import cluster

    place = f"for-{ledger_id(url)}"
    first = nodes.add(place)
    actor = ray.remote(num_cpus=0, concurrency_groups={"listen": 1, "status": 1})(kind).options(
        name=f"{ledger_id(url)}/owner-0", namespace=cluster.NAMESPACE, lifetime="detached", max_restarts=-1,
        max_task_retries=-1, resources={place: 0.1},
    ).remote("owner-0", partial(open_journal, url), Owner, *more)  # fmt: skip
    ray.get(actor.__ray_ready__.remote(), timeout=PATIENCE)
    assert pid_of(url) in first.pids()
    second = nodes.add(place)
    yield first
    second.kill()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Also when nobody has asked how: its parent may be paused."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Callers:
    """Threads that hold and settle strict steps until they are told to stop; what was answered is counted."""

    def __init__(self, host: RayHost, count: int = 4) -> None:
        self._host, self._stop = host, threading.Event()
        self.settled, self.failed = [0] * count, list[BaseException]()
        self._threads = [threading.Thread(target=self._spend, args=(n,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _spend(self, n: int) -> None:
        try:
            while not self._stop.is_set():
                step = f"caller-{n}-{self.settled[n]}"
                assert isinstance(self._host.ask("acme", hold(step)), Held)
                assert isinstance(self._host.ask("acme", SettleHold(step, COST)), Settled)
                self.settled[n] += 1
        except BaseException as error:
            self.failed.append(error)

    def go_on(self) -> None:
        """Until each of them has had further answers."""
        seen = list(self.settled)
        until(lambda: bool(self.failed) or all(now > then for now, then in zip(self.settled, seen, strict=True)))

    def stop(self) -> int:
        """How many steps were settled."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert self.failed == []
        return sum(self.settled)


@contextmanager
def host_of(url: str) -> Iterator[RayHost]:
    from agentbudget.runtime.on_ray.cluster import Post

    host = RayHost(Post(ledger_id(url), partial(open_journal, url), Owner), timeout_seconds=PATIENCE)
    try:
        yield host
    finally:
        host.close()
        end_owners(url)


@pytest.mark.parametrize("is_paused", [False, True], ids=["its owner writes on", "its owner is paused too"])
def test_L3_L4_L9_a_paused_nodes_owner_is_fenced_off_when_its_successor_serves(
    nodes: Nodes, url: str, tmp_path: Path, is_paused: bool
) -> None:
    """Split brain: the cluster gives the node up and starts the owner elsewhere, while the old one lives, and writes."""
    with two_nodes(nodes, url, RestlessOwner, str(tmp_path)) as node, host_of(url) as host:
        for command in START:
            host.ask("acme", command)
        callers, first, pid = Callers(host), host.owner, pid_of(url)
        old = Diary(tmp_path, pid)
        until(lambda: len(old.heard()) > 3)
        callers.go_on()
        node.pause(*[pid] * is_paused)
        seen = len(old.heard())
        try:
            until(lambda: is_paused or len(old.heard()) > seen)
            until(lambda: host.owner != first)
            callers.go_on()
            with suppress(ProcessLookupError):  # one that wrote on was refused, and may have ended
                os.kill(pid, signal.SIGCONT)  # it wakes up before its raylet, which would end it
            until(
                lambda: old.is_over or (is_paused and has_ended(pid))
            )  # Ray may end it as it wakes: it has written nothing
            until(lambda: has_ended(pid))
        finally:
            node.resume(pid)
        callers.go_on()
        settled = callers.stop()
        assert (REPLACED in old.why) if old.is_over else is_paused
        (tmp_path / "stop").touch()
        new = Diary(tmp_path, pid_of(url))
        until(lambda: new.is_over)
        steps = {**old.heard(), **new.heard()}
        for step in [step for step, heard in old.heard().items() if heard < 2]:  # who was not answered asks again
            assert isinstance(host.ask("acme", hold(step)), Held)
            assert isinstance(host.ask("acme", SettleHold(step, COST)), Settled)
        view = host.ask("acme", BALANCE)
        assert isinstance(view, BalanceView)
        assert (view.consumed, view.held) == ((settled + len(steps)) * COST, 0)
    assert sound(url)


def sound(url: str) -> bool:
    """Every chain is whole, and every balance is the fold of its entries."""
    archive = open_archive(url)
    try:
        return verify_ledger(archive).ok and reconcile_ledger(archive) == []
    finally:
        archive.close()


def test_L1_L4_L8_a_node_that_is_gone_takes_nothing_with_it_and_its_owner_starts_elsewhere(
    nodes: Nodes, url: str, tmp_path: Path
) -> None:
    """Whoever cannot wait is refused meanwhile, whoever can is answered once, and leased steps go on."""
    with (
        two_nodes(nodes, url, RayOwner) as node,
        Runtime.open(url, CATALOG, owners=1, timeout_seconds=PATIENCE) as runtime,
    ):
        acme = runtime.customers.create("acme", plan="postpaid")
        with acme.session(id="leased") as leased, acme.session(id="strict", mode="strict") as strict:
            work.spend(leased, 10, 5)
            work.spend(strict, 10)
            first = runtime.host.owner
            node.kill()
            with pytest.raises(OwnerUnavailable) as refused:
                runtime.host.ask("acme", hold("late"), timeout_seconds=0.2)
            assert "owner-0" in refused.value.owner
            work.spend(leased, 10, 5)
            work.spend(strict, 10)
            assert runtime.host.owner != first
        found = books(acme)
        assert (found.consumed, found.receivable, found.held) == (120, 120, 0)
        assert is_sound(runtime)
        end_owners(url)
