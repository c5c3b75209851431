"""The owner stops, or is killed: leased steps go on meanwhile, strict ones wait for the next owner or say that there is none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from agentbudget import Credits, OwnerUnavailable, Session
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.session_terms import Mode
from agentbudget.testing import ManualClock
from tests.leases.processes import Crew, Life
from tests.leases.spending import CREDIT, CUSTOMER, books, found, is_owner, is_sound, lines_of, open_ledger, step_of

GRANTED = 1_000 * CREDIT
SHORT_SECONDS = 0.2
ALIVE_SECONDS = 8
"""After so long without a word from the owner no step begins on a lease: two seconds before the owner may suspend it."""


class Strand(NamedTuple):
    """An owner, which the test stops and kills, and a worker that obeys the test; it has a lease and a strict session."""

    owner: Life
    worker: Life

    def stop_owner(self) -> None:
        """Frozen: it has the ledger's lock, and answers nobody."""
        os.kill(self.owner.pid, signal.SIGSTOP)
        os.waitpid(self.owner.pid, os.WUNTRACED)


def keep(path: Path, life: Life) -> None:
    runtime = open_ledger(path)
    life.say(is_owner(runtime))
    life.wait()
    runtime.close()


def obey(path: Path, life: Life) -> None:
    """One session of each mode; each order is answered with what came of it."""
    clock = ManualClock()
    runtime = open_ledger(path, clock=clock)
    acme = runtime.customer(CUSTOMER)
    sessions = {mode: acme.session(id=mode, budget=200, mode=mode).open() for mode in ("leased", "strict")}
    life.say(len(list(_spent(sessions["leased"], 2))), is_owner(runtime))
    while (order := life.wait()) != "end":
        match order:
            case ["spend", mode, times]:
                life.say(list(_spent(sessions[mode], times)))
            case ["try", mode, tool]:
                life.say(_tried(sessions[mode], tool))
            case ["ask", mode]:
                life.say("asking")
                life.say(list(_spent(sessions[mode], 1)))
            case ["wait", seconds]:
                clock.advance(seconds)
                life.say(seconds)
            case "who":
                life.say(is_owner(runtime))
    runtime.close()


def _spent(session: Session, times: int) -> Iterator[int]:
    for _ in range(times):
        yield step_of(session, CREDIT).settle(amount=Credits("0.25")).charged.nano


def _tried(session: Session, tool: str) -> list[str]:
    """A step that waits for a moment only: the error, whom it names, and its advice."""
    try:
        session.reserve("tool", name=tool, amount=1, dispatched=True, timeout_seconds=SHORT_SECONDS).settle()
    except OwnerUnavailable as error:
        return [error.what, error.owner, error.advice]
    return []


@pytest.fixture
def strand(tmp_path: Path) -> Iterator[Strand]:
    found(tmp_path, GRANTED)
    with Crew() as crew:
        owner = crew.start(partial(keep, tmp_path))
        assert owner.hear() is True
        worker = crew.start(partial(obey, tmp_path))
        assert worker.hear() == [2, False]
        yield Strand(owner, worker)


def check_whole(path: Path, spent: int) -> Customer:
    """Nothing is held, and what was spent is what the worker was told."""
    with open_ledger(path) as runtime:
        acme = runtime.customer(CUSTOMER)
        after = books(acme)
        assert (after.held, after.leased, after.suspended) == (0, 0, 0)
        assert (after.consumed, after.available) == (spent, GRANTED - spent)
        assert all(len(lines) == 1 for lines in lines_of(acme).values())
        assert is_sound(runtime)
        return acme


def test_leased_steps_go_on_while_no_owner_answers_and_are_booked_after_the_takeover(
    strand: Strand, tmp_path: Path
) -> None:
    """L1, L4: each once, by the next owner, which is the worker itself."""
    strand.stop_owner()
    assert strand.worker.ask("spend", "leased", 5) == [CREDIT // 4] * 5
    strand.owner.kill()
    assert strand.worker.ask("spend", "leased", 50) == [CREDIT // 4] * 50
    strand.worker.tell("end")
    strand.worker.finish()
    check_whole(tmp_path, 57 * CREDIT // 4)


def test_L8_what_needs_the_owner_is_refused_in_time_and_says_whom_to_look_for(strand: Strand, tmp_path: Path) -> None:
    """A strict step, and a leased one for which nothing is leased; the step does not run, and nothing stays held for it."""
    strand.stop_owner()
    for mode in ("strict", "leased"):
        what, owner, advice = strand.worker.ask("try", mode, "other")
        assert what
        assert advice
        if mode == "strict":
            assert str(strand.owner.pid) in owner
    strand.owner.kill()
    assert strand.worker.ask("spend", "strict", 1) == [CREDIT // 4]
    strand.worker.tell("end")
    strand.worker.finish()
    check_whole(tmp_path, 3 * CREDIT // 4)


def test_L8_a_strict_step_that_waits_when_the_owner_is_killed_succeeds_after_the_takeover(
    strand: Strand, tmp_path: Path
) -> None:
    strand.stop_owner()
    assert strand.worker.ask("ask", "strict") == "asking"
    strand.owner.kill()
    assert strand.worker.hear() == [CREDIT // 4]
    assert strand.worker.ask("who") is True
    strand.worker.tell("end")
    strand.worker.finish()
    check_whole(tmp_path, 3 * CREDIT // 4)


def test_L8_no_step_begins_on_a_lease_when_the_owner_has_been_silent_too_long(strand: Strand, tmp_path: Path) -> None:
    """By then the owner, if it lives, may have given this process up, and what it had leased."""
    strand.stop_owner()
    assert strand.worker.ask("spend", "leased", 1) == [CREDIT // 4]
    assert strand.worker.ask("wait", ALIVE_SECONDS) == ALIVE_SECONDS
    what, _, advice = strand.worker.ask("try", "leased", "search")
    assert what
    assert advice
    strand.owner.kill()
    assert strand.worker.ask("spend", "leased", 1) == [CREDIT // 4]
    strand.worker.tell("end")
    strand.worker.finish()
    check_whole(tmp_path, 4 * CREDIT // 4)


def test_an_owner_that_is_only_slow_goes_on_as_if_nothing_had_been(strand: Strand, tmp_path: Path) -> None:
    """SIGSTOP and SIGCONT, as a laptop that sleeps: what waited is answered, by the same owner."""
    strand.stop_owner()
    assert strand.worker.ask("spend", "leased", 3) == [CREDIT // 4] * 3
    assert strand.worker.ask("ask", "strict") == "asking"
    os.kill(strand.owner.pid, signal.SIGCONT)
    assert strand.worker.hear() == [CREDIT // 4]
    assert strand.worker.ask("who") is False
    strand.worker.tell("end")
    strand.worker.finish()
    strand.owner.tell("end")
    strand.owner.finish()
    check_whole(tmp_path, 6 * CREDIT // 4)


def test_threads_that_wait_when_the_owner_is_killed_are_all_answered(tmp_path: Path) -> None:
    """L4, L8: many at once, of both modes, in the process that takes over."""
    found(tmp_path, GRANTED)
    with Crew() as crew:
        owner = crew.start(partial(keep, tmp_path))
        assert owner.hear() is True
        strand = Strand(owner, owner)
        with open_ledger(tmp_path) as runtime:
            acme = runtime.customer(CUSTOMER)
            modes: tuple[Mode, ...] = ("leased", "strict") * 4
            sessions = [acme.session(id=f"run-{n}", mode=mode).open() for n, mode in enumerate(modes)]
            strand.stop_owner()
            spent: list[int] = []
            threads = [threading.Thread(target=lambda s=s: spent.extend(_spent(s, 10))) for s in sessions]
            for thread in threads:
                thread.start()
            owner.kill()
            for thread in threads:
                thread.join()
            assert spent == [CREDIT // 4] * 80
    check_whole(tmp_path, 80 * CREDIT // 4)
