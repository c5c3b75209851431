"""What a test does to an owner's commits, wherever that owner runs: files in a folder, which every process sees.

Nothing here polls or sleeps: the gate is a lock of the kernel's, and the owner says that it waits by a byte in a pipe.
Only commits with entries are touched; those without (the epoch's check of an idle owner) come when they come.
"""

from __future__ import annotations

import fcntl
import os
import select
from pathlib import Path
from typing import Literal

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.journal import Batch
from agentbudget.ledger.store import Store

PATIENCE = 60.0
"""Seconds until what never comes is a failure."""
When = Literal["before", "after"]


class Levers:
    """The test's end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        os.mkfifo(folder / "waiting")
        (folder / "gate").touch()
        (folder / "commits").touch()
        self._waiting = os.open(folder / "waiting", os.O_RDWR)  # kept open, so that no byte is lost
        self._gate = os.open(folder / "gate", os.O_RDWR)

    def shut(self) -> None:
        """No commit passes until :meth:`open`."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def open(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def wait_for_a_commit(self) -> None:
        """Until a commit stands at the gate."""
        ready, _, _ = select.select([self._waiting], [], [], PATIENCE)
        assert ready, "no commit came to the gate"
        os.read(self._waiting, 1)

    def fail_next(self, when: When) -> None:
        """The next commit that comes fails: before it takes effect, or after, when nobody knows of it."""
        (self._folder / "fail").write_text(when)

    def commits(self) -> list[int]:
        """How many entries each commit had, in order."""
        return [int(line) for line in (self._folder / "commits").read_text().split()]

    def close(self) -> None:
        os.close(self._waiting)
        os.close(self._gate)


class Levered:
    """The store's end: a store that does as the levers say."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder

    def commit(self, batch: Batch) -> None:
        if not batch.entries:
            return self._store.commit(batch)
        fails = self._failure()
        self._pass_the_gate()
        if fails == "before":
            raise OwnerUnavailable("planted: nothing was written", "", "retry with the same key")
        self._store.commit(batch)
        with open(f"{self._folder}/commits", "a") as commits:
            commits.write(f"{len(batch.entries)}\n")
        if fails == "after":
            raise OwnerUnavailable("planted: it was written", "", "retry with the same key")

    def _failure(self) -> str:
        try:
            with open(f"{self._folder}/fail") as file:
                os.unlink(file.name)
                return file.read()
        except FileNotFoundError:
            return ""

    def _pass_the_gate(self) -> None:
        gate = os.open(f"{self._folder}/gate", os.O_RDWR)
        try:
            fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self._say_that_it_waits()
            fcntl.flock(gate, fcntl.LOCK_SH)
        finally:
            os.close(gate)

    def _say_that_it_waits(self) -> None:
        pipe = os.open(f"{self._folder}/waiting", os.O_RDWR)
        os.write(pipe, b"!")
        os.close(pipe)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)
