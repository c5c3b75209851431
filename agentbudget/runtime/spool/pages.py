"""The file under a spool: preallocated, memory-mapped, locked while its process lives, handed out in chunks.

Free chunks are a Python list, whose ``pop`` and ``append`` are atomic: taking and giving a chunk locks nothing and asks the
kernel nothing. Only growing does, once for 4 MiB.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import threading
import weakref
import zlib
from typing import Final

from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.runtime.spool import format as form

NEW: Final = ".new"
"""Added to the name of a spool until its header is written."""
RESERVE: Final = 8
"""Chunks that only messages and checkpoints may take: they are what gives chunks back, so they must not lack room."""
_TRIES: Final = 10
_PATIENCE: Final = 1_000
"""After the disk refused to let the file grow, so many takes fail before it is asked again."""

CLOSED: Final = (ValueError, TypeError)
"""What a map says that another thread has just closed: ValueError to a store of bytes, TypeError to ``pack_into``."""

_ZEROS: Final = bytes(form.ROOM)
_POPULATE: Final = getattr(mmap, "MAP_POPULATE", 0)


class Pages:
    """See the module. ``maps``: one a segment. A chunk's number is its place in the file; 0 is the header."""

    __slots__ = (
        "__weakref__", "_fd", "_free", "_generations", "_growing", "_is_growing", "_max_segments", "_path", "_per_segment",
        "_refused", "_segment_bytes", "_why", "maps", "pid",
    )  # fmt: skip

    def __init__(self, path: str, fd: int, *, segment_bytes: int, max_bytes: int) -> None:
        self._path, self._fd, self.pid = path, fd, os.getpid()
        self._segment_bytes, self._max_segments = segment_bytes, max(1, max_bytes // segment_bytes)
        self._per_segment = segment_bytes // form.CHUNK_BYTES
        self._free: list[int] = []
        self._generations, self._refused, self._why = itertools.count(1), 0, ""
        self._growing, self._is_growing = threading.RLock(), False  # a finalizer may write while this thread grows
        self.maps: list[mmap.mmap] = []
        _open.add(self)

    @classmethod
    def create(cls, folder: str, holder: str, *, mode: int, segment_bytes: int, max_bytes: int) -> Pages:
        """A new file of a new holder, locked. Raises ``OwnerUnavailable`` when there is no room for a segment, or no right."""
        if not holder or not all(c.isalnum() or c in "-_" for c in holder) or len(holder) > 100:
            raise InvalidRequest("must be 1 to 100 letters, digits, - or _", "holder")
        if segment_bytes % mmap.ALLOCATIONGRANULARITY or segment_bytes < 4 * form.CHUNK_BYTES:
            raise InvalidRequest("must be whole pages, at least four chunks", "segment_bytes")
        path = os.path.join(folder, holder + form.SUFFIX)
        try:
            _make(folder, mode | (mode & 0o444) >> 2)
            fd = _locked_new(path, mode)
        except OSError as error:
            raise _unavailable(path, error) from error
        pages = cls(path, fd, segment_bytes=segment_bytes, max_bytes=max_bytes)
        try:
            pages._begin(holder)
            os.rename(path + NEW, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(path + NEW)
            pages.forget()
            raise _unavailable(path, error) from error
        return pages

    def _begin(self, holder: str) -> None:
        self._add_segment()
        header = form.encode(form.FileHeader(holder, form.boot_id(), segment_bytes=self._segment_bytes))
        form.FILE_HEADER.pack_into(self.maps[0], 0, form.MAGIC, 1, zlib.crc32(header), len(header))
        self.maps[0][form.FILE_HEADER.size : form.FILE_HEADER.size + len(header)] = header
        self._free.remove(0)

    # --- chunks -------------------------------------------------------------------------------------------------------

    def take(self, trail: int, ordinal: int, end: int, *, slot_bytes: int = 0, urgent: bool = False) -> int:
        """A zeroed chunk with its header, in use; 0 when there is none. Raises ``CLOSED`` when the file is."""
        free = self._free
        if len(free) <= RESERVE and not self._grow() and not urgent:
            return 0
        try:
            chunk = free.pop()
        except IndexError:
            return 0
        area, base = self.place(chunk)
        generation = next(self._generations) & 0xFFFFFFFF
        area[base + form.HEADER_BYTES : base + form.CHUNK_BYTES] = _ZEROS
        rest = form.CHUNK_REST.pack(generation, slot_bytes, trail, ordinal, end, 0)
        area[base + 8 : base + form.HEADER_BYTES] = rest
        form.RECORD.pack_into(area, base, 0, zlib.crc32(rest))
        form.WORD.pack_into(area, base, form.IN_USE)
        return chunk

    def give(self, chunk: int) -> None:
        """Free a chunk: from here on nothing in it counts."""
        area, base = self.place(chunk)
        form.WORD.pack_into(area, base, 0)
        self._free.append(chunk)

    def place(self, chunk: int) -> tuple[mmap.mmap, int]:
        """The map that a chunk is in, and where it begins there."""
        if self._fd < 0:
            raise ValueError("closed")
        segment, index = divmod(chunk, self._per_segment)
        return self.maps[segment], index * form.CHUNK_BYTES

    def generation(self, chunk: int) -> int:
        """What the checksums in a chunk are seeded with."""
        area, base = self.place(chunk)
        (generation,) = form.WORD.unpack_from(area, base + 8)
        return int(generation)

    @property
    def lack(self) -> str:
        """Why there is no room, and what to do."""
        if len(self.maps) >= self._max_segments:
            size = len(self.maps) * self._segment_bytes >> 10
            return (
                f"its {size:,} KiB are full of steps that are open or not reported: have fewer of them open at a time"
            )
        return f"the disk refused to let it grow ({self._why}): free space where {self._path} is"

    # --- segments -----------------------------------------------------------------------------------------------------

    def _grow(self) -> bool:
        """Whether there are chunks beyond the reserve, after another segment if need be."""
        with self._growing:
            if len(self._free) > RESERVE:
                return True
            if self._is_growing or self._fd < 0 or len(self.maps) >= self._max_segments:
                return False
            if self._refused:
                self._refused -= 1
                return False
            self._is_growing = True
            try:
                self._add_segment()
                form.WORD.pack_into(self.maps[0], form.SEGMENTS_AT, len(self.maps))
            except OSError as error:
                self._refused, self._why = _PATIENCE, error.strerror or str(error)
                return False
            finally:
                self._is_growing = False
            return True

    def _add_segment(self) -> None:
        start = len(self.maps) * self._segment_bytes
        try:
            _allocate(self._fd, start, self._segment_bytes)
            area = mmap.mmap(self._fd, self._segment_bytes, mmap.MAP_SHARED | _POPULATE, offset=start)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)  # what was allocated of it goes back
            raise
        first = len(self.maps) * self._per_segment
        self.maps.append(area)
        self._free[:0] = range(first + self._per_segment - 1, first - 1, -1)

    # --- the end ------------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Delete the file while it is still locked, so that nobody replays it."""
        with contextlib.suppress(OSError):
            if is_at(self._fd, self._path):
                os.unlink(self._path)

    def forget(self) -> None:
        """Close our copies of file and lock; the lock ends with its last copy (a forked child's copies end so, and the
        parent keeps it)."""
        for area in self.maps:
            area.close()  # a map keeps a copy of the file's descriptor, and with it of the lock; using it is a ValueError
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_open: weakref.WeakSet[Pages] = weakref.WeakSet()


def _forked() -> None:
    for pages in list(_open):
        pages.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _make(folder: str, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode)
        os.chmod(folder, mode)  # whatever this process's umask says, those who may open the ledger may replay


def _locked_new(path: str, mode: int) -> int:
    """A new file beside its place, locked before anybody can find it there. Whoever clears up after the dead may remove it
    before it is locked; then it is made anew."""
    if os.path.exists(path):
        raise FileExistsError(errno.EEXIST, "there is a spool of that holder already")
    for _ in range(_TRIES):
        fd = os.open(path + NEW, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(fd, path + NEW):
                os.fchmod(fd, mode)
                return fd
        except BlockingIOError:
            pass  # it is being removed
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(errno.EBUSY, "the file keeps being removed")


def is_at(fd: int, path: str) -> bool:
    """Whether an open file is the one that others find at the path."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _allocate(fd: int, start: int, size: int) -> None:
    """Give the file disk space for good: a store into the map must never find the disk full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, start, size)
        return
    for at in range(start, start + size, form.ROOM):
        os.pwrite(fd, _ZEROS[: start + size - at], at)


def _unavailable(path: str, error: OSError) -> OwnerUnavailable:
    what = f"the spool {path} cannot be made ({error.strerror})"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return OwnerUnavailable(what, "", "free disk space" if full else "make its folder writable for this process")
