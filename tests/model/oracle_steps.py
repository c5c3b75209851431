"""The oracle's steps: hold, extend, settle in parts and at the end, release, lapse, correct."""

from __future__ import annotations

from dataclasses import dataclass

from agentbudget.account import commands as ask
from agentbudget.account.decision import Done, Held, Settled
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict
from tests.model.oracle_facts import Debt, Ending, GrantFact, Piece, Recalled, Refused, StepFact
from tests.model.oracle_gates import context_of, lasting_rules, only_leases_break_it, refused_too_often, refusing
from tests.model.oracle_levels import Asker, Levels
from tests.model.oracle_tickets import Shortage
from tests.model.oracle_world import OVERDRAFT, RECEIVABLE, World

_TOMBSTONE = "tombstone"
_TOLD = {ask.SettleHold: "settled", ask.ReleaseHold: "released", ask.LapseHold: "lapsed"}


@dataclass
class Steps:
    """The commands about steps, over a world. ``answers`` is the oracle's index of keys."""

    world: World
    answers: dict[str, tuple[str, object]]

    def decide(self, command: ask.Command, now: int) -> tuple[object, bool]:
        match command:
            case ask.Hold():
                return self._hold(command, now)
            case ask.ExtendHold():
                return self._extend(command, now)
            case ask.DispatchHold():
                return self._dispatch(command)
            case ask.SettleHold(part=None):
                return self._settle(command, now)
            case ask.SettleHold():
                return self._part(command)
            case ask.ReleaseHold() | ask.LapseHold():
                return self._give_back(command, now)
        raise AssertionError(command)

    # --- holding ---

    def _hold(self, command: ask.Hold, now: int) -> tuple[object, bool]:
        if command.step in self.answers:
            request, answer = self.answers[command.step]
            if isinstance(answer, Settled):
                raise HoldResolved(command.step, "released")
            if request != ask.request_hash(command):
                raise KeyConflict(command.step)
            return answer, False
        if command.session not in self.world.sessions:
            raise InvalidRequest("no such session")
        if refused := self.not_now(command, now, Asker(command.session), command.step):
            return refused, False
        world = self.world
        world.order += 1
        step = StepFact(
            command.step, command.session, world.order, now, context_of(world, command), command.dispatched,
            command.fingerprint, command.amount, held_measures=dict(command.measures),
        )  # fmt: skip
        self.take(step, command.amount, now)
        world.steps[command.step] = step
        return Held(command.step, command.amount, dict(command.measures), _slices(step.pieces)), True

    def not_now(
        self, hold: ask.Hold, now: int, asker: Asker, who: str, *, opened: int | None = None
    ) -> Refused | Recalled | None:
        """What refuses the step, for now or for good; None when it may run."""
        reasons = frozenset(refusing(self.world, hold, now, opened=opened))
        if not self.world.leases() and not self.world.queue.tickets:
            return Refused(reasons) if reasons else None
        levels = Levels(self.world, asker, now).of_step(hold, 1, opened=now if opened is None else opened)
        if "circuit_open" in reasons and not only_leases_break_it(self.world, hold, now):
            levels = [level for level in levels if level.reason != "circuit_open"]
        top_up = bool(asker.lease) and not hold.note_refusal
        shortage = Shortage(self.world, who, now, top_up)
        return shortage.judge(reasons, levels) if hold.note_refusal else shortage.refuses(reasons, levels)

    def take(self, step: StepFact, amount: int, now: int) -> None:
        if left := self.world.burn(step, amount, "held", now):
            step.pieces.append(Piece(RECEIVABLE, left, "held"))

    def _extend(self, command: ask.ExtendHold, now: int) -> tuple[object, bool]:
        step = self._open_step(command.step)
        hold = ask.Hold(
            command.step, step.session, step.context.kind, command.amount, command.measures, step.context.model,
            step.context.tool, feature=step.context.feature,
        )  # fmt: skip
        if reasons := refusing(self.world, hold, now, extending=True, opened=step.opened_us):
            return Refused(frozenset(reasons)), False
        before = len(step.pieces)
        self.take(step, command.amount, now)
        for measure, units in command.measures.items():
            step.held_measures[measure] = step.held_measures.get(measure, 0) + units
        return Held(command.step, command.amount, dict(command.measures), _slices(step.pieces[before:])), True

    def _open_step(self, name: str) -> StepFact:
        step = self.world.steps.get(name)
        if step is None or step.lease is not None:
            raise InvalidRequest("no such hold")
        if step.end is not None:
            raise HoldResolved(name, step.end.told)
        return step

    def _dispatch(self, command: ask.DispatchHold) -> tuple[object, bool]:
        if ask.key_of(command) in self.answers:
            return Done(changed=False), False
        step = self._open_step(command.step)
        changed = not step.dispatched
        step.dispatched = True
        return Done(changed=changed), changed

    def note(self, command: ask.Hold, now: int, *, refused: bool, held: bool) -> None:
        """What the breaker remembers of an answer."""
        if command.session not in self.world.sessions:
            return
        session = self.world.sessions[command.session]
        if held:
            session.refusals_in_row = 0
        if refused and command.note_refusal and not session.closed:
            session.refusals += 1
            session.refusals_in_row += 1
            opens = bool(lasting_rules(self.world, command, now)) or refused_too_often(self.world, session)
            if opens and not session.latched:  # this alone of a refusal is an entry
                session.latched, self.world.last_us = True, now
                self.world.ask_back(self.world.leases(session.id))

    # --- settling ---

    def _part(self, command: ask.SettleHold) -> tuple[object, bool]:
        step = self._open_step(command.step)
        if command.amount > step.held:
            raise InvalidRequest("a part may not pass what is held")
        consume(step, command.amount)
        for measure, units in command.measures.items():
            moved = min(units, step.held_measures.get(measure, 0))
            step.held_measures[measure] = step.held_measures.get(measure, 0) - moved
            step.used_measures[measure] = step.used_measures.get(measure, 0) + moved
        return Settled(command.step, "partial", step.charged), True

    def _settle(self, command: ask.SettleHold, now: int) -> tuple[object, bool]:
        step = self.world.steps.get(command.step)
        if step is None and command.step in self.answers:
            raise HoldResolved(command.step, "released")
        if step is None:
            raise InvalidRequest("no such hold")
        if step.end is not None:
            return self._after_the_end(step, command, now)
        if command.outcome == "unknown" and command.amount > step.held:
            raise InvalidRequest("a guess may not pass what is held")
        over = max(0, command.amount - step.held)
        consume(step, command.amount - over)
        self.refund_held(step, now)
        debt = self.overrun(step, over, now)
        step.end_measures = {**step.held_measures, **command.measures}
        answer = Settled(command.step, command.outcome, step.charged, over, debt)
        self.end(step, command.outcome, command, answer, command.amount)
        failed = command.error is not None or command.outcome == "unknown"
        self.note_end(step, failed=failed)
        return answer, True

    def _after_the_end(self, step: StepFact, command: ask.SettleHold, now: int) -> tuple[object, bool]:
        request = ask.request_hash(command)
        for ending in (step.end, step.correction):
            if ending is not None and ending.request == request:
                return ending.answer, False
        if step.end.state not in ("unknown", "lapsed"):
            raise HoldResolved(step.id, step.end.told)
        if step.correction is not None:
            raise KeyConflict(step.id)
        return self.correct(step, command, now), True

    def correct(self, step: StepFact, command: ask.SettleHold, now: int) -> Settled:
        known = self.world.known(step.session)
        charged, delta = step.charged, command.amount - step.end.amount
        over = max(0, delta)
        debt = self.overrun(step, over, now)
        self._refund_charged(step, max(0, -delta), now)
        ended = step.held_measures if step.end.state == "lapsed" else step.end_measures
        step.end_measures = {**ended, **command.measures}
        if not known:
            step.not_in_session += step.charged - charged
            if above := [fact for fact in self.world.lineage(step.session) if self.world.known(fact.id)]:
                above[0].late += step.charged - charged
        answer = Settled(step.id, "corrected", step.charged, over, debt)
        step.correction = Ending("corrected", "settled", ask.request_hash(command), answer, command.amount)
        return answer

    def overrun(self, step: StepFact, amount: int, now: int) -> int:
        """Burn what is free; the rest is overdraft or, postpaid, receivable. Answers the overdraft: what holds back others."""
        left = self.world.burn(step, amount, "consumed", now)
        if left:
            prepaid = self.world.terms.wallet == "prepaid"
            piece = Piece(OVERDRAFT if prepaid else RECEIVABLE, left, "consumed")
            step.pieces.append(piece)
            if prepaid:
                self.world.debts.append(Debt(step, piece))
                return left
        return 0

    # --- giving back ---

    def _give_back(self, command: ask.ReleaseHold | ask.LapseHold, now: int) -> tuple[object, bool]:
        step = self.world.steps.get(command.step)
        lapse = isinstance(command, ask.LapseHold)
        if step is None:
            return self._tombstone(command)
        if step.end is not None:
            if step.end.request == ask.request_hash(command):
                return step.end.answer, False
            raise HoldResolved(command.step, step.end.told)
        on_unknown = self.world.effective(step.session, "on_unknown", "charge")
        if lapse and step.dispatched and on_unknown == "charge":
            return self._lapse_charged(step, command), True
        self.refund_held(step, now)
        answer = Settled(command.step, "lapsed" if lapse else "released", step.charged)
        self.end(step, answer.state, command, answer, 0)
        return answer, True

    def _lapse_charged(self, step: StepFact, command: ask.LapseHold) -> Settled:
        held = step.held
        consume(step, held)
        step.end_measures = dict(step.held_measures)
        answer = Settled(command.step, "unknown", step.charged)
        self.end(step, "unknown", command, answer, held)
        self.note_end(step, failed=True)
        return answer

    def _tombstone(self, command: ask.ReleaseHold | ask.LapseHold) -> tuple[object, bool]:
        if isinstance(command, ask.LapseHold):
            raise InvalidRequest("no such hold")
        answer = Settled(command.step, "released", 0)
        if command.step in self.answers:
            return answer, False
        self.answers[command.step] = (_TOMBSTONE, answer)
        return answer, True

    def refund_held(self, step: StepFact, now: int) -> None:
        for piece in step.pieces:
            if piece.where == "held":
                self.give_back(step, piece, piece.amount, now)
        step.pieces = [piece for piece in step.pieces if piece.amount]

    def _refund_charged(self, step: StepFact, amount: int, now: int) -> None:
        for piece in [piece for piece in reversed(step.pieces) if piece.where == "consumed"]:
            back = min(amount, piece.amount)
            paid = max(0, back - self.world.owed()) if piece.grant == RECEIVABLE else 0
            self.give_back(step, piece, back, now)
            amount -= back
            if paid:  # the customer gets back what was collected too much
                self.world.payments.append(-paid)
                name = f"refund:{step.id}"
                self.world.grants[name] = GrantFact(name, [paid], "refund", 50, now, None, "paid", None, now)
        step.pieces = [piece for piece in step.pieces if piece.amount]
        self.world.debts = [debt for debt in self.world.debts if debt.piece.amount]

    def give_back(self, step: StepFact, piece: Piece, amount: int, now: int) -> None:
        """Give so much of a piece back to its grant, or forfeit it when that grant has expired."""
        piece.amount -= amount
        grant = self.world.grants.get(piece.grant)
        if amount and grant is not None and grant.expired(now):
            step.pieces.append(Piece(piece.grant, amount, "expired"))

    def end(self, step: StepFact, state: str, command: ask.Command, answer: Settled, amount: int) -> None:
        told = "lapsed" if state == "unknown" else _TOLD[type(command)]
        step.end = Ending(state, told, ask.request_hash(command), answer, amount)

    def note_end(self, step: StepFact, *, failed: bool) -> None:
        session = self.world.sessions[step.session]
        session.errors_in_row = session.errors_in_row + 1 if failed else 0


def consume(step: StepFact, amount: int) -> None:
    """Turn held credits into consumed ones, in burn order."""
    pieces: list[Piece] = []
    for piece in step.pieces:
        take = min(amount, piece.amount) if piece.where == "held" else 0
        amount -= take
        if take:
            pieces.append(Piece(piece.grant, take, "consumed"))
            piece = Piece(piece.grant, piece.amount - take, "held")
        if piece.amount:
            pieces.append(piece)
    step.pieces = pieces


def _slices(pieces: list[Piece]) -> tuple[tuple[str, int], ...]:
    return tuple((piece.grant, piece.amount) for piece in pieces if piece.where == "held")
