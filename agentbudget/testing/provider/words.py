"""What the fake's model says, how it counts tokens, and what it bills: independent of agentbudget on purpose.

A token is up to four letters of a word with the blanks before it, or one other sign. Prices are nanocredits: ``flat*`` costs a
credit a call, everything else 1,000 a token of input (100 if it was cached) and 10,000 a token of output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Body = dict[str, Any]
Api = Literal["chat", "responses", "embeddings", "messages"]

FLAT: Final = 1_000_000_000
INPUT, CACHED, OUTPUT = 1_000, 100, 10_000
_PIECE: Final = re.compile(r"\s*\w{1,4}|\s*[^\w\s]")
_SAID: Final = ("messages", "input", "system", "instructions", "tools")
_NOT_SAID: Final = frozenset(
    {"call_id", "id", "model", "object", "role", "status", "strict", "tool_call_id", "tool_use_id", "type"}
)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How the fake answers one request.

    text: what the model says (whole, or up to the request's cap). tools: calls that it makes instead of the text (with
    ``text=""``) or after it, as (name, arguments). status: an error's, for which nothing is billed. cached_tokens: so many of
    the input were cached. reasoning_tokens: output that is not shown.
    usage: a stream states it ``once`` at its end (OpenAI: where the request includes it), ``never`` (Anthropic always does),
    ``twice``, or ``running``: in every chunk, the total so far. obeys_cap: False produces the whole text whatever the cap.
    stalls: the work is done and billed, and then nothing is answered until the client has gone. stalls_after,
    breaks_after: a stream's pieces, after which it does that, or after which the connection breaks.
    """

    text: str = "a short answer"
    tools: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    status: int = 200
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage: Literal["once", "never", "twice", "running"] = "once"
    obeys_cap: bool = True
    stalls: bool = False
    stalls_after: int | None = None
    breaks_after: int | None = None


@dataclass(frozen=True)
class Asked:
    """One request, as the fake reads it."""

    api: Api
    model: str
    cap: int | None
    is_stream: bool
    includes_usage: bool
    input_tokens: int


@dataclass(frozen=True)
class Answer:
    """What is said to a request: visible pieces (a token each), then calls of tools (id, name, arguments as JSON)."""

    asked: Asked
    served: str
    pieces: list[str]
    tools: list[tuple[str, str, str]]
    reasoning: int
    cached: int
    usage: str
    is_cut: bool
    tool_tokens: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def output_tokens(self) -> int:
        return self.reasoning + len(self.pieces) + sum(self.tool_tokens)


def pieces(text: str) -> list[str]:
    """The tokens of a text."""
    return _PIECE.findall(text)


def asked_of(path: str, body: Body) -> Asked:
    """Read a request."""
    api: Api = "chat"
    for end, name in (("/messages", "messages"), ("/responses", "responses"), ("/embeddings", "embeddings")):
        if path.partition("?")[0].endswith(end):
            api = name  # type: ignore[assignment]
    caps = (body.get(name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
    said = sum(_tokens(body.get(name)) for name in _SAID)
    return Asked(
        api, str(body.get("model")), next((cap for cap in caps if cap is not None), None), bool(body.get("stream")),
        bool((body.get("stream_options") or {}).get("include_usage")), max(1, said),
    )  # fmt: skip


def _tokens(said: Any) -> int:
    if isinstance(said, str):
        return len(pieces(said))
    if isinstance(said, Mapping):
        return sum(_tokens(value) for name, value in said.items() if name not in _NOT_SAID)
    return sum(map(_tokens, said)) if isinstance(said, list) else 0


def answer_to(asked: Asked, reply: Reply, number: int) -> Answer:
    """What the model says to the request with that number."""
    said = pieces(reply.text)
    room = len(said) if asked.cap is None or not reply.obeys_cap else max(0, asked.cap - reply.reasoning_tokens)
    tools = [(f"call_{number}_{at}", name, json.dumps(args)) for at, (name, args) in enumerate(reply.tools)]
    if asked.api == "embeddings":
        said, tools = [], []
    return Answer(
        asked, f"{asked.model}-2025-08-07", said[:room], tools, reply.reasoning_tokens,
        min(reply.cached_tokens, asked.input_tokens), reply.usage, room < len(said),
        [len(pieces(name)) + len(pieces(args)) for _, name, args in tools],
    )  # fmt: skip


def bill(model: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
    """Nanocredits of a call; ``input_tokens`` include those cached."""
    if model.startswith("flat"):
        return FLAT
    return (input_tokens - cached_tokens) * INPUT + cached_tokens * CACHED + output_tokens * OUTPUT
