"""How a process and the owner of a ledger begin to speak, from the process's side."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Final

from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.path import SocketPath

GREETING_SECONDS: Final = 5.0
"""How long the owner may take to say who it is: it may be busy with a large customer, or be a process that was stopped."""
ROUND_SECONDS: Final = 0.5
"""How often a silent line looks after what has waited too long, and says which steps live: below the least
``hold_ttl_seconds``."""
BUFFER: Final = 256 << 10


def greeted(sock: socket.socket, process: str, path: SocketPath) -> str:
    """Say who we are; the owner's name."""
    try:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # refused unheard: what it said of that is to be read
            sock.sendall(wire.framed(wire.Hello(wire.VERSION, process)))
        size = int.from_bytes(_exactly(sock, wire.HEADER), "big")
        if size > wire.MAX_FRAME:
            raise wire.Garbage(f"a greeting of {size} bytes")
        greeting = wire.read_of_owner(_exactly(sock, size))
    except (OSError, wire.Garbage) as error:
        what = f"the owner behind {path.path} did not greet ({error})"
        raise OwnerUnavailable(what, "", "see whether its process is stopped; then send it again") from None
    if isinstance(greeting, wire.Refusal):
        raise OwnerUnavailable(greeting.what, greeting.owner, greeting.advice)
    if not isinstance(greeting, wire.Welcome):
        raise OwnerUnavailable(f"what listens at {path.path} is no owner of a ledger", "", "remove the file")
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    # A time-out of the kernel's: one system call for an answer, where Python's own would take two.
    seconds = struct.pack("ll", int(ROUND_SECONDS), round(ROUND_SECONDS % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    return greeting.owner


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError(errno.ECONNRESET, "it closed the connection")
        data += more
    return data
