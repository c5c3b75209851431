"""Frames of other processes are decided by the thread that read them while the owner's own has nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agentbudget.account.commands import SettleHold
from agentbudget.account.decision import Held, Settled
from agentbudget.clock import SystemClock
from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.journal import Batch
from agentbudget.ledger.store import Store, open_journal
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.owner.owner import Owner, Reply, Request
from tests.sockets.support import PATIENCE, START, balance, begin, hold, is_sound, open_host, spend

DOOR, OWN = "agentbudget-door", "agentbudget-owner"


class Watch:
    """What an owner does, and on which thread. ``bug`` is raised once, at the next command decided at the door."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.one_at_a_time = threading.Lock()
        self.ticked = threading.Event()
        self.bug: BaseException | None = None

    def made(self, *what: Any, **named: Any) -> Owner:
        return WatchedOwner(self, *what, **named)  # type: ignore[return-value]


class WatchedOwner:
    """An owner that says what it does to a watch."""

    def __init__(self, watch: Watch, *what: Any, **named: Any) -> None:
        self._watch, self._owner = watch, Owner(*what, **named)

    def handle(self, requests: Sequence[Request], **how: Any) -> list[Reply]:
        name = threading.current_thread().name
        self._watch.threads.append(name)
        bug = self._watch.bug
        if bug is not None and name == DOOR:
            self._watch.bug = None
            raise bug
        assert self._watch.one_at_a_time.acquire(blocking=False), "two threads decide at once"
        try:
            return self._owner.handle(requests, **how)
        finally:
            self._watch.one_at_a_time.release()

    def tick(self) -> None:
        self._owner.tick()
        self._watch.ticked.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner, name)


class GatedStore:
    """A store whose commits wait while it is ``shut``, and fail once with ``fault``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.gate, self.waiting = threading.Event(), threading.Event()
        self.gate.set()
        self.fault: Exception | None = None

    def commit(self, batch: Batch) -> None:
        self.waiting.set()
        self.gate.wait()
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        self._store.commit(batch)

    def shut(self) -> None:
        self.waiting.clear()
        self.gate.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class World:
    """A ledger that this process owns and watches, and a client of it."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.watch, self.stores = Watch(), list[GatedStore]()
        clock = SystemClock()

        def open_store() -> Store:
            self.stores.append(GatedStore(open_journal(f"sqlite:///{path}", clock=clock)))
            return self.stores[-1]  # type: ignore[return-value]

        self.owner = MachineHost(open_store, str(path), clock, timeout_seconds=PATIENCE, new_owner=self.watch.made)
        stack.callback(self.owner.close)
        self.client = open_host(path)
        stack.callback(self.client.close)


@pytest.fixture
def world(path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(path, stack)


def test_an_idle_owner_decides_where_the_frame_was_read(world: World, path: Path) -> None:
    begin(world.client)
    spend(world.client, "a")
    assert DOOR in world.watch.threads
    assert balance(world.owner).consumed == balance(world.client).consumed == 10
    assert world.watch.threads[-2] == OWN  # who waits in this process may have a short time-out, so it never decides
    assert is_sound(path)


def test_what_comes_while_the_owner_is_busy_waits_for_its_thread(world: World) -> None:
    """One at a time (L9): the frame is decided after the commit that was under way, and not beside it."""
    begin(world.owner)
    world.stores[0].shut()
    first = _asking(world.owner, hold("a"))
    world.stores[0].waiting.wait(PATIENCE)
    second = _asking(world.client, hold("b"))
    seen = len(world.watch.threads)
    world.stores[0].gate.set()
    assert seen == len(START) + 1
    assert isinstance(first.answer(), Held)
    assert isinstance(second.answer(), Held)
    assert balance(world.client).held == 20


def test_L1_a_commit_that_fails_at_the_door_fails_its_whole_batch_and_the_owner_goes_on(world: World) -> None:
    begin(world.client)
    world.stores[0].fault = OSError("no space")
    with pytest.raises(OwnerUnavailable, match="no space"):
        world.client.ask("acme", hold("a"))
    assert balance(world.client).held == 0
    assert isinstance(world.client.ask("acme", hold("a")), Held)
    assert world.client.ask("acme", SettleHold("a", 4)) == Settled("a", "settled", 4)


def test_an_owner_that_dies_at_the_door_is_succeeded_and_the_command_is_carried_out_once(
    world: World, path: Path
) -> None:
    """L4, L8: its own thread ends with it, and what was under way goes to the next owner."""
    begin(world.client)
    world.watch.bug = SystemExit("a planted bug")
    steps = 0
    while world.watch.bug is not None:  # now and then it is the owner's own thread that decides
        steps += 1
        assert isinstance(world.client.ask("acme", hold(f"s{steps}")), Held)
    assert isinstance(world.owner.ask("acme", SettleHold(f"s{steps}", 4)), Settled)
    assert (balance(world.client).consumed, balance(world.client).held) == (4, 10 * (steps - 1))
    assert is_sound(path)


def test_an_owner_that_only_other_processes_use_ends_what_is_overdue(world: World) -> None:
    """L5: its own thread wakes up for that, although nothing ever came to it."""
    assert begin(world.client) is world.client
    assert world.watch.ticked.wait(PATIENCE)
    world.watch.ticked.clear()
    assert world.watch.ticked.wait(PATIENCE)


def test_many_processes_and_the_owners_own_threads_share_one_order(world: World, path: Path) -> None:
    """L9: whoever decides, no command is lost, and none is decided twice."""
    begin(world.owner)
    hosts = [world.owner, world.client] * 4

    def work(n: int) -> None:
        for k in range(25):
            spend(hosts[n], f"{n}-{k}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert balance(world.client).consumed == 8 * 25 * 10
    assert {DOOR, OWN} <= set(world.watch.threads)
    assert is_sound(path)


class _Asked:
    """A question that a thread of its own waits for."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.done, self._ask, self._answer = threading.Event(), ask, None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._answer = self._ask()
        except Exception as error:
            self._answer = error  # type: ignore[assignment]
        self.done.set()

    def answer(self) -> Any:
        assert self.done.wait(PATIENCE)
        return self._answer


def _asking(host: MachineHost, command: Any) -> _Asked:
    return _Asked(lambda: host.ask("acme", command))
