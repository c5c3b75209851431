"""What is written can be read: messages, reports and open steps, in any order of events, with nothing left over."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from agentbudget.account.commands import Renew, StepReport
from agentbudget.errors import InvariantBroken, OwnerUnavailable
from agentbudget.runtime.leases.lease import OpenStep
from agentbudget.runtime.spool.format import CHUNK_BYTES
from agentbudget.runtime.spool.reading import LeaseRecords, SpoolContents, read_spool
from agentbudget.runtime.spool.writing import Spool, Trail
from tests.spool.life import KEY, NAMES, TARIFFS, Life, by_lease

SMALL = 1 << 16


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db.spool")


@pytest.fixture
def spool(folder: str) -> Spool:
    return Spool.open(folder, "h1", segment_bytes=SMALL)


def a_trail(spool: Spool, lease: str = "lease") -> Trail:
    trail = spool.trail("acme", lease, "session", KEY, "charge")
    assert trail is not None
    return trail


def contents(folder: str, holder: str = "h1") -> SpoolContents:
    return read_spool(os.path.join(folder, f"{holder}.spool"))


def only(folder: str) -> LeaseRecords:
    (lease,) = contents(folder).leases
    return lease


def report(n: int, amount: int = 5, lease: str = "lease") -> StepReport:
    return StepReport(f"{lease}.{n}", amount, (n, 1), 0, {"input_tokens": n}, "gpt-5", 1_000, 2_000)


def renewal(seq: int, *steps: StepReport, **more: object) -> Renew:
    return Renew("lease", seq, "session", "h1", *KEY, measures=NAMES, steps=steps, tariffs=TARIFFS[:1], **more)  # type: ignore[arg-type]


def chunks_in_use(folder: str) -> int:
    data = Path(folder, "h1.spool").read_bytes()
    return sum(data[at : at + 4] != bytes(4) for at in range(CHUNK_BYTES, len(data), CHUNK_BYTES))


def test_a_lease_is_known_by_everything_its_renewals_need(spool: Spool, folder: str) -> None:
    spool.trail("acme", "lease", "session", KEY, "release")
    who = only(folder).identity
    assert (who.customer, who.lease, who.session, who.on_unknown) == ("acme", "lease", "session", "release")
    assert (who.kind, who.model, who.tool, who.feature, who.wind_down) == KEY


def test_ids_of_the_longest_names_allowed_fit(spool: Spool, folder: str) -> None:
    long = "\N{ABACUS}" * 200
    assert spool.trail(long, long, long, KEY._replace(model=long, feature=long), "charge") is not None
    assert only(folder).identity.customer == long


def test_open_steps_are_read_with_what_they_hold(spool: Spool, folder: str) -> None:
    trail = a_trail(spool)
    assert trail.begun(1, 70, {"tokens": 9}, 1_000, True)
    assert trail.begun(2, 80, {}, 2_000, False)
    assert trail.begun(3, 90, {}, 3_000, False)
    assert trail.dispatched(3)
    assert trail.begun(4, 10, {}, 4_000, True)
    assert trail.released(4)
    assert [(s.n, s.amount, s.measures, s.opened_us, s.dispatched) for s in only(folder).steps] == [
        (1, 70, {"tokens": 9}, 1_000, True),
        (2, 80, {}, 2_000, False),
        (3, 90, {}, 3_000, True),
    ]


def test_settled_steps_are_read_with_the_names_and_tariffs_they_refer_to(spool: Spool, folder: str) -> None:
    trail = a_trail(spool)
    assert trail.facts(NAMES[:1], TARIFFS[:1])
    assert trail.begun(1, 70, {}, 0, True)
    assert trail.facts(NAMES, TARIFFS)
    assert trail.settled(report(1))
    records = only(folder)
    assert (records.reports, records.steps) == ((report(1),), ())
    assert (records.facts.names, records.facts.tariffs) == (NAMES, TARIFFS)


def test_a_message_without_an_answer_is_read_as_it_was_sent(spool: Spool, folder: str) -> None:
    """L4: the same bytes again have the same hash."""
    trail = a_trail(spool)
    for n in (1, 2, 3):
        assert trail.settled(report(n))
    sent = renewal(1, report(1), report(2), back=9, over={"tokens": 3})
    assert trail.sending(sent)
    assert trail.settled(report(4))
    records = only(folder)
    assert records.unanswered == (sent,)
    assert records.reports == (report(3), report(4))


def test_a_report_that_was_never_written_travels_whole_in_its_message(spool: Spool, folder: str) -> None:
    trail = a_trail(spool)
    assert trail.settled(report(1))
    sent = renewal(1, report(1), report(2))
    assert trail.sending(sent)
    assert only(folder).unanswered == (sent,)
    assert only(folder).reports == ()


def test_a_message_longer_than_a_chunk_is_read_whole(spool: Spool, folder: str) -> None:
    sent = renewal(1, *(report(n) for n in range(500)))
    assert a_trail(spool).sending(sent)
    assert only(folder).unanswered == (sent,)


def test_a_renumbered_message_is_read_with_its_last_number(spool: Spool, folder: str) -> None:
    trail = a_trail(spool)
    assert trail.settled(report(1))
    assert trail.sending(renewal(4, report(1)))
    assert trail.sending(renewal(3, report(1)))
    assert only(folder).unanswered == (renewal(3, report(1)),)


def test_another_message_while_one_is_under_way_is_a_bug_that_is_said(spool: Spool) -> None:
    trail = a_trail(spool)
    assert trail.sending(renewal(1))
    with pytest.raises(InvariantBroken):
        trail.sending(renewal(1, report(1)))


def test_what_was_answered_is_forgotten_and_what_lives_is_kept(spool: Spool, folder: str) -> None:
    trail = a_trail(spool)
    assert trail.begun(1, 70, {"tokens": 2}, 11, True)
    for n in (2, 3):
        assert trail.settled(report(n))
    assert trail.sending(renewal(1, report(2)))
    assert trail.settled(report(4))
    trail.answered(1, {1: OpenStep(70, {"tokens": 2}, 0, 11, True)}, [report(3), report(4)])
    records = only(folder)
    assert (records.unanswered, records.seq) == ((), 1)
    assert records.reports == (report(3), report(4))
    assert [(s.n, s.amount, s.measures) for s in records.steps] == [(1, 70, {"tokens": 2})]


def test_what_the_caller_says_is_unreported_counts_whatever_was_written(spool: Spool, folder: str) -> None:
    trail = a_trail(spool)
    assert trail.settled(report(1))
    assert trail.sending(renewal(1, report(1)))
    trail.answered(1, {}, [report(1), report(9)])  # nothing of it was applied
    assert only(folder).reports == (report(1), report(9))
    assert trail.settled(report(10))
    assert trail.sending(renewal(2, report(1), report(9)))
    assert only(folder).unanswered == (renewal(2, report(1), report(9)),)
    assert only(folder).reports == (report(10),)


def test_an_idle_lease_holds_no_chunk(spool: Spool, folder: str) -> None:
    for index in range(5):
        trail = a_trail(spool, f"lease-{index}")
        assert trail.begun(1, 5, {}, 0, True)
        assert trail.settled(report(1, lease=f"lease-{index}"))
    assert chunks_in_use(folder) == 6  # five logs, and a page of slots
    for index, trail in enumerate([a_trail(spool, f"other-{i}") for i in range(3)]):
        assert trail.begun(1, 5, {}, 0, True)
        assert trail.released(1)
        assert trail.sending(replace(renewal(index), released=1))
        trail.answered(index, {}, [])
    assert chunks_in_use(folder) == 6


def test_steps_that_cost_nothing_are_counted_until_a_message_tells_of_them(spool: Spool, folder: str) -> None:
    """Also while nothing else of the lease needs to be kept; those that the owner has booked are not among them."""
    trail = a_trail(spool)
    for n in (1, 2, 3):
        assert trail.begun(n, 5, {}, 0, True)
    assert trail.released(1)
    assert trail.guessed(2)
    assert only(folder).released == 1
    assert trail.sending(replace(renewal(1), released=1))
    assert (only(folder).released, only(folder).unanswered[0].released) == (0, 1)
    assert trail.released(3)
    trail.answered(1, {}, [])
    assert (only(folder).released, only(folder).steps) == (1, ())
    trail.sending(renewal(2))
    trail.answered(2, {}, [report(9)])  # nothing of it was applied: the whole is written anew
    assert trail.released(4)
    assert (only(folder).released, only(folder).reports) == (1, (report(9),))


def test_a_busy_lease_does_not_leak_chunks(spool: Spool, folder: str) -> None:
    """Steps stay open across renewals, reports come in while messages are under way, and one step never ends."""
    trail = a_trail(spool)
    assert trail.facts(NAMES, TARIFFS)
    eternal = OpenStep(1, {}, 0, 0, True)
    assert trail.begun(1, 1, {}, 0, True)
    waiting: list[StepReport] = []
    n, most = 1, 0
    for seq in range(1, 60):
        sent = renewal(seq, *waiting)
        assert trail.sending(sent)
        waiting = []
        for _ in range(100):
            n += 1
            assert trail.begun(n, 5, {"tokens": 3, "steps": 1}, n, True)
            waiting.append(report(n))
            assert trail.settled(waiting[-1])
        trail.answered(seq, {1: eternal}, waiting)
        most = max(most, chunks_in_use(folder))
        assert only(folder).reports == tuple(waiting)
    assert most <= 8  # 100 steps take four; the message before and the page of slots come on top
    trail.closed()
    assert chunks_in_use(folder) == 0


def test_a_closed_lease_is_gone_and_its_place_is_used_again(spool: Spool, folder: str) -> None:
    for index in range(200):
        trail = a_trail(spool, f"lease-{index}")
        assert trail.begun(1, 5, {}, 0, True)
        trail.closed()
        assert not trail.begun(2, 5, {}, 0, True)
    assert contents(folder).leases == ()
    assert os.path.getsize(os.path.join(folder, "h1.spool")) == SMALL


@pytest.mark.parametrize("seed", range(6))
def test_any_life_is_read_as_it_was_lived(folder: str, seed: int) -> None:
    spool = Spool.open(folder, "h1", segment_bytes=SMALL)
    life = Life(seed, leases=6)
    for number in life.play(3_000, spool):
        if number % 97 == 0:
            assert by_lease(contents(folder)) == life.truth()
    read = contents(folder)
    assert by_lease(read) == life.truth()
    assert read.damages == ()
    assert all(lease.whole for lease in read.leases)
    assert read.is_of_this_boot


def test_closing_removes_the_file_unless_a_lease_is_open(folder: str) -> None:
    spool = Spool.open(folder, "h1", segment_bytes=SMALL)
    a_trail(spool).closed()
    spool.close()
    assert os.listdir(folder) == []
    spool = Spool.open(folder, "h2", segment_bytes=SMALL)
    trail = a_trail(spool)
    assert trail.begun(1, 5, {}, 0, True)
    spool.close()
    assert os.listdir(folder) == ["h2.spool"]
    assert not trail.begun(2, 5, {}, 0, True)
    assert not trail.settled(report(1))
    assert not trail.sending(renewal(1))
    trail.answered(1, {}, [])
    trail.closed()
    assert spool.trail("acme", "late", "session", KEY, "charge") is None
    assert len(contents(folder, "h2").leases[0].steps) == 1


def test_the_file_has_the_permissions_of_its_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    before = os.umask(0o077)
    try:
        Spool.open(str(folder), "h1", mode=0o660, segment_bytes=SMALL)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o770
    assert stat.S_IMODE((folder / "h1.spool").stat().st_mode) == 0o660


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OwnerUnavailable, match="cannot be made"):
        Spool.open(str(tmp_path / "file" / "s"), "h1")
    Spool.open(str(tmp_path / "s"), "h1", segment_bytes=SMALL)
    with pytest.raises(OwnerUnavailable, match="already"):
        Spool.open(str(tmp_path / "s"), "h1", segment_bytes=SMALL)
