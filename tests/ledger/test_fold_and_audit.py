"""Laws L2 and L6: balances are the fold of postings, and reconcile says where somebody believes otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.ledger import (
    Balances,
    Batch,
    Draft,
    Posting,
    Sealed,
    Snapshot,
    decode,
    fold,
    genesis,
    reconcile,
    seal,
    verify_and_fold,
)
from agentbudget.ledger.entry import ACCOUNTS
from agentbudget.testing import MemoryJournal, SampleBody, sample_chain

Moves = list[list[tuple[str, str, str, int]]]
moves = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from("gh"), st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(0, 2**63 - 1)
        ),
        max_size=4,
    ),
    max_size=8,
)


def chain_of(steps: Moves) -> list[Sealed]:
    prev, chain = genesis("acme"), []
    for seq, step in enumerate(steps, 1):
        postings = [Posting(*one) for grant, out, to, nano in step for one in ((out, grant, -nano), (to, grant, nano))]
        chain.append(seal(Draft("acme", seq, seq, "move", tuple(postings), SampleBody()), prev))
        prev = chain[-1].hash
    return chain


@given(moves)
def test_L6_the_fold_is_the_sum_of_all_postings(steps: Moves) -> None:
    expected: dict[tuple[str, str], int] = {}
    for grant, out, to, nano in (move for step in steps for move in step):
        expected[grant, out] = expected.get((grant, out), 0) - nano
        expected[grant, to] = expected.get((grant, to), 0) + nano
    balances = fold(chain_of(steps))
    assert all(balances[grant][account] == nano for (grant, account), nano in expected.items())
    assert all(sum(accounts.values()) == 0 for accounts in balances.grants.values())


@given(moves, st.integers(0, 8))
def test_L6_folding_in_parts_gives_the_same(steps: Moves, cut: int) -> None:
    chain = chain_of(steps)
    balances = fold(chain[:cut]).copy()
    for entry in chain[cut:]:
        balances.add(tuple((one.account, one.grant, one.amount) for one in decode(entry.record).postings))
    report, whole = verify_and_fold(chain)
    assert report.ok
    assert balances == whole


def test_a_grant_nobody_saw_has_zeros_and_totals_add_up() -> None:
    balances = fold(sample_chain("acme", 3))
    assert dict(balances["unseen"]) == dict.fromkeys(ACCOUNTS, 0)
    assert dict(balances["welcome"]) == {
        **dict.fromkeys(ACCOUNTS, 0),
        "issued": -1_000,
        "available": 750,
        "consumed": 250,
    }
    assert (balances.total("available"), balances.total("held")) == (750, 0)


def test_only_the_entries_before_a_fault_are_folded() -> None:
    chain = sample_chain("acme", 5)
    report, balances = verify_and_fold([*chain[:3], *chain[4:]])
    assert not report.ok
    assert balances == fold(chain[:3])


@pytest.fixture
def journal() -> MemoryJournal:
    opened = MemoryJournal()
    opened.claim("the test")
    state = msgspec.json.encode(dict(fold(sample_chain("acme", 4)).grants))
    chain = sample_chain("acme", 9)
    snapshot = Snapshot("acme", 4, chain[3].hash, 1, state)
    opened.commit(Batch(entries=[*chain, *sample_chain("zeta", 2)], snapshots=[snapshot]))
    return opened


def right(journal: MemoryJournal, customer: str) -> Mapping[str, Mapping[str, int]]:
    return fold(journal.entries(customer)).grants


def inside(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    return msgspec.json.decode(snapshot.state, type=dict[str, dict[str, int]])


def test_L6_a_ledger_that_agrees_reconciles_to_nothing(journal: MemoryJournal) -> None:
    assert reconcile(journal, lambda customer: right(journal, customer), state_in=inside) == []


def test_L6_a_state_that_differs_is_listed_by_grant_and_account(journal: MemoryJournal) -> None:
    def wrong(customer: str) -> Mapping[str, Mapping[str, int]]:
        return {"welcome": {"issued": -1_000, "available": 700, "held": 300, "lost": 5}, "extra": {"held": 1}}

    found = reconcile(journal, lambda customer: wrong(customer) if customer == "zeta" else right(journal, customer))
    assert [(one.customer, one.grant, one.account, one.ledger, one.found) for one in found] == [
        ("zeta", "extra", "held", 0, 1),
        ("zeta", "welcome", "lost", 0, 5),
    ]
    assert "entries say 0, found 1" in str(found[0])


def test_L6_a_snapshot_that_differs_is_listed(journal: MemoryJournal) -> None:
    found = reconcile(journal, lambda customer: right(journal, customer), state_in=lambda _: {"welcome": {"held": 1}})
    assert {one.what for one in found} == {"the snapshot differs"}
    assert {one.customer for one in found} == {"acme"}


def test_L7_a_broken_chain_is_listed_once(journal: MemoryJournal) -> None:
    del journal.store.entries["acme"][6]
    found = reconcile(journal, lambda customer: right(journal, customer))
    assert [(one.customer, one.what.partition(":")[0]) for one in found] == [("acme", "dropped")]


def test_L2_negative_balances_are_listed() -> None:
    journal = MemoryJournal()
    journal.claim("the test")
    journal.commit(Batch(entries=chain_of([[("g", "held", "available", 5)]])))
    found = reconcile(journal, lambda _: {"g": {"held": -5, "available": 5}})
    assert [(one.grant, one.account, one.what) for one in found] == [("g", "held", "is negative")]


def test_L2_a_grant_whose_accounts_do_not_sum_to_zero_is_named() -> None:
    balances = Balances()
    balances.add((("issued", "g", -5), ("available", "g", 4)))
    assert balances.wrong() == [("g", "", "its accounts do not sum to zero")]
