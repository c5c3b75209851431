"""How a session reserves a step: price it, hold it, clamp it where that was chosen, or refuse it by the session's
policy."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import msgspec
from msgspec.structs import replace

from agentbudget.account.admission import refusal as refusal_of
from agentbudget.account.commands import Explain, Hold, Latch, ReleaseHold
from agentbudget.account.decision import Affordable, Decision, Renewed
from agentbudget.amounts import Credits
from agentbudget.catalog import UnknownPrice
from agentbudget.errors import BudgetAbort, BudgetDenied, OwnerUnavailable
from agentbudget.runtime import watching
from agentbudget.runtime.forks import generation
from agentbudget.runtime.host import Plan, ignore
from agentbudget.runtime.ids import new_id
from agentbudget.runtime.leases.claims import Claim
from agentbudget.runtime.leases.lease import Lease, PlainKey
from agentbudget.runtime.leases.session_leases import SessionLeases
from agentbudget.runtime.link import Link
from agentbudget.runtime.steps.asking import (
    Ask,
    Caps,
    Priced,
    fingerprint_of,
    fixed,
    hold_of,
    key_ok,
    lease_key,
    price,
    with_cap,
)
from agentbudget.runtime.steps.current import current_step
from agentbudget.runtime.steps.step import Step

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


class Got(NamedTuple):
    """A step that is held: at the owner, or (``own``, ``lease``, ``n``) on a lease, since ``started_us`` (monotonic)."""

    step: str
    started_us: int
    own: SessionLeases | None = None
    lease: Lease | None = None
    n: int = 0


def reserve(session: Session, ask: Ask, cost: Priced | None = None) -> Plan[Step]:
    """Hold the step, or raise ``BudgetDenied`` / ``BudgetAbort`` as the session refuses it. ``cost``: if it is priced
    already."""
    yield from session.opening()
    return (yield from watching.asked(session, ask, _reserve(session, ask, cost)))


def _reserve(session: Session, ask: Ask, cost: Priced | None) -> Plan[Step]:
    link = session.link
    if ask.key is not None:
        key_ok(ask.key)
    try:
        cost = cost or priced(link, ask, session.caps, session.workflow, session.feature)
    except UnknownPrice as error:
        return (yield from deny(session, unknown_price(error, session.id)))
    clamps = session.on_short == "clamp" and ask.cap_enforced and ask.kind == "llm" and cost.is_priced
    got = yield from _holding(session, ask, cost, note=not clamps)
    if clamps and isinstance(got, Decision):
        cost, got = yield from _clamped(session, ask, cost, got)
    if isinstance(got, Decision):
        return (yield from deny(session, with_output(got, cost)))
    step, started_us, own, lease, n = got
    if lease is None:
        link.host.live.add(step)
    return Step(step, session, ask, cost, ask.dispatched, started_us, generation(), current_step(), own, lease, n)


def at_once(session: Session, ask: Ask, cost: Priced, key: PlainKey, since_ns: int = 0) -> Step | None:
    """Begin the step on what the session has leased already, asking nobody; None when the owner must be asked."""
    own = session.leases
    if own is None or own.is_strict or ask.key is not None:
        return None
    if own.patterns.repeats_count and (ask.fingerprint is not None or ask.arguments is not None):
        return None  # a pattern may be in it
    dispatched = ask.dispatched
    begun = own.begin(key, cost.amount, cost.measures, dispatched)
    if begun is None:
        return None
    lease, n, now_us = begun
    name = f"{lease.id}.{n}"
    step = Step(name, session, ask, cost, dispatched, now_us, generation(), current_step(), own, lease, n)
    return step if session.seen is None else watching.at_once(session.seen, step, since_ns)


def _holding(session: Session, ask: Ask, cost: Priced, *, note: bool) -> Plan[Got | Decision]:
    """Hold the step on a lease where the session is served by leases, else at the owner. A caller's own key is the owner's:
    it is unique for ever, in every process (law L4)."""
    own = session.leases
    if own is not None and ask.key is None and not own.is_strict:
        got = yield from _leased(session, own, ask, cost, note=note)
        if got is not None:
            return got
    step = new_id() if ask.key is None else ask.key
    hold = hold_of(ask, cost, step=step, session=session.id, ttl_us=session.link.hold_ttl_us)
    answer = yield from _strictly(session.link, ask, hold if note else replace(hold, note_refusal=False))
    return answer if isinstance(answer, Decision) else Got(step, session.link.clock.monotonic_us())


def _leased(session: Session, own: SessionLeases, ask: Ask, cost: Priced, *, note: bool) -> Plan[Got | Decision | None]:
    """Begin the step on a lease, asking for one or for more where needed; None when this step must be held at the owner."""
    key, delay_seconds = lease_key(ask), 0.0
    mark = fingerprint_of(ask) if own.patterns.rules is not None or ask.kind == "tool" else None
    refused = own.patterns.refuse(mark, ask.name or ask.kind)
    if refused is not None:
        return (yield from _tripped(session, own, refused))
    while not own.is_strict:
        begun: tuple[Lease, int, int] | Renewed | None = own.begin(key, cost.amount, cost.measures, ask.dispatched)
        if begun is None:
            begun = yield from _claimed(session, own, key, ask, cost, note=note)
        if isinstance(begun, Renewed):
            if begun.refused is not None:
                return begun.refused
            if begun.recalling is not None:
                delay_seconds = yield from session.link.gave_back(begun.recalling, delay_seconds)
        elif begun is not None:
            own.patterns.remember(mark)
            lease, n, started_us = begun
            return Got(f"{lease.id}.{n}", started_us, own, lease, n)
    return None


def _claimed(
    session: Session, own: SessionLeases, key: PlainKey, ask: Ask, cost: Priced, *, note: bool
) -> Plan[tuple[Lease, int, int] | Renewed | None]:
    """Ask the owner for a lease that begins with this step. None: something else was under way, look again."""
    lease = own.lease_for(key)
    if lease is None:
        return None
    lease.is_full = False  # it may have been full once, and have room again
    hold = hold_of(ask, cost, step=lease.id, session=session.id, ttl_us=session.link.hold_ttl_us)
    claim = Claim(own, lease, hold if note else replace(hold, note_refusal=False))
    try:
        got = yield claim
    except BaseException:
        claim.abandon()
        raise
    if type(got) is int:
        return lease, got, session.link.clock.monotonic_us()
    if got is None and lease.is_full:
        own.go_strict()
    return got  # type: ignore[no-any-return]


def _tripped(session: Session, own: SessionLeases, why: str) -> Plan[Decision]:
    """A pattern that this process saw stops the session, for every process."""
    own.give_back()
    yield Latch(session.id, why)
    return refusal_of("circuit_open", why, entity=f"session:{session.id}", session=session.id,
                      suggestions=(f"resume or fund session:{session.id} once the cause is understood",))  # fmt: skip


def explain(session: Session, ask: Ask) -> Plan[Decision]:
    """What :func:`reserve` would answer; nothing is held, counted or raised."""
    yield from session.opening()
    try:
        cost = priced(session.link, ask, session.caps, session.workflow, session.feature)
    except UnknownPrice as error:
        return unknown_price(error, session.id)
    decision = yield from session.link.reading(
        Explain(hold_of(ask, cost, step="explain", session=session.id, ttl_us=0))
    )
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


def _strictly(link: Link, ask: Ask, hold: Hold) -> Plan[object]:
    """Ask for the hold; when the answer is lost, give back what may have been held.

    A caller's own key that got no answer is left alone: the caller sends it again, or it lapses.
    """
    try:
        return (yield from link.asked(hold))
    except OwnerUnavailable as error:
        if ask.key is None:
            give_back(link, hold.step, type(error).__name__)
        raise
    except Exception:
        raise  # the owner's answer: nothing is held
    except BaseException as error:  # interrupted or cancelled while waiting
        give_back(link, hold.step, type(error).__name__)
        raise


def _clamped(session: Session, ask: Ask, priced: Priced, refused: Decision) -> Plan[tuple[Priced, Got | Decision]]:
    """Lower the output cap to what fits and hold that; if nothing fits, ask for the whole again so that its refusal
    counts."""
    for _ in range(MAX_CLAMPS):
        fits = output_that_fits(refused, priced)
        if fits is None or fits < MIN_OUTPUT_TOKENS or fits >= (priced.cap or 0):
            break
        smaller = with_cap(priced, fits)
        got = yield from _holding(session, ask, smaller, note=False)
        if not isinstance(got, Decision):
            return smaller, got
        refused = got
    return priced, (yield from _holding(session, ask, priced, note=True))


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
