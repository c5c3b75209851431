"""All balances are the fold of the entries, with any or no snapshot, and deciding changes nothing (laws L2 and L6)."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account.account import Account
from agentbudget.catalog.terms import PlanTerms
from agentbudget.errors import LedgerCorrupt
from agentbudget.ledger.fold import Balances
from tests.account.desk import DAY, Desk, hold
from tests.account.life import Life, born, live, lives, plans
from tests.scale import SCALE

REACHED = {
    "customer_created", "plan_assigned", "grant_issued", "grants_expired", "entity_put", "limit_set", "pause_set",
    "session_opened", "session_funded", "session_stopped", "session_closed", "hold_opened", "hold_extended", "hold_settled",
}  # fmt: skip
"""A property that no example ever tried proves nothing (facts: T16)."""
READS = ("customer", "balance", "grants", "entities", "limits", "sessions", "holds")


def views(account: Account, now_us: int) -> list[object]:
    """Everything a reader can see, but for the refusals that only the process remembers."""
    answers = []
    for what in READS:
        outcome = account.handle(c.Read(what), now_us=now_us, hits={})
        assert outcome.error is None
        answer = outcome.answer
        answers.append([replace(one, denials=0) for one in answer] if what == "sessions" else answer)  # type: ignore[union-attr,type-var]
    return answers


def test_the_state_is_the_fold_of_the_entries() -> None:
    """L6, and that refusals and errors leave no trace: the desk compares the state after each, to the byte."""
    seen: Counter[str] = Counter()

    @given(plans, lives)
    @settings(max_examples=SCALE(80))
    def holds_for(plan: PlanTerms, life: Life) -> None:
        desk = born(plan)
        for moment in life:
            live(desk, moment)
        folded = desk.folded()
        assert folded.snapshot() == desk.account.snapshot()
        assert folded.balances() == desk.account.balances()
        now_us = desk.account._now_us
        assert views(folded, now_us) == views(desk.account, now_us)
        seen.update(entry.kind for entry in desk.entries)

    for _ in range(5):  # chance may leave one kind of entry out of some eighty lives
        holds_for()
        if set(seen) >= REACHED:
            break
    assert set(seen) >= REACHED, f"the lives never came to {REACHED - set(seen)}"


@given(plans, lives)
@settings(max_examples=SCALE(60))
def test_the_balances_are_the_sums_of_the_postings(plan: PlanTerms, life: Life) -> None:
    """L2 and L6 with arithmetic that shares nothing with the account: the ledger's own."""
    desk = born(plan)
    for moment in life:
        live(desk, moment)
    sums = Balances()
    for entry in desk.entries:
        sums.add([(posting.account, posting.grant, posting.amount) for posting in entry.postings])  # type: ignore[arg-type]
    assert sums.grants == desk.account.balances()
    assert sums.wrong() == []


@given(plans, lives, st.data())
@settings(max_examples=SCALE(50))
def test_a_snapshot_and_the_rest_is_the_same_as_everything(plan: PlanTerms, life: Life, data: st.DataObject) -> None:
    """L6: a snapshot changes cost, never meaning."""
    desk = born(plan)
    cut = data.draw(st.integers(0, len(life)))
    for moment in life[:cut]:
        live(desk, moment)
    restored = Account.restore("acme", desk.account.snapshot())
    after = len(desk.entries)
    for moment in life[cut:]:
        live(desk, moment)
    for entry in desk.entries[after:]:
        restored.replay(entry)
    assert restored.snapshot() == desk.account.snapshot()
    assert views(restored, desk.account._now_us) == views(desk.account, desk.account._now_us)


@given(plans, lives, st.data())
@settings(max_examples=SCALE(50))
def test_after_a_restart_the_same_commands_get_the_same_answers(
    plan: PlanTerms, life: Life, data: st.DataObject
) -> None:
    """peers §6.21: nobody can tell that the owner was replaced, but by what only the process knew: the refusals in a row, and
    times it was asked at after the last entry (so here the clock does not go back)."""
    desk, twin = born(plan), born(plan)
    cut = data.draw(st.integers(0, len(life)))
    for number, moment in enumerate(life):
        if number == cut:
            snapshot = data.draw(st.booleans())
            twin.account = Account.restore("acme", twin.account.snapshot()) if snapshot else twin.folded()
            _forget_refusals(desk)
        answers = [live(one, (max(0, moment[0]), moment[1])) for one in (desk, twin)]
        assert repr(answers[0]) == repr(answers[1])
    assert twin.account.snapshot() == desk.account.snapshot()


def _forget_refusals(desk: Desk) -> None:
    desk.account._books.refusals.clear()


# --- reading what is recorded -----------------------------------------------------------------------------------------------


def test_an_entry_out_of_order_is_named() -> None:
    desk = born()
    account = Account("acme")
    account.replay(desk.entries[0])
    with pytest.raises(LedgerCorrupt) as corrupt:
        account.replay(desk.entries[2])
    assert (corrupt.value.customer, corrupt.value.seq) == ("acme", 3)


@pytest.mark.parametrize(
    "body", [b"{}", b"null", b'{"type":"no_such_event"}', b'{"type":"hold_dispatched","step":"nobody"}']
)
def test_an_entry_that_means_nothing_here_is_named(body: bytes) -> None:
    desk = born()
    entry = msgspec.structs.replace(desk.entries[-1], seq=len(desk.entries) + 1, body=msgspec.Raw(body), postings=())
    with pytest.raises(LedgerCorrupt, match="does not fold"):
        desk.account.replay(entry)


def test_an_entry_that_overdraws_a_grant_is_named() -> None:
    """L3 also guards the fold: no entry, however it came there, makes a grant negative."""
    desk = born()
    desk.hold("h", "s0", 20)
    again = msgspec.structs.replace(desk.entries[-1], seq=len(desk.entries) + 1)
    with pytest.raises(LedgerCorrupt, match="L3"):
        desk.account.replay(again)


def test_a_snapshot_that_cannot_be_read_or_is_anothers_is_refused() -> None:
    desk = born()
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        Account.restore("acme", b"\x00garbage")
    with pytest.raises(LedgerCorrupt, match="is of 'acme'"):
        Account.restore("other", desk.account.snapshot())


def test_an_account_knows_where_it_stands() -> None:
    desk = born()
    assert desk.account.exists
    assert (desk.account.seq, desk.account.time_us) == (len(desk.entries), desk.now_us)
    assert desk.account.plan == ("team", "v1")
    assert not Account("nobody").exists
    assert Account("nobody").plan is None
    before = desk.account.size
    desk.hold("h", "s0", 1)
    assert desk.account.size == before + 1


def test_time_never_goes_back_in_the_entries() -> None:
    desk = born()
    desk.wait(DAY)
    desk.read("customer")  # a read is enough: what was answered at that time stays true
    desk.wait(-2 * DAY)
    desk.send(hold("h", "s0", 1))
    assert desk.entries[-1].time_us == desk.entries[-2].time_us + DAY
