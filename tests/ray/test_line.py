"""A line to an owner that a test can take away: the seat passes what is said to an owner in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.machine.calls import Call
from agentbudget.runtime.on_ray.line import Line
from agentbudget.runtime.on_ray.shared import Shared
from tests.ray.seats import owner_of
from tests.sockets.support import BALANCE, START

PATIENCE = 30.0


class Gone(Exception):
    """See ``cluster.Gone``."""

    def __init__(self) -> None:
        self.why, self.for_good = OwnerUnavailable("the test took it away", "owner-0", "ask again"), False


class DirectSeat:
    """See ``shared.Seat``. The owner hears what is said, and does not keep whoever listens: it ends such a call without news, as
    Ray does when the actor is gone."""

    name = "owner-0"

    def __init__(self, folder: Path) -> None:
        self._owner = owner_of(folder)
        self.said = self.listened = 0
        self.was_listened_to = threading.Event()

    def send(self, message: bytes) -> Any:
        self.said += 1
        return self._owner.serve(message)

    def wait(self, answer: Any, seconds: float) -> bytes | None:
        reply: bytes = answer
        return reply

    def listen(self, owner: str, news: int, done: Callable[[object], None]) -> None:
        self.listened += 1
        done(None)
        self.was_listened_to.set()

    def leave(self, message: bytes) -> None:
        self._owner.serve(message)


@pytest.fixture
def seat(tmp_path: Path) -> DirectSeat:
    return DirectSeat(tmp_path)


@pytest.fixture
def line(seat: DirectSeat) -> Iterator[Line]:
    shared = Shared(PATIENCE)
    shared.nudges.append(lambda: None)
    opened = Line(seat, Gone, shared)
    opened.open()
    yield opened
    shared.is_closed = True
    opened.ring()
    opened.join()


def ask(line: Line, command: Any) -> Any:
    answers: list[Any] = []
    came = threading.Event()

    def take(answer: Any) -> None:
        answers.append(answer)
        came.set()

    line.put(Call("acme", command, take, PATIENCE))
    assert came.wait(PATIENCE)
    return answers[0]


def test_an_owner_that_cannot_be_listened_to_is_not_asked_for_news_again_until_it_has_answered(
    line: Line, seat: DirectSeat
) -> None:
    """An actor that is gone for good fails each such call at once, and a process that is idle has nothing to say to it: it would
    call as fast as it can, for ever."""
    assert seat.was_listened_to.wait(PATIENCE)
    for command in (*START, BALANCE):
        ask(line, command)
    line.ring()
    assert seat.listened <= seat.said
