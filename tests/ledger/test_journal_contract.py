"""What every journal promises, run on each: memory, SQLite and PostgreSQL."""

from __future__ import annotations

import pytest
from msgspec import structs

from agentbudget.errors import LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger import Batch, DenialNote, Snapshot, Store, verify
from agentbudget.testing import sample_chain
from tests.ledger.places import Place


def note(customer: str, number: int) -> DenialNote:
    return DenialNote(customer, number, "s1", "user:ana", "limit", "llm", "gpt-5", count=number)


def test_L1_what_was_committed_is_there_after_a_restart(place: Place, journal: Store) -> None:
    chain = sample_chain("acme", 7)
    journal.commit(Batch(entries=chain))
    journal.close()
    assert list(place.open().entries("acme")) == chain


def test_L6_a_customer_loads_from_the_first_entry_without_a_snapshot(journal: Store) -> None:
    chain = sample_chain("acme", 5)
    journal.commit(Batch(entries=chain))
    loaded = journal.load("acme")
    assert loaded is not None
    assert loaded.snapshot is None
    assert list(loaded.entries) == chain


def test_L6_a_customer_loads_from_its_newest_snapshot(journal: Store) -> None:
    chain = sample_chain("acme", 9)
    for seq in (3, 6):
        snapshot = Snapshot("acme", seq, chain[seq - 1].hash, 1, b"state %d" % seq)
        journal.commit(Batch(entries=chain[seq - 3 : seq], snapshots=[snapshot]))
    journal.commit(Batch(entries=chain[6:]))
    loaded = journal.load("acme")
    assert loaded is not None
    assert loaded.snapshot == snapshot
    assert list(loaded.entries) == chain[6:]


def test_an_unknown_customer_loads_as_none(journal: Store) -> None:
    assert journal.load("nobody") is None
    assert list(journal.entries("nobody")) == []
    assert list(journal.customers()) == []


def test_customers_are_listed_in_order_and_apart(journal: Store) -> None:
    chains = {name: sample_chain(name, 3) for name in ("zeta", "acme", "Ümlaut", "acme-2")}
    journal.commit(Batch(entries=[entry for chain in chains.values() for entry in chain]))
    assert list(journal.customers()) == sorted(chains)
    assert all(list(journal.entries(name)) == chain for name, chain in chains.items())


def test_entries_are_read_after_a_seq_and_over_many_pages(journal: Store) -> None:
    chain = sample_chain("acme", 2_500)
    journal.commit(Batch(entries=chain))
    assert list(journal.entries("acme", after=3)) == chain[3:]
    assert list(journal.entries("acme", after=2_500)) == []


def test_L4_keys_are_found_for_ever_and_only_for_their_customer(journal: Store) -> None:
    acme, zeta = sample_chain("acme", 1_300), sample_chain("zeta", 3)
    journal.commit(Batch(entries=[*acme, *zeta]))
    wanted = [("acme", f"k{seq}") for seq in range(1, 1_301)] + [("zeta", "k3"), ("zeta", "k5"), ("nobody", "k1")]
    expected = {(entry.customer, entry.key): entry for entry in [*acme, zeta[2]] if entry.key is not None}
    assert journal.find(wanted) == expected
    assert journal.find([]) == {}
    assert journal.find([("acme", "k1")] * 3) == {("acme", "k1"): acme[0]}


def test_a_group_of_entries_is_committed_whole_or_not_at_all(journal: Store) -> None:
    chain = sample_chain("acme", 3)
    journal.commit(Batch(entries=chain[:1]))
    denials, snapshots = [note("acme", 1)], [Snapshot("zeta", 1, "h", 1, b"")]
    with pytest.raises(OwnerUnavailable, match="fenced"):
        journal.commit(Batch(entries=[chain[1], chain[0]], denials=denials, snapshots=snapshots))
    assert list(journal.entries("acme")) == chain[:1]
    assert journal.denials("acme") == []
    journal.commit(Batch(entries=chain[1:]))
    assert verify(journal.entries("acme")).entries == 3


def test_L4_a_taken_key_is_refused(journal: Store) -> None:
    first, second = sample_chain("acme", 2)
    journal.commit(Batch(entries=[first]))
    thief = type(second)(second.customer, second.seq, first.key, second.record, second.hash)
    with pytest.raises(OwnerUnavailable, match="another writer recorded"):
        journal.commit(Batch(entries=[thief]))
    assert list(journal.entries("acme")) == [first]


def test_a_new_owner_fences_the_one_before_it(place: Place, journal: Store) -> None:
    chain = sample_chain("acme", 2)
    journal.commit(Batch(entries=chain[:1]))
    rival = place.rival()
    assert rival.claim("the rival") == 2
    for batch in (Batch(entries=chain[1:]), Batch()):
        with pytest.raises(OwnerUnavailable, match="took the ledger over") as refused:
            journal.commit(batch)
        assert refused.value.owner == "the rival"
    rival.commit(Batch(entries=chain[1:]))
    assert list(rival.entries("acme")) == chain


def test_claims_only_ever_raise_the_epoch(place: Place, journal: Store) -> None:
    assert journal.claim("again") == 2
    journal.commit(Batch())
    journal.close()
    assert place.open().claim("after a restart") == 3


def test_a_journal_that_never_claimed_cannot_write(place: Place) -> None:
    with pytest.raises(OwnerUnavailable, match=r"claim\(\)"):
        place.open().commit(Batch(entries=sample_chain("acme", 1)))


def test_a_closed_journal_says_so(journal: Store) -> None:
    journal.close()
    journal.close()
    for call in (lambda: journal.commit(Batch()), lambda: journal.claim("x"), lambda: journal.load("acme")):
        with pytest.raises(OwnerUnavailable, match="closed"):
            call()


def test_denials_are_kept_outside_the_chain_newest_first(journal: Store) -> None:
    journal.commit(Batch(denials=[note("acme", 1), note("acme", 2), note("zeta", 3)]))
    journal.commit(Batch(denials=[note("acme", 4)]))
    assert journal.denials("acme", limit=2) == [note("acme", 4), note("acme", 2)]
    assert list(journal.customers()) == []


def test_L7_loading_stops_at_the_first_entry_that_does_not_follow(journal: Store) -> None:
    chain = sample_chain("acme", 4)
    journal.commit(Batch(entries=[*chain[:2], chain[3]]))
    loaded = journal.load("acme")
    assert loaded is not None
    with pytest.raises(LedgerCorrupt, match="dropped") as damage:
        list(loaded.entries)
    assert (damage.value.customer, damage.value.seq) == ("acme", 3)


@pytest.mark.parametrize("proven", [2, 9])
def test_a_snapshot_of_an_entry_that_is_gone_or_rewritten_is_damage(journal: Store, proven: int) -> None:
    chain = sample_chain("acme", 3)
    journal.commit(Batch(entries=chain, snapshots=[Snapshot("acme", proven, "0" * 64, 1, b"state")]))
    with pytest.raises(LedgerCorrupt) as damage:
        journal.load("acme")
    assert damage.value.seq == proven


@pytest.mark.parametrize("size", [1, 3, 64, 127, 128, 129, 300])
def test_L2_a_batch_of_any_size_is_there_whole_and_one_taken_key_keeps_all_of_it_out(journal: Store, size: int) -> None:
    chain = sample_chain("acme", size + 1)
    journal.commit(Batch(entries=chain[:size]))
    assert list(journal.entries("acme")) == chain[:size]
    twice = [structs.replace(entry, seq=entry.seq + size, key=f"again-{entry.seq}") for entry in chain[:size]]
    twice[-1] = structs.replace(twice[-1], key=next(entry.key for entry in chain if entry.key is not None))
    with pytest.raises(OwnerUnavailable, match="another writer"):
        journal.commit(Batch(entries=twice))
    assert list(journal.entries("acme")) == chain[:size]
    journal.commit(Batch(entries=chain[size:]))
    assert list(journal.entries("acme")) == chain
