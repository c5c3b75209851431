"""Law L7: whatever is done to the entries, ``verify`` names the first wrong one and says how."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.ledger import (
    Anchor,
    Batch,
    Draft,
    Posting,
    Sealed,
    decode,
    genesis,
    hash_of,
    seal,
    verify,
    verify_ledger,
)
from agentbudget.testing import MemoryJournal, sample_chain
from agentbudget.testing import SampleBody as Body

CHAIN = tuple(sample_chain("acme", 12))
SEQS = st.integers(1, len(CHAIN))


def named(entries: list[Sealed], **options: object) -> tuple[int, str]:
    fault = verify(entries, **options).fault
    assert fault is not None
    assert fault.customer == "acme"
    assert str(fault.seq) in fault.what
    return fault.seq, fault.how


def resealed(sealed: Sealed, **changes: object) -> Sealed:
    """The entry with other contents and the hash to match: what someone does who knows the format."""
    record = msgspec.json.encode(replace(decode(sealed.record), **changes), order="sorted")
    return Sealed(sealed.customer, sealed.seq, sealed.key, record, hash_of(record))


def at(place: int, *entries: Sealed, instead_of: int = 1) -> list[Sealed]:
    return [*CHAIN[: place - 1], *entries, *CHAIN[place - 1 + instead_of :]]


def test_L7_an_untouched_chain_verifies() -> None:
    report = verify(CHAIN)
    assert report.ok
    assert (report.customer, report.entries, report.head) == ("acme", 12, CHAIN[-1].hash)


def test_an_empty_chain_verifies_as_empty() -> None:
    assert verify([], customer="acme").head == genesis("acme")


@given(data=st.data(), seq=SEQS)
def test_L7_changing_any_byte_of_any_record_is_named(data: st.DataObject, seq: int) -> None:
    victim = CHAIN[seq - 1]
    place = data.draw(st.integers(0, len(victim.record) - 1))
    flipped = bytearray(victim.record)
    flipped[place] ^= data.draw(st.integers(1, 255))
    assert named(at(seq, replace(victim, record=bytes(flipped)))) == (seq, "edited")


def test_L7_every_byte_of_every_record_counts() -> None:
    for victim in CHAIN:
        for place in range(len(victim.record)):
            flipped = bytearray(victim.record)
            flipped[place] ^= 1
            assert named(at(victim.seq, replace(victim, record=bytes(flipped)))) == (victim.seq, "edited")


@given(seq=SEQS, change=st.sampled_from([{"hash": "0" * 64}, {"key": "other"}, {"key": None}, {"record": b""}]))
def test_L7_changing_a_column_is_named(seq: int, change: dict[str, object]) -> None:
    if replace(CHAIN[seq - 1], **change) != CHAIN[seq - 1]:
        assert named(at(seq, replace(CHAIN[seq - 1], **change))) == (seq, "edited")


@given(seq=st.integers(1, len(CHAIN) - 2))
def test_L7_an_entry_edited_and_sealed_again_is_named_by_its_followers(seq: int) -> None:
    forged = resealed(CHAIN[seq - 1], kind="gift")
    assert named(at(seq, forged)) == (seq, "edited")


@given(seq=st.integers(1, len(CHAIN) - 1))
def test_L7_a_dropped_entry_is_named(seq: int) -> None:
    assert named(at(seq)) == (seq, "dropped")


@given(seq=st.integers(1, len(CHAIN) - 1))
def test_L7_a_dropped_entry_is_named_when_the_rest_was_renumbered(seq: int) -> None:
    renumbered = [replace(entry, seq=entry.seq - 1) for entry in CHAIN[seq:]]
    fault = named([*CHAIN[: seq - 1], *renumbered])
    assert fault == (seq, "dropped")


@given(seq=st.integers(1, len(CHAIN) - 1))
def test_L7_swapped_entries_are_named(seq: int) -> None:
    first, second = CHAIN[seq - 1], CHAIN[seq]
    assert named(at(seq, second, first, instead_of=2)) == (seq, "swapped")
    exchanged = [replace(second, seq=seq), replace(first, seq=seq + 1)]
    assert named(at(seq, *exchanged, instead_of=2)) == (seq, "swapped")


@given(first=SEQS, second=SEQS)
def test_L7_records_in_each_others_place_are_named(first: int, second: int) -> None:
    first, second = sorted((first, second))
    if first < second:
        entries = list(CHAIN)
        entries[first - 1] = replace(CHAIN[second - 1], seq=first)
        entries[second - 1] = replace(CHAIN[first - 1], seq=second)
        assert named(entries) == (first, "swapped")


@given(seq=st.integers(2, len(CHAIN)))
def test_L7_an_inserted_entry_is_named(seq: int) -> None:
    forged = seal(Draft("acme", seq, decode(CHAIN[seq - 2].record).time_us, "gift", (), Body()), CHAIN[seq - 2].hash)
    assert named(at(seq, forged, instead_of=0)) == (seq, "inserted")
    shifted = [replace(entry, seq=entry.seq + 1) for entry in CHAIN[seq - 1 :]]
    assert named([*CHAIN[: seq - 1], forged, *shifted]) == (seq, "inserted")


def test_L7_an_entry_of_another_customer_is_named() -> None:
    stranger = sample_chain("zeta", 3)[2]
    assert named(at(3, stranger, instead_of=0)) == (3, "inserted")
    assert named(at(3, replace(stranger, customer="acme"))) == (3, "inserted")


def test_L7_a_record_that_names_another_customer_is_named_though_it_links() -> None:
    assert named(at(12, resealed(CHAIN[11], customer="zeta"))) == (12, "inserted")


@given(left=st.integers(0, len(CHAIN) - 1))
def test_L7_a_removed_tail_is_seen_only_against_an_anchor(left: int) -> None:
    rest, anchor = CHAIN[:left], Anchor(len(CHAIN), CHAIN[-1].hash)
    assert verify(rest).ok
    assert named(list(rest), customer="acme", anchor=anchor) == (left + 1, "tail_removed")


def test_L7_a_chain_rewritten_whole_is_seen_only_against_an_anchor() -> None:
    rewritten = sample_chain("acme", 12, note="other")
    assert verify(rewritten).ok
    assert named(rewritten, anchor=(5, CHAIN[4].hash)) == (5, "edited")
    assert verify(CHAIN, anchor=(5, CHAIN[4].hash)).ok


@pytest.mark.parametrize(
    ("postings", "how"),
    [
        ((Posting("issued", "g", -5), Posting("available", "g", 4)), "unbalanced"),
        ((Posting("issued", "g", -5), Posting("available", "h", 5)), "unbalanced"),
        ((Posting("issued", "g", -5), Posting("pocket", "g", 5)), "unbalanced"),
    ],
)
def test_L2_an_entry_that_does_not_balance_per_grant_is_named(postings: tuple[Posting, ...], how: str) -> None:
    bad = seal(Draft("acme", 13, decode(CHAIN[-1].record).time_us, "grant", postings, Body()), CHAIN[-1].hash)
    assert named([*CHAIN, bad]) == (13, how)


def test_an_entry_before_its_predecessor_is_named() -> None:
    early = seal(Draft("acme", 13, 1, "grant", (), Body()), CHAIN[-1].hash)
    assert named([*CHAIN, early]) == (13, "time_went_back")


def test_an_entry_of_an_unknown_version_is_named() -> None:
    later = resealed(sample_chain("acme", 1, after=CHAIN[-1])[0], v=99)
    assert named([*CHAIN, later]) == (13, "unknown_version")


def test_columns_of_the_wrong_type_are_named() -> None:
    assert named(at(4, replace(CHAIN[3], record="text"))) == (4, "edited")
    assert named(at(4, replace(CHAIN[3], seq="four"))) == (4, "edited")


def test_a_ledger_is_verified_customer_by_customer() -> None:
    journal = MemoryJournal()
    journal.claim("the test")
    journal.commit(Batch(entries=[*CHAIN, *sample_chain("zeta", 2)]))
    report = verify_ledger(journal, {"acme": Anchor(12, CHAIN[-1].hash), "gone": Anchor(1, "0" * 64)})
    assert [(one.customer, one.ok) for one in report.reports] == [("acme", True), ("zeta", True), ("gone", False)]
    assert (report.ok, report.entries, [fault.customer for fault in report.faults]) == (False, 14, ["gone"])
