"""Bugs planted on purpose (facts: T9a), in the owner and in the holder: each must turn a seed red."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from agentbudget.account import commands as ask
from agentbudget.account.account import Account, Outcome
from agentbudget.account.decision import Renewed
from agentbudget.account.recall import Recalls
from agentbudget.account.state import HoldState
from agentbudget.ledger.entry import Entry, Sealed
from agentbudget.ledger.memory import MemoryJournal
from agentbudget.runtime.leases import upkeep
from agentbudget.runtime.leases.holder import Holder
from agentbudget.runtime.leases.lease import Lease
from agentbudget.runtime.leases.session_leases import SessionLeases
from agentbudget.runtime.owner.owner import Owner
from tests.sim.trails import MemoryTrail

Patch = pytest.MonkeyPatch
FOR_EVER_US = 2**62


def _commands(patch: Patch, change: Callable[[Account, ask.Command], ask.Command]) -> None:
    """The account hears another command than was said."""
    original = Account.handle

    def handle(self: Account, command: ask.Command, *, now_us: int, hits: Mapping[str, Entry], **more: Any) -> Outcome:
        return original(self, change(self, command), now_us=now_us, hits=hits, **more)

    patch.setattr(Account, "handle", handle)


def renewals_are_not_deduplicated(patch: Patch) -> None:
    """A message that was applied and is sent again is a new one to the owner."""
    original = MemoryJournal.find

    def find(self: MemoryJournal, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        return {key: one for key, one in original(self, keys).items() if not key[1].rpartition("#")[2].isdecimal()}

    patch.setattr(MemoryJournal, "find", find)


def answers_leave_before_the_commit(patch: Patch) -> None:
    """What was decided is committed with the next batch, and answered now."""
    original, waiting = Owner._commit, dict[int, Any]()

    def commit(self: Owner, work: Any) -> None:
        late = waiting.pop(id(self), None)
        if late is not None:
            original(self, late)
        waiting[id(self)] = work

    patch.setattr(Owner, "_commit", commit)


def a_lapse_gives_the_rest_back(patch: Patch) -> None:
    """The policy says charge."""

    def change(account: Account, command: ask.Command) -> ask.Command:
        return replace(command, charge=False) if isinstance(command, ask.LapseLease) else command

    _commands(patch, change)


def a_gap_is_accepted(patch: Patch) -> None:
    """A number that is ahead of the one that is due is taken for it."""

    def change(account: Account, command: ask.Command) -> ask.Command:
        if not isinstance(command, ask.Renew):
            return command
        hold = account._books.state.holds.get(command.lease)
        due = 1 if hold is None or hold.lease is None else hold.lease.seq + 1
        return replace(command, seq=due) if command.seq > due else command

    _commands(patch, change)


def until_is_ignored(patch: Patch) -> None:
    """The holder goes on past the end of the window, the grant, the recall."""
    original = Lease.take

    def take(self: Lease, *args: Any, **named: Any) -> int:
        until_us, self.until_us = self.until_us, FOR_EVER_US
        try:
            return original(self, *args, **named)
        finally:
            self.until_us = until_us

    patch.setattr(Lease, "take", take)


def silence_is_ignored(patch: Patch) -> None:
    """The holder goes on however long it has heard nothing."""

    def heard(self: Holder, sent_us: int) -> None:
        self.alive_until_us = FOR_EVER_US

    patch.setattr(Holder, "heard", heard)


def a_grant_is_taken_in_twice(patch: Patch) -> None:
    """The answer to a message that was sent again counts again."""
    original = Lease.answered

    def answered(self: Lease, answer: Renewed, now_us: int) -> bool:
        self.free += answer.amount if self.is_resent else 0
        return original(self, answer, now_us)

    patch.setattr(Lease, "answered", answered)


def an_overrun_is_not_declared(patch: Patch) -> None:
    """What passed the lease is said to have been free in it."""
    original = Lease.message

    def message(self: Lease, *args: Any, **named: Any) -> ask.Renew:
        self.sent = replace(original(self, *args, **named), overrun=0, over={})
        return self.sent

    patch.setattr(Lease, "message", message)


def a_failed_commit_keeps_its_state(patch: Patch) -> None:
    """The owner trusts its memory over the store."""
    patch.setattr(Owner, "_discard", lambda self: None)


def a_settlement_is_not_written_down(patch: Patch) -> None:
    """A step is settled, and the spool knows nothing of it."""
    patch.setattr(MemoryTrail, "settled", lambda self, report: True)


def a_released_step_is_not_reported(patch: Patch) -> None:
    """It cost nothing, and counts as no step either."""
    original = Lease.message

    def message(self: Lease, *args: Any, **named: Any) -> ask.Renew:
        self.released = 0
        return original(self, *args, **named)

    patch.setattr(Lease, "message", message)


def what_was_idle_when_it_lapsed_stays_charged(patch: Patch) -> None:
    """A holder that comes back with nothing to report says nothing."""
    original = upkeep._correct

    def correct(own: SessionLeases, lease: Lease) -> None:
        own.forget(lease) if not (lease.open or lease.reports) else original(own, lease)

    patch.setattr(upkeep, "_correct", correct)


def any_renewal_answers_a_recall(patch: Patch) -> None:
    """Whoever was told counts as knowing, though what told it was lost: its next renewal is taken for its answer."""
    tell, answered = Recalls.tell, Recalls.answered
    told: dict[tuple[int, str], int] = {}

    def note(self: Recalls, holder: str) -> tuple[str, ...]:
        leases = tell(self, holder)
        told.update({(id(self), lease): self.made for lease in leases})
        return leases

    def count(self: Recalls, hold: HoldState, heard: int) -> None:
        answered(self, hold, max(heard, told.get((id(self), hold.step), 0)))

    patch.setattr(Recalls, "tell", note)
    patch.setattr(Recalls, "answered", count)


def an_extension_is_not_taken_from_the_lease(patch: Patch) -> None:
    """What an open step got more stays free for others."""
    original = Lease.extend

    def extend(self: Lease, n: int, amount: int, measures: Mapping[str, int], now_us: int) -> bool:
        got = original(self, n, amount, measures, now_us)
        self.free += amount if got else 0
        return got

    patch.setattr(Lease, "extend", extend)


def an_extension_is_not_written_down(patch: Patch) -> None:
    """A killed process has not left behind how much its open steps had got."""
    patch.setattr(MemoryTrail, "extended", lambda self, n, amount, measures: True)


PLANTED = (
    renewals_are_not_deduplicated, answers_leave_before_the_commit, a_lapse_gives_the_rest_back, a_gap_is_accepted,
    until_is_ignored, silence_is_ignored, a_grant_is_taken_in_twice, an_overrun_is_not_declared,
    a_failed_commit_keeps_its_state, a_settlement_is_not_written_down, any_renewal_answers_a_recall,
    a_released_step_is_not_reported, what_was_idle_when_it_lapsed_stays_charged,
    an_extension_is_not_taken_from_the_lease, an_extension_is_not_written_down,
)  # fmt: skip
