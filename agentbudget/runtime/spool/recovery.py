"""After a crash: what dead processes of this machine left in their spools is told to the owner, and their leases end.

A spool whose lock nobody holds is a dead process's. Whoever gets the lock replays it; the file goes when all of it is told.
Several processes may try at once, and each may die in the middle: every command has a key, so the next one books nothing
twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.commands import Renew
from agentbudget.errors import AgentBudgetError, LedgerCorrupt, OwnerUnavailable
from agentbudget.runtime.spool import format as form
from agentbudget.runtime.spool.format import DAMAGED, SUFFIX
from agentbudget.runtime.spool.pages import NEW, is_at
from agentbudget.runtime.spool.reading import NotASpool, SpoolContents, read_spool
from agentbudget.runtime.spool.replay import Ask, Note, Replayed, replay

_log = logging.getLogger("agentbudget")

NOTES: Final = ".told"
"""Added to the name of a spool: messages that its replay made, each noted before it was sent."""
MAX_WORDS: Final = 20
"""Sentences about one file in a log: the first ones show what is wrong, thousands show no more."""


_OTHER_BOOT: Final = (
    "it is from before the machine was last started, so its end may be missing; if the machine was shut down in order, "
    "agentbudget ledger recover --orderly-shutdown books the rest"
)


class Recovered(Struct, frozen=True):
    """What one look at a folder did. ``spools``: files that were replayed, wholly or as far as they can be; ``leases``: in them;
    ``reported``, ``unknown``, ``corrected``: see ``Replayed``. ``waiting``: files left for the next try, because the owner
    did not answer or the file cannot be opened; ``why_waiting``: a sentence for each. ``damaged``: files set aside
    (``*.damaged``); ``words``: what is wrong with them, a sentence each."""

    spools: int = 0
    leases: int = 0
    reported: int = 0
    unknown: int = 0
    corrected: int = 0
    waiting: tuple[str, ...] = ()
    why_waiting: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def recover(
    folder: str, ask: Ask, *, own: str = "", with_set_aside: bool = False, trust_other_boots: bool = False
) -> Recovered:
    """Replay every spool in the folder whose process is gone; ``own`` is this process's holder id, whose spool is not looked at.
    ``with_set_aside``: those that were set aside before, too; telling the owner again books nothing twice.

    A spool from before the machine was last started may lack its newest records unseen, if the power failed: it is told as far
    as it is surely true, set aside, and what its leases hold beyond that stays held until they lapse. An operator who knows
    that the machine was shut down in order says ``trust_other_boots``. Never raises for what a file says or the owner answers.
    """
    found = Recovered()
    endings = (SUFFIX, SUFFIX + NEW, SUFFIX + DAMAGED) if with_set_aside else (SUFFIX, SUFFIX + NEW)
    try:
        paths = _spools(folder, own, endings)
    except OSError as error:
        return _waits("", f"its folder cannot be read ({error.strerror})")
    for path in paths:
        try:
            found = _add(found, _unless_alive(path, ask, trust_other_boots))
        except OSError as error:
            found = _add(found, _waits(os.path.basename(path), f"it cannot be opened or put away ({error.strerror})"))
    return found


def _unless_alive(path: str, ask: Ask, trust_other_boots: bool) -> Recovered:
    fd = _lock(path)
    if fd is None:
        return Recovered()
    try:
        return _one(_put_back(path), ask, trust_other_boots)
    finally:
        os.close(fd)


def _put_back(path: str) -> str:
    """The name of a locked file under which it is replayed: what was set aside gets it back, its notes first."""
    if not path.endswith(DAMAGED):
        return path
    name = path.removesuffix(DAMAGED)
    with contextlib.suppress(FileNotFoundError):
        os.replace(name + NOTES + DAMAGED, name + NOTES)
    os.replace(path, name)
    return name


def _spools(folder: str, own: str, endings: tuple[str, ...]) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [os.path.join(folder, name) for name in names if name.endswith(endings) and name != own + SUFFIX]


def _lock(path: str) -> int | None:
    """The open file of a spool whose process is gone, locked until it is closed; None when somebody else has it, or had it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # another was quicker
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(fd, path):  # else it was replayed and removed before the lock was free
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def _waits(name: str, why: str) -> Recovered:
    """A file that is left for the next try."""
    return Recovered(waiting=(name,), why_waiting=(why,))


def _one(path: str, ask: Ask, trust_other_boots: bool) -> Recovered:
    """Replay a file whose lock is held."""
    name = os.path.basename(path)
    if path.endswith(NEW):  # its process died before anything could be in it
        _remove(path)
        return Recovered()
    try:
        contents = read_spool(path)
    except NotASpool as why:
        return _set_aside(path, Recovered(words=(f"{name}: {why}",)))
    except OSError as error:
        return _waits(name, f"it cannot be read ({error.strerror})")
    try:
        done = _replay_all(path, contents, ask, trust_other_boots)
    except (OwnerUnavailable, LedgerCorrupt) as error:
        return _waits(name, str(error))
    except AgentBudgetError as error:  # a bug of ours or of the owner's: the file is the only proof of what it says
        return _waits(name, f"it cannot be replayed ({type(error).__name__}: {error}); please report this as a bug")
    if done.words:
        return _set_aside(path, done)
    _remove(path)
    return done


def _replay_all(path: str, contents: SpoolContents, ask: Ask, trust_other_boots: bool) -> Recovered:
    name = os.path.basename(path)
    is_whole = contents.is_of_this_boot or trust_other_boots
    done = Recovered(spools=1, leases=len(contents.leases), words=contents.damages)
    if not is_whole and contents.leases:
        done = _add(done, Recovered(words=(f"{name}: {_OTHER_BOOT}",)))
    with _notes(path) as (noted, note):
        for records in contents.leases:
            lease = records.identity.lease
            records = replace(records, unanswered=(*records.unanswered, *noted.get(lease, ())))
            replayed = replay(records, contents.holder, ask, note, trusted=is_whole and records.whole)
            done = _add(done, _counted(name, lease, replayed))
    return done


@contextlib.contextmanager
def _notes(path: str) -> Iterator[tuple[dict[str, list[Renew]], Note]]:
    """The messages that earlier tries made, by lease, and where this one notes its own: before each is sent."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    try:
        fd = os.open(path + NOTES, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        noted: dict[str, list[Renew]] = {}
        with open(fd, "rb", closefd=False) as file:
            renews, end = _read_notes(file.read())
        os.ftruncate(fd, end)
        for renew in renews:
            noted.setdefault(renew.lease, []).append(renew)
        yield noted, partial(_note, path, fd)
    finally:
        os.close(fd)


def _note(path: str, fd: int, renew: Renew) -> None:
    data = form.encode(renew)
    record = form.RECORD.pack(zlib.crc32(data), len(data)) + data
    before = os.fstat(fd).st_size
    try:
        if os.write(fd, record) != len(record):
            os.ftruncate(fd, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _unwritable(path, error) from error


def _read_notes(data: bytes) -> tuple[list[Renew], int]:
    """Messages, and where they end: one that was not written whole was never sent."""
    at, renews = 0, []
    while at + form.RECORD.size <= len(data):
        checksum, length = form.RECORD.unpack_from(data, at)
        body = data[at + form.RECORD.size :][:length]
        if not length or len(body) < length or zlib.crc32(body) != checksum:
            break
        renews.append(_decode_renew(body))
        at += form.RECORD.size + length
    return renews, at


_decode_renew: Final = msgspec.msgpack.Decoder(Renew).decode


def _unwritable(path: str, error: OSError) -> OwnerUnavailable:
    return OwnerUnavailable(
        f"{path + NOTES} cannot be written ({error.strerror})", "", "make room, and open the ledger again"
    )


def _counted(name: str, lease: str, replayed: Replayed) -> Recovered:
    words = (f"{name}: lease {lease}: {replayed.left}",) if replayed.left else ()
    return Recovered(
        reported=replayed.reported, unknown=replayed.unknown, corrected=int(replayed.corrected), words=words
    )


def _add(one: Recovered, other: Recovered) -> Recovered:
    return Recovered(*(getattr(one, field) + getattr(other, field) for field in Recovered.__struct_fields__))


def _remove(path: str) -> None:
    """While it is locked: whoever waits for the lock sees that it is gone. The notes go last: alone they mean nothing."""
    for name in (path, path + NOTES):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _set_aside(path: str, done: Recovered) -> Recovered:
    """Keep a file that is not wholly true or not understood, under a name that nobody replays."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(path + NOTES, path + NOTES + DAMAGED)
    os.replace(path, path + DAMAGED)
    name = os.path.basename(path)
    shown = "; ".join(done.words[:MAX_WORDS])
    _log.warning(
        "the spool %s of a dead process could not be booked whole, and is kept as %s%s: %s. What its leases hold beyond what "
        "was booked stays held until it lapses", path, name, DAMAGED, shown,
    )  # fmt: skip
    return _add(done, Recovered(damaged=(name + DAMAGED,)))
