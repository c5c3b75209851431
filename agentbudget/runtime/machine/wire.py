"""The messages between a process and the owner of a ledger: a length, then msgpack, decoded by type.

A process has one frame in flight: everything that waits in it goes into the next one, and the owner answers a frame as a
whole, in order. Each command travels as its own bytes, so that one that is malformed spoils no other, and that the same
command can be sent again byte for byte to the next owner (law L4). The greeting says the version: it keeps its shape in
every version, so that two that differ can say so.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from agentbudget.account.commands import (
    AdjustGrant,
    ClearReceivable,
    Command,
    FundSession,
    IssueGrant,
    VoidGrant,
)
from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.machine.answers import Sent

VERSION: Final = 1
"""Of everything below; two processes of different versions do not share an owner."""
MAX_COMMANDS: Final = 512
"""Commands in one frame: as many as the owner takes into one transaction."""
MAX_FRAME: Final = 4 << 20
"""Bytes of a frame to the owner: thousands of reported steps, or a catalog; beyond that somebody sends garbage."""
MAX_COMMAND: Final = 3 << 20
"""Bytes of one command, so that a frame with some more still fits."""
MAX_REPLY: Final = 16 << 20
"""Bytes of a reply. A view that is larger (some 100,000 sessions) is read from the archive instead."""
HEADER: Final = 4
"""Bytes of the length before a frame, the highest first."""


class Hello(Struct, frozen=True, array_like=True, tag="hello"):
    """The first frame of a process: the version it speaks, and its name for people."""

    version: int
    process: str


class Publish(Struct, frozen=True, array_like=True):
    """A catalog document for every process. ``ordinal`` 0: a new one, later than ``seen`` and than what the owner has;
    else what an owner before this one had numbered so."""

    document: bytes
    ordinal: int = 0
    seen: int = 0


class Batch(Struct, frozen=True, array_like=True, tag="batch"):
    """What a process says at once: commands by customer, each packed; a heartbeat; which of its steps live (new ones, and
    those that ended since); a catalog; that what is overdue should be ended now; and of each command the trace that it belongs
    to (W3C ``traceparent``), where somebody traces."""

    commands: Annotated[list[tuple[str, bytes]], Meta(max_length=MAX_COMMANDS)]
    beat: Beat | None = None
    living: list[str] = []
    gone: list[str] = []
    publish: Publish | None = None
    sweep: bool = False
    traces: Annotated[list[str], Meta(max_length=MAX_COMMANDS)] = []


class Welcome(Struct, frozen=True, array_like=True, tag="welcome"):
    """The owner's answer to the greeting; its name is for people."""

    version: int
    owner: str


class Refusal(Struct, frozen=True, array_like=True, tag="refusal"):
    """The owner does not serve this process: why, and what to do. The connection ends."""

    what: str
    owner: str
    advice: str


class Answers(Struct, frozen=True, array_like=True, tag="answers"):
    """What became of a frame, in its order. ``unheard``: why there is no answer to its heartbeat."""

    answers: list[Sent]
    beaten: Beaten | None = None
    ordinal: int = 0
    unheard: Sent | None = None


class Leaving(Struct, frozen=True, array_like=True, tag="leaving"):
    """The owner gives the ledger up and has carried out nothing of the last frame: it goes to the next owner."""


class Nudge(Struct, frozen=True, array_like=True, tag="nudge"):
    """Something is asked back: beat now instead of within a second."""


FromProcess: TypeAlias = Hello | Batch
FromOwner: TypeAlias = Welcome | Refusal | Answers | Leaving | Nudge

_encode = msgspec.msgpack.Encoder().encode
_from_process = msgspec.msgpack.Decoder(FromProcess).decode
_from_owner = msgspec.msgpack.Decoder(FromOwner).decode
_command = msgspec.msgpack.Decoder(Command).decode  # a union is a type to msgspec
_FAULTS: Final = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)


def framed(message: FromProcess | FromOwner) -> bytes:
    """The message with its length before it."""
    body = _encode(message)
    return len(body).to_bytes(HEADER, "big") + body


def read_of_process(body: bytes) -> FromProcess:
    """What a process sent; raises :class:`Garbage` for anything else."""
    try:
        return _from_process(body)  # type: ignore[no-any-return]
    except _FAULTS as error:
        raise Garbage(str(error)) from None


def read_of_owner(body: bytes) -> FromOwner:
    """What an owner sent; raises :class:`Garbage` for anything else."""
    try:
        return _from_owner(body)  # type: ignore[no-any-return]
    except _FAULTS as error:
        raise Garbage(str(error)) from None


class Garbage(Exception):
    """Bytes that are no message: the connection is closed. Never leaves the runtime."""


def packed(command: Command) -> bytes:
    """A command's bytes; raises :class:`InvalidRequest` where a value cannot be written."""
    try:
        return _encode(command)
    except _FAULTS as error:
        raise fault(error, type(command).__name__) from None


def unpacked(data: bytes) -> Command | InvalidRequest:
    """The command, with every value of its declared type, or what is wrong with it."""
    try:
        return _command(data)  # type: ignore[no-any-return]
    except _FAULTS as error:
        return fault(error, "command")


def fault(error: Exception, name: str) -> InvalidRequest:
    """A value of the wrong type: what it is, and where."""
    what, _, place = str(error).partition(" - at ")
    return InvalidRequest(what, place.strip("`").removeprefix("$.") or name)


_ADDING: Final = (IssueGrant, VoidGrant, AdjustGrant, ClearReceivable, FundSession)


def may_be_sent_again(command: Command | Beat | Publish | str) -> bool:
    """Whether carrying it out twice is the same as once: it has a key, sets a state, or reads.

    Every other command is safe: steps, leases, sessions and the customer carry their ids, ``PutEntity``, ``SetLimit``,
    ``SetPaused``, ``AssignPlan``, ``CloseSession``, ``Latch`` and ``SuspendLease`` set what they say, ``Read`` and ``Explain``
    change nothing. These five add, and are known by their key only.
    """
    return not (isinstance(command, _ADDING) and command.key is None)


def may_have_been_carried_out(owner: str) -> OwnerUnavailable:
    """For a command without a key whose answer was lost with the owner."""
    what = "the owner went away before it answered, and this command has no key: it may have been carried out"
    return OwnerUnavailable(what, owner, "look whether it was, then send it again, with a key (key=...)")
