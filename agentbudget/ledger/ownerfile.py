"""One writer a machine: an exclusive lock on ``<ledger>.owner``, whose text tells people who holds it.

The kernel's lock is the truth and dies with its process; the text is only for messages. The epoch in the database
fences what a file lock cannot (another machine, a lock file that somebody removed).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Final

from agentbudget.errors import OwnerUnavailable

_TRIES: Final = 10
"""How often a lock file that its last holder removed under our hands is made anew; one race costs one try."""

_MAX_TEXT: Final = 4_096


class OwnerFile:
    """The held lock. ``owner`` is this process, for people."""

    __slots__ = ("_file", "_path", "owner")

    def __init__(self, path: str, file: int, owner: str) -> None:
        self._path, self._file, self.owner = path, file, owner

    @classmethod
    def acquire(cls, database: str, *, now_us: int) -> OwnerFile:
        """Take the lock of a database file, or raise ``OwnerUnavailable`` that names its holder."""
        path = f"{database}.owner"
        about = _about_this_process(now_us)
        try:
            for _ in range(_TRIES):
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                if _locked(file, path):
                    os.ftruncate(file, 0)
                    os.write(file, json.dumps(about).encode())
                    return cls(path, file, _said(about))
                os.close(file)
        except OSError as error:
            raise _unwritable(path, error) from error
        raise OwnerUnavailable(f"{path} keeps being replaced", "", "open the ledger again")

    def release(self) -> None:
        """Give the lock up. The file is removed while it is still locked, so nobody can have locked what is removed;
        unless somebody removed it before: then the one there now is another's."""
        if self._file < 0:
            return
        try:
            if _is_at(self._file, self._path):
                os.unlink(self._path)
        except OSError:
            pass  # a stale text beside the ledger does no harm: the lock below is what counts
        finally:
            self.forget()

    def forget(self) -> None:
        """Close our copy without giving the lock up: what a forked child does, so that it does not outlive its
        parent's."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _locked(file: int, path: str) -> bool:
    """Whether the lock is ours and the file still the one that others will find."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _said(_read(file))
        os.close(file)
        raise OwnerUnavailable(
            "the ledger is open for writing in another place",
            owner,
            "stop it, or read beside it: open with read_only=True, or use the command line's reading commands",
        ) from None
    return _is_at(file, path)


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _about_this_process(now_us: int) -> dict[str, object]:
    since = datetime.fromtimestamp(now_us // 1_000_000, UTC).isoformat()
    program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "program": program}


def _said(about: dict[str, object]) -> str:
    if not about:
        return "a process that has not written its name yet"
    return "{program}, process {pid} on {host}, since {since}".format_map({**_UNKNOWN, **about})


_UNKNOWN: Final = {"program": "?", "pid": "?", "host": "?", "since": "?"}


def _read(file: int) -> dict[str, object]:
    try:
        about = json.loads(os.pread(file, _MAX_TEXT, 0))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _unwritable(path: str, error: OSError) -> OwnerUnavailable:
    folder = os.path.dirname(path) or "."
    if isinstance(error, FileNotFoundError):
        return OwnerUnavailable(f"the folder {folder} does not exist", "", "create it, or name another file")
    return OwnerUnavailable(
        f"{path} cannot be written ({error.strerror})", "", "make the folder writable, or open with read_only=True"
    )
