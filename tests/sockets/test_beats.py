"""What a process hears and says beside its commands: heartbeats, catalogs, which of its steps live, and when to hurry."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.account.commands import Read
from agentbudget.clock import SECOND_US
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.owner import living
from agentbudget.runtime.owner.living import Living
from agentbudget.testing import ManualClock
from tests.sockets.support import PATIENCE, balance, begin, hold, own

Opened = Callable[..., MachineHost]


def test_a_catalog_outlives_the_owner_that_it_was_published_to(path: Path, opened: Opened) -> None:
    with own(path) as first:
        host, other = opened(), opened()
        host.publish_catalog(b"new")
        first.kill()
        until = time.monotonic() + PATIENCE
        while (told := other.beat(Beat("o"))).catalog == 0:  # the next owner hears of it by a beat of who knows it
            assert host.beat(Beat("h", catalog=1)).catalog in (0, 1)
            assert time.monotonic() < until
        assert told == Beaten({}, 1, b"new")
        assert host.publish_catalog(b"newer") == 2


def test_a_nudge_does_not_keep_alive_what_it_calls(owner: MachineHost) -> None:
    class Holder:
        def nudge(self) -> None:
            raise AssertionError("it was forgotten")

    owner.on_nudge(Holder().nudge)
    owner.publish_catalog(b"new")


def test_the_steps_of_a_process_live_as_long_as_it_works_on_them(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L5: a hold of another process does not lapse while that process says that it lives."""
    clock = ManualClock()
    owner = begin(opened(clock=clock))
    client = opened(clock=clock)
    client.live.update({"a", "b"})
    client.ask("acme", hold("a"))
    client.ask("acme", hold("b"))
    clock.advance(61)
    until(client, lambda: {"a", "b"} <= _others(owner))
    owner.sweep()
    assert balance(owner).held == 20
    client.live.discard("a")
    until(client, lambda: "a" not in _others(owner))
    owner.sweep()
    assert balance(owner).held == 10
    client.close()
    until(owner, lambda: not _others(owner))
    owner.sweep()
    assert balance(owner).held == 0


def until(host: MachineHost, is_so: Callable[[], bool]) -> None:
    """Commands go to and fro until something has come along with them."""
    while not is_so():
        host.ask("acme", Read("balance")) if host.owner else None


def _others(owner: MachineHost) -> set[str]:
    return set().union(*owner._machine.living._others.values())


def test_after_a_takeover_every_step_counts_as_alive_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Living()
    assert "a" not in steps
    steps.took_over()
    assert "a" in steps
    monkeypatch.setattr(living.time, "monotonic", lambda: living.GRACE_SECONDS + 1e9)
    assert "a" not in steps


def test_many_living_steps_are_said_in_parts(owner: MachineHost, client: MachineHost) -> None:
    steps = {f"step-{n}" for n in range(3_500)}
    client.live.update(steps)
    until(client, lambda: steps <= _others(owner))


def test_the_ttl_is_longer_than_what_a_process_may_be_silent() -> None:
    from agentbudget.runtime.machine import greeting as socket_greeting

    assert socket_greeting.ROUND_SECONDS * SECOND_US < SECOND_US
