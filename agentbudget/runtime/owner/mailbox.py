"""An owner's mailbox: what callers, the frames of other processes and the owner's thread share."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any, Final

from msgspec import Struct

from agentbudget.account.commands import Command
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.machine.wire import Publish
from agentbudget.runtime.owner.living import Living
from agentbudget.runtime.owner.owner import Reply, Request, again
from agentbudget.runtime.watching import Traced

MAX_MAILBOX: Final = 10_000
"""Commands that may wait: at 5,000 a second two seconds of work; beyond that a quick refusal serves callers better."""
NO_CATALOG: Final = Publish(b"")
SWEEP: Final = "sweep"
CLOSE: Final = "close"
"""Letters to the owner's thread itself; these stand where a command would."""


class Sheet(Struct, gc=False):
    """What another process sent in one frame. ``done`` is called once, on the owner's thread, with the answers in order,
    and with None when nothing of it was carried out because this owner has gone; it must not raise. ``traces``: of each request,
    or empty."""

    requests: list[Request]
    done: Callable[[list[Reply] | None, Beaten | AgentBudgetError | None], None]
    beat: Beat | None = None
    publish: Publish | None = None
    sweep: bool = False
    traces: list[str] = []


OTHERS: Final = frozenset((Beat, Publish, Sheet, str))
"""Types of what is no command."""
Letter = tuple[str, Command | Beat | Publish | Sheet | str, Callable[[Any], None]]
"""The customer (empty where there is none), what is said, and who is told what became of it."""


class Mailbox:
    """What callers and the owner thread share. The thread holds this and never the host, so a forgotten host can be
    closed. ``successor`` takes letters of which nothing was carried out to the next owner, or says that it does not;
    ``before_closing`` is called before the ledger is given up; ``desk`` decides letters on the thread that calls it, or
    says that somebody else is at it."""

    __slots__ = (
        "before_closing",
        "catalog",
        "dead",
        "desk",
        "gone",
        "letters",
        "living",
        "name",
        "on_nudge",
        "successor",
    )

    def __init__(self, living: Living, catalog: Publish) -> None:
        self.letters: queue.SimpleQueue[Letter] = queue.SimpleQueue()  # put() takes no lock: finalizers may call it
        self.living, self.catalog = living, catalog
        self.dead: OwnerUnavailable | None = None
        self.name = ""
        self.on_nudge: list[Callable[[], None]] = []
        self.before_closing: Callable[[], None] | None = None
        self.successor: Callable[[Letter], bool] | None = None
        self.desk: Callable[[list[Letter]], bool] | None = None
        self.gone = threading.Event()

    def put(self, letter: Letter) -> None:
        """Raises ``OwnerUnavailable`` when the owner has gone, or has too much to do."""
        if self.dead is not None:
            raise again(self.dead)
        if self.letters.qsize() >= MAX_MAILBOX:
            raise OwnerUnavailable(f"{MAX_MAILBOX} commands are waiting", self.name, "slow down, then send it again")
        self.deliver(letter)

    def deliver(self, letter: Letter) -> None:
        self.letters.put(letter)
        if self.dead is not None:  # the thread may have gone between the check of the caller and the put
            self.refuse_all(self.dead)

    def decide(self, letters: list[Letter]) -> None:
        """Have letters of other processes decided: here and now where nobody is at it, which spares a change of threads,
        else by the owner's thread. From a thread that may wait for a commit and that no caller waits with: who waits for
        an answer has its time-out elsewhere."""
        if self.desk is None or not self.desk(letters):
            for letter in letters:
                self.deliver(letter)

    def refuse_all(self, why: OwnerUnavailable) -> None:
        """Answer everything that waits; callers and the dying thread may do it at once, each letter is taken once."""
        while True:
            try:
                letter = self.letters.get_nowait()
            except queue.Empty:
                return
            self.refuse(letter, why)

    def refuse(self, letter: Letter, why: OwnerUnavailable) -> None:
        """Nothing of it was carried out, so it goes to the next owner where there may be one."""
        _, what, done = letter
        if isinstance(what, Sheet):
            what.done(None, None)
        elif what == CLOSE or self.successor is None or not self.successor(letter):
            done(again(why))

    def publish(self, catalog: Publish) -> int:
        """Put a catalog in force; only the owner's thread may. An old ordinal changes nothing."""
        newest = self.catalog
        ordinal = catalog.ordinal or max(newest.ordinal, catalog.seen) + 1
        if ordinal > newest.ordinal:
            self.catalog = Publish(catalog.document, ordinal)
        return self.catalog.ordinal


def traces_of(letters: list[Letter]) -> list[str]:
    """The trace of each command in these, in order; empty where it has none."""
    found: list[str] = []
    for _, what, done in letters:
        if isinstance(what, Sheet):
            is_whole = len(what.traces) == len(what.requests)  # else one of them was malformed
            found += what.traces if is_whole else [""] * len(what.requests)
        elif type(what) not in OTHERS:
            found.append(done.trace if isinstance(done, Traced) else "")
    return found


def weakly(callback: Callable[[], None]) -> Callable[[], None]:
    """The same call; a method does not keep its object alive by it, since the threads here live as long as the ledger."""
    if not isinstance(callback, MethodType):
        return callback
    method = weakref.WeakMethod(callback)

    def call() -> None:
        alive = method()
        if alive is not None:
            alive()

    return call
