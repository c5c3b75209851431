"""The messages between a process and an owner that is a Ray actor: those of the socket (``wire.py``) in an envelope, since
there is no connection that would say who speaks, and that it has ended.

Bytes of msgpack, decoded by type: what travels is the same whatever a program defines in its ``__main__``, and errors arrive
as themselves. The version comes first and keeps its place, so that two processes that differ can say so.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from agentbudget.account.commands import AdjustGrant, ClearReceivable, Command, FundSession, IssueGrant, VoidGrant
from agentbudget.errors import AgentBudgetError
from agentbudget.runtime.ids import new_id
from agentbudget.runtime.wire import VERSION as VERSION
from agentbudget.runtime.wire import Answers, Batch
from agentbudget.runtime.wire_answers import Sent, received, to_send


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
read_said: Final = msgspec.msgpack.Decoder(Said).decode
read_reply: Final = msgspec.msgpack.Decoder(FromOwner).decode


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
        return msgspec.structs.replace(command, key=f"once:{new_id()}")
    return command
