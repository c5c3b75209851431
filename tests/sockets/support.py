"""Hosts on one ledger file, in this process and in real others."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from agentbudget import Catalog
from agentbudget.account.commands import Command, CreateCustomer, Hold, IssueGrant, OpenSession, Read, SettleHold
from agentbudget.account.decision import BalanceView
from agentbudget.clock import Clock, SystemClock
from agentbudget.ledger.sql import SqlArchive
from agentbudget.ledger.store import open_journal
from agentbudget.runtime.auditing import reconcile_ledger
from agentbudget.runtime.machine.host import MachineHost

PREPAID = Catalog.loads('[plans.prepaid]\nwallet = "prepaid"', source="prepaid").terms("prepaid")
GRANTED = 10**12
START: tuple[Command, ...] = (
    CreateCustomer(PREPAID),
    IssueGrant("welcome", GRANTED, key="welcome"),
    OpenSession("run", budget=GRANTED),
)
BALANCE = Read("balance")
PATIENCE = 30.0
"""Seconds until what never comes is a failure."""


def hold(step: str, amount: int = 10) -> Hold:
    return Hold(step, "run", "tool", amount, {"steps": 1}, tool="search")


def open_host(path: Path, *, clock: Clock | None = None, timeout_seconds: float = PATIENCE) -> MachineHost:
    clock = clock or SystemClock()
    return MachineHost(
        lambda: open_journal(f"sqlite:///{path}", clock=clock), str(path), clock, timeout_seconds=timeout_seconds
    )


def begin(host: MachineHost) -> MachineHost:
    """A customer with credits and an open session; again: the same."""
    for command in START:
        host.ask("acme", command)
    return host


def balance(host: MachineHost) -> BalanceView:
    view = host.ask("acme", BALANCE)
    assert isinstance(view, BalanceView)
    return view


def spend(host: MachineHost, step: str, amount: int = 10) -> None:
    """A step, held and settled."""
    host.ask("acme", hold(step, amount))
    host.ask("acme", SettleHold(step, amount))


def is_sound(path: Path) -> bool:
    """The chain verifies, and folds and postings agree (L2, L6, L7)."""
    from agentbudget.ledger.chain import verify_ledger

    archive = SqlArchive.open(f"sqlite:///{path}")
    try:
        return verify_ledger(archive).ok and reconcile_ledger(archive) == []
    finally:
        archive.close()


class Child:
    """A forked process that runs ``work(child)``. What it says, a line of JSON each, :meth:`hear` gives to the parent; what
    the parent says, :meth:`wait` gives to it. It ends without cleaning up after itself, unless its work does."""

    def __init__(self, work: Callable[[Child], object]) -> None:
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(from_child)
            os.close(to_child)
            self._in, self._out = os.fdopen(from_parent), to_parent
            self._run(work)
        os.close(to_parent)
        os.close(from_parent)
        self._in, self._out = os.fdopen(from_child), to_child

    def _run(self, work: Callable[[Child], object]) -> None:
        code = 1
        try:
            work(self)
            code = 0
        except BaseException:
            self.say({"failed": traceback.format_exc()})
        finally:
            os._exit(code)

    def say(self, what: object) -> None:
        os.write(self._out, json.dumps(what).encode() + b"\n")

    def hear(self) -> Any:
        line = self._in.readline()
        assert line, "the process ended without a word"
        said = json.loads(line)
        assert not (isinstance(said, dict) and "failed" in said), said["failed"]
        return said

    wait = hear

    def rest(self) -> list[Any]:
        """What it said until it ended; a word that a kill cut is no word."""
        return [json.loads(line) for line in self._in if line.endswith("\n")]

    def kill(self, how: int = signal.SIGKILL) -> None:
        os.kill(self.pid, how)

    def stop(self) -> None:
        """Stop it; it does nothing more from here on until it gets SIGCONT."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def end(self) -> int:
        """Its exit status, once it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self._out)
        self._in.close()


def own(path: Path) -> Child:
    """A process that owns the ledger, and stays until it is told to go (``say``) or killed."""

    def work(child: Child) -> None:
        host = begin(open_host(path))
        child.say(host.is_owner)
        child.wait()
        host.close()

    child = Child(work)
    assert child.hear() is True
    return child
