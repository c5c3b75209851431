"""Closing answers what waits; what is forgotten is closed; late callers are told."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.machine.host import MachineHost
from tests.sockets.support import BALANCE, balance, hold, own

Opened = Callable[..., MachineHost]


def test_a_host_that_is_forgotten_leaves(path: Path, opened: Opened) -> None:
    from tests.sockets.support import begin, open_host

    host = begin(open_host(path))
    keeper, gone = host._machine._keeper, weakref.ref(host)
    assert keeper is not None
    del host
    gc.collect()
    assert gone() is None
    keeper.join()
    assert opened().is_owner


def test_a_client_that_is_forgotten_leaves(owner: MachineHost, path: Path) -> None:
    from tests.sockets.support import open_host

    host = open_host(path)
    keeper = host._machine._keeper
    assert keeper is not None
    del host
    gc.collect()
    keeper.join()


def test_a_client_closes_while_its_owner_is_stopped(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for answers for a while, and then says that none came."""

    from agentbudget.runtime.machine import machine

    monkeypatch.setattr(machine, "CLOSING_SECONDS", 0.05)
    with own(path) as first:
        host = opened()
        first.stop()
        answers: list[object] = []
        host.submit("acme", hold("a"), answers.append)
        host.close()
        assert [type(answer) for answer in answers] == [OwnerUnavailable]


def test_what_nobody_waits_for_any_more_is_not_sent(path: Path, opened: Opened) -> None:
    """A caller that gave up before its command was sent: it is not carried out behind its back."""
    import signal

    with own(path) as first:
        host = opened()
        balance(host)  # the line is there, so that what is said next leaves at once
        first.stop()
        host.submit("acme", BALANCE, lambda answer: None)  # under way
        with pytest.raises(OwnerUnavailable):
            host.ask("acme", hold("given-up"), timeout_seconds=0.05)
        first.kill(signal.SIGCONT)
        assert balance(host).held == 0
