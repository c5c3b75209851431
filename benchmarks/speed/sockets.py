"""Rows ``socket`` and ``processes``: strict steps of other processes, through the owner's Unix socket."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from agentbudget.account.commands import Command
from agentbudget.clock import SystemClock
from agentbudget.ledger import open_journal
from agentbudget.ledger.sql import SqlJournal
from agentbudget.runtime.host import Host
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.answers import to_send
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.owner.local_host import LocalHost
from benchmarks.speed.measure import Effort, Row, figure, figures, taking_turns
from benchmarks.speed.owner import CREATION, GROUPED, Bare, bare_rate, hold, ledgers, rate, rows_of_a_step, settle

MOST_RATIO: Final = 2
LEAST_STEPS: Final = 10_000
CALLERS: Final = 64
FLOOR: Final = "socket echo of its frame, with a bare commit between"
COMMAND: Final = "strict command over the socket"


def one_caller(effort: Effort) -> Row:
    """One command after the other over the socket, against the least that a durable answer over a socket can cost."""
    with ledgers() as url, ExitStack() as stack:
        stack.enter_context(_owner(url("ledger")))
        client = _host(url("ledger"))
        stack.callback(client.close)
        request, reply = _frames(client)
        runs: dict[str, Callable[[], object]] = {
            "socket echo of its frame": stack.enter_context(_echo(request, reply, None)),
            "bare commit of a row": _Commits(url("bare")).commit,
            FLOOR: stack.enter_context(_echo(request, reply, url("echo"))),
            COMMAND: _commands(client),
        }
        found = figures(taking_turns(runs, rounds=2 * effort.rounds, block=20, warm_up=20))
    what = "a hold or its settlement from another process, durable before its answer; one caller"
    row = Row("socket", what, found, f"<= {MOST_RATIO} x its floor", floor=FLOOR)
    ratio = row.ratio(row[COMMAND]) or 0
    return Row(row.name, row.what, found, row.target, ratio <= MOST_RATIO, FLOOR)


def many_callers(effort: Effort) -> Row:
    """64 callers on one customer: threads of the owner's process, and of one to four others."""
    steps = max(4, effort.rounds)
    found = []
    with ledgers() as url:
        bare = Bare(url("bare"), rows_of_a_step(url("rows")), triggers=False)
        floors = [bare_rate(bare.steps, CALLERS, times=steps) for _ in range(2)]
        found.append(figure(GROUPED, "steps/s", floors))
        host = LocalHost(SqlJournal.open(url("local")), SystemClock())
        _create(host)
        rates = [_rate(host, CALLERS, steps) for _ in range(2)]
        host.close()
        found.append(figure(f"{CALLERS} threads of the owner's process", "steps/s", rates))
        with _owner(url("ledger")):
            for processes in (1, 2, 4):
                rates = [_rate_of(url("ledger"), processes, steps) for _ in range(2)]
                found.append(figure(f"{CALLERS} threads of {processes} other process(es)", "steps/s", rates))
    best = max(one.median for one in found[2:])
    what = f"durable steps a second (hold + settle) of {CALLERS} callers on one customer"
    notes = ["the least is the slower of two runs, which share the machine with whatever else it does"]
    return Row("processes", what, found, f">= {LEAST_STEPS:,} steps/s", best >= LEAST_STEPS, GROUPED, notes)


# --- who is measured -------------------------------------------------------------------------------------------------


def _host(url: str) -> MachineHost:
    return MachineHost(lambda: open_journal(url), url.removeprefix("sqlite:///"), SystemClock())


def _create(host: Host) -> None:
    for command in CREATION:
        host.ask("acme", command)


def _commands(host: Host) -> Callable[[], object]:
    """A hold and its settlement, in turns."""

    def endless() -> Iterator[Command]:
        for n in itertools.count():
            yield hold(f"{os.getpid()}-{n}")
            yield settle(f"{os.getpid()}-{n}")

    commands = endless()
    return lambda: host.ask("acme", next(commands))


def _rate(host: Host, callers: int, steps: int) -> float:
    """Steps a second of so many threads, each running so many."""
    names = itertools.count()

    def step() -> None:
        name = f"{os.getpid()}-{time.monotonic_ns()}-{next(names)}"
        host.ask("acme", hold(name))
        host.ask("acme", settle(name))

    return rate(step, callers=callers, steps=steps)


def _rate_of(url: str, processes: int, steps: int) -> float:
    """The same threads, divided over so many processes that start together; steps a second until the last has ended."""

    def work(pipe: socket.socket) -> None:
        host = _host(url)
        _rate(host, CALLERS // processes, 2)
        pipe.send(b"ready")
        pipe.recv(1)
        _rate(host, CALLERS // processes, steps)
        pipe.send(b"done")
        pipe.recv(1)
        host.close()

    with ExitStack() as stack:
        pipes = [stack.enter_context(_forked(work)) for _ in range(processes)]
        for pipe in pipes:
            pipe.recv(5)
        start = time.perf_counter_ns()
        for pipe in pipes:
            pipe.send(b"!")
        for pipe in pipes:
            pipe.recv(4)
        elapsed = time.perf_counter_ns() - start
    return CALLERS * steps / elapsed * 1e9


@contextmanager
def _owner(url: str) -> Iterator[None]:
    """Another process that owns the ledger."""

    def work(pipe: socket.socket) -> None:
        host = _host(url)
        _create(host)
        pipe.send(b"ready")
        pipe.recv(1)
        host.close()

    with _forked(work) as pipe:
        pipe.recv(5)
        yield


# --- the floor -------------------------------------------------------------------------------------------------------


def _frames(host: Host) -> tuple[bytes, bytes]:
    """What travels for one command, to and fro."""
    command = hold("a-step-of-which-the-frame-is-taken")
    request = wire.framed(wire.Batch([("acme", wire.packed(command))]))
    return request, wire.framed(wire.Answers([to_send(host.ask("acme", command))]))


class _Commits:
    """Commits of one row as a ledger has them, on the driver's connection."""

    def __init__(self, url: str) -> None:
        self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, record TEXT)")

    def commit(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO rows (record) VALUES (?)", ("x" * 700,))
        self._connection.execute("COMMIT")


@contextmanager
def _echo(request: bytes, reply: bytes, url: str | None) -> Iterator[Callable[[], object]]:
    """A call of another process that answers bytes with bytes, after a commit of its own where it has a file."""

    def work(pipe: socket.socket) -> None:
        commit = _Commits(url).commit if url is not None else lambda: None
        while pipe.recv(65_536):
            commit()
            pipe.sendall(reply)

    with _forked(work) as pipe:

        def call() -> None:
            pipe.sendall(request)
            pipe.recv(65_536)

        yield call


@contextmanager
def _forked(work: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A child that works with one end of a socket pair; it ends when the other is closed."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            work(theirs)
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield ours
        ours.close()
        os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
