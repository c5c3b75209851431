"""Real processes that share one ledger: started, heard, told, stopped and killed, and never left behind."""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

PATIENCE = 60.0
"""Seconds until what never comes is a failure; nothing here waits so long when all is well."""


class Life:
    """A forked process that runs ``work(life)``. What it says, a line of JSON each, the test hears; what the test tells it, it
    hears in :meth:`wait`. It ends without cleaning up after itself, unless its work does: a kill leaves the same."""

    def __init__(self, work: Callable[[Life], object]) -> None:
        from_child, self._out = os.pipe()
        from_parent, to_child = os.pipe()
        self.pid = os.fork()
        self.status: int | None = None
        self.said: list[Any] = []
        self._rest = b""
        if self.pid == 0:
            os.close(from_child)
            os.close(to_child)
            self._in = from_parent
            self._run(work)
        os.close(self._out)
        os.close(from_parent)
        self._in, self._out = from_child, to_child

    def _run(self, work: Callable[[Life], object]) -> None:
        signal.alarm(3_600)  # whatever happens to the test, nothing stays behind
        code = 1
        try:
            work(self)
            code = 0
        except BaseException:
            self.say({"failed": traceback.format_exc()[-3_000:]})
        finally:
            os._exit(code)

    def say(self, *what: Any) -> None:
        """One line in one write, shorter than a pipe's atomic size: a kill cuts none, threads mix none."""
        os.write(self._out, json.dumps(what[0] if len(what) == 1 else what).encode() + b"\n")

    def fileno(self) -> int:
        return self._in

    def take(self) -> bool:
        """Take what there is to hear (blocks until there is some); False when it has ended."""
        data = os.read(self._in, 65_536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            assert not (isinstance(said, dict) and "failed" in said), said["failed"]
            self.said.append(said)
        return bool(data)

    def hear(self, seconds: float = PATIENCE) -> Any:
        """The next thing that it says."""
        deadline = time.monotonic() + seconds
        while not self.said:
            assert select.select([self], [], [], max(0.0, deadline - time.monotonic()))[0], "it says nothing any more"
            assert self.take() or self.said, "it ended without a word"
        return self.said.pop(0)

    def tell(self, *what: Any) -> None:
        self.say(*what)

    wait = hear

    def ask(self, *what: Any) -> Any:
        """Tell it something and hear what it says to that."""
        self.tell(*what)
        return self.hear()

    def kill(self) -> None:
        """SIGKILL; what it had said by then is in ``said``, and it is gone when this returns."""
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Hear the rest, and how it ended."""
        if self.status is None:
            deadline = time.monotonic() + PATIENCE
            while select.select([self], [], [], max(0.0, deadline - time.monotonic()))[0] and self.take():
                pass
            assert time.monotonic() < deadline, "it does not end"
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def finish(self) -> None:
        """It was told to end, and does so in order."""
        assert self.end() == 0

    def bury(self) -> None:
        """Whatever it was doing."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._in)
        os.close(self._out)


class Crew:
    """Processes of one test; all of them are gone after ``with``."""

    def __enter__(self) -> Crew:
        self._stack = ExitStack()
        self.lives: list[Life] = []
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, work: Callable[[Life], object]) -> Life:
        life = Life(work)
        self._stack.callback(life.bury)
        self.lives.append(life)
        return life

    def hear_until(self, enough: Callable[[], bool]) -> None:
        """Hear everybody who lives until there is enough, or nobody is left."""
        with selectors.DefaultSelector() as selector:
            for life in self.lives:
                if life.status is None:
                    selector.register(life, selectors.EVENT_READ)
            while selector.get_map() and not enough():
                ready = selector.select(PATIENCE)
                assert ready, "nobody says anything any more"
                for key, _ in ready:
                    if not key.fileobj.take():  # type: ignore[union-attr]
                        selector.unregister(key.fileobj)
