"""Where the owner of a database file is reached: a Unix socket beside the file, open to whom the file is open.

The socket is made and removed only by the process that holds the ledger's lock, so whoever finds a stale one finds nobody
behind it, and never removes a living one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from agentbudget.runtime.machine.descriptors import not_for_children

MAX_ADDRESS: Final = 103
"""Bytes that an address may take: 107 on Linux, 103 on macOS and the BSDs."""
MAX_NAME: Final = 80
"""Bytes of a name that still fits behind ``/proc/self/fd/<folder>/``; a longer one is hashed."""
DESCRIPTORS: Final = "/proc/self/fd"
BACKLOG: Final = 128
"""Processes that may be connecting at once."""


class SocketPath:
    """The socket of one database file (its real path: two names of one file must meet)."""

    def __init__(self, database: str) -> None:
        self._database = os.path.realpath(database)
        self._folder, base = os.path.split(self._database)
        name = f"{base}.sock"
        self._name = name if len(os.fsencode(name)) <= MAX_NAME else f".{_digest(base)}.sock"
        self._is_beside = len(os.fsencode(self.path)) <= MAX_ADDRESS or os.path.isdir(DESCRIPTORS)
        if not self._is_beside:
            self._folder, self._name = _own_folder(), f"{_digest(self._database)}.sock"

    @property
    def path(self) -> str:
        """Where the socket's file is."""
        return os.path.join(self._folder, self._name)

    def listen(self) -> tuple[socket.socket, os.stat_result]:
        """A listening socket in place of whatever was there, and what tells it from another of the same name. Only for
        who holds the ledger's lock. Raises ``OSError`` where no socket can be made."""
        if not self._is_beside:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        listening = not_for_children(_socket)
        try:
            with self._address() as address:
                listening.bind(address)
            self._admit()  # before anybody can connect
            listening.listen(BACKLOG)
            return listening, os.stat(self.path)
        except BaseException:
            listening.close()
            raise

    def remove(self, ours: os.stat_result) -> None:
        """Remove the socket's file unless another has taken its place. Only for who holds the ledger's lock."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), ours):
                os.unlink(self.path)

    def connect(self, seconds: float) -> socket.socket:
        """A connection to the owner; raises ``OSError`` when nobody is there, or not in time."""
        made = not_for_children(_socket)
        try:
            made.settimeout(seconds)
            with self._address() as address:
                made.connect(address)
            return made
        except BaseException:
            made.close()
            raise

    @contextmanager
    def _address(self) -> Iterator[str]:
        if len(os.fsencode(self.path)) <= MAX_ADDRESS:
            yield self.path
            return
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"{DESCRIPTORS}/{folder}/{self._name}"
        finally:
            os.close(folder)

    def _admit(self) -> None:
        """Connecting takes the right to write: whoever may write the file has it, and nobody else."""
        database = os.stat(self._database)
        mode = stat.S_IMODE(database.st_mode) & 0o666
        if not self._give_to(database):
            mode &= 0o606  # the socket has our group instead: its members have no right to the file
        os.chmod(self.path, mode | 0o600)

    def _give_to(self, database: os.stat_result) -> bool:
        """The file's owner and group, as far as this process may give them; whether the group is the file's."""
        for owner in (database.st_uid, -1):
            with contextlib.suppress(OSError):
                os.chown(self.path, owner, database.st_gid)
                return True
        return os.stat(self.path).st_gid == database.st_gid


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _own_folder() -> str:
    """This user's own folder for sockets, where an address beside the file would be too long: others cannot reach it."""
    return os.environ.get("XDG_RUNTIME_DIR") or os.path.join(
        os.environ.get("TMPDIR") or "/tmp", f"agentbudget-{os.getuid()}"
    )


def _digest(text: str) -> str:
    return sha256(os.fsencode(text)).hexdigest()[:32]
