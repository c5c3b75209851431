"""Whatever one process does at the owner's door, the others are served as before."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentbudget.account.commands import OpenSession, Read
from agentbudget.account.decision import Held, Opened
from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.runtime.machine import answers as wire_answers
from agentbudget.runtime.machine import server as socket_server
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.machine.path import SocketPath
from tests.sockets.support import PATIENCE, balance, hold, spend

HELLO = wire.framed(wire.Hello(wire.VERSION, "a test"))
READ_BALANCE = wire.framed(wire.Batch([("acme", wire.packed(Read("balance")))]))


class Raw:
    """A connection that says whatever bytes it is told to."""

    def __init__(self, path: Path, *, greets: bool = True) -> None:
        self.sock = SocketPath(str(path)).connect(PATIENCE)
        if greets:
            self.sock.sendall(HELLO)
            assert isinstance(self.read(), wire.Welcome)

    def read(self) -> wire.FromOwner | None:
        """The next message; None when the owner has closed the connection."""
        size = self._exactly(wire.HEADER)
        return None if size is None else wire.read_of_owner(self._exactly(int.from_bytes(size, "big")) or b"")

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                more = self.sock.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            data += more
        return data

    def is_closed(self) -> bool:
        """Whether nothing more comes; waits for the end."""
        while True:
            message = self.read()
            if message is None:
                return True


Connect = Callable[..., Raw]


@pytest.fixture
def connect(path: Path, client: MachineHost) -> Iterator[Connect]:
    """Raw connections to the owner, which serves a good client too: at the end it still does."""
    made: list[Raw] = []

    def connect(**how: bool) -> Raw:
        made.append(Raw(path, **how))
        return made[-1]

    yield connect
    spend(client, "at the end")
    assert isinstance(client.ask("acme", hold("last")), Held)
    for raw in made:
        raw.sock.close()


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">I", 5) + b"\xc1garb",
        struct.pack(">I", wire.MAX_FRAME + 1),
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\nHost: ledger\r\n\r\n",
        random.Random(4).randbytes(10_000),
        wire.framed(wire.Nudge()),
        READ_BALANCE[: wire.HEADER] + b"\x00" * (len(READ_BALANCE) - wire.HEADER),
    ],
    ids=["no-msgpack", "too-long", "huge-length", "http", "chance", "an-owner's-message", "zeros"],
)
@pytest.mark.parametrize("greets", [True, False], ids=["greeted", "not-greeted"])
def test_garbage_closes_who_sent_it(connect: Connect, garbage: bytes, greets: bool) -> None:
    raw = connect(greets=greets)
    raw.sock.sendall(garbage)
    assert raw.is_closed()


def test_a_batch_before_the_greeting_closes_who_sent_it(connect: Connect) -> None:
    raw = connect(greets=False)
    raw.sock.sendall(READ_BALANCE)
    assert raw.is_closed()


def test_another_version_is_told_so(connect: Connect, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = connect(greets=False)
    raw.sock.sendall(wire.framed(wire.Hello(wire.VERSION + 1, "from the future")))
    refusal = raw.read()
    assert isinstance(refusal, wire.Refusal)
    assert "version" in refusal.what
    assert "same version" in refusal.advice
    assert raw.is_closed()


def test_a_process_of_another_version_cannot_open_the_ledger(
    owner: MachineHost, opened: Callable[..., MachineHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentbudget.runtime.machine import greeting as socket_greeting

    class Future:
        """``wire`` as the next version has it."""

        VERSION = wire.VERSION + 1

        def __getattr__(self, name: str) -> object:
            return getattr(wire, name)

    monkeypatch.setattr(socket_greeting, "wire", Future())
    with pytest.raises(OwnerUnavailable, match="version") as refused:
        opened(timeout_seconds=0.05)
    assert "same version" in refused.value.advice


def test_half_a_frame_keeps_nobody_waiting(connect: Connect, client: MachineHost) -> None:
    halves = [connect() for _ in range(5)]
    for n, raw in enumerate(halves):
        raw.sock.sendall(READ_BALANCE[: n + 2])
    spend(client, "a")
    for n, raw in enumerate(halves):
        raw.sock.sendall(READ_BALANCE[n + 2 :])
        assert isinstance(raw.read(), wire.Answers)
    halves[0].sock.sendall(READ_BALANCE[:7])
    halves[0].sock.close()
    spend(client, "b")


def test_one_malformed_command_spoils_no_other(connect: Connect) -> None:
    raw = connect()
    commands = [("acme", wire.packed(Read("balance"))), ("acme", b"\xc1"), ("nobody", wire.packed(Read("balance")))]
    raw.sock.sendall(wire.framed(wire.Batch(commands)))
    message = raw.read()
    assert isinstance(message, wire.Answers)
    found = [wire_answers.received(answer) for answer in message.answers]
    assert [isinstance(one, InvalidRequest) for one in found] == [False, True, True]


def test_a_flood_waits_for_itself(connect: Connect, client: MachineHost) -> None:
    """Its frames are read one at a time; a good client gets its turns in between."""
    flood = connect()
    flood.sock.setblocking(False)
    sent = 0
    for n in range(400):
        try:
            sent += flood.sock.send(READ_BALANCE * 20)
        except BlockingIOError:  # the owner looks away: the flood is in the flooder's own socket
            spend(client, f"meanwhile-{n}")
            if n > 20:
                break
    flood.sock.setblocking(True)
    for _ in range(sent // len(READ_BALANCE)):
        assert isinstance(flood.read(), wire.Answers)


def test_who_does_not_read_is_closed_and_holds_a_bounded_answer(
    connect: Connect, client: MachineHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "STALLED_SECONDS", 0.0)
    monkeypatch.setattr(socket_server, "ROUND_SECONDS", 0.01)
    for n in range(40):
        client.ask("acme", OpenSession(f"session-{n}", budget=1))
    slow = connect()
    view = ("acme", wire.packed(Read("sessions")))
    slow.sock.sendall(wire.framed(wire.Batch([view] * 300)))  # some megabytes, far more than a socket takes
    for n in range(20):
        spend(client, f"meanwhile-{n}")
    size = int.from_bytes(slow.sock.recv(wire.HEADER, socket.MSG_WAITALL), "big")
    came = 0
    while data := slow.sock.recv(1 << 20):
        came += len(data)
    assert came < size  # the rest was thrown away with the connection


def test_who_reads_slowly_gets_everything(connect: Connect, client: MachineHost) -> None:
    for n in range(40):
        client.ask("acme", OpenSession(f"session-{n}", budget=1))
    slow = connect()
    view = ("acme", wire.packed(Read("sessions")))
    for _ in range(2):
        slow.sock.sendall(wire.framed(wire.Batch([view] * 300)))
        spend(client, "meanwhile")
        message = slow.read()
        assert isinstance(message, wire.Answers)
        assert len(message.answers) == 300


def test_an_answer_that_is_too_large_is_refused_alone(client: MachineHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_REPLY", 2_000)
    monkeypatch.setattr(wire, "MAX_COMMANDS", 2)
    for n in range(40):
        client.ask("acme", OpenSession(f"session-{n}", budget=1))
    with pytest.raises(InvalidRequest, match="read_only"):
        client.ask("acme", Read("sessions"))
    assert balance(client).held == 0


def test_a_command_that_is_too_large_is_refused_where_it_is_said(client: MachineHost) -> None:
    huge = OpenSession("huge", entities=tuple(f"user:{n}" for n in range(400_000)))
    with pytest.raises(InvalidRequest, match="bytes"):
        client.ask("acme", huge)


def test_a_command_larger_than_a_socket_takes_arrives(client: MachineHost) -> None:
    large = OpenSession("large", feature="x" * 1_000_000)
    assert client.ask("acme", large) == Opened(("large",))
    spend(client, "a")


def test_more_processes_than_the_owner_serves_are_refused(
    connect: Connect, opened: Callable[..., MachineHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "MAX_CLIENTS", 3)
    one = connect()  # with the good client: two
    connect()
    refused = connect(greets=False)
    assert isinstance(refused.read(), wire.Refusal)
    assert refused.is_closed()
    with pytest.raises(OwnerUnavailable, match="most it serves"):
        opened(timeout_seconds=0.05)
    one.sock.sendall(b"\xff\xff\xff\xff")
    assert one.is_closed()
    assert not opened().is_owner


def test_who_never_greets_loses_its_place(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_server, "GREETING_SECONDS", 0.0)
    monkeypatch.setattr(socket_server, "ROUND_SECONDS", 0.01)
    silent = connect(greets=False)
    assert silent.is_closed()


def test_who_greeted_may_be_silent(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle process keeps its line, and the owner's thread sleeps meanwhile."""
    idle = connect()
    monkeypatch.setattr(socket_server, "GREETING_SECONDS", 0.0)
    late = connect(greets=False)  # something to look round for
    assert late.is_closed()
    idle.sock.sendall(READ_BALANCE)
    assert isinstance(idle.read(), wire.Answers)
