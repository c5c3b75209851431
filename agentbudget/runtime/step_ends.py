"""What the ends of a step are made of: the settlement of a leased one, the hash of what was stated, an end nobody heard."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from agentbudget.amounts import USD, Amount, Credits
from agentbudget.catalog import Usage
from agentbudget.errors import HoldResolved, OwnerUnavailable
from agentbudget.runtime.asking import Priced
from agentbudget.runtime.views import Settlement

_log = logging.getLogger("agentbudget")


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


def settlement_on_lease(step: str, nano: int, held: int) -> Settlement:
    if nano <= held:
        return Settlement(step, "settled", Credits.of_nano(nano))
    return Settlement(step, "settled", Credits.of_nano(nano), Credits.of_nano(nano - held))


def came_so_far(priced: Priced, output_tokens: int) -> int:
    """A stream's input as estimated and what came of it, at most the hold."""
    quote, request = priced.quote, priced.request
    if quote is None or request is None:
        return priced.amount
    usage = Usage(input_tokens=quote.input_tokens, output_tokens=output_tokens)
    return min(priced.amount, priced.catalog.charge(request, usage).nano)
