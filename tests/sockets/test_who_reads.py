"""A caller that is alone reads its answers itself; the line's own thread naps meanwhile, and is there when it is needed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentbudget.account.commands import SetPaused, SettleHold
from agentbudget.account.decision import Held, Settled
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.machine.client import Line
from agentbudget.runtime.machine.host import MachineHost
from tests.sockets.support import BALANCE, PATIENCE, balance, hold, is_sound, own, spend

Opened = Callable[..., MachineHost]


def line_of(host: MachineHost) -> Line:
    line = host._machine._line
    assert line is not None
    return line


def until_it_reads_itself(host: MachineHost) -> Line:
    """Ask until this thread has read an answer, so that the line's own thread naps."""
    line = line_of(host)
    for _ in range(10_000):
        led = line._led
        host.ask("acme", BALANCE)
        if line._led > led:
            return line
    raise AssertionError("the line's own thread reads every answer")


def asking(host: MachineHost, command: Any, seconds: float = PATIENCE) -> Callable[[], Any]:
    """Ask on a thread of its own; what it was answered, once it was."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(host.ask("acme", command, seconds))
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()

    def answer() -> Any:
        thread.join(PATIENCE)
        return answers[0]

    return answer


def test_a_caller_that_is_alone_reads_its_answers_itself(owner: MachineHost, client: MachineHost) -> None:
    until_it_reads_itself(client)
    for n in range(100):
        spend(client, f"s{n}")
    assert balance(owner).consumed == 1_000


def test_what_is_said_without_waiting_is_answered_while_nobody_else_reads(
    owner: MachineHost, client: MachineHost
) -> None:
    for n in range(20):
        until_it_reads_itself(client)
        done = threading.Event()
        client.submit("acme", hold(f"s{n}"), lambda answer, done=done: done.set())  # type: ignore[misc]
        assert done.wait(PATIENCE)
    assert balance(owner).held == 200


def test_a_nudge_is_heard_while_nobody_reads(owner: MachineHost, client: MachineHost) -> None:
    """A pause reaches a process whose callers have just gone."""
    nudged = threading.Event()
    client.on_nudge(nudged.set)
    until_it_reads_itself(client)
    owner.ask("acme", SetPaused("customer", True))
    assert nudged.wait(PATIENCE)


def test_when_the_reader_has_waited_long_enough_another_reads_on(path: Path, opened: Opened) -> None:
    """L8: it is told in its time; who waits longer is answered all the same, and what it asked happened once (L4)."""
    with own(path) as first:
        host = opened()
        until_it_reads_itself(host)
        first.stop()
        impatient = asking(host, hold("a"), 0.3)
        patient = asking(host, hold("b"))
        assert isinstance(impatient(), OwnerUnavailable)
        first.kill(signal.SIGCONT)
        assert isinstance(patient(), Held)
        assert isinstance(host.ask("acme", hold("a")), Held)
        assert balance(host).held == 20


def test_when_the_owner_dies_while_a_caller_reads_the_next_answers_it(path: Path, opened: Opened) -> None:
    """L1, L4."""
    with own(path) as first:
        host = opened()
        spend(host, "before")
        line = until_it_reads_itself(host)
        first.stop()
        answer = asking(host, hold("a"))
        while not line._flying:
            threading.Event().wait(0.001)
        first.kill()
        assert isinstance(answer(), Held)
        assert host.is_owner
        assert (balance(host).consumed, balance(host).held) == (10, 10)
        assert is_sound(path)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_L4_an_interrupt_while_an_answer_is_read_loses_and_doubles_nothing(
    owner: MachineHost, client: MachineHost, moment: str
) -> None:
    """Ctrl-C in the middle of it: nobody knows what the line has read, so the next one begins anew."""
    line = until_it_reads_itself(client)
    reads, here = line._understood, threading.get_ident()

    def interrupted(message: Any) -> bool:
        if threading.get_ident() != here:
            return reads(message)
        if moment == "after":
            reads(message)
        raise KeyboardInterrupt

    line._understood = interrupted  # type: ignore[method-assign]
    interrupts = 0
    for n in range(1_000):
        try:
            client.ask("acme", hold(f"s{n}"))
        except KeyboardInterrupt:
            interrupts += 1
            break
    assert interrupts == 1
    assert isinstance(client.ask("acme", hold(f"s{n}")), Held)
    assert client.ask("acme", SettleHold(f"s{n}", 4)) == Settled(f"s{n}", "settled", 4)
    assert line_of(client) is not line
    assert (balance(owner).consumed, balance(owner).held) == (4, 10 * n)


def test_a_reader_that_an_interrupt_took_away_without_a_word_is_replaced(
    owner: MachineHost, client: MachineHost
) -> None:
    """L8: the place of the reader is taken and nobody is there; the line is given up, and the next one answers."""
    line = until_it_reads_itself(client)
    for _ in range(10_000):
        client.ask("acme", BALANCE)
        if line._is_alone and line._reading.acquire(blocking=False):
            break
    assert isinstance(client.ask("acme", hold("a")), Held)
    assert line_of(client) is not line
    assert balance(owner).held == 10


def test_callers_that_come_and_go_leave_nobody_unanswered(owner: MachineHost, client: MachineHost) -> None:
    """Alone and together, waiting and not: every change of who reads."""
    done = threading.Semaphore(0)

    def work(name: str) -> None:
        for n in range(60):
            spend(client, f"{name}-{n}")
            if n % 7 == 0:
                client.submit("acme", BALANCE, lambda answer: done.release())

    for turn, together in enumerate((1, 2, 1, 5, 1)):
        threads = [threading.Thread(target=work, args=(f"{turn}-{k}",)) for k in range(together)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert all(done.acquire(timeout=PATIENCE) for _ in range(10 * 9))
    assert (balance(owner).held, balance(owner).consumed) == (0, 10 * 60 * 10)


def test_what_waits_is_sent_before_the_callers_of_the_last_answer_are_told(
    owner: MachineHost, client: MachineHost
) -> None:
    """The owner is at it meanwhile: while the caller of the first step hears its answer, the second one is held."""
    found, over = list[bool](), threading.Event()

    def first(answer: object) -> None:
        found.append(any(balance(owner).held == 20 for _ in range(10_000)))

    client.submit("acme", hold("a"), first)  # leaves at once
    client.submit("acme", hold("b"), lambda answer: over.set())  # waits for the answer to that, or for nothing
    assert over.wait(PATIENCE)
    assert found == [True]
