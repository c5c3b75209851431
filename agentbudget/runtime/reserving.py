"""How a session reserves a step: price it, hold it, clamp it where that was chosen, or refuse it by the session's
policy."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from agentbudget.account.commands import Explain, Hold, Latch, ReleaseHold
from agentbudget.account.decision import Affordable, Decision
from agentbudget.amounts import Credits
from agentbudget.catalog import UnknownPrice
from agentbudget.errors import BudgetAbort, BudgetDenied, OwnerUnavailable
from agentbudget.runtime.asking import Ask, Caps, Priced, fixed, hold_of, key_ok, price, with_cap
from agentbudget.runtime.current import current_step
from agentbudget.runtime.host import Plan, ignore
from agentbudget.runtime.ids import new_id
from agentbudget.runtime.link import Link
from agentbudget.runtime.step import Step

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session

MIN_OUTPUT_TOKENS: Final = 16
"""A clamped call gets at least so much output: OpenAI's Responses API takes no smaller cap, and less is no reply."""
MAX_CLAMPS: Final = 3
"""Clamped attempts: others may take credits between an answer and the next attempt; after three losses, a refusal is
honest."""
CLAMPABLE: Final = frozenset({"session_budget", "insufficient_credits", "limit"})
"""Refusals by an amount, which a smaller hold may pass. Anything else refuses every size."""
OUTPUT_MEASURES: Final = frozenset({"credits", "tokens"})
"""What a lower output cap needs less of."""


def reserve(session: Session, ask: Ask) -> Plan[Step]:
    """Hold the step, or raise ``BudgetDenied`` / ``BudgetAbort`` as the session refuses it."""
    yield from session.opening()
    link = session.link
    step = new_id() if ask.key is None else key_ok(ask.key)
    try:
        cost = priced(link, ask, session.caps, session.workflow, session.feature)
    except UnknownPrice as error:
        return (yield from deny(session, unknown_price(error, session.id)))
    clamps = session.on_short == "clamp" and ask.cap_enforced and ask.kind == "llm" and cost.quote is not None
    hold = hold_of(ask, cost, step=step, session=session.id, ttl_us=link.hold_ttl_us)
    answer = yield from _holding(link, ask, msgspec.structs.replace(hold, note_refusal=False) if clamps else hold)
    if clamps and isinstance(answer, Decision):
        cost, answer = yield from _clamped(session, ask, cost, hold, answer)
    if isinstance(answer, Decision):
        return (yield from deny(session, with_output(answer, cost)))
    return Step(link, ask, cost, step=step, session=session.id, on_unknown=session.on_unknown, outer=current_step())


def explain(session: Session, ask: Ask) -> Plan[Decision]:
    """What :func:`reserve` would answer; nothing is held, counted or raised."""
    yield from session.opening()
    try:
        cost = priced(session.link, ask, session.caps, session.workflow, session.feature)
    except UnknownPrice as error:
        return unknown_price(error, session.id)
    decision = yield Explain(hold_of(ask, cost, step="explain", session=session.id, ttl_us=0))
    return with_output(decision, cost)


def deny(session: Session, decision: Decision) -> Plan[NoReturn]:
    """Refuse by the session's policy: ``stop`` and ``abort`` latch it first."""
    session.note_denial(decision)
    if session.on_denied != "refuse" and decision.reason != "session_closed":
        with contextlib.suppress(OwnerUnavailable):  # the refusal stands whether or not the latch could be written
            yield Latch(session.id, decision.reason or "refused")
    raise refusal(session.on_denied, decision)


def refusal(on_denied: str, decision: Decision) -> BudgetDenied | BudgetAbort:
    """The exception that the policy raises for a refusal."""
    return BudgetAbort(decision) if on_denied == "abort" else BudgetDenied(decision)


def give_back(link: Link, step: str, why: str) -> None:
    """Release a hold whose answer nobody heard; for one that has not arrived yet it leaves a tombstone. Does not
    wait."""
    with contextlib.suppress(OwnerUnavailable):  # nobody to tell: the hold lapses (law L5)
        link.host.submit(link.customer, ReleaseHold(step, error=why), ignore)


def priced(link: Link, ask: Ask, caps: Caps, workflow: str | None, feature: str | None = None) -> Priced:
    """What the step holds: at the caller's fixed price, else by the catalog in force. Raises ``UnknownPrice``."""
    catalog = link.catalog
    asked = ask if ask.feature is not None or feature is None else msgspec.structs.replace(ask, feature=feature)
    if ask.amount is not None:
        return fixed(asked, catalog, caps, link.nano(ask.amount))
    return price(asked, catalog, caps, customer=link.customer, workflow=workflow, now_us=link.clock.now_us())


def _holding(link: Link, ask: Ask, hold: Hold) -> Plan[object]:
    """Ask for the hold; when the answer is lost, give back what may have been held.

    A caller's own key that got no answer is left alone: the caller sends it again, or it lapses.
    """
    try:
        return (yield hold)
    except OwnerUnavailable as error:
        if ask.key is None:
            give_back(link, hold.step, type(error).__name__)
        raise
    except Exception:
        raise  # the owner's answer: nothing is held
    except BaseException as error:  # interrupted or cancelled while waiting
        give_back(link, hold.step, type(error).__name__)
        raise


def _clamped(session: Session, ask: Ask, priced: Priced, hold: Hold, refused: Decision) -> Plan[tuple[Priced, object]]:
    """Lower the output cap to what fits and hold that; if nothing fits, ask for the whole again so that its refusal
    counts."""
    link = session.link
    for _ in range(MAX_CLAMPS):
        fits = output_that_fits(refused, priced)
        if fits is None or fits < MIN_OUTPUT_TOKENS or fits >= (priced.cap or 0):
            break
        smaller = with_cap(priced, fits)
        attempt = msgspec.structs.replace(hold, amount=smaller.amount, measures=smaller.measures, note_refusal=False)
        answer = yield from _holding(link, ask, attempt)
        if not isinstance(answer, Decision):
            return smaller, answer
        refused = answer
    return priced, (yield from _holding(link, ask, hold))


def output_that_fits(refused: Decision, priced: Priced) -> int | None:
    """Output tokens for which the step would fit, by every failing constraint; None when no size would."""
    failing = [constraint for constraint in refused.constraints if not constraint.allowed and constraint.mode == "hard"]
    if priced.quote is None or any(c.kind not in CLAMPABLE or c.measure not in OUTPUT_MEASURES for c in failing):
        return None
    fits = priced.quote.affordable_output_tokens(refused.affordable.amount.nano)
    for constraint in failing:
        if constraint.measure == "tokens" and isinstance(constraint.remaining, int):
            calls = priced.request.quantity if priced.request is not None else 1
            fits = min(fits, constraint.remaining // calls - priced.quote.input_tokens)
    return max(fits, 0)


def with_output(decision: Decision, priced: Priced) -> Decision:
    """The decision with what would fit in output tokens, where the step is a priced model call."""
    if decision.allowed or priced.quote is None or priced.cap is None:
        return decision
    amount = decision.affordable.amount
    fits = output_that_fits(decision, priced)
    tokens = fits if fits else None
    note: tuple[str, ...] = (
        (f"an output cap of {tokens} tokens would fit",) if tokens and tokens >= MIN_OUTPUT_TOKENS else ()
    )
    source = priced.quote.output_cap_source
    if source != "request":
        note += (f"no output cap was given, so the model's maximum of {priced.cap} tokens counts: set a cap",)
    return msgspec.structs.replace(
        decision, affordable=Affordable(amount, tokens), suggestions=(*decision.suggestions, *note)
    )


def unknown_price(error: UnknownPrice, session: str = "") -> Decision:
    """The refusal of a model without a price; it suggests the catalog line to add."""
    return Decision(
        False, "unknown_price", need=Credits(0), suggestions=(error.line,), session=session,
        detail=f"no price is known for model {error.model!r}; add it to the catalog, or write a price ceiling",
    )  # fmt: skip
