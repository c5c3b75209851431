"""The oracle's leases: one message at a time reports, gives back and asks; silence suspends, and in the end lapses."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from agentbudget.account import commands as ask
from agentbudget.account.decision import Done, Renewed, Settled
from agentbudget.catalog.terms import Breaker
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict, OutOfOrder
from tests.model.oracle_facts import Ending, LeaseFact, Recalled, Refused, StepFact, covers
from tests.model.oracle_gates import context_of
from tests.model.oracle_levels import Asker, Levels, largest
from tests.model.oracle_plausible import key_of, plausible, used_by
from tests.model.oracle_steps import Steps, consume
from tests.model.oracle_tickets import Shortage
from tests.model.oracle_world import World

FOR_EVER = 2**62
SECOND_US = 1_000_000


@dataclass(frozen=True)
class Renewal:
    """The answer due to a renewal: what the contract's has, where its refusal is a set of reasons, and its policy an epoch.

    ``again``: the number was used before; then only what it granted must be the same.
    """

    shown: Renewed
    due: Refused | Recalled | None = None
    again: bool = False


@dataclass
class Leases:
    """The commands about leases, over a world."""

    world: World
    steps: Steps

    def decide(self, command: ask.Command, now: int) -> tuple[object, bool]:
        match command:
            case ask.Renew():
                return self._renew(command, now)
            case ask.SuspendLease():
                return self._suspend(command, now)
            case ask.LapseLease():
                return self._lapse(command, now)
            case ask.CorrectLease():
                return self._correct(command, now)
        raise AssertionError(command)

    # --- a message of the holder ---

    def _renew(self, command: ask.Renew, now: int) -> tuple[object, bool]:
        lease = self._lease(command.lease)
        if lease is not None and command.seq in lease.lease.messages:
            return self._again(lease, command), False
        if lease is not None and lease.end is not None:
            raise _over(lease)
        seq = 0 if lease is None else lease.lease.seq
        if lease is None and command.seq > 1:
            raise InvalidRequest("there is no such lease")
        if command.seq != seq + 1:
            raise OutOfOrder(command.lease, seq + 1)
        plausible(command, lease)
        if lease is None and self._strict(command.session):
            recall = tuple(sorted(self.world.tell(command.holder)))
            return Renewal(Renewed(command.lease, 0, is_open=False, strict=True, recall=recall)), False
        return self._apply(command, lease, now)

    def _lease(self, name: str) -> StepFact | None:
        step = self.world.steps.get(name)
        return step if step is not None and step.lease is not None else None

    def _again(self, lease: StepFact, command: ask.Renew) -> Renewal:
        """The exact message again is answered as it was; it is an answer to nothing."""
        request, granted = lease.lease.messages[command.seq]
        if request != ask.request_hash(command):
            if lease.end is not None:
                raise _over(lease)
            raise OutOfOrder(lease.id, lease.lease.seq + 1)
        if lease.end is None:
            self.world.tell(command.holder)
        return Renewal(replace(granted, is_open=lease.end is None), again=True)

    def _strict(self, session: str) -> bool:
        rules = self.world.breaker(session)
        by_rule = rules.max_parallel is not None or rules.max_rate is not None
        return by_rule and self.world.known(session)  # of one that is over nobody knows its rules

    def _apply(self, command: ask.Renew, lease: StepFact | None, now: int) -> tuple[Renewal, bool]:
        """Report, give back, ask: in this order."""
        if command.ran or command.steps:
            self.world.sessions[command.session].refusals_in_row = 0
        did = lease is not None and self._settle(lease, command, now)
        due, granted = None, 0
        stale = lease is not None and lease.end is None and self._may_not_go_on(lease, now)
        if command.ask is not None and not (lease is not None and self._ended(lease, now)):
            due = self._refused(command, lease, now)
            if due is None:
                lease, granted = self._grant(command, lease, now)
        wrote = did or bool(granted)
        answer = self._answer(command, lease, due, granted, now, wrote=wrote, stale=stale)
        if isinstance(due, Refused):
            self.steps.note(command.ask, now, refused=True, held=False)
        return answer, wrote

    def _settle(self, lease: StepFact, command: ask.Renew, now: int) -> bool:
        """What does not depend on what is asked for; whether it is worth an entry."""
        self.world.answered(lease, command.heard)
        backs = command.back or any(command.back_measures.values()) or command.close
        if not (command.steps or command.released or backs) and lease.lease.suspended_us is None:
            return False
        self._report(lease, command, now)
        self._give_back(lease, command, now)
        self.world.pay_debts(now)
        if lease.lease.suspended_us is not None and not command.close:
            self.world.sights.append("woken")
            lease.lease.suspended_us = None
            self.world.awake(lease)
        return True

    # --- report, and give back ---

    def _report(self, lease: StepFact, command: ask.Renew, now: int) -> None:
        past = lease.lease.past
        past.ran += len(command.steps) + command.released
        self.world.sights += ["released on a lease"] * bool(command.released)
        if command.steps:
            self.world.sessions[lease.session].errors_in_row = 0
        self._move(lease, past, sum(step.amount for step in command.steps) - command.overrun)
        self.steps.overrun(past, command.overrun, now)
        for measure, used in used_by(command).items():
            past.used_measures[measure] = past.used_measures.get(measure, 0) + used
            _less(lease, measure, used - command.over.get(measure, 0))

    def _move(self, lease: StepFact, to: StepFact, amount: int) -> None:
        """So much of what the lease holds, in burn order, was used by what is a fact of its own."""
        consume(lease, amount)
        to.pieces += [piece for piece in lease.pieces if piece.where == "consumed"]
        lease.pieces = [piece for piece in lease.pieces if piece.where != "consumed"]

    def _give_back(self, lease: StepFact, command: ask.Renew, now: int) -> None:
        """The last-burnt first; all of it when the lease ends."""
        back = lease.held if command.close else command.back
        for piece in [piece for piece in reversed(lease.pieces) if piece.where == "held"]:
            part = min(back, piece.amount)
            back -= part
            self.steps.give_back(lease, piece, part, now)
        lease.pieces = [piece for piece in lease.pieces if piece.amount]
        for measure, units in command.back_measures.items():
            _less(lease, measure, units)
        if command.close:
            lease.held_measures = {}
            self.world.over(lease)
            lease.end = Ending("closed", "closed", "", None, 0)

    # --- ask ---

    def _may_not_go_on(self, lease: StepFact, now: int) -> bool:
        """Nothing may start on it: every answer says so, whatever its holder was told before."""
        return self._ended(lease, now) or self.world.is_untrue(lease)

    def _ended(self, lease: StepFact, now: int) -> bool:
        """Its time, or its policy's, is over: what is asked for needs another lease."""
        return lease.lease.epoch != self.world.epoch or self._until(lease) <= now

    def _until(self, lease: StepFact) -> int:
        """When the first of its windows, its grants, and its session's time ends."""
        world, session = self.world, self.world.sessions[lease.session]
        marks = [
            limit
            for limit in world.limits
            if limit.since < lease.order
            and covers(limit.scope, lease.context)
            and limit.entities_on(lease.context.path)
        ]
        ends = [world.window(limit.window, lease.opened_us)[1] for limit in marks]
        ends += [
            world.grants[p.grant].expires_us for p in lease.pieces if p.where == "held" and p.grant in world.grants
        ]
        seconds = world.breaker(lease.session).max_seconds
        if seconds is not None:
            since = max(session.opened_us, session.rest_us)
            ends.append(since + seconds * SECOND_US + 1)  # at that age exactly a step may still start
        return min((end for end in ends if end is not None), default=FOR_EVER)

    def _lasts(self, lease: StepFact, now: int) -> int:
        until = self._until(lease)
        return until if until == FOR_EVER else max(0, until - now)

    def _refused(self, command: ask.Renew, lease: StepFact | None, now: int) -> Refused | Recalled | None:
        assert command.ask is not None
        opened = None if lease is None else lease.opened_us
        asker = Asker(command.session, command.holder, command.lease)
        return self.steps.not_now(command.ask, now, asker, command.lease, opened=opened)

    def _grant(self, command: ask.Renew, lease: StepFact | None, now: int) -> tuple[StepFact, int]:
        hold = command.ask
        assert hold is not None
        if lease is None:
            lease = self._open(command, now)
        asker = Asker(command.session, command.holder, command.lease)
        levels = Levels(self.world, asker, now).of_step(hold, command.times, opened=lease.opened_us)
        crossed = Shortage(self.world, command.lease, now).is_crossed(levels)
        times = 1 if crossed else largest(levels, command.times)
        self.world.sessions[command.session].refusals_in_row = 0
        self.steps.take(lease, hold.amount * times, now)
        for measure in lease.lease.counted:
            units = hold.measures.get(measure, 0) * times
            lease.held_measures[measure] = lease.held_measures.get(measure, 0) + units
        return lease, times

    def _open(self, command: ask.Renew, now: int) -> StepFact:
        world, hold = self.world, command.ask
        assert hold is not None
        world.order += 1
        context = context_of(world, hold)
        past = StepFact(f"{command.lease}~", command.session, world.order, now, context, True, None, 0, ran=0)
        past.end = Ending("reported", "reported", "", None, 0)
        fact = LeaseFact(command.holder, key_of(command), world.epoch, past, self._counted(command, world.order))
        lease = StepFact(command.lease, command.session, world.order, now, context, True, None, 0, ran=0, lease=fact)
        world.steps[lease.id], world.steps[past.id] = lease, past
        return lease

    def _counted(self, command: ask.Renew, order: int) -> frozenset[str]:
        """Measures that something on the way limits."""
        hold = command.ask
        assert hold is not None
        context = context_of(self.world, hold)
        counted = {
            limit.measure
            for limit in self.world.limits
            if limit.since < order and covers(limit.scope, context) and limit.entities_on(context.path)
        }
        if self.world.breaker(command.session).max_steps is not None:
            counted.add("steps")
        return frozenset(counted - {"credits"})

    # --- the answer ---

    def _answer(
        self, command: ask.Renew, lease: StepFact | None, due: Refused | Recalled | None, times: int, now: int,
        *, wrote: bool, stale: bool,
    ) -> Renewal:  # fmt: skip
        if lease is None:
            shown = Renewed(command.lease, 0, policy=self.world.epoch, is_open=False)
            return Renewal(replace(shown, recall=tuple(sorted(self.world.tell(command.holder)))), due)
        hold, fact = command.ask, lease.lease
        measures = {} if hold is None else {m: hold.measures.get(m, 0) * times for m in fact.counted}
        granted = Renewed(
            lease.id, command.seq if wrote else fact.seq, 0 if hold is None else hold.amount * times,
            {measure: units for measure, units in measures.items() if units}, tuple(sorted(fact.counted)),
            0 if stale else self._lasts(lease, now), fact.epoch, stale, is_open=lease.end is None,
            recall=tuple(sorted(self.world.tell(command.holder))),
            rules=self._patterns(command.session) if times and command.seq == 1 else None,
        )  # fmt: skip
        if wrote:
            fact.messages[command.seq] = ask.request_hash(command), granted
        return Renewal(granted, due)

    def _patterns(self, session: str) -> Breaker | None:
        rules = self.world.breaker(session)
        watched = (rules.repeat, rules.error_burst, rules.max_step_cost)
        return rules if any(rule is not None for rule in watched) else None

    # --- silence ---

    def _suspend(self, command: ask.SuspendLease, now: int) -> tuple[object, bool]:
        lease = self._lease(command.lease)
        if lease is None or lease.end is not None or lease.lease.suspended_us is not None:
            return Done(changed=False), False
        lease.lease.suspended_us = now
        self.world.ask_back([lease])
        return Done(), True

    def _open_lease(self, name: str) -> StepFact:
        lease = self._lease(name)
        if lease is None:
            raise InvalidRequest("there is no such lease")
        if lease.end is not None:
            raise _over(lease)
        return lease

    def _lapse(self, command: ask.LapseLease, now: int) -> tuple[object, bool]:
        lease = self._lease(command.lease)
        if lease is not None and lease.end is not None and lease.end.told == "lapsed":
            return lease.end.answer, False
        lease = self._open_lease(command.lease)
        self.world.over(lease)
        held = lease.held
        if command.charge:
            consume(lease, held)
            lease.end_measures = dict(lease.held_measures)
        else:
            self.steps.refund_held(lease, now)
        state = "unknown" if command.charge else "lapsed"
        answer = Settled(lease.id, state, lease.charged)
        lease.end = Ending(state, "lapsed", ask.request_hash(command), answer, lease.charged)
        if command.charge:
            self.steps.note_end(lease, failed=True)
        return answer, True

    def _correct(self, command: ask.CorrectLease, now: int) -> tuple[object, bool]:
        lease = self._lease(command.lease)
        if lease is None or lease.end is None or lease.end.told != "lapsed":
            raise InvalidRequest("it has not lapsed: renew it instead")
        if lease.correction is not None:
            if lease.correction.request != ask.request_hash(command):
                raise KeyConflict(lease.id)
            return lease.correction.answer, False
        used = used_by(command)
        lease.held_measures = {}
        lease.end_measures = dict.fromkeys(lease.end_measures, 0)
        amount = sum(step.amount for step in command.steps)
        answer = self.steps.correct(lease, ask.SettleHold(lease.id, amount, used), now)
        lease.ran += len(command.steps) + command.released
        lease.correction = Ending("corrected", "settled", ask.request_hash(command), answer, amount)
        return answer, True

    # --- a step of a lease that nobody knows the cost of ---

    def settle_unknown(self, command: ask.SettleHold, now: int) -> tuple[object, bool]:
        if command.step in self.world.steps or command.step in self.steps.answers:
            return self.steps.decide(command, now)
        lease = self._open_lease(command.lease or "")
        if command.outcome != "unknown" or command.amount > lease.held:
            raise InvalidRequest("only a guess of what the lease holds")
        step = StepFact(
            command.step, lease.session, lease.order, lease.opened_us, lease.context, True, None, 0,
            end_measures=dict(command.measures),
        )  # fmt: skip
        self._move(lease, step, command.amount)
        for measure, units in command.measures.items():
            _less(lease, measure, units)
        self.world.steps[step.id] = step
        answer = Settled(step.id, "unknown", command.amount)
        step.end = Ending("unknown", "lapsed", ask.request_hash(command), answer, command.amount)
        self.steps.note_end(step, failed=True)
        return answer, True


def _less(lease: StepFact, measure: str, units: int) -> None:
    if measure in lease.held_measures:
        lease.held_measures[measure] -= min(units, lease.held_measures[measure])


def _over(lease: StepFact) -> HoldResolved | InvalidRequest:
    if lease.end.told == "lapsed":
        return HoldResolved(lease.id, "lapsed")
    return InvalidRequest("the lease was closed")
