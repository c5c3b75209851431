"""A damaged spool gives a true beginning of each lease's log, says what is wrong, and vouches for nothing it cannot know."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agentbudget.runtime.spool.format import CHUNK_BYTES, HEADER_BYTES, LENGTH, WORD
from agentbudget.runtime.spool.reading import NotASpool, SpoolContents, read_spool
from agentbudget.runtime.spool.writing import Spool
from tests.spool.life import Known, Life, by_lease, truths

SEED, COUNT = 11, 1_500
SHAPE = {"leases": 3, "busy": 120}


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    """The bytes of a spool whose process has died after all operations."""
    spool = Spool.open(str(tmp_path / "s"), "h1", segment_bytes=1 << 16)
    for _ in Life(SEED, **SHAPE).play(COUNT, spool):
        pass
    return (tmp_path / "s" / "h1.spool").read_bytes()


@pytest.fixture
def once() -> dict[str, list[Known]]:
    """Everything that was ever true of each lease."""
    history: dict[str, list[Known]] = {}
    for truth in truths(SEED, COUNT, **SHAPE):
        for lease, known in truth.items():
            history.setdefault(lease, [Known()]).append(known)
    return history


def read(tmp_path: Path, data: bytes) -> SpoolContents:
    path = tmp_path / "copy.spool"
    path.write_bytes(data)
    return read_spool(str(path))


def check(contents: SpoolContents, once: dict[str, list[Known]], last: dict[str, Known]) -> None:
    """Each lease is at some moment of its life; one that does not say otherwise is at its last."""
    for records in contents.leases:
        name = records.identity.lease
        known = by_lease(contents)[name]
        assert known in once[name], name
        if records.whole:
            assert known == last[name]
    if by_lease(contents) != last:
        assert contents.damages


def test_every_truncation_gives_a_true_beginning(tmp_path: Path, written: bytes, once: dict[str, list[Known]]) -> None:
    """L1"""
    last, chance = truths(SEED, COUNT, **SHAPE)[-1], random.Random(1)
    ends = {
        *range(CHUNK_BYTES, len(written), CHUNK_BYTES),
        *(chance.randrange(CHUNK_BYTES, len(written)) for _ in range(150)),
    }
    for end in ends:
        contents = read(tmp_path, written[:end])
        check(contents, once, last)
        assert contents.damages
        assert not any(records.whole for records in contents.leases)


@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_byte_is_noticed_or_harmless(
    tmp_path: Path, written: bytes, once: dict[str, list[Known]], seed: int
) -> None:
    """L1"""
    last, chance = truths(SEED, COUNT, **SHAPE)[-1], random.Random(seed)
    used = [at for at in range(CHUNK_BYTES, len(written)) if written[at]]
    noticed = 0
    for _ in range(150):
        data = bytearray(written)
        at = chance.choice(used) if chance.random() < 0.8 else chance.randrange(CHUNK_BYTES, len(data))
        data[at] ^= chance.choice((1 << chance.randrange(8), chance.randrange(1, 256)))
        contents = read(tmp_path, bytes(data))
        check(contents, once, last)
        noticed += bool(contents.damages)
    assert noticed > 20  # most of the rest are stale bytes in chunks that are free


def test_a_lost_page_in_a_log_is_noticed(tmp_path: Path, written: bytes, once: dict[str, list[Known]]) -> None:
    """L1: what a disk that lost a write gives back."""
    last = truths(SEED, COUNT, **SHAPE)[-1]
    for at in range(CHUNK_BYTES, len(written), CHUNK_BYTES):
        for start in (at + 512, at + 2_048):
            data = written[:start] + bytes(512) + written[start + 512 :]
            contents = read(tmp_path, data)
            for records in contents.leases:
                assert by_lease(contents)[records.identity.lease] in once[records.identity.lease]
                assert (
                    not records.whole
                    or by_lease(contents)[records.identity.lease] == last[records.identity.lease]
                    or _is_tail(written, start)
                    or _begins_a_record(written, start)
                )


def _is_tail(data: bytes, start: int) -> bool:
    """Nothing of the chunk is written behind the hole: then nothing can tell it from the end."""
    return not any(data[start + 512 : start - start % CHUNK_BYTES + CHUNK_BYTES])


def _begins_a_record(data: bytes, start: int) -> bool:
    """The hole takes the word of a record and nothing of the one before: the log seems to end there, as where a process was
    killed before it stored the word."""
    at = start - start % CHUNK_BYTES + HEADER_BYTES
    while at + 4 < start:
        word = WORD.unpack_from(data, at + 4)[0]
        if not word:
            return False
        at += word & LENGTH
    return at <= start


@pytest.mark.parametrize("data", [b"", b"hello", bytes(1 << 16), b"\xff" * (1 << 16)])
def test_a_file_that_is_no_spool_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(NotASpool):
        read(tmp_path, data)


def test_a_damaged_or_unknown_header_is_refused(tmp_path: Path, written: bytes) -> None:
    for at in (0, 17, 30, 40, 60):
        data = bytearray(written)
        data[at] ^= 0x40
        with pytest.raises(NotASpool):
            read(tmp_path, bytes(data))
