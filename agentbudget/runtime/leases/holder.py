"""This process as a holder of leases: who it is to the owner, until when its leases count, and the thread that keeps them.

Once a second it says that it lives (``Host.beat``), hears what is asked back, reports what was settled and gives back what is
idle. Steps never wait for this thread.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from agentbudget.clock import SECOND_US, Clock
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.runtime.host import Beat, Beaten, Host, Plan, Slot
from agentbudget.runtime.ids import new_id
from agentbudget.runtime.leases.claims import NoRoom
from agentbudget.runtime.leases.lease import HOLDER_TTL_US, MARGIN_US, Key, Lease, Trail
from agentbudget.runtime.leases.session_leases import SessionLeases
from agentbudget.runtime.leases.upkeep import tick

_log = logging.getLogger("agentbudget")

BEAT_SECONDS: Final = 1.0
UNOPENED_KEPT: Final = 1_000
"""Leases remembered that were never opened; a message arrives twice within seconds, or not at all."""
UNOPENED_US: Final = 120 * SECOND_US
SAID_AGAIN_US: Final = 60 * SECOND_US
"""A spool that stays full is said so often: a thousand sessions that meet it make one line, and a day of it is not forgotten."""
FAREWELL_SECONDS: Final = 5.0
"""How long closing waits for the last reports to be booked; what was not heard by then is in the spool."""


class Spool(Protocol):
    """Where the steps of this process's leases are written so that the next process can book them (``spool/writing.py``)."""

    @property
    def lack(self) -> str:
        """Why there is no room, in words, and what to do."""
        ...

    def trail(self, customer: str, lease: str, session: str, key: Key, on_unknown: str) -> Trail | None: ...
    def close(self) -> None: ...


class Holder:
    """See the module. ``alive_until_us``: by the monotonic clock, when the owner may begin to take this process for gone;
    ``wall_offset_us``: what makes a monotonic time one of the calendar, looked up once a second."""

    def __init__(self, host: Host, clock: Clock, *, open_spool: Callable[[str], Spool | None] | None = None) -> None:
        self.host, self.clock = host, clock
        self._open_spool = open_spool
        self.on_beaten: Callable[[Beaten], None] | None = None
        self.on_pulse: Callable[[], None] | None = None
        self.catalog = 0
        self._born()
        _holders.add(self)
        self._finalizer = weakref.finalize(_ANCHOR, _farewell, weakref.ref(self), os.getpid())

    def _born(self) -> None:
        self.id = new_id()
        self.alive_until_us = 0
        self.wall_offset_us = self.clock.now_us() - self.clock.monotonic_us()
        self._active: dict[str, dict[int, SessionLeases]] = {}
        self._errands: deque[Callable[[], None]] = deque()
        self._unopened: OrderedDict[str, tuple[SessionLeases, Lease, int]] = OrderedDict()
        self._lock, self._errand = threading.Lock(), threading.Lock()
        self._bell: queue.SimpleQueue[Any] = queue.SimpleQueue()  # put() takes no lock: finalizers may call it
        self._keeper: threading.Thread | None = None
        self._spool: Spool | None = None
        self._has_spool = False
        self._said_full_us: int | None = None
        self._is_unheard = self.is_closed = False

    def forked(self) -> None:
        """In a forked child: everything leased is the parent's; this process begins as a holder of its own."""
        for owns in self._active.values():
            for own in owns.values():
                own.forked()
        self._born()

    # --- for sessions -------------------------------------------------------------------------------------------------

    def watch(self, own: SessionLeases) -> None:
        """Look after a session's leases from now on."""
        with self._lock:
            self._active.setdefault(own.customer, {})[id(own)] = own
            self._keep()

    def trail(self, own: SessionLeases, lease: str, key: Key) -> Trail | None:
        """Where a lease's steps are written; None for a ledger that does not outlive the process. Raises ``NoRoom``."""
        if self.is_closed:
            raise OwnerUnavailable("the ledger is closed", "", "open the Runtime again")
        if self._open_spool is None:
            return None
        with self._lock:
            if not self._has_spool:
                self._spool, self._has_spool = self._open_spool(self.id), True
        spool = self._spool
        if spool is None:
            return None
        trail = spool.trail(own.customer, lease, own.id, key, own.on_unknown)
        if trail is None:
            raise NoRoom
        return trail

    def spool_is_full(self) -> None:
        """A session has gone strict for lack of room: say it, once in a while."""
        now_us, said_us = self.clock.monotonic_us(), self._said_full_us
        if said_us is not None and now_us - said_us < SAID_AGAIN_US:
            return
        self._said_full_us = now_us
        _log.warning(
            "a session has gone strict, as every session will whose steps do not fit: from now on the owner holds each of its "
            "steps, a commit before and after it, because the spool has no room: %s. Sessions opened after that are leased "
            "again", "it is gone" if self._spool is None else self._spool.lack,
        )  # fmt: skip

    def heard(self, sent_us: int) -> None:
        """The owner answered something that was sent then: it counts this process's silence from there."""
        until_us = sent_us + HOLDER_TTL_US - MARGIN_US
        if until_us > self.alive_until_us:
            self.alive_until_us = until_us

    def recalled(self, customer: str, leases: Iterable[str], told: int = 0) -> None:
        """Give back what is idle of these leases; each answers the recalls up to number ``told``, if only that nothing is."""
        only = frozenset(leases)
        for own in self._of(customer):
            own.give_back(only, told)
        for name in only:
            known = self._unopened.pop(name, None)
            if known is not None:  # a message that we had given up as refused arrived again, and opened it
                own, lease, _ = known
                own.take_back(lease)

    def never_opened(self, own: SessionLeases, lease: Lease) -> None:
        """Remember a lease whose only message was refused: should that message arrive a second time, it may open one that
        nobody uses; then the owner asks for it back."""
        self._unopened[lease.id] = (own, lease, self.clock.monotonic_us())
        while len(self._unopened) > UNOPENED_KEPT:
            self._unopened.popitem(last=False)

    def _customers_of_unopened(self, now_us: int) -> set[str]:
        """Customers that may have such a lease: the owner tells only of those that a beat names."""
        remembered = list(self._unopened.items())
        for name, (_, _, since_us) in remembered:
            if now_us - since_us > UNOPENED_US:
                self._unopened.pop(name, None)
        return {
            own.customer for own, _, since_us in (kept for _, kept in remembered) if now_us - since_us <= UNOPENED_US
        }

    def holds(self, customer: str) -> bool:
        """Whether anything of a customer may be leased here."""
        return bool(self._of(customer))

    def settling_up(self, customer: str) -> Plan[None]:
        """Report and give back everything of a customer: what is asked after it sees it."""
        self.run_errands()
        for own in self._of(customer):
            yield from own.settling_up()

    def later(self, what: Callable[[], None]) -> None:
        """Have the keeper do something soon. Takes no lock, so a finalizer may call it."""
        self._errands.append(what)
        self._bell.put(_ERRAND)

    def run_errands(self) -> None:
        """Do now what the keeper was asked to do soon: the ends of steps that the collector found."""
        with self._errand:  # also waits for the one that the keeper is doing
            while self._errands:
                self._errands.popleft()()

    def nudge(self) -> None:
        """Beat now: the owner has something to say."""
        self._bell.put(None)

    def _of(self, customer: str) -> list[SessionLeases]:
        with self._lock:
            return list(self._active.get(customer, {}).values())

    # --- the keeper ---------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        if self._keeper is None and not self.is_closed:
            self._keeper = threading.Thread(
                target=_keep, args=(weakref.ref(self), self._bell), name="agentbudget-keeper", daemon=True
            )
            self._keeper.start()

    def start(self) -> None:
        """Begin to beat, whether or not anything is leased: a new catalog reaches this process by it."""
        if self._keeper is None:
            with self._lock:
                self._keep()

    def beat(self) -> None:
        """Say that this process lives, and give back what is asked back."""
        sent_us = self.clock.monotonic_us()
        with self._lock:
            customers = tuple({*self._active, *self._customers_of_unopened(sent_us)})
        beaten = self.host.beat(Beat(self.id, customers, self.catalog))
        self.heard(sent_us)
        for customer, leases in beaten.recall.items():
            self.recalled(customer, leases, beaten.told.get(customer, 0))
        if beaten.document and self.on_beaten is not None:
            self.on_beaten(beaten)

    def pulse(self) -> None:
        """What is due once a second."""
        self._beat_or_say()
        if self.on_pulse is not None:
            self.on_pulse()
        now_us = self.clock.monotonic_us()
        self.wall_offset_us = self.clock.now_us() - now_us
        with self._lock:
            everybody = [own for owns in self._active.values() for own in owns.values()]
        for own in everybody:
            if not tick(own, now_us):
                self._unwatch(own)

    def _beat_or_say(self) -> None:
        """Beat; when nobody has answered for so long that no step starts on a lease any more, say so once."""
        try:
            self.beat()
            if self._is_unheard:
                self._is_unheard = False
                _log.warning("the ledger's owner answers again: steps start on leases as before")
        except OwnerUnavailable as error:
            if self._active and not self._is_unheard and self.clock.monotonic_us() >= self.alive_until_us:
                self._is_unheard = True
                _log.warning(
                    "no owner of the ledger has answered for %d s, so no step starts on a lease until one does: %s",
                    (HOLDER_TTL_US - MARGIN_US) // SECOND_US, error,
                )  # fmt: skip

    def _unwatch(self, own: SessionLeases) -> None:
        with self._lock:
            if own.all():
                return
            owns = self._active.get(own.customer, {})
            owns.pop(id(own), None)
            if not owns:
                self._active.pop(own.customer, None)

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, seconds: float = FAREWELL_SECONDS) -> None:
        """Report and give back everything, as far as answers come in time; steps that are open stay in the spool."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            self._finalizer.detach()
            everybody = [own for owns in self._active.values() for own in owns.values()]
        self._bell.put(_STOP)
        deadline = time.monotonic() + seconds
        for own in everybody:
            own.drain()
        for own in everybody:
            self._say_farewell(own, deadline)
        self._say_what_stays([lease for own in everybody for lease in own.all()])
        if self._spool is not None:
            self._spool.close()

    def _say_what_stays(self, leases: list[Lease]) -> None:
        """What could not be reported in time, or still runs: not lost where there is a spool, but not booked yet either."""
        steps = sum(len(lease.reports) + (0 if lease.sent is None else len(lease.sent.steps)) for lease in leases)
        runs = sum(len(lease.open) for lease in leases)
        if not steps and not runs:
            return
        what = "the next process that opens the ledger books them from the spool"
        if self._spool is None:
            what = "there is no spool: what they hold stays held until it lapses"
        _log.warning(
            "the ledger was closed with %d settled steps that its owner has not confirmed and %d steps that still run; %s",
            steps, runs, what,
        )  # fmt: skip

    @staticmethod
    def _say_farewell(own: SessionLeases, deadline: float) -> None:
        for _ in range(3):  # what was under way, what was settled meanwhile, and the end
            busy = own.give_back()
            waiting = [lease for lease in own.all() if lease.sent is not None]
            for lease in waiting:
                answered = Slot()
                own.when_answered(lease, answered.put)
                answered.wait(max(0.0, deadline - time.monotonic()))
            if not busy:
                break
        own.forget_unopened()


_STOP: Final = object()
_ERRAND: Final = object()
_ANCHOR: Final = Holder  # lives as long as the process
_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def _keep(ref: weakref.ref[Holder], bell: queue.SimpleQueue[Any]) -> None:
    """The keeper's loop; it does not keep its holder alive."""
    next_beat = time.monotonic() + BEAT_SECONDS
    while True:
        try:
            what = bell.get(timeout=max(0.0, next_beat - time.monotonic()))
        except queue.Empty:
            what = None
        holder = ref()
        if holder is None or what is _STOP:
            return
        try:
            if what is _ERRAND:
                holder.run_errands()
            else:
                holder.pulse()
                next_beat = time.monotonic() + BEAT_SECONDS
        except AgentBudgetError as error:
            _log.warning("the keeper of leases met %s; it goes on", error)
        except Exception:
            _log.exception("the keeper of leases met a bug; it goes on")
        del holder


def _farewell(ref: weakref.ref[Holder], pid: int) -> None:
    holder = ref()
    if holder is not None and os.getpid() == pid:
        holder.close()


def _forked() -> None:
    for holder in list(_holders):
        holder.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
