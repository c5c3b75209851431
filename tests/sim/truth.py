"""What really happened: every step that began in some process, and how it ended there. The ledger is held against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentbudget.account.commands import Renew
from agentbudget.account.decision import Renewed
from agentbudget.runtime.leases.lease import HOLDER_TTL_US, MARGIN_US, Lease, OpenStep
from tests.sim.audit import Audit, Held
from tests.sim.broken import must

if TYPE_CHECKING:
    from tests.sim.holding import Process


NEVER = 2**62


@dataclass
class Step:
    """``state``: open; settled or guessed (``cost``); released; refused or unsure (strict, and nobody heard how it began or
    ended); dropped (nobody could be told of its end). ``charges``: what its session says of an unknown outcome. ``late``: its
    true cost after a guess, as told and (``late_heard``) acknowledged. ``is_ending``: its guess is under way."""

    id: str
    process: Process
    lease: str
    amount: int
    dispatched: bool
    charges: bool
    state: str = "open"
    cost: int = 0
    late: int | None = None
    late_heard: bool = False
    is_ending: bool = False


@dataclass
class LeaseFacts:
    """Of one lease: the message under way, steps that are open, and settled ones that no entry has yet."""

    sent: Renew | None = None
    granted_seq: int = 0
    open: dict[str, Step] = field(default_factory=dict)
    unbooked: dict[str, Step] = field(default_factory=dict)


class Truth:
    """Told by the agents, in the moment it happens."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self.steps: dict[str, Step] = {}
        self.leases: dict[str, LeaseFacts] = {}
        self._left_behind: set[str] = set()
        self.gone: dict[str, int] = {}
        """Processes that are no more; what was opened after that entry nobody can correct."""

    def of(self, lease: str) -> LeaseFacts:
        return self.leases.setdefault(lease, LeaseFacts())

    # --- messages ---

    def sent(self, renew: Renew) -> None:
        self.of(renew.lease).sent = renew

    def heard(self, renew: Renew, answer: Any) -> None:
        """The holder takes in an answer."""
        facts = self.of(renew.lease)
        if isinstance(answer, Renewed):
            facts.sent = None
            not_granted = answer.refused or answer.recalling or answer.stale or answer.strict
            if renew.ask is not None and not not_granted:
                facts.granted_seq = renew.seq

    # --- steps ---

    def began(self, process: Process, lease: Lease, n: int, *, dispatched: bool, charges: bool, wall_us: int) -> Step:
        """A step begins on a lease: the owner must hold enough for it, and it must be in time."""
        step = Step(f"{lease.id}.{n}", process, lease.id, lease.open[n].amount, dispatched, charges)
        must(step.id not in self.steps, "L4", "step", step.id, "began twice")
        self.steps[step.id] = step
        facts = self.of(lease.id)
        facts.open[step.id] = step
        held = self._audit.holds.get(lease.id)
        must(held is not None and not held.end, "L3", "step", step.id, "begins on a lease that is not open")
        assert held is not None
        self._covered(step, held, facts)
        self._in_time(step, held, facts, wall_us)
        return step

    def extended(self, step: Step, more: int) -> None:
        """An open step holds more: of its lease, so the owner must hold enough for it."""
        step.amount += more
        self._covered(step, self._audit.holds[step.lease], self.of(step.lease))

    def _covered(self, step: Step, held: Held, facts: LeaseFacts) -> None:
        """L3: what the owner holds covers what is open and what is settled and not booked yet."""
        if not step.amount:
            return
        sent, booked = facts.sent, self._audit.booked
        facts.unbooked = {name: one for name, one in facts.unbooked.items() if name not in booked}
        declared = 0 if sent is None or held.seq >= sent.seq else sent.overrun
        need = sum(one.amount for one in facts.open.values() if one.id not in booked)
        need += sum(one.cost for one in facts.unbooked.values()) - declared
        must(
            need <= held.amount,
            "L3",
            f"{step.id} begins: its lease needs {need} of the owner, which holds {held.amount}",
        )

    def _in_time(self, step: Step, held: Held, facts: LeaseFacts, wall_us: int) -> None:
        """``until``: no step starts at or after the end of a window, a grant or the session's time, nor on a lease whose holder
        may be taken for gone, nor long after the policy turned."""
        process, now_us = step.process, step.process.work.now_us
        until_us = held.bounds.get(facts.granted_seq, 2**62)
        must(wall_us < until_us, "until", f"{step.id} begins {wall_us - until_us} us after its lease's end")
        silence_us = now_us - process.heard_of_us
        must(silence_us < HOLDER_TTL_US - MARGIN_US, "until", f"{step.id} begins after a silence of {silence_us} us")
        must(not held.suspended, "until", f"{step.id} begins on a suspended lease")
        turned_us = self._audit.turned_us(held)
        must(
            wall_us < turned_us + HOLDER_TTL_US,
            "until",
            f"{step.id} begins long after its policy turned at {turned_us}",
        )

    def settled(self, step: Step, cost: int) -> None:
        self._ends(step, "settled", cost)
        if step.lease:
            self.of(step.lease).unbooked[step.id] = step

    def released(self, step: Step) -> None:
        self._ends(step, "released", 0)

    def guessed(self, step: Step, charged: int) -> None:
        self._ends(step, "guessed", charged)

    def dropped(self, step: Step) -> None:
        """Its end could not be told to anybody: what its lease's lapse charged stands for it."""
        self._ends(step, "dropped", 0)

    def _ends(self, step: Step, state: str, cost: int) -> None:
        must(step.state == "open", "L5", step.id, "ends as", state, "after", step.state)
        step.state, step.cost = state, cost
        if step.lease:
            self.of(step.lease).open.pop(step.id, None)

    def left_behind(self, process: Process, lease: str, open_steps: Mapping[int, OpenStep], *, charges: bool) -> None:
        """What had begun by its spool when its process died, though its agent never got to know it."""
        self._left_behind.add(lease)
        for n, one in open_steps.items():
            name = f"{lease}.{n}"
            known = self.steps.setdefault(name, Step(name, process, lease, one.amount, one.dispatched, charges))
            if known.state == "open":  # nor, perhaps, how much it had got
                must(one.amount >= known.amount, "L1", name, "holds", known.amount, "and its spool says", one.amount)
                known.amount = one.amount

    # --- at the end ---

    def check(self) -> None:
        """L1, L4, L11: every step is booked as it was, once; and nothing else is booked."""
        for step in self.steps.values():
            self._check(step)
        unknown = [name for name in self._audit.booked if name not in self.steps]
        must(not unknown, "L10", "booked, and never run:", unknown[:5])
        must(
            self._audit.consumed == self._audit.total_booked(), "L10",
            f"{self._audit.consumed} consumed, {self._audit.total_booked()} booked for steps",
        )  # fmt: skip

        released = Counter(step.lease for step in self.steps.values() if step.lease and step.state == "released")
        for lease, held in self._audit.holds.items():
            if held.end == "closed" and lease in self.leases and lease not in self._left_behind:
                reported = self._audit.released[lease]
                must(
                    reported == released[lease],
                    "L10",
                    f"{released[lease]} steps of {lease} cost nothing, not {reported}",
                )

        for lease, charged in self._audit.lapsed.items():
            held = self._audit.holds[lease]
            is_gone = held.opened_seq > self.gone.get(held.holder, NEVER)
            # What opened by an ask that came a second time, after it was refused, is known to nobody: nothing ran on it, and
            # what the lapse charged by its policy stays, unless the holder was there to be asked for it.
            is_known = self.of(lease).granted_seq > 0
            must(
                is_gone or not is_known or not charged,
                "L11",
                f"{charged} stay charged for {lease}, whose holder is back",
            )

    def _check(self, step: Step) -> None:
        booked = self._audit.booked.get(step.id)
        if step.lease in self._audit.lapsed and booked is None:
            due = self._audit.holds[step.lease].end
            must(due in ("unknown", "lapsed"), "L5", step.id, "of a lease that ended as", due)
            must(step.state != "settled", "L1", f"{step.id} cost {step.cost}; its lease lapsed, and no correction came")
            return
        expected = self._expected(step)
        found = None if booked is None else booked.amount
        must(
            found in expected,
            "L11",
            f"{step.id} ({step.state}, cost {step.cost}, late {step.late}) is booked at {found}, not {expected}",
        )

    def _expected(self, step: Step) -> tuple[int | None, ...]:
        match step.state:
            case "settled" if step.process.dead and step.id in step.process.spool.unwritten:
                return (step.cost, *self._by_policy(step))
            case "settled":
                return (step.cost,)
            case "released":
                return (None,) if step.lease else (None, 0)
            case "guessed":
                return (step.late,) if step.late_heard else (step.cost, step.cost if step.late is None else step.late)
            case "refused" | "unsure":  # a duplicate that came later may have been granted, and lapsed
                return (None, 0, step.amount, step.cost)
            case "dropped":
                return (None, step.amount)
        must(step.process.dead, "L5", step.id, "never ended, and its process lives")
        if not step.lease:
            return (None, 0, step.amount)
        return self._by_policy(step)

    @staticmethod
    def _by_policy(step: Step) -> tuple[int | None, ...]:
        return (step.amount,) if step.dispatched and step.charges else (None,)
