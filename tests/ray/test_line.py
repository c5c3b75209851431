"""A process's line to an owner on Ray, with an owner that runs here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentbudget.account.commands import Command, SettleHold
from agentbudget.account.decision import Held, Settled
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.machine.calls import Call
from agentbudget.runtime.on_ray.actor import RayOwner
from agentbudget.runtime.on_ray.line import Line
from agentbudget.runtime.on_ray.shared import Shared
from tests.ray.seats import owner_of
from tests.sockets.support import BALANCE, PATIENCE, START, hold


class Gone(Exception):
    """See ``cluster.Gone``."""

    def __init__(self) -> None:
        self.why, self.for_good = OwnerUnavailable("the test took it away", "owner-0", "ask again"), False


class Here:
    """See ``shared.Seat``: the place of an owner in this process. A reply is not heard while ``may_hear`` is not set. Who
    listens is not kept, and has no news: so Ray ends such a call when the actor is gone."""

    name = "owner-0"

    def __init__(self, owner: RayOwner) -> None:
        self._owner, self.said, self.listened = owner, 0, 0
        self.is_saying, self.may_hear, self.was_listened_to = threading.Event(), threading.Event(), threading.Event()
        self.may_hear.set()

    def send(self, message: bytes) -> bytes:
        self.said += 1
        self.is_saying.set()
        return self._owner.serve(message)

    def wait(self, answer: Any, seconds: float) -> bytes | None:
        return answer if self.may_hear.wait(seconds) else None

    def listen(self, owner: str, news: int, done: Callable[[object], None]) -> None:
        self.listened += 1
        done(None)
        self.was_listened_to.set()

    def leave(self, message: bytes) -> None:
        self._owner.serve(message)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(owner_of(tmp_path))


@pytest.fixture
def shared() -> Shared:
    return Shared(PATIENCE)


@pytest.fixture
def line(here: Here, shared: Shared) -> Iterator[Line]:
    opened = Line(here, Gone, shared)
    opened.open()
    for command in START:
        assert answer_of(opened, command) is not None
    yield opened
    shared.is_closed = True
    opened.ring()
    opened.join()


def put(line: Line, command: Command, done: Callable[[Any], None]) -> None:
    line.put(Call("acme", command, done, PATIENCE))


def answer_of(line: Line, command: Command) -> Any:
    answers: list[Any] = []
    heard = threading.Event()
    put(line, command, lambda answer: (answers.append(answer), heard.set()))
    assert heard.wait(PATIENCE)
    return answers[0]


def test_what_waits_is_said_before_the_callers_of_the_last_answer_are_told(here: Here, line: Line) -> None:
    said, found, over = [], [], threading.Event()
    here.may_hear.clear()
    here.is_saying.clear()
    put(line, hold("a"), lambda answer: (said.append(here.said), found.append(answer)))
    assert here.is_saying.wait(PATIENCE)
    before = here.said
    put(line, hold("b"), lambda answer: (found.append(answer), over.set()))
    here.may_hear.set()
    assert over.wait(PATIENCE)
    assert said == [before + 1]
    assert [type(answer) for answer in found] == [Held, Held]


def test_a_caller_whose_bug_raises_takes_no_answer_from_the_others(here: Here, line: Line) -> None:
    def bug(answer: Any) -> None:
        raise RuntimeError("a caller's bug")

    put(line, hold("a"), bug)
    assert type(answer_of(line, hold("b"))) is Held
    assert type(answer_of(line, SettleHold("a", 5))) is Settled


def test_an_owner_that_cannot_be_listened_to_is_not_asked_for_news_again_until_it_has_answered(
    here: Here, shared: Shared, line: Line
) -> None:
    """An actor that is gone for good fails each such call at once, and a process that is idle has nothing to say to it: it would
    call as fast as it can, for ever."""
    before = here.said
    shared.nudges.append(lambda: None)
    for _ in range(3):
        answer_of(line, BALANCE)
    assert here.was_listened_to.wait(PATIENCE)
    line.ring()
    answer_of(line, BALANCE)
    assert here.listened <= here.said - before
