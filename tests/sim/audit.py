"""Every entry as it is written, judged by arithmetic of its own: laws L2, L3, L4, L5, L10 and L12 from the ledger alone."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from agentbudget.account import events as e
from agentbudget.account.commands import StepReport
from agentbudget.ledger.entry import CONSUMED, EXPIRED, HELD, ISSUED, Entry, Sealed, decode
from tests.sim.broken import must
from tests.sim.clockwork import HOUR_US
from tests.sim.places import Place, Places

_event_of = msgspec.json.Decoder(e.Event).decode


@dataclass
class Held:
    """A hold or a lease that is open, or has ended: where it is counted, and what is left of it. ``bounds``: by number of the
    renewal, when its first window or the first of its grants ends (UTC)."""

    id: str
    session: str
    places: list[Place]
    opened_us: int
    amount: int = 0
    measures: Counter[str] = field(default_factory=Counter)
    slices: Counter[str] = field(default_factory=Counter)
    holder: str = ""
    seq: int = 0
    suspended: bool = False
    end: str = ""
    opened_seq: int = 0
    bounds: dict[int, int] = field(default_factory=dict)


@dataclass
class Booked:
    """What a step was charged, and by what: a report, a settlement, a guess; then perhaps corrected."""

    amount: int
    how: str
    measures: dict[str, int] = field(default_factory=dict)


class Audit:
    """The ledger of one customer, read once. ``on_lapse_charges``: how leases of silent holders end in this run."""

    def __init__(self, entries: Sequence[Sealed], *, on_lapse_charges: bool) -> None:
        self._entries, self._charges = entries, on_lapse_charges
        self.read = 0
        self.places = Places()
        self.grants: dict[str, Counter[str]] = {}
        self.lifetimes: dict[str, tuple[int, int]] = {}
        self.holds: dict[str, Held] = {}
        self.booked: dict[str, Booked] = {}
        self.lapsed: dict[str, int] = {}
        self.released: Counter[str] = Counter()
        self.time_us: dict[int, int] = {}
        self.seen: Counter[str] = Counter()
        self.consumed = 0
        self.policies: list[tuple[int, int]] = []
        self.stopped: dict[str, int] = {}

    @property
    def is_behind(self) -> bool:
        return self.read != len(self._entries)

    def catch_up(self) -> bool:
        """Judge what was written since the last time; whether there was anything."""
        if not self.is_behind:
            return False
        for sealed in self._entries[self.read :]:
            entry = decode(sealed.record)
            must(entry.seq == self.read + 1, "L7", "entry", entry.seq, "stands after", self.read)
            self.read += 1
            self._judge(entry)
        return True

    def _judge(self, entry: Entry) -> None:
        event = _event_of(entry.body)
        moved = self._post(entry)
        self.seen[f"entry: {entry.kind}"] += 1
        self._turn(event, entry)
        due = self._booked(event, entry)
        for account, amount in due.items():
            must(
                moved[account] == amount,
                "L2",
                f"entry {entry.seq} moves {moved[account]} {account}, not {amount}:",
                event,
            )

    def _turn(self, event: e.Event, entry: Entry) -> None:
        """Note when a policy turned, and which sessions may not go on."""
        match event:
            case e.PauseSet(entity=entity, paused=paused) if entity.startswith("session:"):
                name = entity.removeprefix("session:")
                if paused:
                    self.stopped.setdefault(name, entry.time_us)
                else:
                    self.stopped.pop(name, None)
            case e.SessionStopped(session=name):
                self.stopped.setdefault(name, entry.time_us)
            case e.SessionFunded(session=name):
                self.stopped.pop(name, None)
            case e.SessionClosed(sessions=names):
                for name in names:
                    self.stopped.setdefault(name, entry.time_us)
            case e.LimitSet() | e.PlanAssigned() | e.PauseSet():
                self.policies.append((entry.seq, entry.time_us))

    def _post(self, entry: Entry) -> Counter[str]:
        """L2: per grant the postings sum to zero, and nothing but what was issued is ever negative."""
        sums, moved = Counter[str](), Counter[str]()
        for account, grant, amount in ((p.account, p.grant, p.amount) for p in entry.postings):
            sums[grant] += amount
            moved[account] += amount
            accounts = self.grants.setdefault(grant, Counter())
            accounts[account] += amount
        for grant, total in sums.items():
            must(total == 0, "L2", f"entry {entry.seq} does not balance at {grant}")
            negative = [a for a, n in self.grants[grant].items() if n < 0 and a != ISSUED]
            must(not negative, "L3", f"entry {entry.seq}: {grant} has negative {negative}")
        self.consumed += moved[CONSUMED]
        self.seen["expired while held"] += moved[EXPIRED] > 0 > moved[HELD]
        return moved

    def _booked(self, event: e.Event, entry: Entry) -> dict[str, int]:
        """What consumed and held must have moved by."""
        match event:
            case e.HoldOpened():
                return self._opened(event, entry)
            case e.LeaseRenewed():
                return self._renewed(event, entry)
            case e.HoldSettled():
                return self._settled(event)
            case e.HoldCorrected():
                return self._corrected(event)
            case e.LeaseSuspended():
                self._lease(event.lease).suspended = True
            case e.CustomerCreated() | e.PlanAssigned():
                self.places.plan(event.terms.limits)
            case e.LimitSet():
                self.places.limit_set(event)
            case e.EntityPut():
                self.places.parents[event.entity] = event.parent
            case e.SessionOpened():
                self.places.opened(event)
            case e.SessionFunded():
                session = self.places.sessions[event.session]
                session.budget = (session.budget or 0) + event.amount
            case e.SessionClosed():
                for name in event.sessions:
                    self.places.sessions[name].closed = True
            case e.GrantIssued():
                self.lifetimes[event.grant] = (event.effective_us, event.expires_us or 2**62)
        return {CONSUMED: 0, HELD: 0}

    # --- holds and leases begin, and are added to ---

    def _opened(self, event: e.HoldOpened, entry: Entry) -> dict[str, int]:
        must(event.step not in self.holds, "L4", "hold", event.step, "opened twice")
        hold = self._new(event.step, event.session, entry)
        self._add(hold, event.amount, event.measures, event.slices, entry)
        return {CONSUMED: 0, HELD: event.amount}

    def _new(self, name: str, session: str, entry: Entry) -> Held:
        hold = Held(name, session, self.places.of(session, entry.time_us), entry.time_us, opened_seq=entry.seq)
        self.holds[name] = hold
        return hold

    def _add(
        self, hold: Held, amount: int, measures: dict[str, int], slices: Sequence[tuple[str, int]], entry: Entry
    ) -> None:
        """L3, L12: what is added passes every constraint, in the window and under the rules of this moment."""
        what, places = f"entry {entry.seq} ({hold.id})", self.places
        due = {place for place in places.of(hold.session, entry.time_us) if places.limits[place[0]].amount is not None}
        must(due <= set(hold.places), "L12", what, "is not counted at", due - set(hold.places))
        session = places.sessions[hold.session]
        must(not session.closed, "L12", what, "adds to a closed session")
        owed = self.grants.get("@overdraft", Counter())[CONSUMED]
        must(not amount or not owed, "L3", what, "is granted while", owed, "of overdraft is not paid")
        self._give(hold, amount, measures, slices)
        session.own += amount
        places.count(hold.places, amount, measures, into=places.held)
        places.within_limits(hold.places, amount, measures, what)
        if amount:
            places.within_budgets(hold.session, amount, what)
        for grant, _ in slices:
            effective_us, expires_us = self.lifetimes.get(grant, (0, 2**62))
            must(effective_us <= entry.time_us < expires_us, "L3", what, "takes of", grant, "before or after its time")

    def _give(self, hold: Held, amount: int, measures: dict[str, int], slices: Sequence[tuple[str, int]]) -> None:
        must(sum(n for _, n in slices) == amount, "L2", hold.id, "is given", amount, "in slices", slices)
        hold.amount += amount
        hold.measures.update(measures)
        for grant, part in slices:
            hold.slices[grant] += part

    def _take(self, hold: Held, amount: int, measures: dict[str, int]) -> None:
        hold.amount -= amount
        self.places.count(hold.places, -amount, {m: -u for m, u in measures.items()}, into=self.places.held)
        hold.measures.subtract(measures)
        left = [hold.amount, *hold.measures.values(), *hold.slices.values()]
        must(
            min(left) >= 0,
            "L3",
            hold.id,
            "holds less than nothing:",
            hold.amount,
            dict(hold.measures),
            dict(hold.slices),
        )

    # --- leases ---

    def _lease(self, name: str) -> Held:
        must(name in self.holds and not self.holds[name].end, "L5", "lease", name, "is not open")
        return self.holds[name]

    def _renewed(self, event: e.LeaseRenewed, entry: Entry) -> dict[str, int]:
        self.released[event.lease] += event.released
        """L4: numbers without gap; L10: the sum of the steps is what was charged."""
        if event.seq == 1:
            must(event.lease not in self.holds, "L4", "lease", event.lease, "opened twice")
            lease = self._new(event.lease, event.session, entry)
            lease.holder = event.holder
        lease = self._lease(event.lease)
        must(event.seq == lease.seq + 1, "L4", f"{event.lease}: number {event.seq} after {lease.seq}")
        self.seen["lease woken"] += lease.suspended
        self.seen["lease past its end"] += bool(lease.bounds) and lease.bounds[lease.seq] <= entry.time_us
        lease.seq, lease.suspended = event.seq, False
        total = sum(step.amount for step in event.steps)
        must(total == event.amount, "L10", f"{event.lease}#{event.seq} charges {event.amount} for steps of {total}")
        within = event.amount - event.overrun
        self.seen["lease in debt"] += event.debt > 0
        self._reported(lease, event)
        for grant, part in (*event.charged, *event.back_slices):
            lease.slices[grant] -= part
        out = Counter(event.used)
        out.subtract(event.over)
        out.update(event.back_measures)
        self._take(lease, within + event.back, {m: out[m] for m in lease.measures})
        self.places.sessions[event.session].own += event.overrun - event.back
        if event.granted or event.measures:
            self._add(lease, event.granted, event.measures, event.slices, entry)
        lease.bounds[event.seq] = self._bound(lease)
        if event.closed:
            must(not lease.amount and not any(lease.measures.values()), "L5", event.lease, "is closed and still holds")
            lease.end = "closed"
        return {CONSUMED: event.amount, HELD: event.granted - within - event.back}

    def _bound(self, lease: Held) -> int:
        ends = [start_us + HOUR_US for _, _, start_us in lease.places if start_us]
        ends += [self.lifetimes[grant][1] for grant, part in lease.slices.items() if part and grant in self.lifetimes]
        return min(ends, default=2**62)

    def turned_us(self, lease: Held) -> int:
        """When what the lease was granted under became untrue: its policy, or its session's state; long from now if it is."""
        place = bisect_right(self.policies, (lease.opened_seq, 2**62))
        turned = [self.policies[place][1]] if place < len(self.policies) else []
        turned += [self.stopped[one.id] for one in self.places.lineage(lease.session) if one.id in self.stopped]
        return min(turned, default=2**62)

    def _reported(self, lease: Held, event: e.LeaseRenewed) -> None:
        used = Counter[str]()
        for step in event.steps:
            self._book_step(lease.id, event.names, step, "reported")
            used.update(dict(zip(event.names, step.used, strict=False)))
        must(+used == +Counter(event.used), "L10", f"{lease.id}#{event.seq} counts {event.used} for steps of {used}")
        self.places.count(lease.places, event.amount, dict(used), into=self.places.used)

    def _book_step(self, lease: str, names: Sequence[str], step: StepReport, how: str) -> None:
        must(
            step.step not in self.booked,
            "L4",
            f"step {step.step} is booked twice: {how}, before",
            self.booked.get(step.step),
        )
        must(step.step.rpartition(".")[0] == lease, "L4", f"step {step.step} is reported on {lease}")
        self.booked[step.step] = Booked(step.amount, how, dict(zip(names, step.used, strict=False)))

    # --- ends ---

    def _settled(self, event: e.HoldSettled) -> dict[str, int]:
        if event.lease is not None and event.lease != event.step:
            return self._guessed(event, self._lease(event.lease))
        must(event.step in self.holds and not self.holds[event.step].end, "L5", event.step, "ends, and is not open")
        hold = self.holds[event.step]
        held, hold.end = hold.amount, event.state
        if hold.seq:
            self._lapsed(event, hold)
        else:
            must(event.step not in self.booked, "L4", f"step {event.step} is booked twice")
            self.booked[event.step] = Booked(event.amount, event.state, dict(event.used))
        hold.slices.clear()
        self._take(hold, held, dict(hold.measures))
        self.places.sessions[hold.session].own += event.amount - held
        self.places.count(hold.places, event.amount, event.used, into=self.places.used)
        return {CONSUMED: event.amount, HELD: -held}

    def _lapsed(self, event: e.HoldSettled, lease: Held) -> None:
        """L5: a lease lapses by the policy of the run, and what it holds is charged whole or not at all."""
        must(lease.suspended, "L5", lease.id, "lapses without having been suspended")
        due = ("unknown", lease.amount) if self._charges else ("lapsed", 0)
        must((event.state, event.amount) == due, "L5", f"{lease.id} lapses as {event.state} {event.amount}, not {due}")
        self.lapsed[lease.id] = event.amount
        self.seen["lease lapsed: charged" if self._charges else "lease lapsed: released"] += 1

    def _guessed(self, event: e.HoldSettled, lease: Held) -> dict[str, int]:
        must(event.state == "unknown", "L11", event.step, "ends on its lease as", event.state)
        must(event.step not in self.booked, "L4", f"step {event.step} is booked twice")
        self.booked[event.step] = Booked(event.amount, "guessed", dict(event.used))
        self.holds[event.step] = Held(event.step, lease.session, lease.places, lease.opened_us, end="guessed")
        for grant, part in event.charged:
            lease.slices[grant] -= part
        self._take(
            lease, event.amount, {m: min(u, lease.measures[m]) for m, u in event.used.items() if m in lease.measures}
        )
        self.places.count(lease.places, event.amount, event.used, into=self.places.used)
        return {CONSUMED: event.amount, HELD: -event.amount}

    def _corrected(self, event: e.HoldCorrected) -> dict[str, int]:
        """L4: once; L11: the true cost in place of the guess."""
        hold = self.holds[event.step]
        must(hold.end in ("guessed", "unknown", "lapsed"), "L4", event.step, "is corrected after", hold.end)
        hold.end = "corrected"
        if hold.seq:
            self.seen["lapsed lease corrected"] += 1
            before = self.lapsed.pop(event.step)
            total = sum(step.amount for step in event.steps)
            must(event.amount == total, "L10", event.step, "is corrected to", event.amount, "for steps of", total)
            for step in event.steps:
                self._book_step(event.step, event.names, step, "corrected")
        else:
            before = self.booked[event.step].amount
            self.booked[event.step] = Booked(event.amount, "corrected")
        must(
            event.delta == event.amount - before,
            "L11",
            event.step,
            f"moves by {event.delta}, from {before} to {event.amount}",
        )
        self.places.count(hold.places, event.delta, event.used, into=self.places.used)
        self.places.sessions[hold.session].own += event.delta
        return {CONSUMED: event.delta, HELD: 0}

    # --- sums ---

    def has_leases(self, holder: str) -> bool:
        return any(hold.holder == holder and not hold.end for hold in self.holds.values())

    def total_booked(self) -> int:
        return sum(one.amount for one in self.booked.values()) + sum(self.lapsed.values())

    def check_slices(self) -> None:
        """L2: what is held of a grant is what open holds have in their slices."""
        held = Counter[str]()
        for hold in self.holds.values():
            held.update(hold.slices)
        for grant, accounts in self.grants.items():
            must(accounts[HELD] == held[grant], "L2", f"{grant}: {accounts[HELD]} held, {held[grant]} in slices")
