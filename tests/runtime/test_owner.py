"""The owner: batches, commit failures, snapshots, putting away. It is driven here without a host and without
threads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentbudget import InvalidRequest, KeyConflict, LedgerCorrupt, OwnerUnavailable
from agentbudget.account.account import Account
from agentbudget.account.commands import (
    Command,
    CreateCustomer,
    Hold,
    IssueGrant,
    OpenSession,
    Read,
    ReleaseHold,
    SettleHold,
)
from agentbudget.account.decision import BalanceView, Decision, Done, Held, Settled
from agentbudget.clock import Clock
from agentbudget.ledger.chain import verify
from agentbudget.runtime.auditing import reconcile_ledger
from agentbudget.runtime.owner import owner as owner_module
from agentbudget.runtime.owner.folding import account_of
from agentbudget.runtime.owner.owner import Owner
from agentbudget.testing import ManualClock, MemoryJournal, MemoryStore
from tests.runtime.support import PREPAID

CREATE = CreateCustomer(PREPAID.terms("prepaid"))
GRANT = IssueGrant("welcome", 1000, key="welcome")
OPEN = OpenSession("run", budget=1000)


def hold(step: str, amount: int = 10, **what: object) -> Hold:
    return Hold(step, "run", "tool", amount, {"steps": 1}, tool="search", **what)  # type: ignore[arg-type]


def ask(owner: Owner, *commands: Command, customer: str = "acme") -> list[object]:
    return list(owner.handle([(customer, command) for command in commands]))


def balance(owner: Owner, customer: str = "acme") -> BalanceView:
    answer = ask(owner, Read("balance"), customer=customer)[0]
    assert isinstance(answer, BalanceView)
    return answer


@pytest.fixture
def owner(journal: MemoryJournal, clock: ManualClock) -> Owner:
    made = Owner(journal, clock, name="test")
    ask(made, CREATE, GRANT, OPEN)
    return made


def test_a_batch_is_one_commit_decided_in_order(owner: Owner, journal: MemoryJournal) -> None:
    """L9."""
    calls = journal.calls
    answers = ask(owner, hold("a"), SettleHold("a", 7), hold("b"), ReleaseHold("b"), Read("balance"))
    assert [type(answer) for answer in answers] == [Held, Settled, Held, Settled, BalanceView]
    assert isinstance(answers[4], BalanceView)
    assert (answers[4].consumed, answers[4].held, answers[4].available) == (7, 0, 993)
    assert journal.calls - calls == 2  # one look-up of keys, one commit


def test_a_key_twice_in_one_batch_has_one_effect(owner: Owner) -> None:
    """L4: the second sees the first although nothing is committed yet."""
    first, second, settled, again = ask(owner, hold("a"), hold("a"), SettleHold("a", 7), SettleHold("a", 7))
    assert first == second
    assert settled == again
    other = ask(owner, SettleHold("a", 8))[0]
    assert not isinstance(other, Settled)
    assert balance(owner).consumed == 7


def test_a_correction_may_be_in_the_batch_of_what_it_corrects(owner: Owner) -> None:
    ask(owner, hold("a"))
    unknown, late = ask(owner, SettleHold("a", 10, outcome="unknown"), SettleHold("a", 4))
    assert isinstance(unknown, Settled)
    assert isinstance(late, Settled)
    assert (unknown.state, late.state, late.charged) == ("unknown", "corrected", 4)
    assert balance(owner).consumed == 4


def test_settling_an_open_hold_looks_up_no_keys(owner: Owner, journal: MemoryJournal) -> None:
    ask(owner, hold("a"))
    calls = journal.calls
    ask(owner, SettleHold("a", 7))
    assert journal.calls - calls == 1


def test_what_nobody_created_is_unknown_and_takes_no_memory(owner: Owner) -> None:
    refused, error = ask(owner, OPEN, GRANT, customer="nobody")
    assert isinstance(refused, Decision)
    assert refused.reason == "unknown_customer"
    assert isinstance(error, InvalidRequest)
    bad = ask(owner, CreateCustomer(CREATE.terms, time_zone="Mars/Olympus"), customer="bad")[0]
    assert isinstance(bad, InvalidRequest)
    assert set(owner._loaded) == {"acme"}


def test_creating_again_answers_the_existing_customer_and_another_plan_conflicts(owner: Owner) -> None:
    """L4."""
    from agentbudget import Catalog

    again, other = ask(owner, CREATE, CreateCustomer(Catalog.bundled().terms("team")))
    assert again == Done(False, "acme")
    assert isinstance(other, KeyConflict)


SCRIPT: Sequence[Command] = (
    CREATE,
    GRANT,
    OPEN,
    hold("a"),
    SettleHold("a", 7),
    hold("b"),
    ReleaseHold("b"),
    hold("c", 20),
    SettleHold("c", 30),
)


def run_script(journal: MemoryJournal, clock: Clock) -> list[object]:
    """Every command, sent again with the same key until it is answered."""
    found = Owner(journal, clock, name="test")
    answers: list[object] = []
    for command in SCRIPT:
        answer = ask(found, command)[0]
        while isinstance(answer, OwnerUnavailable):
            answer = ask(found, command)[0]
        answers.append(answer)
    return answers


@pytest.mark.parametrize("after", [False, True], ids=["before it took effect", "after it took effect"])
def test_failing_at_any_call_loses_and_doubles_nothing(clock: ManualClock, after: bool) -> None:
    """L1, L4: every call of the journal fails once, and every command is sent again with its key."""
    plain = MemoryJournal()
    expected = run_script(plain, clock)
    records = [sealed.record for sealed in plain.entries("acme")]
    for n in range(2, plain.calls):  # the first call is the claim
        journal = MemoryJournal()
        journal.fail_at(n, after=after)
        answers = run_script(journal, clock)
        assert [sealed.record for sealed in journal.entries("acme")] == records, n
        assert [getattr(a, "charged", None) for a in answers] == [getattr(e, "charged", None) for e in expected], n
        assert reconcile_ledger(journal) == []


def test_a_failed_commit_answers_nobody_and_is_forgotten(owner: Owner, journal: MemoryJournal) -> None:
    """L1: memory is not trusted over the store."""
    ask(owner, hold("a"))
    journal.fail_at(2)
    answers = ask(owner, hold("b"), Read("balance"), hold("c"))
    assert all(isinstance(answer, OwnerUnavailable) for answer in answers)
    assert len({id(answer) for answer in answers}) == 3  # each waiting thread raises an error of its own
    assert balance(owner).held == 10


def test_an_owner_that_was_replaced_answers_nothing_any_more(clock: ManualClock) -> None:
    """L9: the fence."""
    store = MemoryStore()
    old = Owner(MemoryJournal(store), clock, name="old")
    ask(old, CREATE, GRANT)
    new = Owner(MemoryJournal(store), clock, name="new")
    assert isinstance(ask(old, Read("balance"))[0], OwnerUnavailable)
    assert balance(new).available == 1000


def test_a_damaged_customer_refuses_its_own_commands_only(clock: ManualClock) -> None:
    """L7, L8."""
    store = MemoryStore()
    first = Owner(MemoryJournal(store), clock, name="one")
    for customer in ("acme", "bolt"):
        ask(first, CREATE, GRANT, customer=customer)
    entry = store.entries["bolt"][1]
    store.entries["bolt"][1] = type(entry)(entry.customer, entry.seq, entry.key, entry.record + b" ", entry.hash)
    second = Owner(MemoryJournal(store), clock, name="two")
    good, bad = second.handle([("acme", Read("balance")), ("bolt", Read("balance"))])
    assert isinstance(good, BalanceView)
    assert isinstance(bad, LedgerCorrupt)


def test_a_customer_is_put_away_when_idle_and_read_again_when_needed(
    owner: Owner, journal: MemoryJournal, clock: ManualClock
) -> None:
    """L6."""
    ask(owner, hold("a"), SettleHold("a", 7))
    clock.advance(owner_module.IDLE_SECONDS + 1)
    owner.tick()
    assert not owner.has_customers
    assert journal.store.snapshots["acme"].seq == 5
    assert balance(owner).consumed == 7


def test_a_customer_with_an_open_hold_is_not_put_away(clock: ManualClock, journal: MemoryJournal) -> None:
    owner = Owner(journal, clock, name="test", live={"a"})
    ask(owner, CREATE, GRANT, OPEN, hold("a"))
    clock.advance(owner_module.IDLE_SECONDS + 1)
    owner.tick()
    assert owner.has_customers


def test_a_failed_put_away_loses_nothing(owner: Owner, journal: MemoryJournal, clock: ManualClock) -> None:
    clock.advance(owner_module.IDLE_SECONDS + 1)
    journal.fail_at(1)
    owner.tick()
    assert balance(owner).available == 1000


def test_only_so_many_customers_are_in_memory(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setattr(owner_module, "MAX_LOADED", 3)
    for n in range(6):
        clock.advance(1)
        ask(owner, CREATE, GRANT, customer=f"c{n}")
        assert len(owner._loaded) <= 3
    assert balance(owner, "c0").available == 1000
    for n in range(3):
        customer = f"c{n}"
        ask(owner, OPEN, hold("a"), customer=customer)
    refused = ask(owner, Read("balance"), customer="c5")[0]
    assert isinstance(refused, OwnerUnavailable)


def test_a_customer_of_the_batch_is_not_put_away_to_make_room_for_another(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_module, "MAX_LOADED", 1)
    ask(owner, Read("balance"))
    both = owner.handle([("bolt", CREATE), ("acme", Read("balance"))])
    assert isinstance(both[1], BalanceView | OwnerUnavailable)
    assert not isinstance(both[1], InvalidRequest)


def test_a_snapshot_is_written_every_so_many_entries_and_changes_no_meaning(
    owner: Owner, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    """L6: snapshot and replay equal the fold from the first entry."""
    owner._loaded["acme"].snapshot_after = 10
    for n in range(12):
        ask(owner, hold(f"s{n}"), SettleHold(f"s{n}", n))
    assert journal.store.snapshots["acme"].seq >= 10
    with_snapshot = account_of(journal, "acme").snapshot()
    journal.store.snapshots.clear()
    assert account_of(journal, "acme").snapshot() == with_snapshot


def test_a_snapshot_of_another_version_is_passed_over(owner: Owner, journal: MemoryJournal, clock: ManualClock) -> None:
    """L6."""
    import msgspec

    owner.close()
    kept = journal.store.snapshots["acme"]
    journal.store.snapshots["acme"] = msgspec.structs.replace(kept, format=999, state=b"of another version")
    again = Owner(MemoryJournal(journal.store), clock, name="again")
    assert balance(again).available == 1000


def test_a_big_state_is_written_less_often() -> None:
    assert owner_module._snapshot_after(100) == owner_module.SNAPSHOT_EVERY
    assert owner_module._snapshot_after(10_000_000) == 10_000_000 // owner_module.SNAPSHOT_BYTES_PER_ENTRY


def test_closing_writes_snapshots_and_lapses_nothing(owner: Owner, journal: MemoryJournal, clock: ManualClock) -> None:
    ask(owner, hold("a"))
    owner.close()
    assert journal.store.snapshots["acme"].seq == 4
    again = Owner(MemoryJournal(journal.store), clock, name="again", live={"a"})
    assert balance(again).held == 10


def test_what_a_dead_holder_left_is_ended_before_the_first_answer(journal: MemoryJournal, clock: ManualClock) -> None:
    """L5: a budget that a crash left held must not refuse the next run."""
    first = Owner(journal, clock, name="first")
    ask(first, CREATE, GRANT, OPEN, hold("a", 1000, dispatched=False))
    clock.advance(61)
    second = Owner(MemoryJournal(journal.store), clock, name="second")
    assert isinstance(ask(second, hold("b", 1000))[0], Held)


def test_a_clock_that_goes_back_does_not_take_time_back(
    owner: Owner, journal: MemoryJournal, clock: ManualClock
) -> None:
    clock.set_us(0)
    ask(owner, hold("a"))
    assert verify(journal.entries("acme"), customer="acme").ok


@pytest.mark.parametrize(
    "command",
    [
        hold("x", 1.5),  # type: ignore[arg-type]
        Hold("x", "run", "tool", 1, {"steps": 1}, tool=7),  # type: ignore[arg-type]
        Hold("x", "run", "tool", 2**70),
        Hold("x", "run", "dance", 1),  # type: ignore[arg-type]
        Hold("x", "run", "tool", 1, tool="\ud800"),
        IssueGrant("g", "5"),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_the_wrong_type_never_reaches_the_ledger(owner: Owner, command: Command) -> None:
    """L6: what was written can always be read again."""
    assert isinstance(ask(owner, command)[0], InvalidRequest)
    assert isinstance(ask(owner, hold("x"))[0], Held)


def test_a_bug_that_one_command_shows_does_not_hurt_the_others(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner discards its state and replays; the other commands of the batch are decided again."""
    from agentbudget.errors import InvariantBroken

    real = Account.handle

    def broken(self: Account, command: Command, **what: object) -> object:
        if isinstance(command, Hold) and command.step == "bad":
            raise InvariantBroken("L2", "planted")
        return real(self, command, **what)  # type: ignore[arg-type]

    monkeypatch.setattr(Account, "handle", broken)
    good, bad, also = ask(owner, hold("a"), hold("bad"), hold("b"))
    assert isinstance(good, Held)
    assert isinstance(bad, InvariantBroken)
    assert isinstance(also, Held)
    assert balance(owner).held == 20
