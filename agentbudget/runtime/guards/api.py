"""What a guard must know about a provider's HTTP API: which requests cost, what they may cost, and what their replies state.

An integration describes its provider by an :class:`Api`; how requests are held, sent, tried again and settled is the same for
all of them and lives beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from agentbudget.account.commands import Kind
from agentbudget.catalog import Usage
from agentbudget.errors import InvalidRequest

Body = Mapping[str, Any]


class Call(Struct, frozen=True, kw_only=True):
    """One request, as a hold sees it. ``cap``: the output cap that it carries (None: none). ``cap_name``: the field that takes
    one (None: the API has none). ``quantity``: how many candidates it asks for. ``server_tools``: the provider may run, and
    bill, tools of its own. ``name``: of what is no model call, for the catalog's rates."""

    kind: Kind
    model: str | None = None
    name: str | None = None
    provider: str | None = None
    request: Any = None
    cap: int | None = None
    cap_name: str | None = None
    quantity: int = 1
    server_tools: bool = False


class Heard(Struct, frozen=True):
    """What a stream has said so far. ``usage``: the most that it stated. ``is_last``: the reply is whole. ``is_extra``: this
    event is there only because the guard asked for usage, so the caller is not shown it. ``waits``: the usage may come after this
    event, which may be the last that the caller reads, so it is passed on with the next one."""

    usage: Usage | None = None
    is_last: bool = False
    is_extra: bool = False
    waits: bool = False


class Api(Protocol):
    """A provider's HTTP API."""

    def call_of(self, path: str, body: Any) -> Call | None:
        """The call that a POST makes, None for one that costs nothing."""
        ...

    def sent(self, path: str, body: Body) -> Body:
        """The body as it is sent: streams are asked to state their usage."""
        ...

    def heard(self, request: Any, event: Any, before: Heard) -> Heard:
        """What a stream has said with this event (its JSON, or the bare text of its data). ``request``: the call's, as the caller
        made it."""
        ...


BYTES_PER_TOKEN: Final = 2
"""Of streamed text, until the usage is stated: the catalog's ``typical`` estimate (prose has 4)."""

_NOT_SAID: Final = frozenset({"role", "type", "id", "index", "stop_reason", "stop_sequence", "signature"})


def tokens_in(event: Any) -> int:
    """The tokens that an event of a stream brings, by the bytes of its text."""
    if not isinstance(event, Mapping):
        return 0
    choices = event.get("choices")
    said = [event.get("delta"), *(choices if isinstance(choices, list) else ())]
    return -(-sum(map(_bytes_said, said)) // BYTES_PER_TOKEN)


def _bytes_said(node: Any) -> int:
    if isinstance(node, str):
        return len(node.encode("utf-8", "replace"))
    if isinstance(node, Mapping):
        return sum(_bytes_said(value) for name, value in node.items() if name not in _NOT_SAID)
    return sum(map(_bytes_said, node)) if isinstance(node, list) else 0


END_OF_STREAM: Final = "[DONE]"


def usage_in(reply: Any) -> Usage | None:
    """The usage that a reply states, None where it states none, or nothing that can be counted."""
    try:
        return Usage.of(reply)
    except InvalidRequest:
        return None


def usage_in_json(content: bytes) -> Usage | None:
    """The usage that the bytes of a reply state."""
    try:
        return usage_in(msgspec.json.decode(content))
    except (ValueError, RecursionError):
        return None


def merged(a: Usage | None, b: Usage | None) -> Usage | None:
    """Two reports of one call: the fieldwise maximum, never the sum."""
    if a is None or b is None:
        return a if b is None else b
    return Usage.merge_max(a, b)


def whole(value: Any) -> int | None:
    """A positive whole number of a request, else None."""
    return value if type(value) is int and value > 0 else None


def text_of(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
