"""What is asked about a price, and what is answered: requests, quotes, charges, and the refusal of what nothing prices."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentbudget.catalog.cards import Card, Size
from agentbudget.catalog.usage import MAX_COUNT, exact
from agentbudget.errors import AgentBudgetError, InvalidRequest

Kind: TypeAlias = Literal["llm", "tool", "retrieval", "embedding", "agent"]
KINDS: Final = ("llm", "tool", "retrieval", "embedding", "agent")


class PriceRequest(Struct, frozen=True, kw_only=True):
    """A step to be priced.

    tool: the tool's or retriever's name. input_tokens: an upper bound (see ``estimate``), for each of ``quantity``
    calls. by_reference: part of the input is elsewhere (URLs, file ids, a stored conversation), so it holds the context
    window. audio: audio goes in or out, so audio prices may apply. server_tools: the provider may run tools of its own
    (searches). seconds, documents: bounds, where a rate counts them. at_us: UTC microseconds (None: now); give the
    charge the same as the quote, since providers price by the time of the request.
    """

    kind: Kind
    model: str | None = None
    tool: str | None = None
    provider: str | None = None
    feature: str | None = None
    workflow: str | None = None
    customer: str | None = None
    input_tokens: int = 0
    max_output_tokens: int | None = None
    by_reference: bool = False
    audio: bool = False
    server_tools: bool = False
    quantity: int = 1
    seconds: Any = None
    documents: int | None = None
    at_us: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidRequest(f"{self.kind!r} is no kind of step: use one of {', '.join(KINDS)}", "kind")
        counts = (("input_tokens", 0), ("max_output_tokens", 0), ("quantity", 1), ("documents", 0))
        for name, least in counts:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= MAX_COUNT):
                raise InvalidRequest(f"{value!r} is no count: give a whole number from {least} to 2**53 - 1", name)
        if self.seconds is not None:
            exact(self.seconds)


class Quote(Struct, frozen=True):
    """The most a step can cost: what to hold. ``amount`` is in nanocredits, rounded up.

    rate: the id of the rate that matched (None: no rate, so free).  output_cap_source: ``request``, ``price table``, or
    the name of the ceiling that ``max_output_tokens`` comes from.
    """

    amount: int
    tokens: int
    input_tokens: int
    max_output_tokens: int
    output_cap_source: str
    rate: str | None
    most_output_tokens: int
    card: Card
    size: Size
    beside: int = 0

    def affordable_output_tokens(self, nano: int) -> int:
        """How many output tokens (for each call) ``nano`` nanocredits buy beside this input; 0 if even the input does
        not fit.

        Exact: a quote for that many fits, one more does not, unless output is free, when it is the most the model
        gives.
        """
        if nano < self.beside:
            return 0
        affordable = self.card.affordable(self.size, nano - self.beside)
        return self.most_output_tokens if affordable is None else affordable


class Charge(Struct, frozen=True):
    """What a step cost: nanocredits, rounded half to even. ``notes`` say what was unusual about the pricing."""

    nano: int
    tokens: int
    rate: str | None
    priced_model: str | None
    notes: tuple[str, ...] = ()


class UnknownPrice(AgentBudgetError):
    """Nothing prices this model, so the step must not run. ``line`` is the catalog text to add (TOML)."""

    def __init__(self, model: str = "", provider: str = "", line: str = "", *rest: object) -> None:
        super().__init__(model, provider, line, *rest)
        self.model, self.provider, self.line = model, provider, line

    def __str__(self) -> str:
        what = f"model {self.model!r}" if self.model else "a model step that names no model"
        of = f" of provider {self.provider!r}" if self.provider else ""
        return f"no price is known for {what}{of}, so it may not run; add its price to the catalog:\n{self.line}"


def unknown_price(request: PriceRequest) -> UnknownPrice:
    """The refusal of a model without a price, with the catalog lines that would price it."""
    model = request.model or ""
    lines = [
        "[[rates]]",
        "model = " + (_toml(model) if model else '"*"'),
        'tokens = { input = "2.50", output = "10.00" }  # credits per million tokens: write its real prices',
    ]
    return UnknownPrice(model, request.provider or "", "\n".join(lines))


def _toml(text: str) -> str:
    """A TOML basic string that matches the name exactly: JSON's escapes are TOML's, and glob characters are
    bracketed."""
    literal = re.sub(r"([\[?*])", r"[\1]", text)
    return msgspec.json.encode(literal.encode("utf-8", "replace").decode()).decode().replace("\x7f", "\\u007f")
