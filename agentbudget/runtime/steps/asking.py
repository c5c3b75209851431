"""What a caller states about a step, and what that makes the step hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypedDict

import msgspec
from msgspec import Struct

from agentbudget.account.commands import LEASE_PREFIX, Hold, Kind
from agentbudget.amounts import MAX_NANO, USD, Amount
from agentbudget.catalog import Catalog, PriceRequest, Quote, estimate_input
from agentbudget.catalog.estimate import Estimate, Estimator, serialise
from agentbudget.catalog.pricing import Plain
from agentbudget.catalog.usage import Usage
from agentbudget.errors import InvalidRequest
from agentbudget.runtime.leases.lease import PlainKey

MODEL_KINDS: Final = ("llm", "embedding")
MAX_KEY: Final = 150
"""Longest key of a caller: ids are at most 200 characters, and the parts of a hold add to its key."""
_TAKEN_PREFIXES: Final = ("grant:", "void:", "adjust:", "payment:", "session:", "fund:", LEASE_PREFIX)
_FINGERPRINT_DIGITS: Final = 16


class StepArguments(TypedDict, total=False):
    """What ``reserve``, ``areserve``, ``step`` and ``explain`` take besides the kind.

    model, provider: of a model step.  name: of the tool, retriever or agent.  request: messages or the whole request
    body, of which the input is estimated (not kept, not logged).  input_tokens: instead of ``request``, an upper bound.
    amount: a fixed price instead of the catalog's.  max_output_tokens: the cap that the request states. cap_enforced:
    False says that a cap cannot be written into the request, so without one the model's maximum is held. feature: what
    the plan must entitle (default: the session's).  quantity: calls, or units of a metered feature. seconds, documents:
    bounds, where a rate counts them.  server_tools: the provider may run tools of its own. wind_down: may use the share
    of the budget kept for winding down.  key: idempotency key (default: a new id). arguments: of a tool call, for the
    breaker's repeat rule; or ``fingerprint``, a hash of them. dispatched: the work is sent as soon as this returns
    (what fails after that is not free)."""

    model: str | None
    name: str | None
    provider: str | None
    request: Any
    input_tokens: int | None
    amount: Amount | USD | None
    max_output_tokens: int | None
    cap_enforced: bool
    feature: str | None
    quantity: int
    seconds: Decimal | int | float | str | None
    documents: int | None
    server_tools: bool
    wind_down: bool
    key: str | None
    arguments: Any
    fingerprint: str | None
    dispatched: bool


class Ask(Struct, frozen=True, kw_only=True):
    """The same as a value."""

    kind: Kind
    model: str | None = None
    name: str | None = None
    provider: str | None = None
    request: Any = None
    input_tokens: int | None = None
    amount: Amount | USD | None = None
    max_output_tokens: int | None = None
    cap_enforced: bool = True
    feature: str | None = None
    quantity: int = 1
    seconds: Any = None
    documents: int | None = None
    server_tools: bool = False
    wind_down: bool = False
    key: str | None = None
    arguments: Any = None
    fingerprint: str | None = None
    dispatched: bool = False

    @property
    def is_model(self) -> bool:
        return self.kind in MODEL_KINDS


class Caps(Struct, frozen=True):
    """How a session bounds what is not stated."""

    max_output_tokens: int = 4096
    assume_max_output_tokens: int | None = None
    estimate: Estimator = "bound"


class Priced(Struct):
    """What a step will hold. ``cap``: the output cap that the hold rests on (None: not a model step). ``catalog``
    quoted it and will charge it, whatever is loaded meanwhile. ``plain``: priced by tokens alone (``remembered.py``); its full
    quote is then made when somebody asks for it (a refusal, a clamp, a stream left early)."""

    amount: int
    measures: dict[str, int]
    catalog: Catalog
    cap: int | None = None
    estimate: str = "fixed"
    plain: Plain | None = None
    asked: PriceRequest | Callable[[], PriceRequest] | None = None
    quoted: Quote | None = None

    @property
    def is_priced(self) -> bool:
        """Whether the catalog priced it, so that its usage decides what it costs."""
        return self.asked is not None

    @property
    def request(self) -> PriceRequest | None:
        """What the catalog was asked; None for a price that the caller stated."""
        asked = self.asked
        if asked is not None and not isinstance(asked, PriceRequest):
            asked = self.asked = asked()
        return asked

    @property
    def quote(self) -> Quote | None:
        """What the catalog said; None for a price that the caller stated."""
        request = self.request
        if self.quoted is None and request is not None:
            self.quoted = self.catalog.quote(request)
        return self.quoted

    @property
    def rate(self) -> str:
        """The id of the rate that priced it."""
        if self.plain is not None:
            return self.plain.rate or ""
        return (self.quoted.rate or "") if self.quoted is not None else "fixed"

    def charge(self, usage: Usage) -> tuple[int, str]:
        """Nanocredits of a usage, and the rate that priced them; at a stated price, that."""
        plain = self.plain
        nano = None if plain is None else plain.charge(usage)
        if plain is not None and nano is not None and nano <= MAX_NANO:
            return nano, plain.rate or ""
        if (request := self.request) is None:
            return self.amount, "fixed"
        charge = self.catalog.charge(request, usage)
        return charge.nano, charge.rate or ""


def price(ask: Ask, catalog: Catalog, caps: Caps, *, customer: str, workflow: str | None, now_us: int) -> Priced:
    """What the step holds by the catalog. Raises ``UnknownPrice`` and whatever names a bad input."""
    found, method = _input_of(ask, catalog, caps.estimate)

    def request(cap: int | None) -> PriceRequest:
        return PriceRequest(
            kind=ask.kind, model=ask.model, tool=ask.name, provider=ask.provider, feature=ask.feature,
            workflow=workflow, customer=customer, input_tokens=found.tokens, by_reference=found.by_reference,
            audio=found.audio, server_tools=ask.server_tools, quantity=ask.quantity, seconds=ask.seconds,
            documents=ask.documents, at_us=now_us, max_output_tokens=cap,
        )  # fmt: skip

    asked = request(cap_of(ask, caps))
    quote = catalog.quote(asked)
    if ask.max_output_tokens is None and ask.kind == "llm" and quote.max_output_tokens > quote.most_output_tokens > 0:
        asked = request(quote.most_output_tokens)  # our cap, not the caller's
        quote = catalog.quote(asked)
    most = quote.max_output_tokens if ask.kind == "llm" else None
    measures = measures_of(ask, catalog, quote.tokens)
    return Priced(quote.amount, measures, catalog, most, method, asked=asked, quoted=quote)


def fixed(ask: Ask, catalog: Catalog, caps: Caps, nano: int) -> Priced:
    """A step at a price that the caller states."""
    cap = cap_of(ask, caps) if ask.kind == "llm" else None
    tokens = (ask.input_tokens or 0) + (cap or 0) if ask.is_model else 0
    return Priced(nano, measures_of(ask, catalog, tokens), catalog, cap)


def lease_key(ask: Ask) -> PlainKey:
    """The lease that serves steps like this one, as a plain ``Key``: it is looked up at every step."""
    if ask.kind in MODEL_KINDS:
        return (ask.kind, ask.model, None, ask.feature, ask.wind_down)
    return (ask.kind, None, ask.name, ask.feature, ask.wind_down)


def with_cap(priced: Priced, cap: int) -> Priced:
    """The same step with a lower output cap: the request must be lowered with the hold."""
    if priced.request is None:
        raise InvalidRequest("only a priced model step can be clamped", "on_short")
    request = msgspec.structs.replace(priced.request, max_output_tokens=cap)
    quote = priced.catalog.quote(request)
    measures = priced.measures | {"tokens": quote.tokens}
    return Priced(quote.amount, measures, priced.catalog, cap, priced.estimate, asked=request, quoted=quote)


def measures_of(ask: Ask, catalog: Catalog, tokens: int) -> dict[str, int]:
    """What the step counts besides credits, in whole units."""
    measures = {"steps": 1, "seconds": 1 if ask.seconds is None else _whole(ask.seconds)}
    if tokens:
        measures["tokens"] = tokens
    if ask.kind == "tool":
        measures["tool_calls"] = ask.quantity
    feature = catalog.features.get(ask.feature) if ask.feature is not None else None
    if feature is not None and feature.type == "metered":
        measures[feature.id] = ask.quantity
    return measures


def hold_of(ask: Ask, priced: Priced, *, step: str, session: str, ttl_us: int) -> Hold:
    """The command that holds it."""
    return Hold(
        step=step, session=session, kind=ask.kind, amount=priced.amount, measures=priced.measures,
        model=ask.model if ask.is_model else None, tool=None if ask.is_model else ask.name, provider=ask.provider,
        feature=ask.feature, wind_down=ask.wind_down, fingerprint=fingerprint_of(ask), dispatched=ask.dispatched,
        ttl_us=ttl_us, rate=priced.rate, estimate=priced.estimate, catalog=priced.catalog.version,
        stated=_stated(ask) if ask.key is not None else "",
    )  # fmt: skip


def key_ok(key: str) -> str:
    """A caller's key; raises :class:`InvalidRequest` where it could be taken for another command's."""
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise InvalidRequest(f"must be 1 to {MAX_KEY} printable characters", "key")
    if "#" in key or key == "customer" or key.startswith(_TAKEN_PREFIXES):
        raise InvalidRequest(f"{key!r} holds '#' or begins like another command's key", "key")
    return key


def cap_of(ask: Ask, caps: Caps) -> int | None:
    """The output cap that a step's hold rests on, where one is stated or the session has one."""
    if ask.kind != "llm":
        return ask.max_output_tokens
    if ask.max_output_tokens is not None:
        return ask.max_output_tokens
    return caps.max_output_tokens if ask.cap_enforced else caps.assume_max_output_tokens


def _input_of(ask: Ask, catalog: Catalog, method: Estimator) -> tuple[Estimate, str]:
    """Input tokens: stated, else estimated from the request; a model step that says neither holds the context
    window."""
    if ask.input_tokens is not None or not ask.is_model:
        return Estimate(ask.input_tokens or 0, method), "stated"
    if ask.request is None:
        return Estimate(0, method, by_reference=True), "window"
    window = catalog.window_of(ask.model, ask.provider)
    found = estimate_input(ask.request, method=method, model=ask.model, window=window)
    return found, found.method


def _whole(seconds: Any) -> int:
    """Seconds rounded up to whole ones; the price request has refused what is no number."""
    number = Decimal(repr(seconds) if isinstance(seconds, float) else seconds)
    return int(-(-number // 1))


def fingerprint_of(ask: Ask) -> str | None:
    """A hash of the tool and its arguments: what the breaker's repeat rule compares."""
    if ask.fingerprint is not None or ask.arguments is None:
        return ask.fingerprint
    data = serialise([ask.name, ask.arguments]) or repr(ask.arguments).encode("utf-8", "replace")
    return hashlib.sha256(data).hexdigest()[:_FINGERPRINT_DIGITS]


def _stated(ask: Ask) -> str:
    """A hash of what the caller stated, for a key of the caller's own (law L4); prices and estimates have no part in
    it."""
    amount = str(ask.amount) if ask.amount is not None else None
    stated = (
        amount, ask.max_output_tokens, ask.input_tokens, ask.quantity, str(ask.seconds), ask.documents,
        ask.server_tools, ask.wind_down, ask.provider,
    )  # fmt: skip
    digest = hashlib.sha256(msgspec.json.encode(stated))
    digest.update((serialise(ask.request) or b"unreadable") if ask.request is not None else b"")
    return digest.hexdigest()[:32]
