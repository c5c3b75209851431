"""One lease as its holder has it: what is free on it, which steps are open, what is still to be reported. Pure: it is told
the time and says what to send; the session's lock is held by whoever calls (``session_leases.py``).

What the owner holds for the lease is always the sum of three parts: what is free, what open steps hold, and what was settled
and is not reported yet. Reported use that was beyond what was free is said to be so (``overrun``), and only then leaves
that sum: so the owner's books and these never differ by more than the message that is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.commands import Hold, Renew, StepReport
from agentbudget.account.decision import Renewed
from agentbudget.clock import SECOND_US

HOLDER_TTL_US: Final = 10 * SECOND_US
"""Silence of a holder after which its owner calls its leases suspended (DESIGN.md §4)."""
MARGIN_US: Final = 2 * SECOND_US
"""So much earlier the holder itself starts no more steps, by a clock that counts suspend."""
MAX_REPORTS: Final = 512
"""Settled steps in one message: an entry of some 50 KB, and a message every 512 steps in the tightest loop."""
FEWEST, MOST = 16, 4_096
"""How many steps like the one asked for a lease asks for: doubled while it lasts less than ``SHORT_US``, halved while more
than ``LONG_US``, so that a busy lease renews a few times a second and a slow one holds little."""
SHORT_US: Final = SECOND_US // 2
LONG_US: Final = 8 * SECOND_US
IDLE_US: Final = 2 * SECOND_US
"""A lease on which nothing has run for so long is given back whole: others may need it, and idle sessions cost nothing."""


class Key(NamedTuple):
    """What a lease is for: steps of one kind, model or tool, and feature of a session."""

    kind: str
    model: str | None
    tool: str | None
    feature: str | None
    wind_down: bool


PlainKey = tuple[str, str | None, str | None, str | None, bool]
"""A key without its names: equal to it, and quicker to make."""


class OpenStep(Struct, gc=False):
    """A step that runs: what it holds of the lease (``measures``: those that are counted), and since when."""

    amount: int
    measures: Mapping[str, int]
    started_us: int
    opened_us: int
    dispatched: bool
    guessed: bool = False


class Trail(Protocol):
    """Where the lease's steps are written so that they survive the process (``spool/writing.py``). False: there was no room."""

    def begun(self, n: int, amount: int, measures: dict[str, int], opened_us: int, dispatched: bool) -> bool: ...
    def dispatched(self, n: int) -> bool: ...
    def extended(self, n: int, amount: int, measures: dict[str, int]) -> bool: ...
    def settled(self, report: StepReport) -> bool: ...
    def released(self, n: int) -> bool: ...
    def guessed(self, n: int) -> bool: ...
    def facts(self, names: tuple[str, ...], tariffs: tuple[tuple[str, str], ...]) -> bool: ...
    def sending(self, renew: Renew) -> bool: ...
    def answered(self, seq: int, live: Mapping[int, OpenStep], reports: list[StepReport]) -> None: ...
    def closed(self) -> None: ...


class Lease:
    """See the module. Amounts are nanocredits, times of ``now_us`` arguments monotonic microseconds."""

    __slots__ = (
        "asked_us", "counted", "ended", "free", "frees", "heard", "id", "is_asked_back", "is_correcting", "is_full",
        "is_lost", "is_resent", "is_slow", "is_unheard", "kept", "key", "last", "last_units", "last_used", "low", "lows", "n",
        "names", "open", "policy", "released", "reports", "sent", "sent_us", "seq", "session", "stale", "tariffs", "times",
        "trail", "until_us", "unwritten", "used_us", "waiters",
    )  # fmt: skip

    def __init__(self, lease: str, session: str, key: Key, trail: Trail | None = None) -> None:
        self.id, self.session, self.key, self.trail = lease, session, key, trail
        self.seq, self.policy, self.n = 0, 0, 0
        self.free, self.until_us = 0, 0
        self.frees: dict[str, int] = {}
        self.counted: tuple[str, ...] = ()
        self.open: dict[int, OpenStep] = {}
        self.reports: list[StepReport] = []
        self.names: tuple[str, ...] = ()
        self.last_used: Mapping[str, int] | None = None
        self.last_units: tuple[int, ...] = ()
        self.tariffs: tuple[tuple[str, str], ...] = ()
        self.sent: Renew | None = None
        self.sent_us = self.asked_us = self.used_us = 0
        self.times, self.low = FEWEST, -1
        self.lows: dict[str, int] = {}
        self.last: Hold | None = None
        self.stale = self.ended = False
        self.is_unheard = self.is_resent = self.unwritten = self.is_full = False
        self.is_asked_back = self.is_lost = self.is_correcting = self.is_slow = False
        self.heard = self.released = self.kept = 0
        self.waiters: list[Callable[[Any], None]] = []

    def goes_on(self, times: int, used_us: int, now_us: int) -> None:
        """After another of the same key, which asked for so much and was used last then."""
        self.times, self.is_slow = times, now_us - used_us >= IDLE_US

    @property
    def is_over(self) -> bool:
        """Whether the next step is likely to come when this lease has been given back for being idle."""
        return self.is_slow and self.n == 1 and not self.open

    # --- steps ----------------------------------------------------------------------------------------------------------

    def take(self, amount: int, measures: dict[str, int], now_us: int, wall_us: int, *, dispatched: bool) -> int:
        """Begin a step: its number on the lease, or 0 when the lease does not cover it (or is past its time)."""
        free = self.free - amount
        if free < 0 or now_us >= self.until_us:
            return 0
        frees = self.frees
        if frees:
            for measure, left in frees.items():
                if left < measures.get(measure, 0):
                    return 0
        n = self.n + 1
        trail = self.trail
        if trail is not None and not trail.begun(n, amount, measures, wall_us, dispatched):
            self.is_full = True
            return 0
        if frees:
            for measure in frees:
                frees[measure] -= measures.get(measure, 0)
        self.n, self.free, self.used_us = n, free, now_us
        self.open[n] = OpenStep(amount, measures, now_us, wall_us, dispatched)
        return n

    def settle(self, n: int, step_id: str, amount: int, used: Mapping[str, int], tariff: int, usage: dict[str, int],
               model: str | None, now_us: int, wall_us: int) -> bool:  # fmt: skip
        """End a step at its measured cost, ``used`` by measure: all that it held of, and more. Nobody changes that mapping
        afterwards. False when the step had ended."""
        step = self.open.pop(n, None)
        if step is None:
            return False
        if used is self.last_used:  # a tool at its fixed price, again
            units = self.last_units
        else:
            units = self._units(used)
            self.last_used, self.last_units = used, units
        self.free += step.amount - amount
        frees = self.frees
        if frees:
            held = step.measures
            for measure in frees:
                frees[measure] += held.get(measure, 0) - used.get(measure, 0)
        report = StepReport(step_id, amount, units, tariff, usage, model, step.opened_us, wall_us)
        self.reports.append(report)
        self.used_us = now_us
        if self.trail is not None and not self.trail.settled(report):
            self.unwritten = True
        return True

    def release(self, n: int, now_us: int) -> bool:
        """End a step that cost nothing; False when it had ended."""
        step = self.open.pop(n, None)
        if step is None:
            return False
        self._give_back(step)
        self.released += 1
        if "steps" in self.frees:  # it counts as a step: what it held of them serves no other
            units = step.measures.get("steps", 0)
            self.frees["steps"] -= units
            self.kept += units
        self.used_us = now_us
        if self.trail is not None and not self.trail.released(n):
            self.unwritten = True  # else its replay would charge what it held: the next answer says what is open
        return True

    def dispatch(self, n: int) -> bool:
        """Note that a step's work is sent; False when that could not be written, and then it must not be."""
        step = self.open.get(n)
        if step is None or step.dispatched:
            return step is not None
        step.dispatched = self.trail is None or self.trail.dispatched(n)
        return step.dispatched

    def extend(self, n: int, amount: int, measures: Mapping[str, int], now_us: int) -> bool:
        """Hold so much more for an open step; False when the lease does not cover it (or is past its time)."""
        step, frees = self.open[n], self.frees
        free = self.free - amount
        if free < 0 or now_us >= self.until_us or any(left < measures.get(m, 0) for m, left in frees.items()):
            return False
        holds = {m: step.measures.get(m, 0) + measures.get(m, 0) for m in dict.fromkeys((*step.measures, *measures))}
        if self.trail is not None and not self.trail.extended(n, step.amount + amount, holds):
            self.is_full = True
            return False
        for measure in frees:
            frees[measure] -= measures.get(measure, 0)
        self.free, self.used_us = free, now_us
        step.amount, step.measures = step.amount + amount, holds
        return True

    def guessed(self, n: int, charged: int, measures: Mapping[str, int], now_us: int) -> None:
        """The owner booked a step whose outcome is not known out of the lease: ``charged`` of it; the rest is free again."""
        step = self.open.pop(n, None)
        if step is None:
            return
        self._give_back(step)
        self.free -= charged
        for measure in self.counted:
            self.frees[measure] -= measures.get(measure, 0)
        self.used_us = now_us
        if self.trail is not None:
            self.trail.guessed(n)

    def _give_back(self, step: OpenStep) -> None:
        self.free += step.amount
        for measure in self.counted:
            self.frees[measure] += step.measures.get(measure, 0)

    def tariff(self, rate: str, catalog: str) -> int:
        """The index of a rate of a catalog version among this lease's tariffs."""
        wanted, tariffs = (rate, catalog), self.tariffs
        if tariffs and tariffs[-1] == wanted:
            return len(tariffs) - 1
        if wanted in tariffs:
            return tariffs.index(wanted)
        self.tariffs = (*tariffs, wanted)
        self._note_facts()
        return len(tariffs)

    def _units(self, used: Mapping[str, int]) -> tuple[int, ...]:
        """What was used in the order of ``names``, which grow by what is new."""
        if tuple(used) == self.names:
            return tuple(used.values())
        new = tuple(name for name in used if name not in self.names)
        if new:
            self.names = (*self.names, *new)
            self._note_facts()
        return tuple([used.get(name, 0) for name in self.names])

    def _note_facts(self) -> None:
        if self.trail is not None:
            self.trail.facts(self.names, self.tariffs)

    # --- messages -------------------------------------------------------------------------------------------------------

    @property
    def is_low(self) -> bool:
        """Whether a top-up should be under way: what is left lasts no longer than a few round trips."""
        if self.free < self.low:
            return True
        return any(self.frees[measure] < low for measure, low in self.lows.items())

    def message(self, holder: str, now_us: int, *, ask: Hold | None = None, back: bool = False, close: bool = False,
                ran: bool = False, grows: int = 0) -> Renew:  # fmt: skip
        """The next message: everything settled, and what is asked (``grows``: for an open step, that once). ``back``: what is
        idle is given back first. It is under way (``sent``) from here until ``answered`` or ``renumber``; nothing else is sent of
        this lease meanwhile."""
        steps, self.reports = tuple(self.reports), []
        overrun = max(0, -self.free)
        over = {m: -units for m, units in self.frees.items() if units < 0}
        self.free += overrun
        for measure, units in over.items():
            self.frees[measure] += units
        idle, idle_measures = 0, dict[str, int]()
        heard = 0
        if back or close:
            heard, self.heard = self.heard, 0
            idle, idle_measures = self.free, {m: units for m, units in self.frees.items() if units}
            self.free, self.frees = 0, dict.fromkeys(self.frees, 0)
            self.is_asked_back = False
            self.until_us = 0  # not even a step that costs nothing may begin before the owner has said so
        if self.kept:
            idle_measures["steps"] = idle_measures.get("steps", 0) + self.kept
        released, self.released, self.kept = self.released, 0, 0
        if ask is not None and not grows:
            self._pace(now_us)
            self.last = ask
        key = self.key
        self.sent = Renew(
            self.id, self.seq + 1, self.session, holder, key.kind, key.model, key.tool, key.feature, key.wind_down,  # type: ignore[arg-type]
            self.names, steps, self.tariffs, overrun, over, 0 if close else idle, {} if close else idle_measures, close,
            ask, 1 if ask is None or grows else self.times, ran, heard, released,
        )  # fmt: skip
        self.sent_us, self.unwritten = now_us, False
        if self.trail is not None:
            self.trail.sending(self.sent)
        return self.sent

    def resent(self) -> Renew:
        """The message under way got no answer: the very same again."""
        assert self.sent is not None
        self.is_unheard, self.is_resent = False, True
        return self.sent

    def _pace(self, now_us: int) -> None:
        """How much to ask for: by how long the last asking lasted."""
        if self.asked_us:
            lasted_us = now_us - self.asked_us
            if lasted_us < SHORT_US:
                self.times = min(MOST, self.times * 2)
            elif lasted_us > LONG_US:
                self.times = max(FEWEST, self.times // 2)
        self.asked_us = now_us

    def answered(self, answer: Renewed, now_us: int) -> bool:
        """The message under way was applied, or refused: take in what it brought. True when its ``ask`` was granted."""
        sent, self.sent = self.sent, None
        assert sent is not None
        was_resent, self.is_resent, self.is_unheard = self.is_resent, False, False
        self.seq = max(self.seq, answer.seq)
        self.policy, self.stale = answer.policy, self.stale or answer.stale
        if not answer.is_open and self.seq:
            # Answered again from the record of a lease that has lapsed since: what it reported is booked, the rest is not.
            self.ended, self.is_lost = sent.close, not sent.close
        self._take_in(answer)
        granted = _granted(sent, answer, was_resent)
        if granted and sent.ask is not None and not self.is_asked_back and not self.is_lost:
            # By this clock, counted from when it was sent: the answer cannot have been given earlier than that.
            self.until_us = self.sent_us + answer.lasts_us
            self._mark_low(self.last or sent.ask, now_us - self.sent_us, now_us)
        elif self.stale or self.is_lost:
            self.until_us = 0
        if self.trail is not None:
            if self.ended:
                self.trail.closed()
            else:
                self.trail.answered(sent.seq, self.open, self.reports)
        return granted

    def _take_in(self, answer: Renewed) -> None:
        if answer.counted != self.counted:
            self.counted = answer.counted
            self.frees = {measure: self.frees.get(measure, 0) for measure in answer.counted}
        self.free += answer.amount
        for measure, units in answer.measures.items():
            if measure in self.frees:
                self.frees[measure] += units

    def _mark_low(self, ask: Hold, trip_us: int, now_us: int) -> None:
        """Top up when what is left lasts for four round trips at the pace of the last asking, and one step."""
        steps_left = 1 + 4 * self.times * trip_us // max(now_us - self.asked_us + SHORT_US, 1)
        steps_left = min(steps_left, max(1, self.times // 2))
        self.low = ask.amount * steps_left
        self.lows = {m: ask.measures.get(m, 0) * steps_left for m in self.counted if ask.measures.get(m, 0)}

    def lost(self) -> None:
        """The owner has ended the lease by policy and knows nothing of the message under way: everything that it does not know
        is booked in one correction, when the last open step has ended."""
        if self.sent is not None:
            self.reports = [*self.sent.steps, *self.reports]
            self.released += self.sent.released
        self.sent, self.is_unheard, self.is_lost, self.until_us = None, False, True, 0

    def renumber(self, expected: int) -> Renew:
        """The owner expects another number for the message under way; nothing of it was applied."""
        assert self.sent is not None
        self.seq = expected - 1
        self.sent = replace(self.sent, seq=expected)
        if self.trail is not None:
            self.trail.sending(self.sent)
        return self.sent

    @property
    def is_reportable(self) -> bool:
        """Whether the owner does not know everything yet, or holds what is idle."""
        return bool(self.reports or self.released or self.free or any(self.frees.values())) and not self.ended


def _granted(sent: Renew, answer: Renewed, was_resent: bool) -> bool:
    """Whether the ask of a message was allowed. What is answered again to a message that was sent again does not tell a
    refusal from a step that holds nothing: that one is asked anew."""
    if sent.ask is None or answer.refused is not None or answer.recalling is not None or answer.stale or answer.strict:
        return False
    return bool(answer.amount or answer.measures) or not was_resent
