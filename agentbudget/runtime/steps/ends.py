"""What the ends of a step are made of: the settlement of a leased one, the hash of what was stated, an end nobody heard."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec.structs import replace

from agentbudget.account.commands import ReleaseHold, SettleHold
from agentbudget.amounts import USD, Amount
from agentbudget.catalog import Usage
from agentbudget.catalog.usage import counts_of
from agentbudget.clock import SECOND_US
from agentbudget.errors import HoldResolved, OwnerUnavailable
from agentbudget.runtime.link import Link
from agentbudget.runtime.steps.asking import Priced
from agentbudget.runtime.steps.failures import proves_not_billed
from agentbudget.runtime.views import Settlement

if TYPE_CHECKING:
    from agentbudget.runtime.steps.step import Step

End: TypeAlias = SettleHold | ReleaseHold
_log = logging.getLogger("agentbudget")

HELD: Final = ("hold", "")
STATED: Final = ("stated", "")
"""Tariffs of steps that no rate prices: at what was held, or at what the caller stated."""


@contextlib.contextmanager
def unheard(step: str, error: BaseException | None) -> Iterator[None]:
    """An end that could not be told must not hide why the body failed; it is told again when the step is collected."""
    try:
        yield
    except (OwnerUnavailable, HoldResolved) as unheard:
        if error is None:
            raise
        _log.warning("step %s failed (%s), and its end could not be booked: %s", step, type(error).__name__, unheard)


def stated_of(counts: dict[str, int], usage: Usage, amount: Amount | USD | None) -> str:
    """What the caller stated, for the key's hash (law L4): never the price of it."""
    return repr((tuple(counts.items()), usage.model, str(usage.seconds), str(usage.cost), str(amount)))


def settlement(
    step: str, priced: Priced, link: Link, usage: Any, amount: Amount | USD | None, passed_us: int
) -> SettleHold:
    """The command that books what a step cost: its usage by the catalog, a stated amount, or what was held."""
    if usage is None:
        nano = priced.amount if amount is None else link.nano(amount)
        return SettleHold(step, nano, seconds_of(None, passed_us), rate="stated" if amount is not None else "hold")
    usage = Usage.of(usage)
    counts = counts_of(usage)
    nano, rate = priced.charge(usage) if amount is None else (link.nano(amount), "stated")
    return SettleHold(
        step, nano, used_of(priced, usage, passed_us), usage=counts, model=usage.model, rate=rate,
        catalog=priced.catalog.version, stated=stated_of(counts, usage, amount),
    )  # fmt: skip


def used_of(priced: Priced, usage: Usage, passed_us: int) -> dict[str, int]:
    """What a usage counts besides credits."""
    tokens = usage.tokens
    if tokens or "tokens" in priced.measures:
        return {"tokens": tokens, **seconds_of(usage, passed_us)}
    return seconds_of(usage, passed_us)


def all_used(held: dict[str, int], usage: Usage, passed_us: int) -> dict[str, int]:
    """What a step held, as its usage counts it: every measure of ``held``, those of :func:`used_of` as they came out."""
    used, tokens = held.copy(), usage.input_tokens + usage.output_tokens
    if tokens or "tokens" in used:
        used["tokens"] = tokens
    if usage.seconds:
        return used | seconds_of(usage, passed_us)
    used["seconds"] = 1 if passed_us <= SECOND_US else -(-passed_us // SECOND_US)
    return used


def seconds_of(usage: Usage | None, passed_us: int) -> dict[str, int]:
    """Whole seconds, rounded up: as the usage states them, else as they passed here."""
    if usage is not None and usage.seconds:
        return {"seconds": int(-(-usage.seconds // 1))}
    return {"seconds": max(1, -(-passed_us // SECOND_US))}


def settlement_on_lease(step: str, nano: int, held: int) -> Settlement:
    if nano <= held:
        return Settlement(step, "settled", nano)
    return Settlement(step, "settled", nano, nano - held)


def came_so_far(priced: Priced, output_tokens: int) -> int:
    """A stream's input as estimated and what came of it, at most the hold."""
    quote, request = priced.quote, priced.request
    if quote is None or request is None:
        return priced.amount
    usage = Usage(input_tokens=quote.input_tokens, output_tokens=output_tokens)
    return min(priced.amount, priced.catalog.charge(request, usage).nano)


def failure(step: Step, error: BaseException | None) -> End:
    """The command that ends a step that failed: it gives everything back where nothing can be billed, else charges by policy
    what the step may have cost."""
    name = type(error).__name__ if error is not None else None
    is_known = step._meter is not None and step._meter.seen is not None
    if is_known or (step._is_dispatched and step._of.on_unknown == "charge" and not proves_not_billed(error)):
        return _left(step, name)
    return ReleaseHold(step.id, error=name)


def cut(step: Step, error: BaseException) -> End:
    """The command that ends a stream which this side cut: it charges what came, whatever the policy for unknown outcomes is."""
    return _left(step, type(error).__name__)


def _left(step: Step, name: str | None) -> SettleHold:
    """A step that ends before its work did: at the largest usage that it stated, where no more output came; else at a guess, at
    most what is held: of a stream, its input and what came. A settlement still corrects a guess."""
    priced, lease, seen = step._priced, step._lease, None if step._meter is None else step._meter.seen
    if seen is not None and seen.output_tokens >= step._came:
        return settlement(step.id, priced, step._link, seen, None, step._passed_us)
    nano = priced.amount
    if seen is not None:  # what it stated, and more output than that, as it was counted here
        stated, whole = priced.charge(seen)[0], priced.charge(replace(seen, output_tokens=step._came))[0]
        nano = max(stated, min(nano, whole))
    elif step._streaming or step._came:
        nano = came_so_far(priced, step._came)
    used = seconds_of(None, step._passed_us)
    if lease is not None:
        used = priced.measures | used
    return SettleHold(
        step.id, nano, used, outcome="unknown", error=name, rate="unknown", lease=None if lease is None else lease.id
    )
