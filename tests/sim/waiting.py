"""Nobody is refused what a lease of a responsive holder has idle: who waits for whom, and who has really heard of it.

Told of answers as they leave the owner, and of what arrives in a process, it knows more than either: an answer that is lost
tells its holder nothing, whatever the owner thinks. A message that was made before its holder knew gives back what was idle
then, and not what has become idle since: it is no reason to refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from agentbudget.account.commands import Renew
from agentbudget.account.decision import Constraint, Decision, Recalling, Renewed
from tests.sim.audit import Audit, Held
from tests.sim.broken import must
from tests.sim.clockwork import Clockwork
from tests.sim.network import named

PATIENCE_US = 1_500_000
"""After so long the owner decides, whoever is silent (DESIGN.md §4)."""


Place = tuple[str, str, str, int | None]
"""Where credits lack: kind of constraint, entity, window, and when that ends."""


@dataclass
class Waits:
    """One that was told to wait: since when, for what alone, and when each lease was asked for it first."""

    ticket: int
    since_us: int
    place: Place | None
    asked: dict[str, int] = field(default_factory=dict)


@dataclass
class Said:
    """The last message of a lease, without its number: and up to when its holder knew what was asked back as it was made."""

    message: Renew
    knew_us: int


class Waiting:
    """See the module. Times are the run's. ``is_dead``: whether a holder is gone."""

    def __init__(self, audit: Audit, work: Clockwork, is_dead: Callable[[str], bool]) -> None:
        self._audit, self._work, self._is_dead = audit, work, is_dead
        self._waits: dict[str, Waits] = {}
        self._knows: dict[str, int] = {}
        self._said: dict[str, Said] = {}
        self._answered: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._suspects: list[tuple[str, str]] = []

    # --- in a process ---

    def told(self, lease: str, left_us: int) -> None:
        """An answer that names the lease as asked back has arrived; it had left the owner then."""
        self._knows[lease] = max(left_us, self._knows.get(lease, 0))

    def sent(self, renew: Renew) -> None:
        """A message leaves: a new one, or the one before again, perhaps under another number."""
        message, said = replace(renew, seq=0), self._said.get(renew.lease)
        if said is None or said.message != message:
            self._said[renew.lease] = Said(message, self._knows.get(renew.lease, 0))

    # --- at the owner ---

    def decided(self, command: Any, answer: Any) -> None:
        """An answer is about to leave."""
        who = command.lease if isinstance(command, Renew) else named(command)
        waiting, refused = answer, answer
        if isinstance(answer, Renewed):
            said = self._said.get(command.lease)
            if said is not None and said.message == replace(command, seq=0):
                self._answered[command.lease] = max(said.knew_us, self._answered.get(command.lease, 0))
            waiting, refused = answer.recalling, answer.refused
            is_again = command.seq <= self._used.get(command.lease, 0)
            if not is_again and answer.seq >= command.seq:
                self._used[command.lease] = command.seq
            if is_again or (not answer.amount and (command.ask is None or not command.ask.note_refusal)):
                return  # it does not say what becomes of who waits
        if isinstance(waiting, Recalling):
            self._note(who, waiting)
        elif isinstance(refused, Decision) and not refused.allowed:
            self._refused(who, refused)
        elif not isinstance(answer, Exception):
            self._waits.pop(who, None)

    def _note(self, who: str, recalling: Recalling) -> None:
        now_us, place, waits = self._work.now_us, _alone(recalling.decision), self._waits.get(who)
        if waits is None or waits.ticket != recalling.ticket:
            waits = self._waits[who] = Waits(recalling.ticket, now_us, place)
        waits.place = place if place == waits.place else None
        for lease in recalling.leases:
            waits.asked.setdefault(lease, now_us)

    def _refused(self, who: str, decision: Decision) -> None:
        waits = self._waits.pop(who, None)
        if waits is None or waits.place is None or waits.place != _alone(decision):
            return  # what lacks is not what others were asked for
        if self._work.now_us - waits.since_us >= PATIENCE_US:
            return
        self._work.saw("refused before its time")
        for lease, asked_us in waits.asked.items():
            if self._answered.get(lease, 0) < asked_us and self._may_help(lease, waits.place):
                self._suspects.append((lease, f"{who} is refused {waits.place} after {lease} was asked at {asked_us}"))

    def judge(self) -> None:
        """The entries of the answers have been read: what a lease held before and after, it held in between."""
        suspects, self._suspects = self._suspects, []
        for lease, what in suspects:
            held = self._audit.holds[lease]
            if not held.end and not held.suspended and held.amount and not self._is_dead(held.holder):
                must(False, "L12", what, "and its holder, which has", held.amount, "of it, never knew")

    def _may_help(self, lease: str, place: Place) -> bool:
        held = self._audit.holds.get(lease)
        if held is None or held.end or not held.amount:
            return False
        kind, entity, *_ = place
        if kind == "session_budget":
            return entity == f"session:{held.session}"
        return kind != "insufficient_credits" or self._is_usable(held)

    def _is_usable(self, held: Held) -> bool:
        lifetimes, now_us = self._audit.lifetimes, self._work.clock.now_us()
        return any(lifetimes.get(grant, (0, 0))[1] > now_us for grant, amount in held.slices.items() if amount)


def _alone(decision: Decision) -> Place | None:
    """The one thing that lacks, where it is credits and there is one only."""
    failing = [one for one in decision.constraints if not one.allowed]
    return _place(failing[0]) if len(failing) == 1 else None


def _place(one: Constraint) -> Place | None:
    is_amount = one.kind in ("session_budget", "limit", "insufficient_credits") and one.measure == "credits"
    return (one.kind, one.entity, one.window, one.resets_at_us) if is_amount else None
