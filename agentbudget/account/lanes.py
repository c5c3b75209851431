"""The quick way through admission for steps that repeat: everything about a session's steps of one shape that does not change
from step to step, worked out once.

A lane only ever says yes when every constraint allows; at the first doubt it gives up and the judge, who evaluates and explains
all of them, decides. It saves looking things up, it has no rules of its own: the tests hold the two against each other.
"""

from __future__ import annotations

from agentbudget.account.admission import Admission, Judge, Request
from agentbudget.account.breaker import trips
from agentbudget.account.commands import Hold
from agentbudget.account.limits import LimitBook, applies
from agentbudget.account.matching import StepContext, matches_any
from agentbudget.account.sessions import Rooms
from agentbudget.account.state import Counter, LimitState, Mark, SessionState, State
from agentbudget.account.wallet import Wallet
from agentbudget.catalog.terms import Breaker

MAX_LANES = 10_000
"""Shapes of steps remembered for one customer; beyond it they are forgotten and worked out again."""

Shape = tuple[str, str, str | None, str | None, str | None]


class Lane:
    """One session's steps of one kind, model, tool and feature."""

    __slots__ = ("chain", "context", "entitled", "gates", "hard", "marks", "rules", "stamp", "until_us")

    def __init__(self, context: StepContext, stamp: int) -> None:
        self.context, self.stamp = context, stamp
        self.chain: tuple[SessionState, ...] = ()
        self.rules: Breaker | None = None
        self.entitled = False
        self.gates: tuple[tuple[LimitState, str], ...] = ()
        self.hard: list[tuple[LimitState, str | None, Counter]] = []
        self.marks: tuple[Mark, ...] = ()
        self.until_us = 0


class Lanes:
    """The lanes of one customer's state."""

    def __init__(self, state: State, wallet: Wallet, limits: LimitBook, rooms: Rooms, judge: Judge) -> None:
        self._state, self._wallet, self._limits, self._rooms, self._judge = state, wallet, limits, rooms, judge
        self._lanes: dict[Shape, Lane] = {}

    def of(self, hold: Hold, session: SessionState) -> Lane:
        """The lane of a step, worked out again when limits, plan or tree have changed."""
        shape = (session.id, hold.kind, hold.model, hold.tool, hold.feature)
        lane = self._lanes.get(shape)
        if lane is None or lane.stamp != self._limits.version or lane.chain[0] is not session:
            if len(self._lanes) >= MAX_LANES:
                self._lanes.clear()
            lane = self._lanes[shape] = self._survey(hold, session)
        return lane

    def _survey(self, hold: Hold, session: SessionState) -> Lane:
        context = step_context(self._rooms, hold, session)
        lane = Lane(context, self._limits.version)
        lane.chain = tuple(self._rooms.lineage(session))
        rules, terms = self._judge.rules(session), self._state.terms
        idle = rules == Breaker(refusals_in_row=rules.refusals_in_row)
        lane.rules = None if idle else rules
        lane.gates = tuple(g for g in self._rooms.gates(session) if applies(g[0], context))
        feature, model = context.feature, hold.model
        entitled = terms is not None and (
            terms.features is None
            or feature is None
            or any(f.feature == feature and f.value is not False for f in terms.features)
        )
        allowed = terms is not None and (not terms.models or model is None or matches_any(terms.models, model))
        lane.entitled = entitled and allowed
        return lane

    def admit(self, lane: Lane, hold: Hold, now_us: int) -> Admission | None:
        """What to hold where when the step is certainly allowed; None when the judge has to look."""
        if not lane.entitled or self._state.paused or self._state.debts:
            return None
        session = lane.chain[0]
        if session.closed or (lane.rules is not None and trips(lane.rules, session, hold, now_us)):
            return None
        if not self._sessions_allow(lane, hold):
            return None
        if now_us >= lane.until_us:
            self._enter_windows(lane, now_us)
        amount, measures = hold.amount, hold.measures
        for limit, measure, counter in lane.hard:
            need = amount if measure is None else measures.get(measure, 0)
            if need and (limit.amount is None or counter.used + counter.held + need > limit.amount):
                return None
        slices, missing = self._wallet.take(amount, lane.context)
        return None if missing else Admission([], slices, lane.marks, True)

    @staticmethod
    def _sessions_allow(lane: Lane, hold: Hold) -> bool:
        units = hold.amount
        for level in lane.chain:
            if level.stopped:
                return False
            if units > 0:
                before, after = level.consumption, level.consumption + units
                keep = 0 if hold.wind_down else level.wind_down
                if level.budget is not None and after > level.budget - keep:
                    return False
                if level.parent is not None:
                    units = max(level.carve, after) - max(level.carve, before)
        return True

    def _enter_windows(self, lane: Lane, now_us: int) -> None:
        """The windows the lane's limits are in now, their counters, and until when that holds."""
        marks, hard, until_us = [], [], 2**62
        for limit, node in lane.gates:
            start_us, end_us = self._limits.window(limit.window, now_us)
            until_us = min(until_us, end_us)
            marks.append((limit.id, node, start_us))
            if limit.mode == "hard" and limit.amount is not None:
                measure = None if limit.measure == "credits" else limit.measure
                hard.append((limit, measure, self._limits.counter(limit, node, start_us)))
        lane.marks, lane.hard, lane.until_us = tuple(marks), hard, until_us


def step_context(rooms: Rooms, hold: Hold, session: SessionState) -> StepContext:
    """A step of a session as scopes see it."""
    feature = hold.feature if hold.feature is not None else session.feature
    return StepContext(hold.kind, hold.model, hold.tool, feature, session.workflow, rooms.path(session))


def request_of(rooms: Rooms, hold: Hold, session: SessionState, *, count_step: bool = True) -> Request:
    """A step with its path, as the judge looks at it."""
    context = step_context(rooms, hold, session)
    return Request(hold, context, context.path, rooms.gates(session), session, count_step)
