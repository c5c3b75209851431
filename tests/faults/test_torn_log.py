"""Power loss, as far as a test can have it: the log cut anywhere, and bytes of it changed. What is left is a prefix
(L1, L7)."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from agentbudget.ledger import Batch, Sealed, Snapshot, verify
from agentbudget.ledger.sql import SqlJournal
from agentbudget.testing import sample_chain
from tests.ledger.places import SqlPlace
from tests.scale import Scale

FRAME, HEADER = 4096 + 24, 32  # sqlite.org/fileformat2.html: a page and its frame header, after the log's own header


@pytest.fixture
def torn(place: SqlPlace, journal: SqlJournal) -> tuple[Path, Path, list[Sealed]]:
    """A copy of a ledger whose last 150 commits are in the log only: database, log, and the entries."""
    chain = sample_chain("acme", 200)
    journal.commit(Batch(entries=chain[:50]))
    assert journal._writer is not None
    journal._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal._writer.execute("PRAGMA wal_autocheckpoint = 0")
    for entry in chain[50:]:
        state = [Snapshot("acme", entry.seq, entry.hash, 1, b"state")] if entry.seq % 10 == 0 else []
        journal.commit(Batch(entries=[entry], snapshots=state))
    folder = place.path.parent / "copies"
    folder.mkdir()
    database = Path(shutil.copy(place.path, folder / "database"))
    return database, Path(shutil.copy(f"{place.path}-wal", folder / "log")), chain


def entries_after(database: Path, log: bytes) -> list[Sealed]:
    """Start on the database and this log, as after a power cut; check it all, and give back the entries."""
    victim = database.parent / "victim.db"
    for leftover in database.parent.glob("victim.db*"):
        leftover.unlink()
    shutil.copy(database, victim)
    Path(f"{victim}-wal").write_bytes(log)
    check = sqlite3.connect(victim)
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    check.close()
    journal = SqlJournal.open(f"sqlite:///{victim}")
    journal.claim("after the power cut")
    loaded = journal.load("acme")
    assert loaded is not None
    list(loaded.entries)  # from its snapshot, which must not be ahead of the entries
    entries = list(journal.entries("acme"))
    journal.close()
    assert verify(entries).ok
    return entries


def test_L1_a_log_cut_at_any_frame_leaves_a_prefix(torn: tuple[Path, Path, list[Sealed]], scale: Scale) -> None:
    database, log, chain = torn
    whole = log.read_bytes()
    frames = (len(whole) - HEADER) // FRAME
    step = max(1, frames // scale.pick(ci=40, night=frames))
    counts = []
    for frame in [*range(0, frames, step), frames]:
        entries = entries_after(database, whole[: HEADER + frame * FRAME])
        assert entries == chain[: len(entries)]
        counts.append(len(entries))
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (50, 200)


def test_L1_a_log_cut_or_damaged_at_any_byte_leaves_a_prefix(
    torn: tuple[Path, Path, list[Sealed]], scale: Scale
) -> None:
    database, log, chain = torn
    whole = log.read_bytes()
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(scale.pick(ci=40, night=2_000)):
        place = chance.randrange(len(whole))
        cut = whole[:place]
        flipped = whole[:place] + bytes([whole[place] ^ chance.randrange(1, 256)]) + whole[place + 1 :]
        for log_left in (cut, flipped):
            entries = entries_after(database, log_left)
            assert entries == chain[: len(entries)], f"seed {seed}, byte {place}"
            assert len(entries) >= 50
