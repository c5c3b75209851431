"""The host of a ledger whose owners are Ray actors: this process's lines to them, and which customer is on which line.

It imports Ray only when it is opened. Every process of the cluster that opens the same ledger finds the same owners.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.shards import SHARDS, shard_of
from agentbudget.runtime.host import Beat, Beaten, OnAnswer, Slot, no_answer_within
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.calls import Call, Said
from agentbudget.runtime.on_ray import wire as ray_wire
from agentbudget.runtime.on_ray.line import Line
from agentbudget.runtime.on_ray.shared import Shared
from agentbudget.runtime.owner import mailbox
from agentbudget.runtime.owner.local_host import BEAT_SECONDS
from agentbudget.runtime.owner.mailbox import SWEEP, weakly

if TYPE_CHECKING:
    from agentbudget.runtime.on_ray.cluster import Post


def owner_name(number: int) -> str:
    """What the owners of a ledger are called."""
    return f"owner-{number}"


class RayHost:
    """See :class:`agentbudget.runtime.host.Host`. ``post``: what the owners are made from; ``owners``: how many of them share
    the shards that nobody has yet; ``is_caretaker``: whether this process looks after the spools of its machine. Raises what
    opening the ledger raises there, and ``OwnerUnavailable``."""

    def __init__(
        self,
        post: Post,
        *,
        owners: int = 1,
        timeout_seconds: float = 30.0,
        is_caretaker: Callable[[], bool] | None = None,
    ) -> None:
        self.owners, self.owner_lifetime = owners, post.lifetime  # of handles too
        self._shared, self._pid = Shared(timeout_seconds), os.getpid()
        self._lines = _Lines(post, self._shared, owners)
        self.live, self.timeout_seconds = self._shared.live, timeout_seconds
        self._catalog, self._is_caretaker = _Catalog(), is_caretaker
        self._shared.heard = self._catalog.heard
        self._finalizer = weakref.finalize(self, _close, self._lines, self._shared, self._pid, weakref.ref(self))

    @property
    def owner(self) -> str:
        """Who owns the ledger now, for people."""
        names = sorted({line.owner or line.name for line in self._lines.used()})
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    @property
    def depth(self) -> int:
        """Commands of this process that wait to be sent to owners."""
        return sum(len(line.outbox) for line in self._lines.used())

    def late(self, seconds: float) -> OwnerUnavailable:
        """For whoever waited for a lease: of the owners that do not answer, the first."""
        lines = self._lines.used()
        silent = next((line for line in lines if line.why is not None), lines[0] if lines else None)
        return no_answer_within(seconds) if silent is None else _late(silent, seconds)

    @property
    def is_owner(self) -> bool:
        """Whether this process books what dead ones of its machine left in their spools."""
        return self._is_caretaker is not None and self._is_caretaker()

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        answer: Answer = self._waited([self._say(self._line_of(customer), customer, command, seconds)], seconds)[0]
        return answer

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        self._put(self._line_of(customer), customer, command, done, self.timeout_seconds)

    def beat(self, beat: Beat) -> Beaten:
        """To every owner that has one of the customers, and to the one that knows the newest catalog."""
        parts: dict[Line, list[str]] = {self._lines.home: []}
        for customer in beat.customers:
            parts.setdefault(self._line_of(customer), []).append(customer)
        seconds = min(self.timeout_seconds, BEAT_SECONDS)
        said = [
            self._say(line, "", msgspec.structs.replace(beat, customers=tuple(customers)), seconds)
            for line, customers in parts.items()
        ]
        return _together(self._waited(said, seconds))

    def publish_catalog(self, document: bytes) -> int:
        """Tell every process of the ledger of a new catalog; its ordinal. They hear it at their next beat."""
        new = wire.Publish(document, seen=self._catalog.newest.ordinal)
        ordinal: int = self._waited([self._say(self._lines.home, "", new, self.timeout_seconds)], self.timeout_seconds)[
            0
        ]
        self._catalog.newest = wire.Publish(document, ordinal)
        return ordinal

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Call this, from any thread, when the owner has something to ask back, so that a beat is due at once. It must not
        block. A method does not keep its object alive."""
        self._shared.nudges.append(weakly(callback))
        for line in self._lines.used():
            line.ring()

    def sweep(self) -> None:
        said = [self._say(line, "", SWEEP, self.timeout_seconds) for line in self._lines.used()]
        self._waited(said, self.timeout_seconds)

    def close(self) -> None:
        self._finalizer()
        self._is_caretaker = None

    # --- saying and waiting -------------------------------------------------------------------------------------------------

    def _line_of(self, customer: str) -> Line:
        return self._lines.routes[shard_of(customer)]

    def _put(self, line: Line, customer: str, what: Said, done: Callable[[Any], None], seconds: float) -> Call:
        if os.getpid() != self._pid:
            raise OwnerUnavailable(
                "this process was forked from one that is on a Ray cluster, and a fork cannot be on it", self.owner,
                "run the work as a Ray task, or start the process with multiprocessing's spawn",
            )  # fmt: skip
        if self._shared.is_closed:
            raise self._shared.closed()
        if len(line.outbox) >= mailbox.MAX_MAILBOX:
            raise OwnerUnavailable(
                f"{len(line.outbox)} commands are waiting", line.owner, "slow down, then send it again"
            )
        call = Call(
            customer, what if isinstance(what, Beat | wire.Publish | str) else ray_wire.keyed(what), done, seconds
        )
        line.put(call)
        return call

    def _say(self, line: Line, customer: str, what: Said, seconds: float) -> tuple[Line, Call, Slot]:
        slot = Slot()
        return line, self._put(line, customer, what, slot.put, seconds), slot

    def _waited(self, said: list[tuple[Line, Call, Slot]], seconds: float) -> list[Any]:
        """Every answer; raises the first error, in their order."""
        deadline = time.monotonic() + seconds
        answers: list[Any] = []
        for line, call, slot in said:
            if not slot.wait(max(0.0, deadline - time.monotonic())):
                call.done = None  # nobody waits: what was not sent yet is not sent
                raise _late(line, seconds)
            if isinstance(slot.answer, AgentBudgetError):
                raise slot.answer
            answers.append(slot.answer)
        return answers


class _Lines:
    """The lines of a process: one to each owner, and by shard which of them. ``home``: of what concerns no customer."""

    def __init__(self, post: Post, shared: Shared, owners: int) -> None:
        from agentbudget.runtime.on_ray.cluster import Gone, Seat

        self._post, self._shared, self._gone, self._seat = post, shared, Gone, Seat
        self._by_name: dict[str, Line] = {}
        shared.moved, shared.resend, shared.lost = self.moved, self.resend, self.lost
        homes = [self._new(owner_name(number)) for number in range(owners)]
        self.home = homes[0]
        self.routes = [homes[shard % owners] for shard in range(SHARDS)]
        try:
            for line in homes:
                line.open()
        except BaseException:
            self.end(waits=False)
            raise

    def _new(self, name: str) -> Line:
        line = self._by_name[name] = Line(self._seat(name, self._post), self._gone, self._shared)
        return line

    def used(self) -> list[Line]:
        """Lines to the owners that have shards, and the home."""
        return list(dict.fromkeys((self.home, *self.routes)))

    def moved(self, shard: int, name: str) -> None:
        """An owner has said that another has a shard. Called by the thread of its line."""
        line = self._by_name.get(name)
        if line is None:
            line = self._new(name)
            line.begin()
        self.routes[shard] = line

    def lost(self, line: Line) -> bool:
        """An owner has gone for good; the home asks the ledger who has its shards, and is made again where it is the one."""
        if line is self.home:
            return False
        self.routes = [self.home if route is line else route for route in self.routes]
        return True

    def resend(self, call: Call) -> None:
        """To whoever has its shard now."""
        self.routes[shard_of(call.customer)].put(call)

    def end(self, *, waits: bool) -> None:
        self._shared.is_closed = True
        lines = list(self._by_name.values())
        for line in lines:
            line.ring()
        for line in lines if waits else ():
            line.join()


class _Catalog:
    """The newest catalog that this process heard of: an owner that has an older one, after a restart say, is told of it."""

    def __init__(self) -> None:
        self.newest = mailbox.NO_CATALOG

    def heard(self, line: Line, beaten: Beaten) -> None:
        if beaten.catalog > self.newest.ordinal and beaten.document:
            self.newest = wire.Publish(beaten.document, beaten.catalog)
        elif beaten.catalog < self.newest.ordinal:
            line.put(Call("", self.newest, _ignored, BEAT_SECONDS))


def _together(beats: list[Beaten]) -> Beaten:
    """What several owners have answered, as one answer."""
    newest = max(beats, key=lambda beaten: beaten.catalog)
    if len(beats) == 1:
        return newest
    changes: dict[str, Any] = {}
    for field in Beaten.__struct_fields__:
        values = [getattr(beaten, field) for beaten in beats]
        if isinstance(values[0], dict):  # by customer, each of whom is another owner's
            changes[field] = {key: value for found in values for key, value in found.items()}
    return msgspec.structs.replace(newest, **changes)


def _late(line: Line, seconds: float) -> OwnerUnavailable:
    """Why no answer came: who owns the ledger, or why nobody does."""
    late, why = no_answer_within(seconds, line.owner or line.name), line.why
    if why is None:
        return late
    advice = why.advice if isinstance(why, OwnerUnavailable) else ""
    return OwnerUnavailable(f"{late.what}: {getattr(why, 'what', why)}", late.owner, advice or late.advice)


def _ignored(answer: object) -> None:
    """A catalog that was said again: the next beat shows whether it was taken."""


def _close(lines: _Lines, shared: Shared, pid: int, host: weakref.ref[RayHost]) -> None:
    """Run by ``close()``, at exit, or when the host was forgotten; then it must not wait."""
    if os.getpid() != pid:
        return
    with contextlib.suppress(AgentBudgetError):
        lines.end(waits=host() is not None)
