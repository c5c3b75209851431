"""The laws of the design, one test each, through the public API only: an index for readers, not the proof.

The proof of each is in the tests that name it: the model test (tests/model), killed processes (tests/crash), faults
(tests/faults), races (tests/runtime), the chain (tests/ledger).
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from agentbudget import BudgetDenied, Catalog, Credits, KeyConflict, OwnerUnavailable, Runtime, Usage
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.session_terms import Mode
from agentbudget.testing import ManualClock

CATALOG = Catalog.loads(
    """
    [plans.prepaid]
    wallet = "prepaid"
    [[rates]]
    id = "model"
    model = "m"
    tokens = { input = 1000, output = 2000 }
    """,
    source="laws",
)
"""A model at 0.001 credits an input token and 0.002 an output token."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/budget.db"


def open_ledger(url: str, clock: ManualClock | None = None) -> tuple[Runtime, Customer]:
    """The runtime, and a customer with 100 credits."""
    runtime = Runtime.open(url, catalog=CATALOG, clock=clock or ManualClock())
    acme = runtime.customers.create("acme", plan="prepaid")
    acme.wallet.grant(100, key="welcome")
    return runtime, acme


def test_L1_durable_what_was_answered_is_read_by_somebody_else_at_once(url: str) -> None:
    """Without closing anything: the answer came after the commit. Killed processes: tests/crash."""
    runtime, acme = open_ledger(url)
    step = acme.session(budget=10, mode="strict").reserve("tool", name="search", amount=3)
    with Runtime.open(url, catalog=CATALOG, read_only=True) as reader:
        assert reader.customer("acme").wallet.balance().held == 3
        step.settle(amount=2)
        assert reader.customer("acme").wallet.balance().consumed == 2
    runtime.close()


def test_L2_balanced_each_entry_sums_to_zero_and_each_grant_adds_up(url: str) -> None:
    runtime, acme = open_ledger(url)
    with runtime, acme.session(budget=60) as session:
        session.reserve("tool", name="search", amount=20).settle(amount=15)
        held = session.reserve("tool", name="search", amount=30)
        acme.wallet.void("welcome", 10)
        for entry in acme.ledger.entries():
            assert sum(posting.amount for posting in entry.postings) == 0
        (grant,) = acme.wallet.grants()
        assert grant.issued == grant.available + grant.held + grant.consumed + grant.expired + grant.voided == 100
        assert (grant.held, grant.consumed, grant.voided) == (held.hold, 15, 10)


def test_L3_no_overspend_threads_at_once_get_what_fits_and_not_one_more(url: str) -> None:
    runtime, acme = open_ledger(url)
    session, refused = acme.session(budget=7).open(), []
    barrier = threading.Barrier(16)

    def agent() -> None:
        barrier.wait()
        try:
            session.reserve("tool", name="search", amount=1).settle()
        except BudgetDenied as error:
            refused.append(error.decision)

    threads = [threading.Thread(target=agent) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (session.status().spent, session.status().remaining, len(refused)) == (7, 0, 9)
    assert {decision.reason for decision in refused if decision is not None} == {"session_budget"}
    runtime.close()


def test_L4_once_a_key_has_one_effect_and_other_inputs_are_a_conflict(url: str) -> None:
    runtime, acme = open_ledger(url)
    with runtime, acme.session(budget=10) as session:
        first, again = (session.reserve("tool", name="search", amount=3, key="call-1") for _ in range(2))
        assert (first.id, acme.wallet.balance().held) == (again.id, 3)
        assert first.settle(amount=2) == again.settle(amount=2)
        assert acme.wallet.balance().consumed == 2
        with pytest.raises(KeyConflict):
            session.reserve("tool", name="search", amount=4, key="call-1")
        with pytest.raises(KeyConflict):
            acme.wallet.grant(99, key="welcome")


def test_L5_resolved_a_hold_that_nobody_ends_lapses_by_policy_and_every_end_is_the_only_one(url: str) -> None:
    clock = ManualClock()
    runtime, acme = open_ledger(url, clock)
    with acme.session(id="run", budget=10, on_unknown="charge") as session:
        for key, dispatched in (("sent", True), ("not-sent", False)):
            session.reserve("tool", name="search", amount=1, key=key, dispatched=dispatched)
    runtime.close()  # and with it the process that held them: nobody speaks for the steps any more
    clock.advance(61)
    runtime, acme = open_ledger(url, clock)
    assert (acme.wallet.balance().held, acme.wallet.balance().consumed) == (0, 1)
    ends = [entry.key for entry in acme.ledger.entries() if entry.key is not None and entry.key.endswith("#end")]
    assert sorted(ends) == ["not-sent#end", "sent#end"]
    runtime.close()


def test_L6_fold_balances_are_the_fold_of_the_entries_with_or_without_a_snapshot(url: str, tmp_path: Path) -> None:
    runtime, acme = open_ledger(url)
    with acme.session(budget=10) as session:
        session.reserve("tool", name="search", amount=3).settle(amount=2)
    before = acme.wallet.balance()
    runtime.close()
    connection = sqlite3.connect(tmp_path / "budget.db")
    assert connection.execute("SELECT count(*) FROM snapshots").fetchone() == (1,)
    for _ in range(2):
        with Runtime.open(url, catalog=CATALOG, read_only=True) as reader:
            assert reader.customer("acme").wallet.balance() == before
            assert reader.ledger.reconcile() == []
        with connection:
            connection.execute("DELETE FROM snapshots")
    connection.close()


def test_L7_chain_an_edited_entry_is_named_and_a_removed_tail_needs_an_anchor(url: str, tmp_path: Path) -> None:
    runtime, acme = open_ledger(url)
    whole = acme.ledger.verify()
    anchor = (whole.entries, whole.head)
    runtime.close()
    connection = sqlite3.connect(tmp_path / "budget.db")
    with connection:
        for trigger in ("entries_no_update", "entries_no_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")  # who can write the file can do this: the chain still tells
        connection.execute("UPDATE entries SET record = replace(record, '100000000000', '900000000000') WHERE seq = 2")
    with Runtime.open(url, catalog=CATALOG, read_only=True) as reader:
        (fault,) = reader.ledger.verify().faults
        assert (fault.customer, fault.seq, fault.how) == ("acme", 2, "edited")
    with connection:
        connection.execute("DELETE FROM entries WHERE seq = 2")
    connection.close()
    with Runtime.open(url, catalog=CATALOG, read_only=True) as reader:
        assert reader.ledger.verify().ok
        removed = reader.customer("acme").ledger.verify(anchor).fault
        assert removed is not None
        assert removed.how == "tail_removed"


def test_L8_fail_closed_without_an_answer_the_step_does_not_run(url: str) -> None:
    runtime, acme = open_ledger(url)
    session, ran = acme.session(budget=10).open(), []
    runtime.close()
    with pytest.raises(OwnerUnavailable), session.step("tool", name="search", amount=1):
        ran.append("the body")
    assert ran == []


def test_L9_linear_an_answer_includes_everything_that_was_answered_before_it(url: str) -> None:
    """Real time, from any thread. A checker of whole histories: tests/crash/test_linear.py."""
    runtime, acme = open_ledger(url)
    session, seen = acme.session(budget=50).open(), []

    def spend() -> None:
        session.reserve("tool", name="search", amount=1).settle()
        seen.append(session.status().spent)

    for _ in range(5):
        thread = threading.Thread(target=spend)
        thread.start()
        thread.join()
    assert seen == [1, 2, 3, 4, 5]
    runtime.close()


def test_L10_bill_the_ledger_alone_gives_the_sum_that_was_settled(url: str) -> None:
    clock = ManualClock()
    runtime, acme = open_ledger(url, clock)
    charged = Credits(0)
    with runtime, acme.session(budget=90) as session:
        for n in range(1, 6):
            step = session.reserve("llm", model="m", input_tokens=1000, max_output_tokens=1000)
            charged += step.settle(Usage(input_tokens=200 * n, output_tokens=100 * n)).charged
        assert charged == 6
        runtime.settle_up()  # by itself within a second
        with Runtime.open(url, catalog=CATALOG, read_only=True, clock=clock) as reader:
            lines = reader.customer("acme").wallet.statement()
            assert sum((line.consumed for line in lines), Credits(0)) == charged == session.status().spent
            steps = list(reader.customer("acme").ledger.steps())
            assert (len(steps), sum(step.amount for step in steps)) == (5, charged.nano)


@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_L11_truth_the_real_cost_is_booked_beyond_the_hold_and_beyond_the_wallet(url: str, mode: Mode) -> None:
    runtime, acme = open_ledger(url)
    with runtime, acme.session(mode=mode) as session:
        settled = session.reserve("tool", name="search", amount=90).settle(amount=270)
        debt = 170 if mode == "strict" else 0  # of a leased step it is known at the renewal, which is sent at once
        assert (settled.charged, settled.overrun, settled.debt) == (270, 180, debt)
        assert (acme.wallet.balance().consumed, acme.wallet.balance().overdraft) == (270, 170)
        with pytest.raises(BudgetDenied) as refused:
            session.reserve("tool", name="search", amount=1)
        assert refused.value.decision is not None
        assert refused.value.decision.reason == "overdraft"
        acme.wallet.grant(200, key="second")  # pays the overdraft first
        assert (acme.wallet.balance().overdraft, acme.wallet.balance().available) == (0, 30)


@pytest.mark.parametrize("tight", ["customer", "department:research", "team:eng", "user:ana"])
def test_L12_all_levels_bind_whichever_is_too_small_and_a_refusal_changes_none(url: str, tight: str) -> None:
    runtime, acme = open_ledger(url)
    path = ("department:research", "team:eng", "user:ana")
    for entity, parent in zip(path, ("customer", *path), strict=False):
        acme.entities.put(entity, parent=parent)
    for entity in ("customer", *path):
        acme.limits.set(entity, 5 if entity == tight else 50, window="month")
    with runtime, acme.session(budget=50, entities=["user:ana"]) as session:
        session.reserve("tool", name="search", amount=4).settle()
        before = (acme.limits.list(), acme.wallet.balance(), session.status().spent)
        with pytest.raises(BudgetDenied) as refused:
            session.reserve("tool", name="search", amount=2)
        assert refused.value.decision is not None
        assert refused.value.decision.binding is not None
        assert refused.value.decision.binding.entity == tight
        assert before == (acme.limits.list(), acme.wallet.balance(), session.status().spent)
