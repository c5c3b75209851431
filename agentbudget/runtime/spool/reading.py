"""What a spool file says: for every lease that was open, the truth as far as it was written.

Reading trusts nothing. A record that is damaged ends its lease's log; what stands before it is returned, what was found is
said in words. Writing never leaves such a record behind, wherever the process was killed, so damage means the disk, or somebody.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.commands import Renew, StepReport
from agentbudget.runtime.spool import format as form
from agentbudget.runtime.spool.format import Begun, Checkpoint, Extended, Facts, FileHeader, Identity, Sending


class NotASpool(Exception):
    """The file is no spool that this version can read; the text says why."""


class LeaseRecords(Struct, frozen=True):
    """What is known of one open lease. ``unanswered``: messages that may or may not have been applied, in order. ``reports``:
    settled steps that are in none of them; ``released``: so many others that cost nothing. ``steps``: those that were open.
    ``seq``: the last message that was answered. ``whole``: nothing of it was found damaged, so that nothing can be missing."""

    identity: Identity
    unanswered: tuple[Renew, ...] = ()
    reports: tuple[StepReport, ...] = ()
    steps: tuple[Begun, ...] = ()
    facts: Facts = Facts((), ())
    seq: int = 0
    whole: bool = True
    released: int = 0


class SpoolContents(Struct, frozen=True):
    """``is_of_this_boot`` False: the machine was started anew since, and the end of what was written may be missing unseen.
    ``damages``: in words, by file, lease and offset."""

    holder: str
    is_of_this_boot: bool
    leases: tuple[LeaseRecords, ...]
    damages: tuple[str, ...]


class _Link(Struct):
    """A chunk of a lease's log: its bytes, where it stands in the file, and where the records of the link before it end."""

    at: int
    data: bytes
    generation: int
    end_before: int


class _Pages(Struct):
    """The chunks in use, sorted by what they are."""

    identities: list[tuple[Identity, bool]]
    links: dict[int, dict[int, _Link]]
    damages: list[str]


class _Damage(Exception):
    """Where, and what is wrong there."""


def read_spool(path: str) -> SpoolContents:
    """Read a spool, whoever may be writing to it (then: as of some moment). Raises ``NotASpool``, or OSError."""
    with open(path, "rb") as file:
        header, segments = _header(file.read(form.CHUNK_BYTES))
        pages = _Pages([], {}, [])
        size, expected = os.fstat(file.fileno()).st_size, segments * header.segment_bytes
        if size < expected:
            pages.damages.append(f"{expected} bytes once, now {size}")
        at = form.CHUNK_BYTES
        while data := file.read(form.CHUNK_BYTES):
            _sort(pages, at, data.ljust(form.CHUNK_BYTES, b"\0"))
            at += form.CHUNK_BYTES
    is_sound = not pages.damages  # what is damaged there may belong to any lease
    leases = tuple(_lease(pages, identity, whole and is_sound) for identity, whole in pages.identities)
    name = os.path.basename(path)
    damages = tuple(f"{name}: {what}" for what in pages.damages)
    return SpoolContents(header.holder, header.boot == form.boot_id(), leases, damages)


def _header(data: bytes) -> tuple[FileHeader, int]:
    if len(data) < form.CHUNK_BYTES:
        raise NotASpool("it is too short")
    magic, segments, checksum, length = form.FILE_HEADER.unpack_from(data)
    if magic != form.MAGIC:
        raise NotASpool("it does not begin as a spool of this version does")
    body = data[form.FILE_HEADER.size :][:length]
    if zlib.crc32(body) != checksum:
        raise NotASpool("its header is damaged")
    try:
        header = form.decode_header(body)
    except msgspec.MsgspecError as error:
        raise NotASpool(f"its header is not understood ({error})") from error
    if (header.byteorder, header.chunk_bytes) != (FileHeader("", "").byteorder, form.CHUNK_BYTES):
        raise NotASpool("it comes from another kind of machine")
    return header, int(segments)


def _sort(pages: _Pages, at: int, data: bytes) -> None:
    """Put a chunk where it belongs."""
    state, checksum, generation, slot_bytes, trail, ordinal, end, _ = form.CHUNK_HEADER.unpack_from(data)
    if state == 0:
        return
    if state != form.IN_USE or zlib.crc32(data[form.RECORD.size : form.HEADER_BYTES]) != checksum:
        pages.damages.append(f"at byte {at}: the head of a chunk is damaged")
    elif slot_bytes in (form.SMALL_SLOT, form.LARGE_SLOT):
        for offset in range(form.HEADER_BYTES, form.CHUNK_BYTES - slot_bytes + 1, slot_bytes):
            _identify(pages, at + offset, data[offset : offset + slot_bytes], generation)
    else:
        links = pages.links.setdefault(trail, {})
        if ordinal in links:
            pages.damages.append(f"at byte {at}: a chunk stands in the place of another")
        links[ordinal] = _Link(at, data, generation, end)


def _identify(pages: _Pages, at: int, data: bytes, generation: int) -> None:
    checksum, word = form.RECORD.unpack_from(data)
    if word == 0:
        return
    length, part = word & form.LENGTH, word & form.FORM
    try:
        if word != length | part or part not in (form.FULL, form.INCOMPLETE) or length > len(data):
            raise _Damage
        if zlib.crc32(_EMPTY + data[form.RECORD.size : length], generation) != checksum:
            raise _Damage
        identity = form.decode_identity(data[form.RECORD.size : length])
    except (_Damage, msgspec.MsgspecError):
        pages.damages.append(f"at byte {at}: who a lease is, is damaged")
        return
    if part == form.INCOMPLETE:
        what = "some of it could not be written, for lack of room"
        pages.damages.append(f"lease {identity.lease}: {what}")
    pages.identities.append((identity, part == form.FULL))


_EMPTY: Final = bytes(form.RECORD.size)


# --- the log of one lease -----------------------------------------------------------------------------------------------


def _lease(pages: _Pages, identity: Identity, whole: bool) -> LeaseRecords:
    log = _Log()
    try:
        for tag, data in _records(pages.links.get(identity.trail, {})):
            log.take(tag, data)
        log.end()
    except _Damage as damage:
        whole = False
        pages.damages.append(f"lease {identity.lease}: {damage}")
    first = min(pages.links.get(identity.trail, {}), default=0)
    if log.base < first:
        if whole:
            pages.damages.append(f"lease {identity.lease}: the beginning of its log is missing")
        return LeaseRecords(identity, whole=False)
    return log.records(identity, whole)


def _records(links: dict[int, _Link]) -> Iterator[tuple[int, bytes]]:
    """Tag and msgpack of every record, in order."""
    parts: list[bytes] = []
    written = 0
    for index, ordinal in enumerate(sorted(links)):
        link = links[ordinal]
        if index and (ordinal - 1 not in links or link.end_before != written):
            raise _Damage(f"before byte {link.at}: a part of its log is missing")
        at = form.HEADER_BYTES
        while found := _record(link, at):
            part, length = found
            body = link.data[at + form.RECORD.size : at + length]
            at += length
            if part in (form.FULL, form.FIRST):
                parts.clear()  # of a record that was never finished, for lack of room
            elif not parts and index == 0:
                continue  # its beginning was freed: nobody needs it
            elif not parts:
                raise _Damage(f"at byte {link.at + at - length}: the beginning of a record is missing")
            parts.append(body)
            if part in (form.FULL, form.LAST):
                whole = b"".join(parts)
                parts.clear()
                yield whole[0], whole[1:]
        written = at


def _record(link: _Link, at: int) -> tuple[int, int] | None:
    """Form and length of the record at an offset; None where the chunk's records end."""
    if at + form.RECORD.size > form.CHUNK_BYTES:
        return None
    checksum, word = form.RECORD.unpack_from(link.data, at)
    if word == 0:
        return None
    length, part = word & form.LENGTH, word & form.FORM
    data = link.data[at + form.RECORD.size : at + length]
    if (
        word != length | part
        or part not in (form.FULL, form.FIRST, form.MIDDLE, form.LAST)
        or not form.RECORD.size < length <= form.CHUNK_BYTES - at
        or zlib.crc32(_EMPTY + data, form.seed(link.generation, part)) != checksum
    ):
        raise _Damage(f"at byte {link.at + at}: a record is damaged")
    return part, length


class _Log:
    """Reads the records of one lease in order. It may begin anywhere before what the last checkpoint needs."""

    def __init__(self) -> None:
        self.steps: dict[int, Begun] = {}
        self.before: list[StepReport] = []  # settled before the last message and left out of it
        self.after: list[StepReport] = []
        self.sent: list[tuple[Renew, bool]] = []  # and whether all its steps were there to be read
        self.facts, self.seq, self.base, self.gone = Facts((), ()), 0, 0, 0

    def take(self, tag: int, data: bytes) -> None:
        read = _READ.get(tag)
        if read is None:
            raise _Damage(f"a record of an unknown kind ({tag})")
        decoder, apply = read
        try:
            apply(self, decoder.decode(data))
        except msgspec.MsgspecError as error:
            raise _Damage(f"a record is not understood ({error})") from error

    def begun(self, step: Begun) -> None:
        self.steps[step.n] = step

    def dispatched(self, n: int) -> None:
        if n in self.steps:
            self.steps[n] = replace(self.steps[n], dispatched=True)

    def extended(self, now: Extended) -> None:
        if now.n in self.steps:
            self.steps[now.n] = replace(self.steps[now.n], amount=now.amount, measures=now.measures)

    def released(self, n: int) -> None:
        self.steps.pop(n, None)
        self.gone += 1

    def guessed(self, n: int) -> None:
        self.steps.pop(n, None)

    def settled(self, report: StepReport) -> None:
        self._ended(report)
        self.after.append(report)

    def _ended(self, report: StepReport) -> None:
        n = report.step.rpartition(".")[2]
        if n.isdecimal():
            self.steps.pop(int(n), None)

    def set_facts(self, facts: Facts) -> None:
        self.facts = facts

    def sending(self, sending: Sending) -> None:
        reports, renew = self.before + self.after, sending.renew
        self.after, self.gone = [], 0
        if sending.left is None:
            for report in renew.steps:  # where there was no room to write that it ended, only its message says so
                self._ended(report)
            steps = {report.step for report in renew.steps}
            self.before = [report for report in reports if report.step not in steps]
            self.sent.append((renew, True))
        else:
            at = max(0, len(reports) - sending.left)
            self.before = reports[at:]
            self.sent.append((replace(renew, steps=tuple(reports[:at])), at == sending.count))

    def renumbered(self, seqs: tuple[int, int]) -> None:
        if self.sent and self.sent[-1][0].seq == seqs[0]:
            renew, is_all = self.sent[-1]
            self.sent[-1] = replace(renew, seq=seqs[1]), is_all

    def checkpoint(self, mark: Checkpoint) -> None:
        self.sent = []
        self.before = list(mark.reports)
        if mark.whole:
            self.after, self.gone = [], mark.released
        self.steps = {step.n: step for step in mark.steps}
        self.facts, self.seq, self.base = mark.facts, mark.seq, max(self.base, mark.base)

    def end(self) -> None:
        if not all(is_all for _, is_all in self.sent):
            raise _Damage("settled steps of a message are missing")

    def records(self, identity: Identity, whole: bool) -> LeaseRecords:
        sent = tuple(renew for renew, is_all in self.sent if is_all)
        reports = (*self.before, *self.after)
        return LeaseRecords(identity, sent, reports, tuple(self.steps.values()), self.facts, self.seq, whole, self.gone)


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


_READ: Final[dict[int, tuple[msgspec.msgpack.Decoder[Any], Callable[[_Log, Any], None]]]] = {
    form.BEGUN: (_decoder(Begun), _Log.begun),
    form.DISPATCHED: (_decoder(int), _Log.dispatched),
    form.EXTENDED: (_decoder(Extended), _Log.extended),
    form.SETTLED: (_decoder(StepReport), _Log.settled),
    form.RELEASED: (_decoder(int), _Log.released),
    form.GUESSED: (_decoder(int), _Log.guessed),
    form.FACTS: (_decoder(Facts), _Log.set_facts),
    form.SENDING: (_decoder(Sending), _Log.sending),
    form.RENUMBERED: (_decoder(tuple[int, int]), _Log.renumbered),
    form.CHECKPOINT: (_decoder(Checkpoint), _Log.checkpoint),
}
