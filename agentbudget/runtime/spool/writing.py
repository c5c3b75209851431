"""The spool of one process: what its leases' steps do is written here before it counts, so that the process may die.

Writing a step costs no system call and takes no lock: a lease has chunks of its own, and whoever writes holds that lease's
lock. When a message was answered, what it reported is not needed any more and its chunks are free again: first a checkpoint
is written that says what still lives, then the chunks before go, the oldest first. Killed at any moment, the file says the truth.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol
from zlib import crc32

from msgspec.structs import replace

from agentbudget.account.commands import Renew, StepReport
from agentbudget.errors import OwnerUnavailable, check
from agentbudget.runtime.leases.lease import Key
from agentbudget.runtime.spool import format as form
from agentbudget.runtime.spool.format import FULL, Begun, Checkpoint, Facts, Identity, Sending, Tariffs, encode_into
from agentbudget.runtime.spool.pages import CLOSED, Pages

_commit: Final = form.RECORD.pack_into
_DATA: Final = form.RECORD.size + 1
"""Where a record's msgpack begins: checksum, word, tag."""
_LEAST_PART: Final = 64
"""A part of a record shorter than this is not worth its header: the rest of the chunk stays empty."""


class Live(Protocol):
    """A step that is open, as the lease has it."""

    @property
    def amount(self) -> int: ...
    @property
    def measures(self) -> Mapping[str, int]: ...
    @property
    def opened_us(self) -> int: ...
    @property
    def dispatched(self) -> bool: ...


class Spool:
    """The file ``<holder>.spool`` in a folder, its lock held until :meth:`close` or death. Made by the process that uses it; a
    forked child's copies close by themselves and say so (``trail`` raises, trails answer False)."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._lock = threading.Lock()  # for slots only: taken once a lease
        self._serials = itertools.count(1)
        self._slots: dict[int, dict[int, list[int]]] = {form.SMALL_SLOT: {}, form.LARGE_SLOT: {}}
        self._used = 0

    @classmethod
    def open(
        cls,
        folder: str,
        holder: str,
        *,
        mode: int = 0o600,
        segment_bytes: int = form.SEGMENT_BYTES,
        max_bytes: int = form.MAX_BYTES,
    ) -> Spool:
        """A new spool for ``holder``, readable by whom ``mode`` says (the ledger's own). Raises ``OwnerUnavailable`` when the
        disk has no room for its first segment or the folder cannot be written."""
        return cls(Pages.create(folder, holder, mode=mode, segment_bytes=segment_bytes, max_bytes=max_bytes))

    @property
    def lack(self) -> str:
        """Why a trail was not given, or took no more, in words: what there is no room for, and what to do."""
        return self._pages.lack

    def trail(self, customer: str, lease: str, session: str, key: Key, on_unknown: str) -> Trail | None:
        """Where the steps of a lease are written, before its first message is sent; None: there is no room for it."""
        if os.getpid() != self._pages.pid:
            raise OwnerUnavailable("this spool is of the process that forked this one", "", "open the ledger again")
        serial = next(self._serials)
        identity = Identity(serial, customer, lease, session, *key, on_unknown)  # type: ignore[arg-type]
        record = bytes(form.RECORD.size) + form.encode(identity)
        try:
            with self._lock:
                slot = self._take_slot(record)
        except CLOSED:
            return None
        return None if slot is None else Trail(self, self._pages, serial, slot, len(record))

    def close(self) -> None:
        """Give file and lock up. It is removed, unless leases of it are open: those are replayed by the next process."""
        with self._lock:
            if os.getpid() == self._pages.pid and self._used == 0:
                self._pages.remove()
            self._pages.forget()

    def _take_slot(self, record: bytes) -> tuple[int, int] | None:
        size = form.SMALL_SLOT if len(record) <= form.SMALL_SLOT else form.LARGE_SLOT
        pages, free = self._pages, self._slots[size]
        if not free:
            chunk = pages.take(0, 0, 0, slot_bytes=size) if len(record) <= size else 0
            if not chunk:
                return None
            free[chunk] = list(range(form.HEADER_BYTES, form.CHUNK_BYTES - size + 1, size))
        chunk, offsets = next(iter(free.items()))
        area, base = pages.place(chunk)
        at = base + offsets[-1]
        area[at : at + len(record)] = record
        _commit(area, at, crc32(record, pages.generation(chunk)), len(record) | FULL)
        offset = offsets.pop()
        if not offsets:
            del free[chunk]
        self._used += 1
        return chunk, offset

    def _give_slot(self, slot: tuple[int, int]) -> None:
        """Forget a lease; what is left of its log counts no more."""
        chunk, offset = slot
        self._mark(slot, 0)
        area, base = self._pages.place(chunk)
        _, _, _, size, *_ = form.CHUNK_HEADER.unpack_from(area, base)
        with self._lock:
            self._used -= 1
            offsets = self._slots[size].setdefault(chunk, [])
            offsets.append(offset)
            if len(offsets) == form.ROOM // size:
                del self._slots[size][chunk]
                self._pages.give(chunk)

    def _mark(self, slot: tuple[int, int], word: int) -> None:
        area, base = self._pages.place(slot[0])
        form.WORD.pack_into(area, base + slot[1] + 4, word)


class Trail:
    """The log of one lease. Every method is called under that lease's lock; times are UTC microseconds, amounts nanocredits.
    False: it was not written, for lack of room or because the spool is closed, and must not be relied on."""

    __slots__ = (
        "_at", "_begun", "_end", "_facts", "_first", "_generation", "_left", "_links", "_map", "_pages", "_released",
        "_reports", "_sent", "_seq", "_serial", "_settled", "_since", "_slot", "_slot_bytes", "_spool", "_strayed",
    )  # fmt: skip

    def __init__(self, spool: Spool, pages: Pages, serial: int, slot: tuple[int, int], slot_bytes: int) -> None:
        self._spool, self._pages, self._serial = spool, pages, serial
        self._slot, self._slot_bytes = slot, slot_bytes
        self._begun, self._settled = _buffer(form.BEGUN), _buffer(form.SETTLED)
        self._links: deque[int] = deque()
        self._map: mmap.mmap = pages.maps[0]
        self._at = self._end = self._generation = self._first = 0
        self._facts = _NO_FACTS
        self._reports: list[StepReport] = []  # settled here and in no message yet
        self._left = self._since = self._seq = self._released = 0
        self._sent: Renew | None = None
        self._strayed = False  # the log lacks something: only a whole checkpoint makes it true again

    # --- steps: the hot ones spell out what _put does -----------------------------------------------------------------

    def begun(self, n: int, amount: int, measures: dict[str, int], opened_us: int, dispatched: bool) -> bool:
        """Step ``n`` of the lease begins."""
        buffer = self._begun
        encode_into((n, amount, measures, opened_us, dispatched), buffer, _DATA)
        size = len(buffer)
        at = self._at
        end = at + size
        if end > self._end:
            return self._put(buffer)
        try:
            self._map[at:end] = buffer
            _commit(self._map, at, crc32(buffer, self._generation), size | FULL)
        except CLOSED:
            return False
        self._at = end
        return True

    def settled(self, report: StepReport) -> bool:
        """A step ended at its measured cost."""
        buffer = self._settled
        encode_into(report, buffer, _DATA)
        size = len(buffer)
        at = self._at
        end = at + size
        if end > self._end:
            if not self._put(buffer):
                return False
        else:
            try:
                self._map[at:end] = buffer
                _commit(self._map, at, crc32(buffer, self._generation), size | FULL)
            except CLOSED:
                return False
            self._at = end
        self._reports.append(report)
        return True

    def dispatched(self, n: int) -> bool:
        """The work of a step is about to be sent."""
        return self._note(form.DISPATCHED, n)

    def extended(self, n: int, amount: int, measures: dict[str, int]) -> bool:
        """An open step holds so much from now on."""
        return self._note(form.EXTENDED, (n, amount, measures))

    def released(self, n: int) -> bool:
        """A step was given back: it cost nothing, but it is still to be reported that it was."""
        written = self._note(form.RELEASED, n)
        self._released += 1
        return written

    def guessed(self, n: int) -> bool:
        """A step ended, and the owner has booked it already."""
        return self._note(form.GUESSED, n)

    # --- messages -----------------------------------------------------------------------------------------------------

    def facts(self, names: tuple[str, ...], tariffs: Tariffs) -> bool:
        """What the reports from now on refer to: the whole lists, each time they have grown."""
        self._facts = Facts(names, tariffs)
        if not self._links:
            return True  # a log begins with them
        return self._note(form.FACTS, self._facts) or self._stray()

    def sending(self, renew: Renew) -> bool:
        """This message is about to leave, or the one under way leaves under another number (nothing of it was applied). One
        message of a lease is under way at a time: the next comes after ``answered``. False: were it sent, and the process
        killed before the answer, the lease would stay suspended, for nobody could know what was booked."""
        if self._sent is not None:
            return self._sending_again(self._sent, renew)
        count = len(renew.steps)
        if not self._strayed and tuple(self._reports[:count]) == renew.steps:
            rest = self._reports[count:]
            body = Sending(replace(renew, steps=()), count, len(rest))
        else:
            steps = {report.step for report in renew.steps}
            rest = [report for report in self._reports if report.step not in steps]
            body = Sending(renew, count, None)
        since = self._ordinal
        written = self._note(form.SENDING, body, urgent=True) or self._stray()
        self._sent, self._reports, self._left, self._since, self._released = renew, rest, len(rest), since, 0
        return written

    def _sending_again(self, sent: Renew, renew: Renew) -> bool:
        if renew is sent or renew == sent:
            return not self._strayed
        check(replace(renew, seq=sent.seq) == sent, "L4", "a message of a lease while another is under way")
        self._sent = renew
        return self._note(form.RENUMBERED, (sent.seq, renew.seq), urgent=True) or self._stray()

    def answered(self, seq: int, live: Mapping[int, Live], reports: list[StepReport]) -> None:
        """The message ``seq`` was answered: ``live`` are the steps that are open now, ``reports`` those settled that are in no
        message yet. What was reported may be forgotten."""
        self._sent, self._seq = None, seq
        whole = self._strayed or reports != self._reports
        if whole:
            self._reports = list(reports)
        is_over = not (live or reports or self._released)
        if not self._links and is_over:
            return self._found_back()
        base = self._ordinal if whole else self._since
        kept = tuple(reports) if whole else tuple(reports[: self._left])
        steps = tuple(Begun(n, s.amount, dict(s.measures), s.opened_us, s.dispatched) for n, s in live.items())
        mark = Checkpoint(seq, base, whole, self._facts, steps, kept, self._released if whole else 0)
        if not self._note(form.CHECKPOINT, mark, urgent=True):
            if whole:
                self._stray()
            return None  # the file still says what was under way: sent again, it is known
        self._left, self._since = len(kept), base
        self._found_back()
        self._forget(self._ordinal + 1 if is_over else base)
        return None

    def closed(self) -> None:
        """The lease has ended, or never opened: nothing of it is to be replayed."""
        if self._slot_bytes == 0:
            return
        self._slot_bytes = 0
        try:
            self._spool._give_slot(self._slot)
            self._forget(self._ordinal + 1)
        except CLOSED:
            self._links.clear()  # the spool was closed before: the lease is replayed, and found to have ended
            self._end = 0

    # --- the log ------------------------------------------------------------------------------------------------------

    @property
    def _ordinal(self) -> int:
        """The link being written (0, the one to come, when there is none)."""
        return self._first + max(0, len(self._links) - 1)

    def _note(self, tag: int, what: Any, *, urgent: bool = False) -> bool:
        buffer = _buffer(tag)
        encode_into(what, buffer, _DATA)
        return self._put(buffer, urgent=urgent)

    def _put(self, buffer: bytearray, *, urgent: bool = False) -> bool:
        if self._slot_bytes == 0:
            return False
        try:
            if not self._links and not self._begin(urgent):
                return False
            if self._at + len(buffer) > self._end:
                if len(buffer) > form.ROOM:
                    return self._put_parts(buffer, urgent)
                if not self._next(urgent):
                    return False
            self._store(buffer, FULL)
            return True
        except CLOSED:
            return False

    def _put_parts(self, buffer: bytearray, urgent: bool) -> bool:
        """A record longer than a chunk. It counts when its last part is written."""
        rest, part = memoryview(buffer)[form.RECORD.size :], form.FIRST
        while rest:
            room = self._end - self._at - form.RECORD.size
            if room < _LEAST_PART:
                if not self._next(urgent):
                    return False
                continue
            piece, rest = bytes(form.RECORD.size) + rest[:room], rest[room:]
            self._store(piece, part if rest else form.LAST)
            part = form.MIDDLE
        return True

    def _store(self, record: bytes | bytearray, part: int) -> None:
        at, size = self._at, len(record)
        self._map[at : at + size] = record
        _commit(self._map, at, crc32(record, form.seed(self._generation, part)), size | part)
        self._at = at + size

    def _begin(self, urgent: bool) -> bool:
        """The first link of a log. What reports refer to stands at its head."""
        if not self._next(urgent):
            return False
        if not self._seq and self._facts == _NO_FACTS and not self._released:
            return True
        mark = Checkpoint(self._seq, 0, True, self._facts, (), (), self._released)
        if self._note(form.CHECKPOINT, mark, urgent=urgent):
            return True
        self._forget(1)
        return False

    def _next(self, urgent: bool) -> bool:
        pages, links = self._pages, self._links
        written = self._at - pages.place(links[-1])[1] if links else 0
        chunk = pages.take(self._serial, self._first + len(links), written, urgent=urgent)
        if not chunk:
            return False
        links.append(chunk)
        self._map, base = pages.place(chunk)
        self._at, self._end = base + form.HEADER_BYTES, base + form.CHUNK_BYTES
        self._generation = pages.generation(chunk)
        return True

    def _forget(self, before: int) -> None:
        """Free the links before an ordinal, the oldest first: what is left at any moment is the end of the log."""
        while self._links and self._first < before:
            self._pages.give(self._links[0])
            self._links.popleft()
            self._first += 1
        if not self._links:
            self._at = self._end = self._first = self._since = self._left = 0

    def _stray(self) -> bool:
        """Say in the lease's slot, where there always is room, that its log is not the whole truth."""
        if not self._strayed and self._slot_bytes:
            self._strayed = True
            self._mark(form.INCOMPLETE)
        return False

    def _found_back(self) -> None:
        if self._strayed:
            self._strayed = False
            self._mark(FULL)

    def _mark(self, part: int) -> None:
        with contextlib.suppress(*CLOSED):
            self._spool._mark(self._slot, self._slot_bytes | part)


_NO_FACTS: Final = Facts((), ())


def _buffer(tag: int) -> bytearray:
    """Room for a record: checksum and word are zero here, for they are stored last."""
    buffer = bytearray(_DATA)
    buffer[-1] = tag
    return buffer
