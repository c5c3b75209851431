"""What comes again at every step, worked out once: tools at stated prices, and model calls that differ in their input alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account.commands import Kind
from agentbudget.amounts import MAX_NANO, USD, Amount
from agentbudget.catalog import Catalog, PriceRequest, estimate_input
from agentbudget.catalog.estimate import plain_bound
from agentbudget.catalog.pricing import PlainKey as PriceKey
from agentbudget.catalog.usage import MAX_COUNT
from agentbudget.runtime.leases.lease import PlainKey
from agentbudget.runtime.steps.asking import (
    MODEL_KINDS,
    Ask,
    Caps,
    Priced,
    StepArguments,
    cap_of,
    fixed,
    lease_key,
    measures_of,
)

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session

Known: TypeAlias = tuple[Ask, Priced, PlainKey]
"""What is asked, what it holds, and the lease that serves it."""

REMEMBERED: Final = 256
"""Of each sort, in a customer's link: an agent has tens, and a program that makes up names must not fill the memory."""
_NOT_KEPT: Final = frozenset(("request", "arguments", "key", "fingerprint"))
_NO_CAPS: Final = Caps()


class Shape(Struct, frozen=True):
    """Model calls that differ in their input alone, priced by their tokens. ``ask`` is what each of them asks, without its input;
    ``cap``, ``base``: its output cap, and what it counts besides tokens."""

    ask: Ask
    key: PlainKey
    catalog: Catalog
    price_key: PriceKey
    workflow: str | None
    caps: Caps
    cap: int | None
    base: dict[str, int]

    def priced(self, request: Any, input_tokens: int | None, now_us: int) -> Priced | None:
        """What the call with this input holds; None where more than its tokens decides, or is wrong with them: then
        :func:`asking.price` has to look."""
        plain = self.catalog.plain(self.price_key)
        if plain is None:
            return None
        method: str = self.caps.estimate
        tokens: int | None
        if input_tokens is not None:
            tokens, method = input_tokens, "stated"
            if type(tokens) is not int or not 0 <= tokens <= MAX_COUNT:
                return None
        elif request is None:
            return None
        elif method != "bound" or (tokens := plain_bound(request, plain.window)) is None:
            found = estimate_input(request, method=self.caps.estimate, model=self.ask.model, window=plain.window)
            if found.by_reference or found.audio:
                return None
            tokens, method = found.tokens, found.method
        is_llm, cap = self.ask.kind == "llm", self.cap
        if is_llm and self.ask.max_output_tokens is None and cap is not None and cap > plain.most > 0:
            cap = plain.most  # our cap, not the caller's
        out = plain.most if cap is None else cap
        amount = plain.hold(tokens, out)
        if amount > MAX_NANO:
            return None
        measures = {**self.base, "tokens": tokens + out} if tokens or out else self.base
        return Priced(amount, measures, self.catalog, cap if is_llm else None, method, plain,
                      partial(self._request, tokens, cap, now_us))  # fmt: skip

    def _request(self, tokens: int, cap: int | None, now_us: int) -> PriceRequest:
        customer, kind, model, tool, provider, feature = self.price_key
        return PriceRequest(
            kind=kind, model=model, tool=tool, provider=provider, feature=feature, workflow=self.workflow,
            customer=customer, input_tokens=tokens, max_output_tokens=cap, at_us=now_us,
        )  # fmt: skip


class Remembered:
    """Steps of one customer, by what their callers state, as the catalog in force prices them. Requests and arguments are not
    kept, and steps that have a key or arguments are not remembered."""

    __slots__ = ("_shape_of", "_stated_of", "catalog")

    def __init__(self, catalog: Catalog, customer: str, nano: Callable[[Amount | USD], int]) -> None:
        self.catalog = catalog

        def stated(kind: Kind, feature: str | None, /, **what: Any) -> Known:
            ask = Ask(kind=kind, **what)
            return ask, fixed(_with_feature(ask, feature), catalog, _NO_CAPS, nano(what["amount"])), lease_key(ask)

        def shape(kind: Kind, feature: str | None, workflow: str | None, caps: Caps, /, **what: Any) -> Shape | None:
            ask = Ask(kind=kind, **what)
            return _shape(ask, _with_feature(ask, feature), catalog, customer, workflow, caps)

        self._stated_of = lru_cache(maxsize=REMEMBERED, typed=True)(stated)
        self._shape_of = lru_cache(maxsize=REMEMBERED, typed=True)(shape)

    def find(self, session: Session, kind: Kind, what: StepArguments) -> Known | None:
        """None for steps that are not remembered."""
        try:
            if kind in MODEL_KINDS:
                return self._model_step(session, kind, what) if what.get("amount") is None else None
            if what.get("amount") is None or not _NOT_KEPT.isdisjoint(what):
                return None
            return self._stated_of(kind, session.feature, **what)
        except TypeError:  # something in it has no hash, or no place in a step: whoever looks next says so
            return None

    def _model_step(self, session: Session, kind: Kind, what: StepArguments) -> Known | None:
        alike: dict[str, Any] = {**what}
        request, input_tokens = alike.pop("request", None), alike.pop("input_tokens", None)
        if not _NOT_KEPT.isdisjoint(alike):
            return None
        shape = self._shape_of(kind, session.feature, session.workflow, session.caps, **alike)
        if shape is None:
            return None
        priced = shape.priced(request, input_tokens, session.link.clock.now_us())
        return None if priced is None else (shape.ask, priced, shape.key)


def _shape(ask: Ask, asked: Ask, catalog: Catalog, customer: str, workflow: str | None, caps: Caps) -> Shape | None:
    """None where more than tokens decides what such a call costs."""
    cap = cap_of(ask, caps)
    if ask.server_tools or ask.quantity != 1 or ask.seconds is not None or ask.documents is not None:
        return None
    if (cap is None and ask.kind == "llm") or (cap is not None and (type(cap) is not int or not 0 <= cap <= MAX_COUNT)):
        return None
    price_key = (customer, ask.kind, ask.model, ask.name, ask.provider, asked.feature)
    return Shape(ask, lease_key(ask), catalog, price_key, workflow, caps, cap, measures_of(asked, catalog, 0))


def _with_feature(ask: Ask, feature: str | None) -> Ask:
    """As it is priced: under the session's feature, unless it states its own."""
    return ask if ask.feature is not None or feature is None else replace(ask, feature=feature)
