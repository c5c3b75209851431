"""The messages between a process and an owner that is a Ray actor: those of the socket (``machine/wire.py``) in an envelope,
since there is no connection that would say who speaks, and that it has ended.

Bytes of msgpack, decoded by type: what travels is the same whatever a program defines in its ``__main__``, and errors arrive
as themselves. The version comes first and keeps its place, so that two processes that differ can say so.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from agentbudget.account.commands import AdjustGrant, ClearReceivable, Command, FundSession, IssueGrant, VoidGrant
from agentbudget.errors import AgentBudgetError, InvalidRequest, OwnerUnavailable
from agentbudget.runtime.ids import id_for
from agentbudget.runtime.machine.answers import Sent, received, to_send
from agentbudget.runtime.machine.wire import VERSION as VERSION
from agentbudget.runtime.machine.wire import Answers, Batch


class Said(Struct, frozen=True, array_like=True, tag="said"):
    """What a process says at once. ``process``: its name for the owner, which never is another's. ``leaving``: it says nothing
    more, and works on no step."""

    version: int
    process: str
    batch: Batch
    leaving: bool = False


class Served(Struct, frozen=True, array_like=True, tag="served"):
    """What became of it. ``owner``: who answered, and which incarnation of it. ``news``: grows when something is asked back.
    ``moved``: shards that another owner has, by name: commands of their customers were not looked at."""

    owner: str
    news: int
    moved: list[tuple[int, str]]
    answers: Answers


class Refused(Struct, frozen=True, array_like=True, tag="refused"):
    """The owner serves nobody for now, and has looked at nothing."""

    error: Sent


FromOwner: TypeAlias = Served | Refused

encode = msgspec.msgpack.Encoder().encode
_read_said: Final = msgspec.msgpack.Decoder(Said).decode
_FAULTS: Final = (msgspec.MsgspecError, TypeError, ValueError, LookupError, OverflowError, RecursionError)
read_reply: Final = msgspec.msgpack.Decoder(FromOwner).decode


def read_said(message: bytes, owner: str) -> Said | AgentBudgetError:
    """What a process said, or why ``owner`` does not understand it."""
    try:
        said: Said = _read_said(message)
    except _FAULTS as error:
        version = _version_of(message)
        if version == VERSION:
            return InvalidRequest(f"what came is no message ({error})", "message")
    else:
        if said.version == VERSION:
            return said
        version = said.version
    what = f"the ledger's owner speaks version {VERSION} of the messages, this process {version}"
    return OwnerUnavailable(what, owner, "run the same version of agentbudget on every node, and restart the owner")


def _version_of(message: bytes) -> int:
    """Of a message whose shape is another version's; our own where there is none to be seen."""
    try:
        version = msgspec.msgpack.decode(message)[1]
    except _FAULTS:
        return VERSION
    return version if isinstance(version, int) else VERSION


def refused(error: AgentBudgetError) -> Refused:
    return Refused(to_send(error))


def why(refusal: Refused) -> AgentBudgetError:
    """The error as the owner had it."""
    error = received(refusal.error)
    return error if isinstance(error, AgentBudgetError) else AgentBudgetError(str(error))


_ADDING: Final = (IssueGrant, VoidGrant, AdjustGrant, ClearReceivable, FundSession)


def keyed(command: Command) -> Command:
    """The command under a durable key: Ray carries a call out again when the owner died in the middle of it, and without one
    these five would add twice (law L4)."""
    if isinstance(command, _ADDING) and command.key is None:
        return msgspec.structs.replace(command, key=f"once:{id_for(_raw(command))}")
    return command


def _raw(command: Command) -> Command:
    """What was stated: a grant's id is made up where none is given, and is another one when the work is done again."""
    return msgspec.structs.replace(command, grant="") if isinstance(command, IssueGrant) else command
