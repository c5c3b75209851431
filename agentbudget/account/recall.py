"""What holders are asked to give back: what an entry made untrue, and what others wait for (DESIGN.md §4, shortage).

The owner never waits. An ask that lacks only amounts which leases hold gets a *ticket* and is asked again by who wants it;
meanwhile the leases are asked back. Tickets are no entries: they live here, in memory, first come first served. Recalls are
numbered. A lease has answered one when a renewal of it says that its holder had heard of that number, whatever the renewal
brought: whether what told the holder has arrived, only the holder knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, TypeAlias

from msgspec import Struct

from agentbudget.account.admission import LEASED_STEPS, Row
from agentbudget.account.leases import Leases, lease_of
from agentbudget.account.limits import LimitBook
from agentbudget.account.matching import StepContext
from agentbudget.account.sessions import Rooms
from agentbudget.account.state import HoldState, SessionState, State
from agentbudget.account.wallet import Wallet

PATIENCE_US: Final = 1_500_000
"""After so long a ticket is decided, whoever has stayed silent: a heartbeat a second, and half of one to answer."""
FORGOTTEN_US: Final = 1_000_000
"""A ticket that nobody asked about for so long is dropped: who wants it asks several times a second."""
MAX_TICKETS: Final = 1_000
"""Tickets of one customer; beyond them a shortage is refused at once."""
MAX_RECALLED: Final = 10_000
"""Leases that one ticket asks back."""

Place: TypeAlias = tuple[str, str, int]
"""One amount that may run short: kind of constraint, entity, id of the limit."""


class Ask(Struct):
    """Something wanted, as it was judged. ``who``: a step, a lease, a session; ``lease``: its own, which is not asked back.
    ``claimed``: rows, by index, that refuse it only because others had asked before."""

    who: str
    rows: list[Row]
    session: SessionState
    context: StepContext | None = None
    lease: str = ""
    claimed: frozenset[int] = frozenset()


class Ticket(Struct):
    """A place in the queue: what it needs where, and whose answers it still waits for (with the numbers of the recalls)."""

    number: int
    needs: dict[Place, int]
    since_us: int
    asked_us: int
    silent: dict[str, int]

    def waits(self, now_us: int) -> bool:
        """True while others have to let it go first."""
        return now_us - self.asked_us < FORGOTTEN_US and now_us - self.since_us < PATIENCE_US


class Waiting(Struct):
    """The ask has a ticket, and these leases are asked back for it."""

    ticket: int
    leases: tuple[str, ...]


class Denied(Struct):
    """Nothing more can come: it is refused. ``silent``: leases that hold of what lacks, and whose holders did not answer."""

    silent: tuple[str, ...] = ()


class Recalls:
    """The queue and the leases asked back, of one customer."""

    def __init__(self, state: State, wallet: Wallet, limits: LimitBook, rooms: Rooms, leases: Leases) -> None:
        self._state, self._wallet, self._limits, self._rooms, self._leases = state, wallet, limits, rooms, leases
        self.tickets: dict[str, Ticket] = {}
        self._issued, self._next_drop_us = 0, 0
        self.made = 0
        """Number of the last recall. They grow with time, so that an owner's are beyond those of the one before it."""
        self._asked: dict[str, dict[str, None]] = {}
        self._due: dict[str, int] = {}
        self.is_news = False
        """Something was asked back since its owner last looked: a nudge gets it sooner than the next heartbeat would."""
        self._waiting: dict[str, set[str]] = {}
        self.refresh(leases.all())

    # -- asked back by entries ------------------------------------------------------------------------------------------

    def refresh(self, holds: Iterable[HoldState]) -> None:
        """Ask back those of the leases that an entry made untrue, and no longer those that another made true again."""
        number = self._next(self._state.time_us)
        for hold in holds:
            if self._is_due(hold):
                self._due[hold.step] = number
                self._ask(hold)
            elif self._due.pop(hold.step, None) is not None:
                self._let_be(hold)

    def woken(self, hold: HoldState) -> None:
        """A suspended lease's holder is there again: nothing is asked for that reason any more."""
        if hold.step in self._due and not self._is_due(hold):
            del self._due[hold.step]
            self._let_be(hold)

    def _next(self, now_us: int) -> int:
        self.made = max(self.made + 1, now_us)
        return self.made

    def _is_due(self, hold: HoldState) -> bool:
        """Granted under an older policy, of a session that may not go on, or of a holder who has been silent."""
        return lease_of(hold).suspended_us is not None or self.is_untrue(hold)

    def is_untrue(self, hold: HoldState) -> bool:
        """True when nothing may start on the lease any more, whatever it holds: a changed policy, a session that is over,
        stopped or paused."""
        if lease_of(hold).policy < self._state.policy:
            return True
        paused = self._state.paused
        for level in self._rooms.lineage(self._state.sessions[hold.session]):
            if level.closed or level.stopped or (paused and f"session:{level.id}" in paused):
                return True
        return False

    def _ask(self, hold: HoldState) -> None:
        of_holder = self._asked.setdefault(lease_of(hold).holder, {})
        if hold.step not in of_holder:
            of_holder[hold.step], self.is_news = None, True

    def _let_be(self, hold: HoldState) -> None:
        """Ask no longer, unless there is another reason to."""
        if hold.step in self._due or hold.step in self._waiting:
            return
        holder = lease_of(hold).holder
        of_holder = self._asked.get(holder, {})
        of_holder.pop(hold.step, None)
        if not of_holder:
            self._asked.pop(holder, None)

    # -- what holders are told, and answer ------------------------------------------------------------------------------

    def tell(self, holder: str) -> tuple[str, ...]:
        """The leases of the holder that are asked back and have not answered: by recalls up to the number ``made``."""
        return tuple(self._asked.get(holder, ()))

    def answered(self, hold: HoldState, heard: int) -> None:
        """The lease was renewed by a holder that had heard of the recalls up to a number; of later ones it is no answer. That it
        is there again is all that a suspended one was asked for."""
        if not self._asked:
            return
        step, waiting = hold.step, self._waiting.get(hold.step, set())
        for who in [who for who in waiting if self.tickets[who].silent[step] <= heard]:
            del self.tickets[who].silent[step]
            waiting.discard(who)
        if not waiting:
            self._waiting.pop(step, None)
        due = self._due.get(step)
        if due is not None and (due <= heard or not self.is_untrue(hold)):
            del self._due[step]
        self._let_be(hold)

    def gone(self, hold: HoldState) -> None:
        """The lease has ended: nobody waits for it any more, and nobody asks for its ticket, whose turn others would wait for."""
        self.leave(hold.step)
        for who in self._waiting.pop(hold.step, ()):
            self.tickets[who].silent.pop(hold.step, None)
        self._due.pop(hold.step, None)
        self._let_be(hold)

    # -- the queue ------------------------------------------------------------------------------------------------------

    def put_behind(self, ask: Ask, now_us: int, *, everybody: bool = False) -> None:
        """Let the rows of an ask refuse it where what remains does not cover those who asked before it as well; with
        ``everybody``, wherever anybody else waits."""
        mine = self.tickets.get(ask.who)
        first = [
            ticket.needs
            for who, ticket in self.tickets.items()
            if who != ask.who and ticket.waits(now_us) and (everybody or mine is None or ticket.number < mine.number)
        ]
        claimed = set()
        for index, row in enumerate(ask.rows if first else ()):
            place = place_of(row)
            ahead = 0 if place is None else sum(needs.get(place, 0) for needs in first)
            remaining = _remaining(row)
            if ahead and row[0] and (everybody or remaining - row[7] < ahead):
                ask.rows[index] = (False, *row[1:6], row[6] + min(ahead, remaining), *row[7:])
                claimed.add(index)
        ask.claimed = frozenset(claimed)

    def is_crossed(self, ask: Ask, now_us: int) -> bool:
        """True when somebody else waits for anything that the ask needs."""
        others = [ticket.needs for who, ticket in self.tickets.items() if who != ask.who and ticket.waits(now_us)]
        places = {place_of(row) for row in ask.rows} if others else set()
        return any(place in needs for needs in others for place in places)

    def wait(self, ask: Ask, now_us: int) -> Waiting | Denied:
        """A refused ask takes its place in the queue, or learns that nothing more will come."""
        if not (self._leases.count or self.tickets):
            return Denied()
        needs, leases, suspended = self._shortage(ask, now_us)
        if needs is None:
            self.leave(ask.who)
            return Denied(suspended)
        ticket = self.tickets.get(ask.who)
        if ticket is None:
            if len(self.tickets) >= MAX_TICKETS:
                return Denied(suspended)
            ticket = self._take(ask.who, needs, leases, now_us)
        elif self._is_over(ask, ticket, needs, now_us):
            silent = (*ticket.silent, *suspended)
            self.leave(ask.who)
            return Denied(silent)
        elif any(place not in ticket.needs for place in needs):
            self._recall(ask.who, ticket, leases, now_us)
        ticket.needs, ticket.asked_us = needs, now_us
        return Waiting(ticket.number, tuple(ticket.silent))

    @staticmethod
    def _is_over(ask: Ask, ticket: Ticket, needs: Mapping[Place, int], now_us: int) -> bool:
        """True when waiting on is of no use. One that lacks nothing but its turn goes on waiting: those before it do not
        take long, and it would be wrong to refuse it."""
        if all(row[0] or index in ask.claimed for index, row in enumerate(ask.rows)):
            return False
        if now_us - ticket.since_us >= PATIENCE_US:
            return True
        return not ticket.silent and all(place in ticket.needs for place in needs)

    def _take(self, who: str, needs: dict[Place, int], leases: Iterable[HoldState], now_us: int) -> Ticket:
        self._issued += 1
        ticket = self.tickets[who] = Ticket(self._issued, needs, now_us, now_us, {})
        self._recall(who, ticket, leases, now_us)
        return ticket

    def _recall(self, who: str, ticket: Ticket, leases: Iterable[HoldState], now_us: int) -> None:
        number = self._next(now_us)
        for hold in islice(leases, MAX_RECALLED):
            ticket.silent[hold.step] = number
            self._waiting.setdefault(hold.step, set()).add(who)
            self._ask(hold)

    def leave(self, who: str) -> None:
        """It was served, refused for good, or forgotten."""
        ticket = self.tickets.pop(who, None)
        if ticket is None:
            return
        for step in ticket.silent:
            waiting = self._waiting.get(step, set())
            waiting.discard(who)
            if not waiting:
                self._waiting.pop(step, None)
                self._let_be(self._state.holds[step])

    def drop_forgotten(self, now_us: int) -> None:
        """Drop the tickets that nobody asks about any more: with the last of them steps are quick again."""
        if now_us < self._next_drop_us:
            return
        for who in [who for who, ticket in self.tickets.items() if now_us - ticket.asked_us >= FORGOTTEN_US]:
            self.leave(who)
        self._next_drop_us = FORGOTTEN_US + min((t.asked_us for t in self.tickets.values()), default=now_us)

    # -- who holds what lacks -------------------------------------------------------------------------------------------

    def _shortage(self, ask: Ask, now_us: int) -> tuple[dict[Place, int] | None, Iterable[HoldState], tuple[str, ...]]:
        """What lacks, and the leases that hold of it; None when something lacks that no lease holds. Leases whose holder is
        known to be silent are not asked, only named."""
        needs: dict[Place, int] = {}
        found: dict[str, HoldState] = {}
        suspended: dict[str, None] = {}
        helped = True
        for index, row in enumerate(ask.rows):
            if row[0]:
                continue
            place = place_of(row)
            if place is None:
                return None, (), ()
            needs[place] = max(1, row[7])
            awake = False
            for hold in self._holding(row, ask, now_us):
                if lease_of(hold).suspended_us is not None:
                    suspended[hold.step] = None
                elif hold.step != ask.lease:
                    found[hold.step] = hold
                    awake = True
            helped = helped and (awake or index in ask.claimed)
        return needs if helped else None, found.values(), tuple(suspended)

    def _holding(self, row: Row, ask: Ask, now_us: int) -> Iterable[HoldState]:
        _, kind, entity, measure, *_, limit_id = row
        if limit_id == LEASED_STEPS:
            return [hold for hold in self._leases.of_session(ask.session.id) if hold.measures.get("steps")]
        if kind == "limit":
            return self._counted(limit_id, entity, measure, now_us)
        if kind == "session_budget":
            top = self._state.sessions[entity.removeprefix("session:")]
            return [hold for hold in self._leases.at(entity) if hold.amount and self._frees(hold, top)]
        usable = self._usable(ask, now_us)
        return [hold for hold in self._leases.at(entity) if any(usable(grant) for grant, _ in hold.slices)]

    def _counted(self, limit_id: int, entity: str, measure: str, now_us: int) -> Iterable[HoldState]:
        start_us, _ = self._limits.window(self._state.limits[limit_id].window, now_us)
        for hold in self._leases.marked((limit_id, entity, start_us)):
            if hold.amount if measure == "credits" else hold.measures.get(measure):
                yield hold

    def _frees(self, hold: HoldState, top: SessionState) -> bool:
        """True when what the lease gives back is room at ``top``: no carve-out between them keeps it."""
        level = self._state.sessions[hold.session]
        while level is not top and level.parent is not None:
            if level.consumption <= level.carve:
                return False
            level = self._state.sessions[level.parent]
        return True

    def _usable(self, ask: Ask, now_us: int) -> Callable[[str], bool]:
        known: dict[str, bool] = {}

        def usable(grant: str) -> bool:
            if grant not in known:
                known[grant] = ask.context is not None and self._wallet.usable(grant, ask.context, now_us)
            return known[grant]

        return usable


def _remaining(row: Row) -> int:
    return (row[4] or 0) - row[5] - row[6]


def place_of(row: Row) -> Place | None:
    """Where the row's amount is counted; None for one without an amount, or that nothing can lack of."""
    _, kind, entity, _, limit, _, _, need, _, mode, _, _, limit_id = row
    if limit_id == LEASED_STEPS:
        return "steps", entity, 0
    if limit is None or need <= 0 or mode != "hard" or kind not in ("session_budget", "limit", "insufficient_credits"):
        return None
    return kind, entity, limit_id
