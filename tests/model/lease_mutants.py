"""Bugs of leases planted on purpose, as in ``mutants``: mistakes that a prototype or a reviewer has made (facts: T9a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from agentbudget.account import apply, commands, lease_apply, leases, leasing, recall, reporting, tranche
from agentbudget.account.account import Account, Outcome
from agentbudget.ledger.entry import Entry
from agentbudget.runtime.owner import heard
from tests.model.mutants import change_commands

Patch = pytest.MonkeyPatch


def _renumbered(patch: Patch, *, old: bool) -> None:
    """A message of an open lease counts as the one that is due, though its number is older (or newer)."""

    def change(account: Account, command: commands.Command) -> commands.Command:
        hold = account._books.state.holds.get(command.lease) if isinstance(command, commands.Renew) else None
        if hold is None or hold.lease is None or not isinstance(command, commands.Renew):
            return command
        due = hold.lease.seq + 1
        return replace(command, seq=due) if (command.seq < due if old else command.seq > due) else command

    change_commands(patch, change)


def a_renewal_lands_twice(patch: Patch) -> None:
    _renumbered(patch, old=True)


def a_gap_is_accepted(patch: Patch) -> None:
    _renumbered(patch, old=False)


def a_lease_outlives_its_window(patch: Patch) -> None:
    patch.setattr(leasing, "_until_us", lambda *args: 2**62)


def a_new_policy_changes_no_lease(patch: Patch) -> None:
    patch.setattr(apply, "_new_policy", lambda books: None)


def a_charged_lapse_gives_back(patch: Patch) -> None:
    def change(account: Account, command: commands.Command) -> commands.Command:
        return replace(command, charge=False) if isinstance(command, commands.LapseLease) else command

    change_commands(patch, change)


def a_released_lapse_is_charged(patch: Patch) -> None:
    def change(account: Account, command: commands.Command) -> commands.Command:
        return replace(command, charge=True) if isinstance(command, commands.LapseLease) else command

    change_commands(patch, change)


def a_tranche_takes_what_others_share(patch: Patch) -> None:
    patch.setattr(leases.Leases, "shared", lambda self, node, holder: False)


def a_tranche_forgets_what_the_step_needs(patch: Patch) -> None:
    """Where a sixteenth is less than the step, nothing is held of it."""
    original = tranche.multiple

    def multiple(*args: Any, times: int, **named: Any) -> int:
        k = original(*args, times=times, **named)
        return k if k > 1 or times == 1 else 0

    patch.setattr(leasing, "multiple", multiple)


def what_goes_back_was_burnt_first(patch: Patch) -> None:
    original = reporting.split

    def split(slices: Sequence[Any], amount: int) -> Any:
        last, first = original(list(reversed(slices)), amount)
        return list(reversed(last)), list(reversed(first))

    patch.setattr(reporting, "split", split)
    patch.setattr(lease_apply, "split", split)


def an_overrun_of_a_lease_is_not_burnt(patch: Patch) -> None:
    patch.setattr(reporting, "burn", lambda call, amount, context: ([], 0))


def a_lease_outlives_its_grants(patch: Patch) -> None:
    original = leasing._until_us
    patch.setattr(leasing, "_until_us", lambda call, marks, slices, session: original(call, marks, (), session))


def a_restart_forgets_who_is_suspended(patch: Patch) -> None:
    original = Account.replay

    def replay(self: Account, entry: Entry) -> None:
        original(self, entry)
        for hold in self._books.state.holds.values():
            if hold.lease is not None:
                hold.lease.suspended_us = None

    patch.setattr(Account, "replay", replay)


def silence_is_not_noticed(patch: Patch) -> None:
    patch.setattr(heard.Heard, "is_silent", lambda self, holder: False)


def a_beat_is_not_heard(patch: Patch) -> None:
    patch.setattr(heard.Heard, "note", lambda self, holder: None)


def a_holder_is_not_told(patch: Patch) -> None:
    patch.setattr(recall.Recalls, "tell", lambda self, holder: ())


def a_shortage_is_final_at_once(patch: Patch) -> None:
    patch.setattr(recall.Recalls, "wait", lambda self, ask, now_us: recall.Denied())


def who_comes_last_is_served_first(patch: Patch) -> None:
    patch.setattr(recall.Recalls, "put_behind", lambda self, ask, now_us, **named: None)


def steps_in_leases_are_not_counted(patch: Patch) -> None:
    """``max_steps`` sees only the steps that ran."""
    original = Account.handle

    def handle(self: Account, command: commands.Command, *, now_us: int, hits: Mapping[str, Entry]) -> Outcome:
        for session in self._books.state.sessions.values():
            session.leased_steps = 0
        return original(self, command, now_us=now_us, hits=hits)

    patch.setattr(Account, "handle", handle)


def a_stranger_may_renew(patch: Patch) -> None:
    patch.setattr(leasing, "_same", lambda command, hold: None)


def any_renewal_answers_a_recall(patch: Patch) -> None:
    """Whether its holder has heard of it or not."""
    original = recall.Recalls.answered
    patch.setattr(recall.Recalls, "answered", lambda self, hold, heard: original(self, hold, self.made))


def an_answer_counts_for_later_recalls_too(patch: Patch) -> None:
    original = recall.Recalls.answered
    patch.setattr(recall.Recalls, "answered", lambda self, hold, heard: original(self, hold, heard and self.made))


def a_report_is_not_told_that_its_lease_is_over(patch: Patch) -> None:
    patch.setattr(leasing, "_is_stale", lambda call, hold, until_us: False)


def released_steps_are_no_steps(patch: Patch) -> None:
    def change(account: Account, command: commands.Command) -> commands.Command:
        return replace(command, released=0) if isinstance(command, commands.Renew) else command

    change_commands(patch, change)


LEASE_MUTANTS = (
    a_renewal_lands_twice, a_gap_is_accepted, a_lease_outlives_its_window, a_new_policy_changes_no_lease,
    a_charged_lapse_gives_back, a_released_lapse_is_charged, a_tranche_takes_what_others_share,
    a_tranche_forgets_what_the_step_needs, what_goes_back_was_burnt_first, an_overrun_of_a_lease_is_not_burnt,
    a_lease_outlives_its_grants, a_restart_forgets_who_is_suspended, silence_is_not_noticed, a_beat_is_not_heard,
    a_holder_is_not_told, a_shortage_is_final_at_once, who_comes_last_is_served_first, steps_in_leases_are_not_counted,
    a_stranger_may_renew, any_renewal_answers_a_recall, an_answer_counts_for_later_recalls_too,
    a_report_is_not_told_that_its_lease_is_over, released_steps_are_no_steps,
)  # fmt: skip
