"""What a dead process's spool says of one lease, told to the owner: in the dead holder's name, as it would have gone on.

Every command here has a key, so telling the same again books nothing twice: messages without an answer are sent as they were,
byte for byte; then come the steps whose outcome nobody knows, then what was settled and never reported, and last the end of the
lease. A message that is made here is noted before it is sent, and is one without an answer when the replay dies too. If the
lease has lapsed meanwhile, one correction says what is true instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.commands import Command, CorrectLease, Read, Renew, SettleHold, StepReport
from agentbudget.account.decision import Answer, HoldView, Renewed
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict, OutOfOrder
from agentbudget.runtime.spool.format import Begun
from agentbudget.runtime.spool.reading import LeaseRecords

Ask: TypeAlias = Callable[[str, Command], Answer]
"""Sends one command of a customer to its owner; raises its error, ``OwnerUnavailable`` when there is no answer."""

Note: TypeAlias = Callable[[Renew], None]
"""Writes down a message that is about to be sent."""

MAX_REPORTS: Final = 10_000
"""Steps in one message: far below what the owner takes, so that nobody behind it waits long."""
_ATTEMPTS: Final = 5
"""How often a message gets another number before something else must be wrong."""


class Replayed(Struct, frozen=True):
    """What was done for one lease. ``reported``: settled steps that were told; ``unknown``: steps charged at what they held;
    ``corrected``: the lease had lapsed, and its steps took the place of what that booked. ``left``: why it is still open or
    not right, in words; empty when it is done."""

    reported: int = 0
    unknown: int = 0
    corrected: bool = False
    left: str = ""


def replay(records: LeaseRecords, holder: str, ask: Ask, note: Note, *, trusted: bool) -> Replayed:
    """Tell the owner about one lease. ``records`` have what earlier tries noted among their unanswered messages. ``trusted``
    False: something may be missing from the records; then they are told as far as that cannot book anything twice, and what
    else the lease holds stays held until it lapses.

    Raises what ``ask`` raises when there is no answer: the same again later is safe."""
    return _Replay(records, holder, ask, note).run(trusted)


class _Stuck(Exception):
    """The lease cannot be told any further; the text says why."""


class _Lapsed(Exception):
    """The lease ended by lapse."""


class _Ended(Exception):
    """The lease is not open, and has not lapsed: it was closed, or never opened."""


class _Replay:
    """One lease on its way. ``_next``: the number of the next message. ``_untold``: steps that no applied message reported."""

    def __init__(self, records: LeaseRecords, holder: str, ask: Ask, note: Note) -> None:
        self._who, self._facts, self._next = records.identity, records.facts, records.seq + 1
        self._holder, self._ask, self._note = holder, ask, note
        self._unanswered = _that_count(records.unanswered)
        sent = {step.step for renew in self._unanswered for step in renew.steps}
        self._reports = [step for step in records.reports if step.step not in sent]
        self._guesses = [step for step in records.steps if step.dispatched]
        names = dict.fromkeys(name for step in self._guesses for name in step.measures)
        self._names = tuple(dict.fromkeys((*self._facts.names, *names)))
        self._untold = [*(step for renew in self._unanswered for step in renew.steps), *self._reports]
        self._reported = self._unknown = 0
        self._released = records.released + sum(renew.released for renew in self._unanswered)
        self._open = len(records.steps)

    def run(self, trusted: bool) -> Replayed:
        if not trusted or self._who.on_unknown != "charge":
            self._guesses = []
        self._released += self._open - len(self._guesses)  # what had begun is a step, also one that is given back
        left, corrected = "", False
        try:
            self._tell(trusted)
        except _Ended:
            left = (
                f"it had ended, and {len(self._untold)} settled steps of it were never reported" if self._untold else ""
            )
        except (_Stuck, _Refused) as stuck:
            left = str(stuck)
        except _Lapsed:
            left = self._correct() if trusted else "it has lapsed, and its records may not be whole"
            corrected = not left
        if not trusted and not left:
            left = "its records may not be whole: what it holds beyond them stays held until it lapses"
        return Replayed(self._reported, self._unknown, corrected, left)

    def _tell(self, trusted: bool) -> None:
        """All of it, in the order in which the holder would have."""
        for renew in self._unanswered:
            self._send_again(renew)
        for step in self._guesses:
            self._guess(step)
        for at in range(0, len(self._reports), MAX_REPORTS):
            self._report(tuple(self._reports[at : at + MAX_REPORTS]))
        if trusted:
            self._close()

    # --- messages -----------------------------------------------------------------------------------------------------

    def _send_again(self, renew: Renew) -> None:
        """Exactly what was sent, whether it was applied or not."""
        says, ended = renew.steps or renew.released or renew.back or renew.close, False
        for _ in range(_ATTEMPTS):
            try:
                answer = self._ask_owner(renew)
            except OutOfOrder as error:
                if error.expected < renew.seq:  # a number before it was never used
                    renew = replace(renew, seq=error.expected)
                    self._note(renew)
                    continue
                if not says:
                    self._next = renew.seq  # it only asked, was refused, and an earlier replay went on under its number
                    return
                # Another stands under its number: an ask that was refused came a second time, after its holder had died, and was
                # granted. The number after it is due; or an earlier replay got that one, and is answered again.
                renew = replace(renew, seq=renew.seq + 1)
            except _Ended:
                if not says:
                    raise
                renew, ended = replace(renew, seq=renew.seq + 1), True  # as above, if an earlier replay came to the end
            except _Refused:  # had it been applied, it would be answered: what it reports is told otherwise
                self._next = renew.seq
                if renew.steps:
                    self._report(renew.steps)
                return
            else:
                applied = isinstance(answer, Renewed) and answer.seq >= renew.seq
                self._next = renew.seq + 1 if applied else renew.seq
                self._told(renew.steps)
                self._released -= renew.released
                return
        if ended:
            raise _Ended
        raise _Stuck(f"no number fits message {renew.seq}")

    def _report(self, steps: tuple[StepReport, ...]) -> None:
        """Settled steps that no message had."""
        renew = self._message(steps)
        for _ in range(_ATTEMPTS):
            self._note(renew)
            try:
                self._ask_owner(renew)
            except OutOfOrder as error:
                if error.expected > renew.seq:
                    raise _Stuck("the owner knows of later messages than its records do") from error
                renew = replace(renew, seq=error.expected)
            except _Refused as refused:
                renew = self._beyond(renew, refused)
            else:
                self._next = renew.seq + 1
                self._told(steps)
                return
        raise _Stuck("no number fits its settled steps")

    def _beyond(self, renew: Renew, refused: _Refused) -> Renew:
        """The lease holds less than the steps cost: what is beyond it is said. What it holds of each measure is not
        known here, so then all of that is said to be beyond; the balances are the same."""
        overrun = max(0, _cost(renew.steps) - self._held())
        if overrun != renew.overrun:
            return replace(renew, overrun=overrun)
        if renew.over or not self._names:
            raise _Stuck(str(refused)) from refused
        return replace(renew, over=_used(self._names, renew.steps))

    def _close(self) -> None:
        """Give back what is left, and say how many steps cost nothing. A lease ends once, so any number will do."""
        renew = replace(self._message(()), close=True, released=self._released)
        for _ in range(_ATTEMPTS):
            try:
                self._ask_owner(renew)
                return
            except OutOfOrder as error:
                renew = replace(renew, seq=error.expected)
            except _Refused as refused:
                raise _Stuck(str(refused)) from refused
        raise _Stuck("no number fits its end")

    def _message(self, steps: tuple[StepReport, ...]) -> Renew:
        who = self._who
        return Renew(
            who.lease, self._next, who.session, self._holder, who.kind, who.model, who.tool, who.feature, who.wind_down,
            self._names, steps, self._facts.tariffs,
        )  # fmt: skip

    def _told(self, steps: Sequence[StepReport]) -> None:
        told = {step.step for step in steps}
        self._untold = [step for step in self._untold if step.step not in told]
        self._reported += len(steps)

    # --- steps whose outcome nobody knows -----------------------------------------------------------------------------

    def _guess(self, step: Begun) -> None:
        """Charge an open step that may have cost something what it held: as a hold of its own, that a late settlement still
        corrects. The owner's part of a lease always holds what its open steps do."""
        name = f"{self._who.lease}.{step.n}"
        command = SettleHold(
            name,
            step.amount,
            step.measures,
            outcome="unknown",
            error="holder died",
            rate="unknown",
            lease=self._who.lease,
        )
        try:
            self._ask_owner(command)
        except (HoldResolved, KeyConflict):
            return  # of the step: it had ended by itself
        self._unknown += 1

    def _at_hold(self, step: Begun) -> StepReport:
        used = tuple(step.measures.get(name, 0) for name in self._names)
        name = f"{self._who.lease}.{step.n}"
        return StepReport(name, step.amount, used, opened_us=step.opened_us, ended_us=step.opened_us)

    # --- after a lapse ------------------------------------------------------------------------------------------------

    def _correct(self) -> str:
        """Every step that no applied message reported, in place of what the lapse booked; why not, in words."""
        steps = self._untold
        self._unknown = 0
        for step in self._guesses:
            try:
                self._guess(step)  # answered if it was booked before the lapse
            except _Lapsed:
                steps.append(self._at_hold(step))
        correct = CorrectLease(self._who.lease, self._names, tuple(steps), self._facts.tariffs, self._released)
        try:
            self._ask(self._who.customer, correct)
        except KeyConflict:
            return "another correction of it was booked before"
        except InvalidRequest as error:
            return f"its correction was refused ({error})"
        self._reported += len(steps)
        return ""

    # --- the owner ----------------------------------------------------------------------------------------------------

    def _ask_owner(self, command: Command) -> Any:
        """The answer; raises what the lease has come to, and ``_Refused`` for a message that an open lease does not take."""
        try:
            return self._ask(self._who.customer, command)
        except HoldResolved as error:
            if error.hold != self._who.lease:
                raise
            raise _Lapsed from error
        except InvalidRequest as error:
            if self._view() is not None:
                raise _Refused(str(error)) from error
        try:  # it may have ended just now, and then the owner says how
            return self._ask(self._who.customer, command)
        except HoldResolved as error:
            raise _Lapsed from error
        except InvalidRequest as error:
            raise _Ended from error

    def _view(self) -> HoldView | None:
        """The lease as the owner has it; None when it is not open."""
        try:
            holds = self._ask(self._who.customer, Read("holds", self._who.session))
        except InvalidRequest:
            return None  # no such customer
        assert isinstance(holds, tuple)
        return next((hold for hold in holds if isinstance(hold, HoldView) and hold.step == self._who.lease), None)

    def _held(self) -> int:
        view = self._view()
        return 0 if view is None else view.amount


class _Refused(Exception):
    """The lease is open, and does not take the message; the text says why."""


def _that_count(unanswered: Sequence[Renew]) -> list[Renew]:
    """A number is used again only when the message that had it changed nothing: the last one counts."""
    counting: list[Renew] = []
    for renew in unanswered:
        while counting and counting[-1].seq >= renew.seq:
            counting.pop()
        counting.append(renew)
    return counting


def _cost(steps: Sequence[StepReport]) -> int:
    return sum(step.amount for step in steps)


def _used(names: Sequence[str], steps: Sequence[StepReport]) -> dict[str, int]:
    totals = map(sum, zip_longest(*(step.used for step in steps), fillvalue=0))
    return dict(zip(names, totals, strict=False))
