"""When the owner goes, another takes over: nothing is lost, nothing is done twice (laws L1, L4, L8)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.account.commands import IssueGrant, SettleHold
from agentbudget.account.decision import Done, Held, Settled
from agentbudget.clock import SystemClock
from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.journal import Batch
from agentbudget.ledger.store import Store, open_journal
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.host import MachineHost
from tests.crash.doomed import Doomed
from tests.sockets.support import GRANTED, PATIENCE, Child, balance, begin, hold, is_sound, open_host, own, spend

Opened = Callable[..., MachineHost]


def test_the_first_process_owns_and_the_next_is_served(owner: MachineHost, client: MachineHost) -> None:
    assert (owner.is_owner, client.is_owner) == (True, False)
    assert str(os.getpid()) in client.owner
    assert isinstance(client.ask("acme", hold("a")), Held)
    assert isinstance(owner.ask("acme", SettleHold("a", 10)), Settled)
    assert balance(client).consumed == balance(owner).consumed == 10


def test_after_the_owner_was_killed_another_process_goes_on(path: Path, opened: Opened) -> None:
    """L1: what the dead owner answered stands; and the next owner is one of those who are left."""
    with own(path) as first:
        hosts = [opened() for _ in range(3)]
        assert not any(host.is_owner for host in hosts)
        for host in hosts:
            spend(host, f"before-{id(host)}")
        first.kill()
        for host in hosts:
            spend(host, f"after-{id(host)}")
        assert sum(host.is_owner for host in hosts) == 1
        assert balance(hosts[0]).consumed == 60
        assert is_sound(path)


@pytest.mark.parametrize("after", [False, True], ids=["before-the-commit", "after-the-commit"])
def test_a_command_under_way_when_the_owner_dies_is_carried_out_once(path: Path, opened: Opened, after: bool) -> None:
    """L4: the same bytes go to the next owner, whether or not the dead one had committed them."""
    with begin_doomed(path, after=after) as doomed:
        host = opened()
        doomed.say("die at the next commit")
        assert doomed.hear() == "armed"
        assert isinstance(host.ask("acme", hold("a")), Held)
        assert host.is_owner
        assert host.ask("acme", SettleHold("a", 4)) == Settled("a", "settled", 4)
        assert (balance(host).consumed, balance(host).held) == (4, 0)
        assert is_sound(path)


@pytest.mark.parametrize("after", [False, True], ids=["before-the-commit", "after-the-commit"])
def test_a_grant_without_a_key_is_never_sent_twice(path: Path, opened: Opened, after: bool) -> None:
    """L4, L8: who sends no key is told that nobody knows."""
    with begin_doomed(path, after=after) as doomed:
        host = opened()
        doomed.say("die at the next commit")
        assert doomed.hear() == "armed"
        with pytest.raises(OwnerUnavailable, match="may have been carried out") as unknown:
            host.ask("acme", IssueGrant("more", 5))
        assert "key" in unknown.value.advice
        assert balance(host).issued == GRANTED + (5 if after else 0)
        assert host.ask("acme", IssueGrant("again", 5, key="again")) == Done(True, "again")


def begin_doomed(path: Path, *, after: bool) -> Child:
    """An owner that dies at the first commit with entries after it was told so."""

    def work(child: Child) -> None:
        def open_store() -> Store:
            return Switched(open_journal(f"sqlite:///{path}"), child, after)  # type: ignore[return-value]

        host = begin(MachineHost(open_store, str(path), SystemClock()))
        child.say("ready" if host.is_owner else "not the owner")
        threading.Event().wait()

    child = Child(work)
    assert child.hear() == "ready"
    return child


class Switched:
    """The store, which is doomed once the parent has said so."""

    def __init__(self, store: Store, child: Child, after: bool) -> None:
        self._store, self._doomed, self._child = store, Doomed(store, after=after), child
        self._is_armed = False
        threading.Thread(target=self._arm, daemon=True).start()

    def _arm(self) -> None:
        self._child.wait()
        self._is_armed = True
        self._child.say("armed")

    def commit(self, batch: Batch) -> None:
        (self._doomed if self._is_armed else self._store).commit(batch)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_only_what_adds_without_a_key_is_not_sent_again() -> None:
    """The list of the module, against every command there is."""
    from tests.sockets.samples import COMMANDS

    unsafe = {type(command).__name__ for command in COMMANDS if not wire.may_be_sent_again(command)}
    assert unsafe == {"IssueGrant", "VoidGrant", "AdjustGrant", "ClearReceivable", "FundSession"}
    assert wire.may_be_sent_again(IssueGrant("more", 5, key="more"))


def test_an_owner_that_closes_hands_over_and_nothing_is_refused(path: Path, opened: Opened) -> None:
    """Threads keep spending while one owner after the other closes, in order."""
    hosts = [begin(opened()), opened(), opened()]
    failed: list[BaseException] = []
    started = threading.Barrier(5)

    def work(n: int) -> None:
        started.wait()
        try:
            for i in range(60):
                spend(hosts[2], f"{n}-{i}")
                hosts[2].ask("acme", IssueGrant(f"{n}-{i}", 1))  # has no key: refused only if it may have been done
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    hosts[0].close()
    hosts[1].close()
    for thread in threads:
        thread.join()
    assert failed == []
    assert hosts[2].is_owner
    assert balance(hosts[2]).consumed == 4 * 60 * 10
    assert balance(hosts[2]).issued == GRANTED + 4 * 60
    assert is_sound(path)


def test_a_stopped_owner_answers_nobody_and_later_everybody(path: Path, opened: Opened) -> None:
    """L8: its lock is alive, so nobody may take over; callers are told to try again, and then it heals."""
    with own(path) as first:
        host = opened()
        first.stop()
        with pytest.raises(OwnerUnavailable) as late:
            host.ask("acme", hold("a"), timeout_seconds=0.05)
        assert "same key" in late.value.advice
        assert str(first.pid) in late.value.owner
        with pytest.raises(OwnerUnavailable, match="greet") as unreached:
            opened(timeout_seconds=0.05)
        assert str(first.pid) in unreached.value.owner
        first.kill(signal.SIGCONT)
        assert isinstance(host.ask("acme", hold("a")), Held)
        assert balance(host).held == 10


def test_an_owner_that_was_stopped_and_killed_is_succeeded(path: Path, opened: Opened) -> None:
    with own(path) as first:
        host = opened()
        first.stop()
        done, answers = threading.Event(), []
        host.submit("acme", hold("a"), lambda answer: (answers.append(answer), done.set()))
        first.kill()
        assert done.wait(PATIENCE)
        assert isinstance(answers[0], Held)
        assert host.is_owner


def test_who_has_the_lock_and_no_socket_is_named(path: Path, opened: Opened) -> None:
    """L8: another program that writes the file (a copy, an older version) is not an owner to connect to."""
    with Closing(open_journal(f"sqlite:///{path}")):
        with pytest.raises(OwnerUnavailable) as refused:
            opened(timeout_seconds=0.05)
        assert str(os.getpid()) in refused.value.owner
    assert opened().is_owner


class Closing:
    """``contextlib.closing``, for a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> Store:
        return self.store

    def __exit__(self, *error: object) -> None:
        self.store.close()


def test_an_owner_whose_lock_was_removed_is_fenced_and_becomes_a_client(path: Path, opened: Opened) -> None:
    """L9: the epoch in the database says who owns it; the one before notices at its next transaction, which does
    nothing, and passes on what it was asked."""
    former = begin(opened())
    os.unlink(f"{path}.owner")
    latter = opened()
    assert (former.is_owner, latter.is_owner) == (True, True)
    assert isinstance(former.ask("acme", hold("a")), Held)
    assert (former.is_owner, latter.is_owner) == (False, True)
    spend(latter, "b")
    assert (balance(former).held, balance(former).consumed) == (10, 10)


def test_an_owner_that_dies_of_a_bug_is_succeeded_by_its_own_process(owner: MachineHost, client: MachineHost) -> None:
    """Everybody is answered, and the ledger is read again."""

    def bug(answer: object) -> None:
        raise MemoryError("planted")

    owner.submit("acme", hold("a"), bug)
    spend(client, "b")
    spend(owner, "c")
    assert (balance(owner).held, balance(client).consumed) == (10, 20)
    assert owner.is_owner != client.is_owner


def test_eight_processes_spend_to_the_last_unit_while_owners_are_killed(path: Path) -> None:
    """L1, L3, L4: what the answers say is what the ledger has, to the nanocredit."""
    price, threads, steps = 10, 4, 25
    begin(open_host(path)).close()

    def work(child: Child) -> None:
        host = open_host(path)
        child.say(host.is_owner)

        def run(n: int) -> None:
            for i in range(steps):
                spend(host, f"{os.getpid()}-{n}-{i}", price)

        running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        child.say("done")
        child.wait()
        host.close()

    victims = [own(path)]
    workers = [Child(work) for _ in range(8)]
    for worker in workers:
        assert worker.hear() is False
    victims[0].kill()
    for worker in workers:
        assert worker.hear() == "done"
    for worker in workers:
        worker.say("go")
        assert worker.end() == 0
    host = open_host(path)
    assert (balance(host).consumed, balance(host).held) == (8 * threads * steps * price, 0)
    host.close()
    assert is_sound(path)
    assert not (path.parent / "budget.db.sock").exists()
