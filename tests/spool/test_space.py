"""A disk that is full is said, never a signal; and what could not be written is never taken for the truth."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.account.commands import Renew
from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.spool.format import CHUNK_BYTES
from agentbudget.runtime.spool.reading import LeaseRecords, SpoolContents, read_spool
from agentbudget.runtime.spool.writing import Spool, Trail
from tests.spool.life import KEY, NAMES, TARIFFS
from tests.spool.test_spool import a_trail, contents, only, renewal, report

SMALL = 1 << 16


def in_child(what: Callable[[], None]) -> None:
    """Run it in a process of its own, whose limits may be lowered; a failure there is one here."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            what()
            status = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_said_when_a_spool_is_opened(tmp_path: Path) -> None:
    def child() -> None:
        limit_files(SMALL // 2)
        with pytest.raises(OwnerUnavailable, match="free disk space"):
            Spool.open(str(tmp_path / "s"), "h1", segment_bytes=SMALL)

    in_child(child)
    assert os.listdir(tmp_path / "s") == []


def test_a_full_disk_while_growing_refuses_steps_and_harms_nothing(tmp_path: Path) -> None:
    folder = str(tmp_path / "s")

    def child() -> None:
        spool = Spool.open(folder, "h1", segment_bytes=SMALL)
        limit_files(SMALL + SMALL // 2)
        trail, n = a_trail(spool), 0
        while trail.begun(n + 1, 5, {"tokens": 3}, 0, True):
            n += 1
        assert n > 100
        assert spool.trail("acme", "x" * 200, "y" * 200, KEY, "charge") is None
        assert trail.sending(renewal(1))  # messages have a reserve: they are what makes room
        trail.answered(1, {}, [])
        assert trail.begun(1, 5, {}, 0, True)

    in_child(child)
    assert os.path.getsize(os.path.join(folder, "h1.spool")) == SMALL
    assert [step.n for step in only(folder).steps] == [1]
    assert contents(folder).damages == ()


def fill(spool: Spool) -> list[Trail]:
    """Take every chunk that is left, the reserve too, by messages of other leases; closing them gives it back."""
    others = [a_trail(spool, f"other-{index}") for index in range(30)]
    for other in others:
        if spool._pages._free:
            assert other.sending(Renew("other", 1, "session", "h1", *KEY))
    assert not spool._pages._free
    return others


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(str(tmp_path / "s"), "h1", segment_bytes=SMALL, max_bytes=SMALL)


def lease_of(tmp_path: Path, name: str = "lease") -> tuple[SpoolContents, LeaseRecords]:
    read = contents(str(tmp_path / "s"))
    return read, next(records for records in read.leases if records.identity.lease == name)


def test_a_message_that_could_not_be_written_leaves_its_lease_untrusted_until_it_is_answered(
    spool: Spool, tmp_path: Path
) -> None:
    """L4: without its number nobody could tell which steps the owner has booked."""
    trail = a_trail(spool)
    assert trail.facts(NAMES, TARIFFS)
    assert trail.settled(report(1))
    others = fill(spool)
    sent = renewal(1, report(1), *(report(n) for n in range(2, 400)))
    assert not trail.sending(sent)
    read, records = lease_of(tmp_path)
    assert not records.whole
    assert any("no room" in what or "lack of room" in what for what in read.damages)
    for other in others:
        other.closed()
    trail.answered(1, {}, [])
    read, records = lease_of(tmp_path)
    assert records.whole
    assert read.damages == ()
    assert trail.begun(9, 5, {}, 0, True)
    assert [step.n for step in lease_of(tmp_path)[1].steps] == [9]


def test_a_step_whose_end_did_not_fit_is_not_open_once_a_message_reports_it(spool: Spool, tmp_path: Path) -> None:
    """L4: else its replay would book it twice, as reported and as a step that never ended."""
    trail, n = a_trail(spool), 0
    while trail.begun(n + 1, 5, {}, 0, True):
        n += 1
    assert not trail.settled(report(1))
    assert 1 in [step.n for step in lease_of(tmp_path)[1].steps]
    sent = renewal(1, report(1))
    assert trail.sending(sent)
    _, records = lease_of(tmp_path)
    assert (records.unanswered, records.reports, records.whole) == ((sent,), (), True)
    assert [step.n for step in records.steps] == list(range(2, n + 1))


def test_an_answer_that_could_not_be_noted_is_asked_for_again(spool: Spool, tmp_path: Path) -> None:
    """L4: the message stays known, so it is sent again byte for byte, and answered from the ledger."""
    trail = a_trail(spool)
    for n in range(1, 30):
        assert trail.settled(report(n))
    first = renewal(1, *(report(n) for n in range(1, 30)))
    assert trail.sending(first)
    others = fill(spool)
    filled = 100
    while trail.released(filled):  # no record of this lease fits any more
        filled += 1
    trail.answered(1, {}, [])
    assert lease_of(tmp_path)[1].unanswered == (first,)
    for other in others:
        other.closed()
    assert trail.settled(report(50))
    second = renewal(2, report(50))
    assert trail.sending(second)
    assert lease_of(tmp_path)[1].unanswered == (first, second)
    trail.answered(2, {}, [])
    assert lease_of(tmp_path)[1].unanswered == ()


def test_a_spool_grows_by_segments_and_is_read_whole(tmp_path: Path) -> None:
    spool = Spool.open(str(tmp_path / "s"), "h1", segment_bytes=SMALL, max_bytes=4 * SMALL)
    trail, n = a_trail(spool), 0
    while trail.begun(n + 1, 5, {}, 0, True):
        n += 1
    path = str(tmp_path / "s" / "h1.spool")
    assert os.path.getsize(path) == 4 * SMALL
    assert n > 3 * SMALL // 40
    assert len(read_spool(path).leases[0].steps) == n
    trail.answered(0, {}, [])
    assert len(spool._pages._free) == 4 * SMALL // CHUNK_BYTES - 2
