"""Export and import: the chain and its hashes survive, and what is not whole is refused before anything is written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import AgentBudgetError, InvalidRequest, LedgerCorrupt
from agentbudget.ledger import Anchor, Batch, Sealed, Store, export_lines, import_lines, verify_ledger
from agentbudget.testing import MemoryJournal, sample_chain
from tests.ledger.places import Place

CHAINS = {name: sample_chain(name, count) for name, count in (("acme", 5), ("record", 3), ("Ümlaut\n\u2028", 4))}
EVERY = [entry for chain in CHAINS.values() for entry in chain]


def filled(entries: list[Sealed]) -> MemoryJournal:
    journal = MemoryJournal()
    journal.claim("the test")
    journal.commit(Batch(entries=entries))
    return journal


def exported() -> list[bytes]:
    return list(export_lines(filled(EVERY)))


def test_L7_an_import_keeps_chain_hashes_and_heads(journal: Store) -> None:
    report = import_lines(exported(), journal)
    assert (report.imported, report.skipped) == (12, 0)
    assert report.heads == {name: Anchor(len(chain), chain[-1].hash) for name, chain in CHAINS.items()}
    assert verify_ledger(journal, report.heads).ok
    assert {name: list(journal.entries(name)) for name in journal.customers()} == CHAINS
    assert list(export_lines(journal)) == exported()


def test_many_entries_travel_in_many_transactions(journal: Store) -> None:
    chain = sample_chain("acme", 2_345)
    report = import_lines(export_lines(filled(chain)), journal)
    assert report.imported == 2_345
    assert list(journal.entries("acme")) == chain


def test_an_export_may_name_its_customers() -> None:
    lines = list(export_lines(filled(EVERY), ["record", "nobody", "record"]))
    assert list(json.loads(lines[-1])["heads"]) == ["record"]
    assert len(lines) == 2 + 3


def test_every_line_is_json_that_a_reader_of_lines_can_take() -> None:
    for line in exported():
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        json.loads(line)


def test_a_repeated_import_changes_nothing(journal: Store) -> None:
    import_lines(exported(), journal)
    again = import_lines(exported(), journal)
    assert (again.imported, again.skipped) == (0, 12)


def test_an_import_goes_on_after_the_entries_that_are_there(journal: Store) -> None:
    journal.commit(Batch(entries=CHAINS["acme"][:2]))
    report = import_lines(exported(), journal)
    assert (report.imported, report.skipped) == (10, 2)
    assert {name: list(journal.entries(name)) for name in journal.customers()} == CHAINS


def test_an_older_export_is_skipped_by_a_ledger_that_has_gone_on(journal: Store) -> None:
    further = [*CHAINS["acme"], *sample_chain("acme", 2, after=CHAINS["acme"][-1])]
    journal.commit(Batch(entries=further))
    assert import_lines(exported(), journal).skipped == 5
    assert list(journal.entries("acme")) == further


def test_a_customer_with_other_entries_is_refused_and_nothing_is_written(journal: Store) -> None:
    journal.commit(Batch(entries=sample_chain("record", 1, note="other")))
    with pytest.raises(InvalidRequest, match="'record' has other entries"):
        import_lines(exported(), journal)
    assert list(journal.customers()) == ["record"]


def damaged(how: str) -> list[bytes]:
    lines = exported()
    match how:
        case "no last line":
            return lines[:-1]
        case "cut in the last line":
            return [*lines[:-1], lines[-1][:-20]]
        case "cut in an entry":
            return [*lines[:3], lines[3][:50]]
        case "dropped entry":
            return [*lines[:3], *lines[4:]]
        case "dropped first entry":
            return [lines[0], *lines[2:]]
        case "dropped last entry":
            return [*lines[:-2], lines[-1]]
        case "dropped customer":
            return [*lines[:6], *lines[9:]]
        case "swapped entries":
            return [*lines[:2], lines[3], lines[2], *lines[4:]]
        case "twice the same entry":
            return [*lines[:2], lines[1], *lines[2:]]
        case "customer in two places":
            return [*lines[:6], lines[-2], *lines[6:]]
        case "edited amount":
            return [*lines[:1], lines[1].replace(b"1000", b"9000"), *lines[2:]]
        case "reformatted":
            return [*lines[:1], lines[1].replace(b":", b": "), *lines[2:]]
        case "other head":
            return [*lines[:-1], lines[-1].replace(CHAINS["acme"][-1].hash.encode(), b"0" * 64)]
        case "other customer in the last line":
            return [*lines[:-1], lines[-1].replace(b"acme", b"acne")]
        case "goes on":
            return [*lines, lines[1]]
        case "no utf-8":
            return [*lines[:2], b"\xff" + lines[2], *lines[3:]]
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "no last line",
        "cut in the last line",
        "cut in an entry",
        "dropped entry",
        "dropped first entry",
        "dropped last entry",
        "dropped customer",
        "swapped entries",
        "twice the same entry",
        "customer in two places",
        "edited amount",
        "reformatted",
        "other head",
        "other customer in the last line",
        "goes on",
        "no utf-8",
    ],
)
def test_L7_an_export_that_is_not_whole_is_refused_and_nothing_is_written(how: str) -> None:
    journal = filled([])
    with pytest.raises(LedgerCorrupt, match="nothing was written"):
        import_lines(damaged(how), journal)
    assert list(journal.customers()) == []


@given(data=st.data())
def test_L7_no_changed_byte_of_an_export_changes_an_entry(data: st.DataObject) -> None:
    whole = bytearray(b"".join(exported()))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    journal = filled([])
    try:
        import_lines(bytes(whole).splitlines(keepends=True), journal)
    except AgentBudgetError:
        assert list(journal.customers()) == []
    else:
        assert {name: list(journal.entries(name)) for name in journal.customers()} == CHAINS


@pytest.mark.parametrize(
    "line", [b"", b"[]", b'{"format":"songs","version":1}', b'{"format":"agentbudget-ledger","version":2}', b"\xff"]
)
def test_a_file_of_another_kind_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidRequest, match="export"):
        import_lines([line, *exported()[1:]], filled([]))


def test_an_empty_ledger_travels_too(journal: Store) -> None:
    assert import_lines(export_lines(MemoryJournal()), journal).heads == {}


def test_L7_a_damaged_ledger_is_not_exported(place: Place, journal: Store) -> None:
    chain = sample_chain("acme", 3)
    journal.commit(Batch(entries=[chain[0], chain[2]]))
    with pytest.raises(LedgerCorrupt, match="dropped"):
        list(export_lines(journal))
