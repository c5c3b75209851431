"""Leases in any life: the state is the fold of the entries, the indexes are what the state says, a restart changes nothing that
can be seen. Laws L2, L3, L6."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account.account import Account
from agentbudget.account.books import Books
from agentbudget.account.decision import Renewed
from agentbudget.account.leases import Leases
from agentbudget.account.state import State
from agentbudget.catalog.terms import PlanTerms
from agentbudget.errors import LedgerCorrupt
from agentbudget.ledger.fold import Balances
from tests.account.lease_life import Holders, lease_lives
from tests.account.life import born, plans
from tests.account.test_fold import views
from tests.scale import SCALE

Life = list[tuple[int, Any]]
REACHED = {
    "open: granted", "open: refused", "open: recalling", "report: Renewed", "ask: granted", "ask: stale",
    "ask: refused", "close: closed", "again: Renewed", "again: OutOfOrder", "lapse: Settled",
    "correct: Settled", "unknown: Settled", "late: Settled", "suspend: Done", "report: asked back",
}  # fmt: skip
"""A property that no example ever tried proves nothing."""


def indexes(leases: Leases) -> list[object]:
    """What the index of leases comes to, whatever the order in which it came about."""
    names = ("_of_holder", "_of_session", "_at")
    by = [{key: set(holds) for key, holds in getattr(leases, name).items()} for name in names]
    return [*by, leases._holders_at, leases._sessions_at, leases.count]


def books_agree(books: Books) -> None:
    """Every sum that is kept up equals what the open holds say."""
    state = books.state
    assert indexes(books.leases) == indexes(Leases(state, books.rooms))
    for session in state.sessions.values():
        own = [hold for hold in state.holds.values() if hold.session == session.id]
        leased = [hold for hold in own if hold.lease is not None]
        assert session.open_holds == len(own)
        assert session.leased_steps == sum(hold.measures.get("steps", 0) for hold in leased)
    for hold in state.holds.values():
        assert hold.amount == sum(amount for _, amount in hold.slices)
        assert min((hold.amount, *hold.measures.values())) >= 0
    assert counted(state) == held(state)
    assert sum(g.held for g in state.grants.values()) == sum(hold.amount for hold in state.holds.values())


def counted(state: State) -> Counter[tuple[int, str, int]]:
    """What the counters hold, by mark."""
    found: Counter[tuple[int, str, int]] = Counter()
    for limit in state.limits.values():
        for entity, windows in limit.counters.items():
            found.update({(limit.id, entity, start_us): counter.held for start_us, counter in windows.items()})
    return +found


def held(state: State) -> Counter[tuple[int, str, int]]:
    """What the open holds say that the counters hold."""
    found: Counter[tuple[int, str, int]] = Counter()
    for hold in state.holds.values():
        for mark in hold.marks:
            limit = state.limits.get(mark[0])
            if limit is not None:
                found[mark] += hold.amount if limit.measure == "credits" else hold.measures.get(limit.measure, 0)
    return +found


def test_the_state_and_the_indexes_are_the_fold_of_the_entries() -> None:
    """L2, L6."""
    seen: Counter[str] = Counter()

    @given(plans, lease_lives)
    @settings(max_examples=SCALE(150))
    def holds_for(plan: PlanTerms, life: Life) -> None:
        reached: dict[str, int] = {}
        holders = Holders(born(plan), reached)
        for moment in life:
            holders.live(moment)
            books_agree(holders.desk.account._books)
        desk = holders.desk
        folded = desk.folded()
        assert folded.snapshot() == desk.account.snapshot()
        assert folded.balances() == desk.account.balances()
        assert views(folded, desk.account._now_us) == views(desk.account, desk.account._now_us)
        sums = Balances()
        for entry in desk.entries:
            sums.add([(posting.account, posting.grant, posting.amount) for posting in entry.postings])  # type: ignore[arg-type]
        assert sums.grants == desk.account.balances()
        assert sums.wrong() == []
        seen.update(reached)

    holds_for()
    assert set(seen) >= REACHED, f"the lives never came to {REACHED - set(seen)}"


def due(account: Account) -> set[str]:
    return {lease for holder in ("p1", "p2") for lease in account.recalled(holder)}


@given(plans, lease_lives, st.data())
@settings(max_examples=SCALE(60))
def test_a_snapshot_anywhere_and_the_rest_is_the_same_as_everything(
    plan: PlanTerms, life: Life, data: st.DataObject
) -> None:
    """L6; and the same leases are asked back, whichever way the account came into memory."""
    desk = born(plan)
    holders = Holders(desk)
    cut = data.draw(st.integers(0, len(life)))
    for moment in life[:cut]:
        holders.live(moment)
    restored = Account.restore("acme", desk.account.snapshot())
    after = len(desk.entries)
    for moment in life[cut:]:
        holders.live(moment)
    for entry in desk.entries[after:]:
        restored.replay(entry)
    assert restored.snapshot() == desk.account.snapshot()
    books_agree(restored._books)
    fresh, folded = Account.restore("acme", desk.account.snapshot()), desk.folded()
    assert due(restored) == due(folded) == due(fresh)
    answered = due(fresh) - due(desk.account)
    waiting = {lease for ticket in desk.account._books.recalls.tickets.values() for lease in ticket.silent}
    assert due(desk.account) - due(fresh) <= waiting, f"asked back without a reason; {answered} have answered"


@given(plans, lease_lives, st.integers(0, 50))
@settings(max_examples=SCALE(60))
def test_after_a_restart_the_same_words_get_the_same_answers(plan: PlanTerms, life: Life, cut: int) -> None:
    """But for what only the process knew: who waits, how recalls are numbered, refusals in a row, and times it was asked at."""
    one, two = Holders(born(plan)), Holders(born(plan))
    for number, (wait_us, what) in enumerate(life):
        if number == cut:
            two.desk.account = two.desk.folded()
            one.desk.account = Account.restore("acme", one.desk.account.snapshot())
        answers = [holders.live((max(0, wait_us), what)) for holders in (one, two)]
        answers = [replace(one, told=0) if isinstance(one, Renewed) else one for one in answers]
        assert sorted(repr(answers[0])) == sorted(repr(answers[1]))
    assert one.desk.account.snapshot() == two.desk.account.snapshot()


def test_an_entry_of_a_lease_that_was_never_opened_does_not_fold() -> None:
    desk = born()
    renewed = b'{"type":"lease_renewed","lease":"lease:L","session":"nobody","seq":2,"holder":"p1"}'
    for body in (b'{"type":"lease_suspended","lease":"lease:L"}', renewed):
        entry = replace(desk.entries[-1], seq=len(desk.entries) + 1, body=msgspec.Raw(body), postings=())
        with pytest.raises(LedgerCorrupt, match="does not fold"):
            Account.restore("acme", desk.account.snapshot()).replay(entry)
