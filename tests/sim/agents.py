"""What runs in a process: agents that begin a step, let it take its time, and end it, well or badly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from agentbudget.account.commands import Command, Hold, ReleaseHold, SettleHold
from agentbudget.account.decision import Decision, Held, Recalling, Renewed, Settled
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError, HoldResolved, OwnerUnavailable
from agentbudget.runtime.leases.claims import Claim, extend
from agentbudget.runtime.leases.lease import Key, Lease
from agentbudget.runtime.leases.upkeep import lapsed_while_open
from tests.sim.broken import must
from tests.sim.network import MILLISECOND_US
from tests.sim.owning import CUSTOMER
from tests.sim.trails import Died
from tests.sim.truth import Step

if TYPE_CHECKING:
    from tests.sim.holding import Process

KEYS = (Key("llm", "gpt-5", None, None, False), Key("tool", None, "search", None, False))
STRICT_TTL_US = 6 * SECOND_US
PATIENCE_US = 10 * SECOND_US
"""Longest wait for "not yet" in a calm run: 1.5 s for a ticket, as much again for those before it, and that once more for each
agent that asks on the same lease: the refusal of one ends the ticket that they share."""


def nobody() -> None:
    """Nothing more to do when it ends."""


class Agent:
    """One thread of a process, in one session: step after step, each for one key."""

    def __init__(self, process: Process, session: str, key: Key) -> None:
        self.process, self.session, self.key = process, session, key
        self.world, self.work, self.chance = process.world, process.work, process.work.chance
        self.own = process.leases_of(session)
        self.is_busy = self.is_over = False
        self.amount, self.waiting_since_us, self._pause_us = 0, 0, 0
        self.measures: dict[str, int] = {}
        self.growing: dict[str, Claim] = {}

    # --- turns ---

    def rest(self, longest_us: int = 400 * MILLISECOND_US) -> None:
        """The turn is over; the next comes soon."""
        self.is_busy, self.waiting_since_us, self._pause_us = False, 0, 0
        self.process.later(self.work.between(1_000, longest_us), self.turn)

    def turn(self) -> None:
        """Another step, unless the run ends."""
        if self.world.is_closing or self.is_over:
            return
        setting = self.world.setting
        self.is_busy = True
        self.amount = self.chance.choice((0, 1, 2, 3, 5, 8))
        self.measures = {"steps": 1, "tokens": self.work.between(0, 4)} if setting.measures else {"steps": 1}
        self.dispatched = self.chance.random() < 0.8
        if self.own.is_strict or (setting.strict and self.work.happens(0.2)):
            self.ask_strictly(self.hold(self.work.new_id()))
        else:
            self.attempt()

    def hold(self, step: str) -> Hold:
        key = self.key
        return Hold(
            step, self.session, key.kind, self.amount, self.measures, key.model, key.tool, feature=key.feature,  # type: ignore[arg-type]
            wind_down=key.wind_down, dispatched=self.dispatched, ttl_us=STRICT_TTL_US, stated=f"{self.amount}",
        )  # fmt: skip

    # --- leased steps: as reserving.py does it ---

    def attempt(self) -> None:
        """Begin on what is leased; else ask for a lease, or for more of one."""
        begun = self.own.begin(self.key, self.amount, self.measures, self.dispatched)
        if begun is not None:
            self.run(begun[0], self.begun(begun[0], begun[1]))
        elif self.own.is_strict:
            self.ask_strictly(self.hold(self.work.new_id()))
        else:
            self.claim()

    def claim(self) -> None:
        lease = self.own.lease_for(self.key)
        if lease is None:
            return self.attempt()
        lease.is_full = False
        claim, state = Claim(self.own, lease, self.hold(lease.id)), {"over": False}

        def done(got: Any) -> None:
            if state["over"]:
                return
            state["over"] = True
            step = self.begun(lease, got) if type(got) is int else None
            self.process.later(self.work.between(0, 500), self.claimed, lease, got, step)

        def gave_up() -> None:
            if not state["over"]:
                state["over"] = True
                self.work.saw("claim abandoned")
                claim.abandon()
                self.rest()

        claim.start(done)
        if self.world.faults.impatient and self.work.happens(0.2):
            self.process.later(self.work.between(1_000, SECOND_US), gave_up)

    def begun(self, lease: Lease, n: int) -> Step:
        return self.world.truth.began(
            self.process, lease, n, dispatched=self.dispatched, charges=self.own.on_unknown == "charge",
            wall_us=self.work.clock.now_us(),
        )  # fmt: skip

    def claimed(self, lease: Lease, got: Any, step: Step | None) -> None:
        if step is not None:
            self.run(lease, step)
        elif got is None or (isinstance(got, Renewed) and got.refused is None and got.recalling is None):
            if lease.is_full:
                self.own.is_strict = True
            self.attempt_again(10)
        elif isinstance(got, Renewed) and got.recalling is not None:
            self.wait(got.recalling)
            self.attempt_again(self._pause_us)
        elif isinstance(got, Renewed):
            self.refused(got.refused)
        else:
            must(isinstance(got, AgentBudgetError), "L8", "a claim ended with", got)
            self.rest(2 * SECOND_US)  # no answer: the step does not run

    def attempt_again(self, delay_us: int) -> None:
        if self.world.is_closing:
            return self.rest()
        self.process.later(delay_us, self.attempt)

    def wait(self, recalling: Recalling) -> None:
        """Give back what is asked of this process, and wait for the others."""
        self.work.saw("recalling")
        self.process.holder.recalled(CUSTOMER, recalling.leases)
        self.waiting_since_us = self.waiting_since_us or self.work.now_us
        waited_us = self.work.now_us - self.waiting_since_us
        must(
            not self.world.is_calm or waited_us < PATIENCE_US,
            "L9",
            self.session,
            "was told to wait for",
            waited_us,
            "us",
        )
        self._pause_us = min(300 * MILLISECOND_US, self._pause_us * 2 or 20 * MILLISECOND_US)

    def refused(self, decision: Decision | None) -> None:
        assert decision is not None
        self.work.saw(f"denied: {decision.reason}")
        if "silent" in decision.detail:
            self.work.saw("denied: silent leases named")
        if self.waiting_since_us:
            self.work.saw("ticket refused in the end")
        self.is_over = decision.reason == "session_closed"
        self.rest(5 * SECOND_US)

    # --- a step of a lease runs, and ends ---

    def run(self, lease: Lease, step: Step) -> None:
        if self.waiting_since_us:
            self.work.saw("ticket served")
        n = int(step.id.rpartition(".")[2])
        if not step.dispatched:
            self.process.later(self.work.between(1_000, 50_000), self.send_off, lease, n, step)
        else:
            if self.work.happens(0.2):
                self.process.later(self.work.between(1_000, 200 * MILLISECOND_US), self.extend, lease, n, step)
            self.process.later(self.takes_us(), self.end, lease, n, step)

    def extend(self, lease: Lease, n: int, step: Step) -> None:
        """It needs more while it runs: out of the lease, else of the owner, as extending.py does it."""
        if step.state != "open" or step.is_ending:
            return
        more = self.work.between(0, 8)
        measures = {"tokens": self.work.between(0, 4)} if "tokens" in self.measures else {}
        got = extend(self.own, lease, n, more, measures)
        if got:
            self.work.saw("extended on its lease")
            return self.world.truth.extended(step, more)
        if got is None or lease.stale or lease.is_lost or lease.is_full or self.world.is_closing:
            return
        hold = replace(self.hold(lease.id), amount=more, measures=measures, note_refusal=False)
        claim = self.growing[step.id] = Claim(self.own, lease, hold, grows=n)

        def done(answer: Any) -> None:
            self.growing.pop(step.id, None)
            if type(answer) is int:
                self.work.saw("extended by the owner")
                self.world.truth.extended(step, more)

        claim.start(done)

    def send_off(self, lease: Lease, n: int, step: Step) -> None:
        """The work is about to be sent; where that cannot be written it must not be."""
        if self.work.happens(0.2) or not self.own.dispatch(lease, n):
            return self.release(lease, n, step)
        step.dispatched = True
        self.process.later(self.takes_us(), self.end, lease, n, step)

    def takes_us(self) -> int:
        if self.world.setting.long_steps and self.work.happens(0.05):
            self.work.saw("step longer than the TTL")
            return self.work.between(11, 20) * SECOND_US
        return self.work.between(1_000, 300 * MILLISECOND_US)

    def end(self, lease: Lease, n: int, step: Step) -> None:
        chance = self.chance.random()
        if chance < 0.08:
            self.release(lease, n, step)
        elif chance < 0.16 and not self.world.is_closing:
            self.lose(lease, n, step)
        else:
            self.settle(lease, n, step, self.cost(step))

    def cost(self, step: Step) -> int:
        over = self.world.setting.overruns and self.work.happens(0.2)
        return step.amount + self.work.between(1, 20) if over else self.work.between(0, step.amount)

    def settle(self, lease: Lease, n: int, step: Step, cost: int) -> None:
        if cost > step.amount:
            self.work.saw("overrun")
        used = {"tokens": self.work.between(0, 6)} if "tokens" in self.measures else {}
        command = SettleHold(step.id, cost, used, rate="r", catalog=f"c{self.work.between(1, 2)}")
        try:
            ended = self.own.settle(lease, n, command, lambda *_: self.world.truth.settled(step, cost))
        except Died:  # nobody was told that it is settled
            self.process.spool.unwritten.add(step.id)
            raise
        if not ended:
            self.gone(step)
        self.rest()

    def release(self, lease: Lease, n: int, step: Step) -> None:
        if not self.own.release(lease, n, lambda *_: self.world.truth.released(step)):
            self.gone(step)
        self.rest()

    def gone(self, step: Step) -> None:
        """The lease ended under the step, so it cannot be told."""
        if step.state == "open":
            self.work.saw("lease ended under a step")
            self.world.truth.dropped(step)

    def lose(self, lease: Lease, n: int, step: Step) -> None:
        """Nobody knows what it cost: the owner books a guess out of the lease; its true cost may be told late."""
        if self.own.on_unknown != "charge":
            return self.release(lease, n, step)
        step.is_ending = True
        if step.id in self.growing:
            self.growing.pop(step.id).abandon()
        held = dict(lease.open[n].measures) if n in lease.open else {}
        command = SettleHold(step.id, step.amount, held, outcome="unknown", rate="unknown", lease=lease.id)

        def told(answer: Any) -> None:
            if isinstance(answer, Settled):
                self.work.saw("guessed")
                if step.state == "open":
                    self.world.truth.guessed(step, step.amount)
                self.own.guessed(lease, n, command)
                if self.work.happens(0.4):
                    return self.correct(step)
            else:
                must(isinstance(answer, HoldResolved), "L5", "a guess was answered", repr(answer))
                self.work.saw("guess after a lapse")
                if step.state == "open":
                    self.world.truth.guessed(step, step.amount)
                lapsed_while_open(self.own, lease, n, command)
            self.rest()

        self.insist(command, told)

    def correct(self, step: Step) -> None:
        cost = self.work.between(0, step.amount + 2)

        def told(answer: Any) -> None:
            must(isinstance(answer, Settled), "L11", "a late cost was answered", answer)
            self.work.saw("corrected")
            step.late_heard = True
            self.rest()

        step.late = cost
        self.insist(SettleHold(step.id, cost), told)

    # --- strict steps ---

    def ask_strictly(self, hold: Hold) -> None:
        """Hold a step at the owner before it runs."""
        self.process.live.add(hold.step)
        step = Step(hold.step, self.process, "", hold.amount, hold.dispatched, True, "unsure")
        self.world.truth.steps.setdefault(hold.step, step)
        self.process.submit_or(hold, lambda answer: self.answered(hold, answer))

    def answered(self, hold: Hold, answer: Any) -> None:
        step = self.world.truth.steps[hold.step]
        if isinstance(answer, Held):
            step.state = "open"
            self.process.later(self.takes_us(), self.end_strictly, step)
        elif isinstance(answer, Recalling):
            self.wait(answer)
            if self.world.is_closing:
                return self.forget(step, "refused")
            self.process.later(self._pause_us, self.ask_strictly, hold)
        elif isinstance(answer, Decision):
            self.forget(step, "refused", rests=False)
            self.refused(answer)
        elif isinstance(answer, OwnerUnavailable) and self.work.happens(0.5) and not self.world.is_closing:
            self.process.later(50 * MILLISECOND_US, self.ask_strictly, hold)  # the same key again
        else:
            self.process.submit_or(ReleaseHold(hold.step, error="no answer"), lambda answer: None)
            self.forget(step, "unsure")

    def forget(self, step: Step, state: str, *, rests: bool = True) -> None:
        self.process.live.discard(step.id)
        step.state = state
        if rests:
            self.rest()

    def end_strictly(self, step: Step) -> None:
        if self.work.happens(0.15):
            command: Command = ReleaseHold(step.id)
        else:
            command = SettleHold(step.id, self.cost(step))
        step.state, step.cost = "unsure", getattr(command, "amount", 0)

        def told(answer: Any) -> None:
            self.process.live.discard(step.id)
            if isinstance(answer, HoldResolved):
                self.work.saw(f"strict step: {answer.state}")
            elif isinstance(answer, Settled) and answer.state in ("settled", "corrected"):
                step.state = "settled"
            self.rest()

        self.insist(command, told)

    def insist(self, command: Command, told: Any) -> None:
        """Send it until it is answered."""

        def heard(answer: Any) -> None:
            if isinstance(answer, OwnerUnavailable):
                self.process.later(200 * MILLISECOND_US, self.insist, command, told)
            else:
                told(answer)

        self.process.submit_or(command, heard)
