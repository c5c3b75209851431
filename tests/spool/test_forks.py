"""A forked child has nothing of its parent's spool: it cannot write there, and does not keep the lock when the parent dies."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.spool.writing import Spool
from tests.spool.life import KEY
from tests.spool.test_space import in_child
from tests.spool.test_spool import a_trail, only


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_child_cannot_write_to_its_parents_spool(tmp_path: Path) -> None:
    spool = Spool.open(str(tmp_path / "s"), "h1", segment_bytes=1 << 16)
    trail = a_trail(spool)
    assert trail.begun(1, 5, {}, 0, True)

    def child() -> None:
        assert not trail.begun(2, 5, {}, 0, True)
        with pytest.raises(OwnerUnavailable):
            spool.trail("acme", "lease", "session", KEY, "charge")
        spool.close()

    in_child(child)
    assert trail.begun(3, 5, {}, 0, True)
    assert [step.n for step in only(str(tmp_path / "s")).steps] == [1, 3]
    assert is_locked(tmp_path / "s" / "h1.spool")


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    """L1: otherwise the dead parent's steps would wait for the child to end."""
    ready, say = os.pipe()
    wait, go = os.pipe()
    parent = os.fork()
    if parent == 0:
        spool = Spool.open(str(tmp_path / "s"), "h1", segment_bytes=1 << 16)
        a_trail(spool).begun(1, 5, {}, 0, True)
        if os.fork() == 0:
            os.close(go)
            os.write(say, b"1")
            os.read(wait, 1)  # until the test lets it go
            os._exit(0)
        signal.pause()
    assert os.read(ready, 1) == b"1"
    path = tmp_path / "s" / "h1.spool"
    assert is_locked(path)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert not is_locked(path)
    os.close(go)
