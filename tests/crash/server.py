"""The other end of ``worker.py``: start a job, hear its facts, kill it, and know when it is gone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
"""A line that takes longer is a hung child, which must fail the test and not hang it."""


class Life:
    """One child of the fork server."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self.heard: list[list[Any]] = []
        self.status: int | None = None

    def hear_until(self, line: str) -> None:
        """Take facts until this line, or until the child is gone."""
        while self.status is None and self._take(PATIENCE_SECONDS) != line:
            pass

    def hear_for(self, seconds: float) -> None:
        """Take facts for so long."""
        end = time.monotonic() + seconds
        while self.status is None and (left := end - time.monotonic()) > 0:
            self._take(left)

    def kill(self) -> None:
        """SIGKILL, then take everything that it still said; it is gone when this returns."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
        self.hear_until("gone")

    def _take(self, seconds: float) -> str | None:
        line = self._server.line(seconds)
        if line is None:
            assert seconds < PATIENCE_SECONDS, "the child says nothing any more"
        elif line.startswith("["):
            self.heard.append(json.loads(line))
        elif line.startswith("gone "):
            self.status = int(line.removeprefix("gone "))
        else:
            assert not line.startswith("{"), line  # the child met an error that it must not meet
        return line


class ForkServer:
    """``with ForkServer() as server: life = server.start({...})``; one life at a time."""

    def __enter__(self) -> ForkServer:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._rest = b""
        self._lines: list[str] = []
        return self

    def __exit__(self, *about: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_SECONDS)

    def start(self, job: dict[str, object]) -> Life:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        first = self.line(PATIENCE_SECONDS)
        early = []
        while first is not None and not first.startswith("pid "):  # the child may be quicker than the server's own line
            early.append(first)
            first = self.line(PATIENCE_SECONDS)
        assert first is not None, "the fork server says nothing"
        self._lines[:0] = early
        return Life(self, int(first.removeprefix("pid ")))

    def line(self, seconds: float) -> str | None:
        """The next line, or None when none comes in time."""
        assert self._process.stdout is not None
        while not self._lines:
            if not select.select([self._process.stdout], [], [], max(seconds, 0))[0]:
                return None
            data = os.read(self._process.stdout.fileno(), 65_536)
            assert data, "the fork server is gone"
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines = [line.decode() for line in lines]
        return self._lines.pop(0)
