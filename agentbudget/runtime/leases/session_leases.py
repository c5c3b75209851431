"""The leases of one session in this process: steps begin and end here under one lock, messages leave and answers come back.

``SessionLeases`` is the shell around the pure ``Lease``: it holds the lock, submits messages, wakes those who wait. Nothing
is submitted and nobody is woken while the lock is held: a host may call back at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from agentbudget.account.commands import Renew, SettleHold
from agentbudget.account.decision import Renewed
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError, HoldResolved, LedgerCorrupt, OutOfOrder, OwnerUnavailable
from agentbudget.runtime.host import Plan
from agentbudget.runtime.ids import new_lease_id
from agentbudget.runtime.leases.claims import Answered, Claim, Done, Guessed, NoRoom
from agentbudget.runtime.leases.lease import MAX_REPORTS, Key, Lease, PlainKey
from agentbudget.runtime.leases.patterns import Patterns

if TYPE_CHECKING:
    from agentbudget.runtime.leases.holder import Holder

_log = logging.getLogger("agentbudget")


def nothing(answer: Any) -> None:
    """For an end that nobody waits for."""


class SessionLeases:
    """See the module. ``ran``: a step was allowed since the last refusal. ``paces``: how much the last lease of
    a key asked for, and when it was used last. ``draining``: leases that get no more steps and wait for their last ones."""

    __slots__ = (
        "__weakref__", "customer", "draining", "guess_waiters", "guessing", "holder", "id", "is_strict", "leases",
        "lock", "max_step_us", "on_unknown", "paces", "patterns", "ran",
    )  # fmt: skip

    def __init__(self, holder: Holder, customer: str, session: str) -> None:
        self.holder, self.customer, self.id = holder, customer, session
        self.lock = threading.Lock()
        self.leases: dict[PlainKey, Lease] = {}
        self.draining: list[Lease] = []
        self.paces: dict[Key, tuple[int, int]] = {}
        self.is_strict = self.ran = False
        self.guessing = 0
        self.guess_waiters: list[Done] = []
        self.patterns = Patterns()
        self.max_step_us = 3_600 * SECOND_US
        self.on_unknown = "charge"

    # --- steps ----------------------------------------------------------------------------------------------------------

    def begin(
        self, key: PlainKey, amount: int, measures: dict[str, int], dispatched: bool
    ) -> tuple[Lease, int, int] | None:
        """Begin a step on what is leased already, without asking anybody: the lease, its number there, and when; None when
        that does not cover it."""
        holder = self.holder
        now_us = holder.clock.monotonic_us()
        if now_us >= holder.alive_until_us:
            return None
        if self.patterns.rules is not None and self.patterns.is_too_dear(amount):
            return None  # the owner says so, with its reasons
        with self.lock:
            lease = self.leases.get(key)
            if lease is None:
                return None
            n = lease.take(amount, measures, now_us, now_us + holder.wall_offset_us, dispatched=dispatched)
            if not n:
                return None
            self.ran = True
            if lease.sent is not None or (lease.free >= lease.low and not lease.is_low):
                return lease, n, now_us
            top_up = self._top_up(lease, now_us)
        if top_up is not None:
            self.send(lease, top_up)
        return lease, n, now_us

    def _top_up(self, lease: Lease, now_us: int) -> Renew | None:
        """A message that asks for more before it is needed; it refuses nothing and recalls nothing."""
        if lease.last is None or lease.stale:
            return None
        return lease.message(self.holder.id, now_us, ask=replace(lease.last, note_refusal=False), ran=self.ran)

    def lease_for(self, plain: PlainKey) -> Lease | None:
        """The lease of a key, made here when there is none: it opens with its first message. None: the spool has no room for
        another, and the session is strict from now on."""
        key = Key(*plain)
        try:
            with self.lock:
                lease = self.leases.get(key)
                if lease is None or lease.stale or lease.ended:
                    lease = self._new_lease(key, lease)
        except NoRoom:
            self.go_strict()
            return None
        self.holder.watch(self)
        return lease

    def _new_lease(self, key: Key, old: Lease | None) -> Lease:
        name = new_lease_id()
        lease = Lease(name, self.id, key, self.holder.trail(self, name, key))
        if (pace := self.paces.get(key)) is not None:
            lease.goes_on(*pace, self.holder.clock.monotonic_us())
        self.draining += () if old is None else (old,)
        self.leases[key] = lease
        return lease

    def go_strict(self) -> None:
        """The spool has no room: the owner holds every further step of this session, and who operates it is told."""
        self.is_strict = True
        self.holder.spool_is_full()

    def claim(self, claim: Claim, done: Done) -> None:
        """See :class:`Claim`."""
        lease, now_us = claim.lease, self.holder.clock.monotonic_us()
        with self.lock:
            if lease.sent is not None and not lease.is_unheard:
                lease.waiters.append(done)
                return
            if lease.sent is not None:  # an earlier message got no answer: it comes first
                lease.waiters.append(done)
                renew, sender = lease.resent(), None
            else:
                claim.done = done
                ask = claim.hold
                renew = lease.message(self.holder.id, now_us, ask=ask, back=True, ran=self.ran, grows=claim.grows)
                sender = claim
        self.send(lease, renew, sender)

    def settle(
        self, lease: Lease, n: int, command: SettleHold, ended: Callable[[Any], None], answer: Any = None
    ) -> bool:
        """Book a step's measured cost on its lease; False when it had ended before. ``ended(answer)`` is called once, at
        the moment of its end, with the lock held."""
        c, step = command, lease.open.get(n)
        used = c.measures if step is None else {**step.measures, **c.measures}
        now_us = self.holder.clock.monotonic_us()
        return self.book(lease, n, c.step, c.amount, used, (c.rate, c.catalog), c.usage, c.model, now_us, ended, answer)

    def book(
        self, lease: Lease, n: int, step: str, amount: int, used: dict[str, int], tariff: tuple[str, str],
        usage: dict[str, int], model: str | None, now_us: int, ended: Callable[[Any], None], answer: Any,
    ) -> bool:  # fmt: skip
        """:meth:`settle` without a command, on the path of every step; ``used`` has every measure that the step held."""
        holder = self.holder
        if holder.is_closed:
            raise OwnerUnavailable("the ledger is closed", "", "the step stays held, and ends by policy")
        with self.lock:
            tariffs = lease.tariffs
            index = len(tariffs) - 1 if tariffs and tariffs[-1] == tariff else lease.tariff(*tariff)
            wall_us = now_us + holder.wall_offset_us
            known = lease.settle(n, step, amount, used, index, usage, model, now_us, wall_us)
            if known:
                ended(answer)
            if lease.sent is not None or not (
                len(lease.reports) >= MAX_REPORTS or lease.unwritten or lease.free < 0 or self.draining
            ):
                return known
            out = self._due(lease, now_us)
        if out is not None:
            self.send(lease, out)
        return known

    def _due(self, lease: Lease, now_us: int) -> Renew | None:
        """The message that an end brings about: the lease was only waiting for it, or there is enough to report."""
        if lease.sent is not None or lease.is_lost:
            return None
        if lease in self.draining and not lease.open:
            return lease.message(self.holder.id, now_us, close=True)
        if len(lease.reports) >= MAX_REPORTS or lease.unwritten or lease.free < 0:  # a debt stops others, and at once
            return (self._top_up(lease, now_us) if lease.is_low else None) or lease.message(
                self.holder.id, now_us, ran=self.ran
            )
        return None

    def release(self, lease: Lease, n: int, ended: Callable[[Any], None], answer: Any = None) -> bool:
        """Give a step's hold back; False when it had ended before."""
        now_us = self.holder.clock.monotonic_us()
        with self.lock:
            known = lease.release(n, now_us)
            if known:
                ended(answer)
            out = self._due(lease, now_us)
        if out is not None:
            self.send(lease, out)
        return known

    def dispatch(self, lease: Lease, n: int) -> bool:
        with self.lock:
            return lease.dispatch(n)

    def guessed(self, lease: Lease, n: int, command: SettleHold) -> None:
        """The owner has booked a step whose outcome is not known; rules about failures want the owner to judge the next one."""
        now_us = self.holder.clock.monotonic_us()
        with self.lock:
            lease.guessed(n, command.amount, command.measures, now_us)
            out = self._due(lease, now_us)
            if out is None and lease.sent is None and self.patterns.failures_count:
                out = lease.message(self.holder.id, now_us, back=True)
        if out is not None:
            self.send(lease, out)

    # --- messages and answers -------------------------------------------------------------------------------------------

    def send(self, lease: Lease, renew: Renew, claim: Claim | None = None) -> None:
        """Hand a message over; its answer comes to :meth:`heard`."""
        try:
            self.holder.host.submit(self.customer, renew, partial(self.heard, lease, claim))
        except AgentBudgetError as error:
            self.heard(lease, claim, error)

    def heard(self, lease: Lease, claim: Claim | None, answer: Any) -> None:
        """The answer of the message under way, from the host's thread."""
        now_us = self.holder.clock.monotonic_us()
        again: Renew | None = None
        result: Any = answer
        wake: list[Done] = []
        with self.lock:
            if isinstance(answer, OutOfOrder) and lease.sent is not None:
                again = lease.renumber(answer.expected)
            elif isinstance(answer, Renewed):
                self.holder.heard(lease.sent_us)
                result = self._taken(lease, claim, answer, now_us)
                wake, lease.waiters = lease.waiters, []
                if lease.sent is None and not lease.ended:
                    again = self._follow_up(lease, now_us)
            elif isinstance(answer, OwnerUnavailable | LedgerCorrupt):
                lease.is_unheard = True
                wake, lease.waiters = lease.waiters, []
            else:
                self.lose(lease, answer)
                wake, lease.waiters = lease.waiters, []
                result = None if isinstance(answer, HoldResolved) else answer
        if again is not None:
            self.send(lease, again, claim if isinstance(answer, OutOfOrder) else None)
        if isinstance(answer, OutOfOrder):
            return
        if isinstance(answer, Renewed) and answer.recall:
            self.holder.recalled(self.customer, answer.recall, answer.told)
        if claim is not None and claim.done is not None:
            claim.done(result)
        for waiter in wake:  # they look again, or are told that nobody answers
            waiter(answer if isinstance(answer, OwnerUnavailable | LedgerCorrupt) else None)

    def _taken(self, lease: Lease, claim: Claim | None, answer: Renewed, now_us: int) -> Any:
        """Take an answer in and, where the claim's ask was granted, begin its step before anybody else can take it."""
        granted = lease.answered(answer, now_us)
        if lease.ended:
            self.forget(lease)
        self.is_strict = self.is_strict or answer.strict
        if answer.rules is not None:
            self.patterns.watch(answer.rules)
        if answer.refused is not None and answer.refused.reason is not None:
            self.ran = False
        if claim is None or not granted or claim.gone:
            return answer
        if now_us >= self.holder.alive_until_us:
            return None  # heard so late that the owner may take this process for gone
        n = claim.take(now_us, now_us + self.holder.wall_offset_us)
        if not n:
            return None  # its time is over already, or the spool is full: ask again
        claim.n, self.ran = n, True
        return n

    def _follow_up(self, lease: Lease, now_us: int) -> Renew | None:
        """What an answer makes this lease say next: give back what is asked back, or end."""
        if lease.stale or lease.is_lost:
            self._drain(lease)
        if lease.is_lost:
            return None
        if lease.is_asked_back and lease.seq:
            return lease.message(self.holder.id, now_us, back=True)
        if lease in self.draining and not lease.open:
            if lease.seq == 0 and not lease.reports:
                self.forget(lease)  # it never opened
                return None
            return lease.message(self.holder.id, now_us, close=True)
        return None

    def forget(self, lease: Lease) -> None:
        if self.leases.get(lease.key) is lease:
            del self.leases[lease.key]
        if lease in self.draining:
            self.draining.remove(lease)
        if lease.seq == 0:
            self.holder.never_opened(self, lease)
        if lease.trail is not None:
            lease.trail.closed()

    def lose(self, lease: Lease, error: Any) -> None:
        """The owner knows this lease no more: it lapsed while nothing was heard of this process (or there is a bug)."""
        lease.lost()
        if not isinstance(error, HoldResolved) and (lease.reports or lease.open):
            _log.error("lease %s of session %s ended: %s", lease.id, self.id, error)
        self._drain(lease)

    def _drain(self, lease: Lease) -> None:
        if self.leases.get(lease.key) is lease:
            del self.leases[lease.key]
        if lease not in self.draining:
            self.draining.append(lease)

    # --- giving back ----------------------------------------------------------------------------------------------------

    def all(self) -> list[Lease]:
        """Every lease that the owner may hold something for."""
        return [*self.leases.values(), *self.draining]

    def give_back(self, only: frozenset[str] | None = None, told: int = 0) -> list[Lease]:
        """Report and give back what is idle (of these leases), in answer to the recalls up to number ``told``; those that
        have a message under way are returned."""
        now_us, out, busy = self.holder.clock.monotonic_us(), list[tuple[Lease, Renew]](), list[Lease]()
        with self.lock:
            for lease in self.all():
                if only is not None and lease.id not in only:
                    continue
                lease.heard = max(lease.heard, told)
                if lease.sent is not None:
                    lease.is_asked_back, lease.until_us = True, 0  # as soon as its answer is there
                    if lease.is_unheard:
                        out.append((lease, lease.resent()))
                    busy.append(lease)
                elif lease.seq == 0 or lease.is_lost:
                    continue  # never opened: the owner holds nothing for it
                elif not lease.open:  # whoever needs it next has to ask the owner either way
                    out.append((lease, self.closing(lease, now_us)))
                else:
                    out.append((lease, lease.message(self.holder.id, now_us, back=True, ran=self.ran)))
        for lease, renew in out:
            self.send(lease, renew)
        return busy

    def forget_unopened(self) -> None:
        """Drop leases that the owner never opened."""
        with self.lock:
            for lease in self.all():
                if lease.seq == 0 and lease.sent is None:
                    self.forget(lease)

    def take_back(self, lease: Lease) -> None:
        """End a lease that was opened without this process knowing."""
        with self.lock:
            if lease.sent is not None or lease.ended:
                return
            self.draining.append(lease)
            renew = lease.message(self.holder.id, self.holder.clock.monotonic_us(), close=True)
        self.holder.watch(self)
        self.send(lease, renew)

    def closing(self, lease: Lease, now_us: int) -> Renew:
        self.paces[lease.key] = lease.times, lease.used_us
        if self.leases.get(lease.key) is lease:
            del self.leases[lease.key]
            self.draining.append(lease)
        return lease.message(self.holder.id, now_us, close=True)

    def settling_up(self) -> Plan[None]:
        """Report everything and give back what is idle, waiting for what was under way: what is asked after it sees it."""
        if self.guessing:
            yield Guessed(self)
        busy = self.give_back()
        while busy:
            for lease in busy:
                yield Answered(self, lease)
            busy = self.give_back(frozenset(lease.id for lease in busy if lease.is_reportable))

    def drain(self) -> None:
        """The session ends: no lease of it gets another step."""
        with self.lock:
            self.draining += self.leases.values()
            self.leases.clear()

    def when_answered(self, lease: Lease, done: Done) -> None:
        """Call ``done`` when nothing is under way on the lease any more, or (with the error) when its message got no answer."""
        with self.lock:
            if lease.sent is not None and not lease.is_unheard:
                lease.waiters.append(done)
                return
        done(None)

    def forked(self) -> None:
        """In a forked child: what was leased and what runs is the parent's."""
        self.lock = threading.Lock()
        for lease in self.all():
            lease.open, lease.reports, lease.sent, lease.ended, lease.trail = {}, [], None, True, None
        self.leases, self.draining = {}, []
