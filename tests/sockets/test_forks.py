"""A forked child begins anew by itself, whatever its parent was doing, and takes nothing from it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.account.commands import ReleaseHold, SettleHold
from agentbudget.account.decision import Held, Settled
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.host import ignore
from agentbudget.runtime.machine.host import MachineHost
from tests.sockets.support import Child, balance, begin, hold, is_sound, open_host, own, spend

Opened = Callable[..., MachineHost]


def test_a_child_of_the_owner_is_served_by_it(owner: MachineHost, path: Path) -> None:
    def work(child: Child) -> None:
        spend(owner, "in the child")
        child.say([owner.is_owner, owner.owner])
        owner.close()

    spend(owner, "before")
    with Child(work) as child:
        is_owner, name = child.hear()
        assert child.end() == 0
    assert is_owner is False
    assert str(os.getpid()) in name
    spend(owner, "after")
    assert balance(owner).consumed == 30


def test_a_child_of_a_client_has_a_line_of_its_own(path: Path, opened: Opened) -> None:
    with own(path):
        host = opened()

        def work(child: Child) -> None:
            for n in range(20):
                spend(host, f"child-{n}")
            child.say("done")
            host.close()

        spend(host, "before")
        with Child(work) as child:
            for n in range(20):
                spend(host, f"parent-{n}")
            assert child.hear() == "done"
            assert child.end() == 0
        assert balance(host).consumed == 410
        assert is_sound(path)


def test_a_child_takes_over_from_its_parent(path: Path) -> None:
    """It kept neither the lock nor a copy of any socket, so the owner's death shows, and the lock is free."""

    def parent(said: Child) -> None:
        host = begin(open_host(path))
        spend(host, "before")

        def work(child: Child) -> None:
            spend(host, "as a client")
            child.say("served")
            child.wait()
            spend(host, "as the owner")
            said.say([host.is_owner, balance(host).consumed])
            said.wait()
            host.close()
            said.say("closed")

        grandchild = Child(work)
        grandchild.hear()
        grandchild.say("go on")
        os.kill(os.getpid(), 9)

    with Child(parent) as killed:
        assert killed.hear() == [True, 30]
        killed.say("close")
        assert killed.hear() == "closed"
    assert is_sound(path)


def test_a_child_that_never_uses_the_host_holds_nothing_up(path: Path, opened: Opened) -> None:
    def parent(said: Child) -> None:
        host = begin(open_host(path))
        Child(lambda idle: (said.say("idle"), said.wait()))
        spend(host, "a")
        threading.Event().wait()

    with Child(parent) as killed:
        assert killed.hear() == "idle"
        host = opened()
        assert not host.is_owner
        killed.kill()
        killed.end()
        spend(host, "b")
        assert host.is_owner
        killed.say("the idle one may end")


def test_a_child_forgets_its_parents_steps_and_ends_none_of_them(owner: MachineHost) -> None:
    """L5: a step that the collector finds in the child is still the parent's."""
    for step in ("a", "b", "c"):
        owner.ask("acme", hold(step))
        owner.live.add(step)

    def work(child: Child) -> None:
        before = sorted(owner.live)
        owner.submit("acme", SettleHold("a", 10), ignore)
        owner.submit("acme", ReleaseHold("b"), ignore)
        stated = owner.ask("acme", SettleHold("c", 3))  # said on purpose
        child.say([before, isinstance(stated, Settled)])
        owner.close()

    with Child(work) as child:
        assert child.hear() == [[], True]
        assert child.end() == 0
    assert owner.live == {"a", "b", "c"}
    assert (balance(owner).held, balance(owner).consumed) == (20, 3)


def test_forks_while_every_lock_is_in_use_deadlock_nobody(path: Path, opened: Opened) -> None:
    with own(path):
        host = opened()
        stop = threading.Event()

        def hammer(n: int) -> None:
            i = 0
            while not stop.is_set():
                i += 1
                spend(host, f"{n}-{i}")

        threads = [threading.Thread(target=hammer, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            for n in range(8):
                with Child(lambda child, n=n: (spend(host, f"child-{n}"), child.say("done"), host.close())) as child:
                    assert child.hear() == "done"
                    assert child.end() == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert balance(host).held == 0
        assert is_sound(path)


def test_a_child_of_a_host_that_was_closed_is_told_so(owner: MachineHost) -> None:
    owner.close()

    def work(child: Child) -> None:
        with pytest.raises(OwnerUnavailable, match="closed"):
            owner.ask("acme", hold("a"))
        child.say("refused")

    with Child(work) as child:
        assert child.hear() == "refused"


def test_grandchildren_begin_anew_too(owner: MachineHost) -> None:
    def grand(child: Child) -> None:
        assert isinstance(owner.ask("acme", hold("grandchild")), Held)
        owner.close()

    def work(child: Child) -> None:
        assert isinstance(owner.ask("acme", hold("child")), Held)
        with Child(grand) as inner:
            child.say(inner.end())
        owner.close()

    with Child(work) as child:
        assert child.hear() == 0
        assert child.end() == 0
    assert balance(owner).held == 20
