"""What the lines of one process to the owners of a ledger have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.host import Beaten
from agentbudget.runtime.ids import new_id
from agentbudget.runtime.machine.calls import Call

if TYPE_CHECKING:
    from agentbudget.runtime.on_ray.line import Line


class Seat(Protocol):
    """An owner's place: see ``cluster.Seat``. ``Gone``, the error of its calls, has ``why``."""

    name: str

    def send(self, message: bytes) -> Any: ...
    def wait(self, answer: Any, seconds: float) -> bytes | None: ...
    def listen(self, owner: str, news: int, done: Callable[[object], None]) -> None: ...
    def leave(self, message: bytes) -> None: ...


class Shared:
    """What the lines of one process share. ``route`` gives the line of a shard; ``moved`` is told where a shard is instead, and
    ``resend`` takes what was meant for it; ``heard`` is told what a heartbeat was answered; ``lost`` is told of an owner that has
    gone for good, and says whether another line takes its calls."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.process = seconds, new_id()
        self.live: set[str] = set()
        self.nudges: list[Callable[[], None]] = []
        self.is_closed = self.is_broken = False
        self.moved: Callable[[int, str], None] = _nowhere
        self.resend: Callable[[Call], None] = _unsent
        self.heard: Callable[[Line, Beaten], None] = _unheard
        self.lost: Callable[[Line], bool] = _unlost

    def closed(self) -> OwnerUnavailable:
        return OwnerUnavailable("the ledger is closed", "", "open the Runtime again")

    def nudge(self) -> None:
        for callback in self.nudges:
            callback()


def _nowhere(shard: int, name: str) -> None:
    """Until the host is made."""


def _unsent(call: Call) -> None:
    """Until the host is made."""


def _unlost(line: Line) -> bool:
    """Until the host is made."""
    return False


def _unheard(line: Line, beaten: Beaten) -> None:
    """Until the host is made."""
