"""What a spool file looks like: shared by its writer (``writing.py``) and its reader (``reading.py``).

The file is segments, a segment is chunks of 4 KiB. The first chunk of the file is its header. Every other chunk in use is either
a page of *slots*, each of which says who an open lease is, or one link of a lease's *log*. All integers have the machine's
own byte order: a spool never leaves its machine.

    file header   magic, segments in use (u32), checksum, length, FileHeader
    chunk header  state (u32, written last), checksum of what follows (u32), generation (u32), slot size (u32; 0: a link),
                  trail (u64: serial number of the lease), ordinal (u64) of the link, end (u32) of the link before it
    record        checksum (u32), word (u32, written last: form and length), tag (1 byte), msgpack

A record counts from the moment its word is stored: a process killed before leaves zeros there, which end the log cleanly. The
checksum is CRC-32 over eight zeros, tag and msgpack, seeded with the chunk's generation (and the form, if it is a part), and a
chunk is zeroed before it is used again: bytes of an earlier use are never taken for records.
"""

from __future__ import annotations

import struct
import sys
from typing import Final

import msgspec
from msgspec import Struct

from agentbudget.account.commands import Kind, OnUnknown, Renew, StepReport

MAGIC: Final = b"agentbudget spool 1\n\0\0\0\0"
SUFFIX: Final = ".spool"
DAMAGED: Final = ".damaged"
"""Added to the name of a spool that was not, or not wholly, understood: kept for people, never replayed again."""

CHUNK_BYTES: Final = 4_096
"""One page. A lease takes and frees space by chunks: some 35 steps, and one lock's worth of work for all of them."""
SEGMENT_BYTES: Final = 4 << 20
"""Growth by 4 MiB: a millisecond of preallocation for every 30,000 unreported steps."""
MAX_BYTES: Final = 256 << 20
"""Some two million unreported steps, or 60,000 leases with open steps at once; beyond, the owner holds each step."""

FILE_HEADER: Final = struct.Struct("@24sIII")
SEGMENTS_AT: Final = 24
CHUNK_HEADER: Final = struct.Struct("@IIIIQQII")
CHUNK_REST: Final = struct.Struct("@IIQQII")
RECORD: Final = struct.Struct("@II")
WORD: Final = struct.Struct("@I")

IN_USE: Final = 0x5A3C96E1
"""The state of a chunk in use. No flip of few bits makes it 0, which is a free chunk's."""
FULL, FIRST, MIDDLE, LAST = 0x35000000, 0x26000000, 0x19000000, 0x0E000000
"""Forms of a record: whole, or the parts of one that did not fit its chunk. Below 2**30, where Python's integers are fastest."""
FORM: Final = 0x3F000000
LENGTH: Final = 0x00FFFFFF
INCOMPLETE: Final = 0x2A000000
"""Form of a slot's record when the lease's log misses something that could not be written: it is not the whole truth."""

HEADER_BYTES: Final = CHUNK_HEADER.size
ROOM: Final = CHUNK_BYTES - HEADER_BYTES
"""For records in a chunk."""

SMALL_SLOT, LARGE_SLOT = 248, ROOM
"""A lease's identity with ids of usual length fits a small slot; with the longest names allowed (200 characters of four bytes,
five of them) it takes a chunk."""

BEGUN, DISPATCHED, SETTLED, RELEASED, GUESSED, FACTS, SENDING, RENUMBERED, CHECKPOINT, EXTENDED = b"BDSRGFMNCX"

Tariffs = tuple[tuple[str, str], ...]


class FileHeader(Struct, frozen=True):
    """``boot``: the boot of the machine under which it was written (after another one, what the disk has may be old)."""

    holder: str
    boot: str
    byteorder: str = sys.byteorder
    chunk_bytes: int = CHUNK_BYTES
    segment_bytes: int = SEGMENT_BYTES


class Identity(Struct, frozen=True, array_like=True):
    """Who a lease is; ``trail`` is the serial number that its chunks carry."""

    trail: int
    customer: str
    lease: str
    session: str
    kind: Kind
    model: str | None
    tool: str | None
    feature: str | None
    wind_down: bool
    on_unknown: OnUnknown


class Begun(Struct, frozen=True, array_like=True, gc=False):
    """A step that has begun and not ended: what it holds, since when (UTC microseconds), and whether its work was sent."""

    n: int
    amount: int
    measures: dict[str, int]
    opened_us: int
    dispatched: bool


class Extended(Struct, frozen=True, array_like=True, gc=False):
    """What an open step holds from here on, all of it: a stream has brought more than was held for it."""

    n: int
    amount: int
    measures: dict[str, int]


class Facts(Struct, frozen=True, array_like=True):
    """The names of the measures in the order of the reports' ``used``, and the tariffs that they refer to."""

    names: tuple[str, ...]
    tariffs: Tariffs


class Sending(Struct, frozen=True, array_like=True):
    """A renewal that is about to leave. ``left`` None: ``renew`` is all of it. Else its steps are all reports before this record
    that no earlier message had, except the last ``left`` of them; ``count`` says how many."""

    renew: Renew
    count: int
    left: int | None


class Checkpoint(Struct, frozen=True, array_like=True):
    """Every message before it was answered. ``steps``: all that are open. ``reports``: those before the last message
    (``whole``: all) that are still unreported. ``released``: if ``whole``, steps that cost nothing and are unreported.
    ``base``: no link of the log before this ordinal is needed any more."""

    seq: int
    base: int
    whole: bool
    facts: Facts
    steps: tuple[Begun, ...]
    reports: tuple[StepReport, ...]
    released: int = 0


encode: Final = msgspec.msgpack.Encoder().encode
encode_into: Final = msgspec.msgpack.Encoder().encode_into
decode_header: Final = msgspec.msgpack.Decoder(FileHeader).decode
decode_identity: Final = msgspec.msgpack.Decoder(Identity).decode


def seed(generation: int, form: int) -> int:
    """What a record's checksum starts from: a part is never taken for a whole."""
    return generation if form == FULL else generation ^ form


def boot_id() -> str:
    """Which boot of the machine this is; empty where the system does not say, and then files are taken to be of this one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
