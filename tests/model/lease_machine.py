"""The rules of leases: processes that hold them, honest ones and others, and what becomes of them when they fall silent."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from msgspec.structs import replace

from agentbudget.account import commands as ask
from agentbudget.account.decision import Recalling, Renewed
from tests.model import universe
from tests.model.machine import AccountMachine
from tests.model.oracle_facts import LeaseFact, StepFact
from tests.model.pair import LAPSE_AFTER_US, SILENCE_US

MILLISECOND_US = 1_000
ASKS_AGAIN_US = (300_000, 700_000, 900_000)
"""How long one waits that is told to: often enough that its ticket is not forgotten."""


@dataclass
class Local:
    """What a holder knows of a lease of its: how it asked first, and the steps it has begun."""

    first: ask.Renew
    begun: int = 0
    open: dict[str, int] = field(default_factory=dict)


class LeaseMachine(AccountMachine):
    """Processes hold leases of the same customer. The holder is modelled by what it may honestly say; its mirror of what it
    holds is the oracle's, since every answer was compared."""

    def leases(self) -> list[StepFact]:
        return self.world.leases() if self.pair is not None else []

    def has_leases(self) -> bool:
        return bool(self.leases())

    def one(self, which: int) -> StepFact:
        leases = self.leases()
        return leases[-1 - which % len(leases)]

    def local(self, lease: StepFact) -> Local:
        if not hasattr(self, "locals"):
            self.locals: dict[str, Local] = {}
        if lease.id not in self.locals:
            self.locals[lease.id] = Local(self._first(lease.id))
        return self.locals[lease.id]

    def _first(self, lease: str) -> ask.Renew:
        return next(c for c in self.pair.log if isinstance(c, ask.Renew) and c.lease == lease and c.ask is not None)

    def free(self, lease: StepFact) -> int:
        """What no open step of the lease holds."""
        return max(0, lease.held - sum(self.local(lease).open.values()))

    # --- messages ---

    def message(self, lease: StepFact, **more: object) -> ask.Renew:
        """The next message of a lease."""
        first = self.local(lease).first
        base = replace(first, seq=fact(lease).seq + 1, steps=(), ask=None, times=1, ran=False)
        return replace(base, **more)

    def heard(self, lease: StepFact) -> int:
        """What its holder was told last, and has heard."""
        return self.pair.told.get(fact(lease).holder, 0)

    def begin(self, lease: StepFact, amount: int) -> None:
        """A step starts, as far as what is free goes; nobody is told."""
        local = self.local(lease)
        local.begun += 1
        local.open[f"{lease.id}.{local.begun}"] = min(amount, self.free(lease))

    def asking(self, lease: StepFact, amount: int) -> ask.Hold:
        hold = self.local(lease).first.ask
        number = self.local(lease).begun + 1
        return replace(hold, step=f"{lease.id}.{number}", amount=amount, stated=f"{amount}")

    def reports(self, lease: StepFact, costs: tuple[int, ...], measures: dict[str, int]) -> dict[str, object]:
        """Steps that end, the oldest first, and what of them passes what was free."""
        local = self.local(lease)
        ending = list(local.open)[: len(costs)]
        for step in ending:
            del local.open[step]
        names = tuple(measures)
        used = tuple(measures.values())
        steps = tuple(ask.StepReport(step, cost, used) for step, cost in zip(ending, costs, strict=False))
        total = {name: len(steps) * units for name, units in measures.items()}
        over = {m: units - lease.held_measures.get(m, 0) for m, units in total.items() if m in fact(lease).counted}
        overrun = max(0, sum(step.amount for step in steps) - self.free(lease))
        return {
            "steps": steps, "measures": names if steps else (), "overrun": overrun,
            "over": {m: units for m, units in over.items() if units > 0},
        }  # fmt: skip

    def give_up_steps(self, lease: StepFact, most: int) -> int:
        """The first steps end and cost nothing; how many."""
        ending = list(self.local(lease).open)[:most]
        for step in ending:
            del self.local(lease).open[step]
        return len(ending)

    # --- rules ---

    @rule(which=universe.some, turn=universe.turns, asking=universe.askings)
    def lease_more(self, which: int, turn: universe.Turn, asking: ask.Renew) -> None:
        """The same twice: a rule's weight is how often it is there."""
        self.lease(which, turn, asking)

    @rule(which=universe.some, turn=universe.turns, asking=universe.askings)
    def lease(self, which: int, turn: universe.Turn, asking: ask.Renew) -> None:
        """Every fourth turn opens a lease; the others work on those that are open."""
        if which % 4 == 0 or not self.has_leases():
            self.open_lease(which, asking)
        else:
            self.renew(self.one(which), turn)

    def open_lease(self, which: int, asking: ask.Renew) -> None:
        lease = self.name("lease:")
        session = self.session(which // 4)
        first = replace(
            asking, lease=lease, session=session, ask=replace(asking.ask, session=session, step=f"{lease}.1")
        )
        answer = self.send(first)
        if isinstance(answer, Renewed) and answer.recalling is not None:
            self.wait_for(first, which)

    def renew(self, lease: StepFact, turn: universe.Turn) -> None:
        """Steps start and end on a lease; one message tells of it, gives back, and asks."""
        for amount in turn.starts:
            self.begin(lease, amount)
        told = self.reports(lease, turn.costs, turn.measures)
        left = self.free(lease) - (sum(step.amount for step in told["steps"]) - told["overrun"])
        hold = None if turn.wants is None else replace(self.asking(lease, turn.wants), note_refusal=not turn.top_up)
        back = min(turn.back, max(0, left))
        told["released"] = self.give_up_steps(lease, turn.times % 2)
        heard = self.heard(lease) if turn.ran else 0  # else what told it was lost, or is still on its way
        message = self.message(lease, **told, back=back, ask=hold, times=turn.times, ran=turn.ran, heard=heard)
        answer = self.send(message)
        if isinstance(answer, Renewed) and answer.recalling is not None:
            again = self.message(lease, ask=hold, times=turn.times)
            self.wait_for(again, len(turn.costs))

    @precondition(has_leases)
    @rule(which=universe.some, do=st.sampled_from(universe.ODD_ENDS), amount=st.integers(0, 5))
    def give_up_lease(self, which: int, do: str, amount: int) -> None:
        lease = self.one(which)
        match do:
            case "close":
                costs = tuple(self.local(lease).open.values())
                self.send(self.message(lease, **self.reports(lease, costs, {"steps": 1}), close=True))
            case "empty":
                self.send(self.message(lease))
            case "units back":
                back = {measure: units // 2 for measure, units in lease.held_measures.items()}
                self.send(self.message(lease, back_measures=back))
            case "session ends" if sum(not one.closed for one in self.world.sessions.values()) > 1:
                self.begin(lease, amount)
                self.send(ask.CloseSession(lease.session))
                self.send(self.message(lease, **self.reports(lease, (amount,), {"steps": 1})))
            case _:
                self.lose_track(lease, amount)

    def lose_track(self, lease: StepFact, amount: int) -> None:
        """A step of a lease fails after it was sent: nobody knows its cost, but it may be told late."""
        self.begin(lease, amount)
        step, held = self.local(lease).open.popitem()
        measures = {m: min(1, units) for m, units in lease.held_measures.items()}
        self.send(ask.SettleHold(step, held, measures, outcome="unknown", lease=lease.id))
        if amount > 2:
            self.send(ask.SettleHold(step, amount - 3 + self.free(lease) % 2, measures))

    @precondition(has_leases)
    @rule(which=universe.some, lie=st.sampled_from(universe.LIES))
    def lie(self, which: int, lie: str) -> None:
        """What no honest holder says is refused, and changes nothing."""
        lease = self.one(which)
        some = min(1, lease.held)
        lies: dict[str, dict[str, object]] = {
            "back": {"back": lease.held + 1}, "negative": {"back": -1},
            "gap": {"seq": fact(lease).seq + 2, "back": some},
            "session": {"session": self.session(which + 1), "back": some},
            "holder": {"holder": "p9", "back": some}, "overrun": {"overrun": 3},
            "steps": {"steps": (ask.StepReport("another.1", 0),)}, "old": {"seq": fact(lease).seq, "ran": True, "back": 1},
            "key": {"model": "gpt-9", "back": some}, "close": {"close": True, "ask": self.asking(lease, 1)},
        }  # fmt: skip
        self.send(replace(self.message(lease), **lies[lie]))

    # --- heartbeats, recalls, silence ---

    @rule(holder=st.sampled_from(universe.HOLDERS), answers=st.sampled_from((True, True, False)))
    def beat(self, holder: str, answers: bool) -> None:
        """A holder beats, and answers what it is asked for."""
        recalled = self.pair.beat(holder)
        if answers:
            self.answer(sorted(recalled))

    def answer(self, leases: list[str], *, keeps: bool = False) -> None:
        """Idle amounts go back; with nothing idle, or nothing to spare, an empty message says so."""
        for name in leases:
            lease = self.world.steps[name]
            self.send(self.message(lease, back=0 if keeps else self.free(lease), heard=self.heard(lease)))

    @rule(which=universe.some, hold=universe.holds, more=st.integers(8, 30), how=universe.some)
    def run_short(self, which: int, hold: ask.Hold, more: int, how: int) -> None:
        """A step that needs what leases hold waits for it."""
        hold = replace(hold, session=self.session(which), step=self.name("h"), amount=more, note_refusal=True)
        if how > 5 and self.has_leases():  # little, where it may be steps and not credits that are short
            hold = replace(hold, session=self.one(which).session, amount=1, feature=None)
        if isinstance(self.send(hold), Recalling):
            self.wait_for(hold, how)

    def wait_for(self, command: ask.Command, how: int) -> None:
        """It asks again while holders answer: all of them, one, or none."""
        for turn in range(3):
            recalled = sorted(self.pair.beat("p1") | self.pair.beat("p2")) if how % 4 > turn else []
            self.answer(recalled if how < 4 else recalled[:1], keeps=how in (2, 5))
            self.pair.driver.clock.advance(microseconds=ASKS_AGAIN_US[(how + turn) % 3])
            answer = self.send(command)
            still = isinstance(answer, Recalling) or (isinstance(answer, Renewed) and answer.recalling is not None)
            if not still:
                return

    @precondition(has_leases)
    @rule(do=st.sampled_from(universe.SILENCES), which=universe.some)
    def fall_silent(self, do: str, which: int) -> None:
        clock, lease = self.pair.driver.clock, self.one(which)
        match do:
            case "silence" | "one beats":
                clock.advance(microseconds=SILENCE_US + 1)
                if do == "one beats":
                    self.pair.beat(fact(lease).holder)
                self.pair.tick()
            case "a day":
                clock.advance(microseconds=SILENCE_US + 1)
                self.pair.tick()
                clock.advance(microseconds=LAPSE_AFTER_US)
                self.pair.tick()
            case _:
                hold = self.asking(lease, 2)
                message = self.message(lease, back=min(1, self.free(lease)), ask=hold, times=2)
                self.pair.lose_the_answer(message, committed=do == "lost after")

    @rule(which=universe.some, turn=universe.turns)
    def replay_spool(self, which: int, turn: universe.Turn) -> None:
        """The holder's spool is found, early or late: what was sent is sent again, and then the rest."""
        mine = [step for step in self.world.steps.values() if step.lease is not None]
        if not mine:
            return
        lease = mine[-1 - which % len(mine)]
        if not turn.ran:
            self.send_again(lease)
        used = tuple(turn.measures.values())
        steps = tuple(ask.StepReport(f"{lease.id}.9{n}", cost, used) for n, cost in enumerate(turn.costs))
        self.send(ask.CorrectLease(lease.id, tuple(turn.measures), steps, released=turn.times % 3))
        if turn.ran:
            self.send_again(lease)

    def send_again(self, lease: StepFact) -> None:
        for message in [c for c in self.pair.log if isinstance(c, ask.Renew) and c.lease == lease.id][-4:]:
            if self.means_something(message):
                self.send(message)


def fact(lease: StepFact) -> LeaseFact:
    assert lease.lease is not None
    return lease.lease
