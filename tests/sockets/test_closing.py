"""Closing answers what waits; what is forgotten is closed; late callers are told."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.account.decision import BalanceView, Held
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime import mailbox
from agentbudget.runtime.machine_host import MachineHost
from tests.sockets.support import BALANCE, PATIENCE, balance, hold, own

Opened = Callable[..., MachineHost]


@pytest.mark.parametrize("which", ["owner", "client"])
def test_closing_answers_what_waits_and_then_refuses(owner: MachineHost, client: MachineHost, which: str) -> None:
    host = {"owner": owner, "client": client}[which]
    answers: list[object] = []
    for n in range(700):  # more than one frame
        host.submit("acme", hold(f"s-{n}"), answers.append)
    host.close()
    assert len(answers) == 700
    assert all(isinstance(answer, Held) for answer in answers)
    with pytest.raises(OwnerUnavailable, match="closed"):
        host.ask("acme", BALANCE)
    host.close()


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

    from agentbudget.runtime import machine

    monkeypatch.setattr(machine, "CLOSING_SECONDS", 0.05)
    with own(path) as first:
        host = opened()
        first.stop()
        answers: list[object] = []
        host.submit("acme", hold("a"), answers.append)
        host.close()
        assert [type(answer) for answer in answers] == [OwnerUnavailable]


def test_a_process_with_too_much_to_say_is_refused(path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """L8."""
    import signal

    monkeypatch.setattr(mailbox, "MAX_MAILBOX", 5)
    with own(path) as first:
        host = opened()
        first.stop()
        all_came = threading.Event()
        answers: list[object] = []

        def take(answer: object) -> None:
            answers.append(answer)
            if len(answers) == 6:
                all_came.set()

        for _ in range(6):  # one is under way
            host.submit("acme", BALANCE, take)
        with pytest.raises(OwnerUnavailable, match="waiting"):
            host.submit("acme", BALANCE, take)
        first.kill(signal.SIGCONT)
        assert all_came.wait(PATIENCE)
        assert all(isinstance(answer, BalanceView) for answer in answers)


def test_what_nobody_waits_for_any_more_is_not_sent(path: Path, opened: Opened) -> None:
    """A caller that gave up before its command was sent: it is not carried out behind its back."""
    import signal

    with own(path) as first:
        host = opened()
        first.stop()
        host.submit("acme", BALANCE, lambda answer: None)  # under way
        with pytest.raises(OwnerUnavailable):
            host.ask("acme", hold("given-up"), timeout_seconds=0.05)
        first.kill(signal.SIGCONT)
        assert balance(host).held == 0
