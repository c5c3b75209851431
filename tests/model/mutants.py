"""Bugs planted on purpose (facts: T9a), each at a name of the contract or of the core that is unlikely to move.

A mutant is a function that patches; the scripts and the machine must notice every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from agentbudget.account import commands as ask
from agentbudget.account import ending, holds, limits, sessions, wallet
from agentbudget.account.account import Account, Outcome
from agentbudget.ledger.entry import Entry, Sealed, genesis
from agentbudget.ledger.journal import Batch
from agentbudget.runtime.owner import owner
from tests.model.driver import Shelf

Patch = pytest.MonkeyPatch


def change_commands(patch: Patch, change: Callable[[Account, ask.Command], ask.Command]) -> None:
    """The account hears another command than was said."""
    original = Account.handle

    def handle(self: Account, command: ask.Command, *, now_us: int, hits: Mapping[str, Entry]) -> Outcome:
        return original(self, change(self, command), now_us=now_us, hits=hits)

    patch.setattr(Account, "handle", handle)


def _everywhere(patch: Patch, name: str, value: Any) -> None:
    """A function of the core, wherever it was imported by name."""
    for module in (ending, holds, limits, sessions, wallet, _account_module()):
        if hasattr(module, name):
            patch.setattr(module, name, value)


def _account_module() -> Any:
    from agentbudget.account import account

    return account


def no_deduplication(patch: Patch) -> None:
    patch.setattr(Shelf, "find", lambda self, keys: {})


def an_end_is_forgotten(patch: Patch) -> None:
    """A second release or settlement finds nothing, so it may end the step again."""
    original = Shelf.find
    kept = lambda key: not key[1].endswith("#end")  # noqa: E731
    patch.setattr(Shelf, "find", lambda self, keys: original(self, [key for key in keys if kept(key)]))


def a_correction_lands_twice(patch: Patch) -> None:
    original = Shelf.find
    kept = lambda key: not key[1].endswith("#correction")  # noqa: E731
    patch.setattr(Shelf, "find", lambda self, keys: original(self, [key for key in keys if kept(key)]))


def answered_before_it_is_durable(patch: Patch) -> None:
    original = Shelf.commit

    def commit(self: Shelf, batch: Batch) -> None:
        lose, self.lose = self.lose, ""
        if lose != "before":
            original(self, batch)

    patch.setattr(Shelf, "commit", commit)


def a_failed_commit_keeps_its_state(patch: Patch) -> None:
    patch.setattr(owner.Owner, "_discard", lambda self: None)


def expiry_is_a_moment_late(patch: Patch) -> None:
    def change(account: Account, command: ask.Command) -> ask.Command:
        late = isinstance(command, ask.IssueGrant) and command.expires_us is not None
        return replace(command, expires_us=command.expires_us + 1) if late else command

    change_commands(patch, change)


def a_level_is_skipped(patch: Patch) -> None:
    original = sessions.Rooms.path
    patch.setattr(
        sessions.Rooms, "path", lambda self, session: tuple(e for e in original(self, session) if e != "team:eng")
    )


def what_is_beyond_the_hold_is_dropped(patch: Patch) -> None:
    held: dict[str, int] = {}

    def change(account: Account, command: ask.Command) -> ask.Command:
        if isinstance(command, ask.Hold):
            held[command.step] = command.amount
        beyond = isinstance(command, ask.SettleHold) and command.amount > held.get(command.step, 0)
        return replace(command, amount=held.get(command.step, 0)) if beyond else command

    change_commands(patch, change)


def a_snapshot_is_stale(patch: Patch) -> None:
    original, first = Account.snapshot, {}

    def snapshot(self: Account) -> bytes:
        return first.setdefault("state", original(self))

    patch.setattr(Account, "snapshot", snapshot)


def windows_forget_the_time_zone(patch: Patch) -> None:
    original = limits.bounds
    patch.setattr(limits, "bounds", lambda window, *, zone, **rest: original(window, zone="UTC", **rest))


def a_retry_gets_a_new_key(patch: Patch) -> None:
    seen: set[tuple[str, int]] = set()

    def change(account: Account, command: ask.Command) -> ask.Command:
        if not isinstance(command, ask.Hold):
            return command
        again = (command.step, 0) in seen
        seen.add((command.step, 0))
        return replace(command, step=f"{command.step}~") if again else command

    change_commands(patch, change)


def amounts_pass_through_floats(patch: Patch) -> None:
    def change(account: Account, command: ask.Command) -> ask.Command:
        return replace(command, amount=int(float(command.amount))) if isinstance(command, ask.IssueGrant) else command

    change_commands(patch, change)


def the_chain_names_the_wrong_predecessor(patch: Patch) -> None:
    original = owner.seal

    def seal(draft: Any, prev: str) -> Sealed:
        return original(draft, genesis(draft.customer))

    patch.setattr(owner, "seal", seal)


def overdraft_is_never_paid(patch: Patch) -> None:
    def nothing(*args: object, **named: object) -> tuple[Sequence[object], Sequence[object]]:
        return [], []

    for module in _core_modules():
        if hasattr(module, "pay_debts"):
            patch.setattr(module, "pay_debts", nothing)


def refunds_burn_first_in_first_out(patch: Patch) -> None:
    original = wallet.split

    def split(slices: Sequence[Any], amount: int) -> Any:
        total = sum(one.amount if hasattr(one, "amount") else one[1] for one in slices)
        kept, used = original(list(slices), max(0, total - amount))
        return used, kept

    for module in _core_modules():
        if hasattr(module, "split"):
            patch.setattr(module, "split", split)


def _core_modules() -> list[Any]:
    from agentbudget.account import account, apply, lanes, maturity

    return [account, apply, ending, holds, lanes, limits, maturity, sessions, wallet]


MUTANTS = (
    no_deduplication, an_end_is_forgotten, a_correction_lands_twice, answered_before_it_is_durable,
    a_failed_commit_keeps_its_state, expiry_is_a_moment_late, a_level_is_skipped, what_is_beyond_the_hold_is_dropped,
    a_snapshot_is_stale, windows_forget_the_time_zone, a_retry_gets_a_new_key, amounts_pass_through_floats,
    the_chain_names_the_wrong_predecessor, overdraft_is_never_paid, refunds_burn_first_in_first_out,
)  # fmt: skip
