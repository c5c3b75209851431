"""What never reaches an account: values of the wrong type, which would be written and then never be read again, and commands
for a customer that nobody created."""

from __future__ import annotations

from typing import Literal, get_args, get_origin, get_type_hints

import msgspec

from agentbudget.account.commands import Command, Explain, ExtendHold, FanOut, FundSession, Hold, OpenSession
from agentbudget.account.decision import Decision
from agentbudget.errors import InvalidRequest

_STEPS_AND_SESSIONS = (Hold, ExtendHold, OpenSession, FanOut, FundSession, Explain)

_pack = msgspec.msgpack.Encoder().encode
_checked = msgspec.msgpack.Decoder(Command).decode  # a union is a type to msgspec


def malformed(command: Command) -> InvalidRequest | None:
    """What is wrong with the types in a command that was not decoded as a ``Command``; None when nothing is."""
    try:
        _checked(_pack(command))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        what, _, place = str(error).partition(" - at ")
        field = place.strip("`").removeprefix("$.")
        words = _words_of(command, field) if what.startswith("Invalid enum value") else ()
        return InvalidRequest(
            f"{what}; use one of {', '.join(words)}" if words else what, field or type(command).__name__
        )
    return None


def _words_of(command: Command, field: str) -> tuple[str, ...]:
    """What a field may be that is one of a few words; empty for any other."""
    kind = get_type_hints(type(command)).get(field)
    plain = [one for part in (kind, *get_args(kind)) if get_origin(part) is Literal for one in get_args(part)]
    return tuple(dict.fromkeys(plain))


def unknown_customer(customer: str, command: Command) -> Decision | InvalidRequest:
    """The answer: a refusal where steps are concerned."""
    advice = f"create it with runtime.customers.create({customer!r}, plan=...)"
    if isinstance(command, _STEPS_AND_SESSIONS):
        return Decision(False, "unknown_customer", detail=f"no customer {customer!r}", suggestions=(advice,))
    return InvalidRequest(f"there is no customer {customer!r}; {advice}", "customer")
