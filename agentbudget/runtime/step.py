"""A step: reserved -> dispatched -> settled | released | unknown.

Every transition is idempotent and safe from any thread: the first end that anybody decides is the end, and whoever asks
again sends that same command again and gets its answer (law L4). Nothing here holds a lock, so a step may be ended by
the garbage collector too."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextvars import Token
from types import TracebackType
from typing import Any, Self, TypeVar

from agentbudget.account.commands import DispatchHold, OnUnknown, ReleaseHold, SettleHold
from agentbudget.account.decision import Settled
from agentbudget.amounts import USD, Amount, Credits
from agentbudget.catalog import Usage
from agentbudget.catalog.usage import COUNT_FIELDS
from agentbudget.clock import SECOND_US
from agentbudget.errors import HoldResolved, OwnerUnavailable
from agentbudget.runtime import streams
from agentbudget.runtime.asking import Ask, Priced
from agentbudget.runtime.current import STEP
from agentbudget.runtime.failures import proves_not_billed
from agentbudget.runtime.host import Plan, arun, ignore, run
from agentbudget.runtime.link import Link
from agentbudget.runtime.views import Settlement, StepState, settlement_of

T = TypeVar("T")
_log = logging.getLogger("agentbudget")
End = SettleHold | ReleaseHold


class Step:
    """One unit of agent work that holds its cost. Made by a session's ``reserve``, ``areserve`` and ``step``.

    As a context manager, entering the body marks dispatch; a body that ends without ``settle`` books the hold, one that
    raises ends by :meth:`fail`. A step that is forgotten is ended as abandoned.
    """

    __slots__ = (
        "__weakref__", "_answer", "_came", "_end", "_is_dispatched", "_is_shared", "_link", "_on_unknown", "_priced",
        "_started_us", "_state", "_streaming", "_token", "id", "kind", "max_output_tokens", "model", "name", "outer",
        "session",
    )  # fmt: skip

    def __init__(
        self,
        link: Link,
        ask: Ask,
        priced: Priced,
        *,
        step: str,
        session: str,
        on_unknown: OnUnknown,
        outer: Step | None,
    ) -> None:
        self._link, self._priced, self._on_unknown = link, priced, on_unknown
        self.id, self.session, self.outer = step, session, outer
        self.kind, self.model, self.name = ask.kind, ask.model, ask.name
        self.max_output_tokens = priced.cap
        self._is_dispatched, self._streaming, self._came = ask.dispatched, False, 0
        self._is_shared = ask.key is not None
        self._state: StepState | None = None
        self._answer: Settlement | None = None
        self._end: dict[str, End] = {}
        self._token: Token[Step | None] | None = None
        self._started_us = link.clock.monotonic_us()
        link.host.live.add(step)

    def __repr__(self) -> str:
        return f"<Step {self.id} {self.kind} {self.model or self.name or ''} {self.state}, holds {self.hold}>"

    @property
    def state(self) -> StepState:
        """reserved, dispatched, settled, unknown (charged by policy), released, lapsed, or corrected (settled after a
        lapse)."""
        return self._state or ("dispatched" if self._is_dispatched else "reserved")

    @property
    def is_open(self) -> bool:
        """Whether the step has not ended."""
        return self._state is None

    @property
    def hold(self) -> Credits:
        """What was held for it."""
        return Credits.of_nano(self._priced.amount)

    # --- transitions --------------------------------------------------------------------------------------------------

    def dispatched(self) -> None:
        """Mark, durably, that the work is sent: from now on what is not known is not free. Raises ``OwnerUnavailable``,
        and then the work must not be sent."""
        if not self._is_dispatched:
            run(self._link.host, self._link.customer, self._dispatch())

    async def adispatched(self) -> None:
        """:meth:`dispatched`, awaited."""
        if not self._is_dispatched:
            await arun(self._link.host, self._link.customer, self._dispatch())

    def settle(
        self, usage: Usage | Any = None, *, amount: Amount | USD | None = None, timeout_seconds: float | None = None
    ) -> Settlement:
        """Book what the step cost, all of it even beyond the hold: the usage by the catalog, an amount, or (neither)
        the hold.

        ``usage``: a ``Usage``, or a reply that states one. Again: the first answer. Raises ``OwnerUnavailable`` when
        the owner gave no answer; the step is then not resolved, and calling this again is safe. What a policy has
        booked (a lapse, or :meth:`fail`) it corrects, once.
        """
        if self._is_correctable and not (usage is None and amount is None):
            return run(self._link.host, self._link.customer, self._correcting(usage, amount), timeout_seconds)
        return self._run(self._settling(usage, amount), timeout_seconds)

    async def asettle(self, usage: Usage | Any = None, *, amount: Amount | USD | None = None) -> Settlement:
        """:meth:`settle`, awaited."""
        if self._is_correctable and not (usage is None and amount is None):
            return await arun(self._link.host, self._link.customer, self._correcting(usage, amount))
        return await self._arun(self._settling(usage, amount))

    def release(self) -> Settlement:
        """Give the whole hold back: nothing was spent. Again: the first answer."""
        return self._run(self._ending(lambda: ReleaseHold(self.id)))

    async def arelease(self) -> Settlement:
        """:meth:`release`, awaited."""
        return await self._arun(self._ending(lambda: ReleaseHold(self.id)))

    def fail(self, error: BaseException | None = None, *, timeout_seconds: float | None = None) -> Settlement:
        """End a step that failed: given back when the work was not sent or the error proves that it will not be billed
        (``failures.py``), else by the session's ``on_unknown``. Again: the first answer."""
        return self._run(self._ending(lambda: self._failure(error)), timeout_seconds)

    async def afail(self, error: BaseException | None = None) -> Settlement:
        """:meth:`fail`, awaited."""
        return await self._arun(self._ending(lambda: self._failure(error)))

    def count(self, output_tokens: int = 1) -> None:
        """Note output that came (a stream's chunk): what is charged when the stream is abandoned before it states its
        usage."""
        self._came += output_tokens

    def wrap(self, items: Iterable[T], usage_of: Callable[[T], Usage | None]) -> Iterator[T]:
        """The stream's items, settled as soon as one of them states the usage (``usage_of`` gives it for the item that
        ends the reply, else None), before that item is passed on. A stream left early charges its input and what
        came."""
        self._streaming = True
        self.dispatched()
        return streams.wrapped(self, items, usage_of)

    def awrap(self, items: AsyncIterable[T], usage_of: Callable[[T], Usage | None]) -> AsyncIterator[T]:
        """:meth:`wrap` for an asynchronous stream."""
        self._streaming = True
        return streams.awrapped(self, items, usage_of)

    # --- context manager ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.dispatched()
        self._token = STEP.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if self.is_open:
            with _unheard(self.id, error):
                self._run(self._body_ended(error))

    async def __aenter__(self) -> Self:
        await self.adispatched()
        self._token = STEP.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if self.is_open:
            with _unheard(self.id, error):
                await self._arun(self._body_ended(error))

    def _leave(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            with contextlib.suppress(ValueError):  # left in another context than entered: that one keeps a closed step
                STEP.reset(token)

    # --- plans --------------------------------------------------------------------------------------------------------

    def _run(self, plan: Plan[Settlement], timeout_seconds: float | None = None) -> Settlement:
        if self._answer is not None:
            return self._answer
        return run(self._link.host, self._link.customer, plan, timeout_seconds)

    async def _arun(self, plan: Plan[Settlement]) -> Settlement:
        return self._answer if self._answer is not None else await arun(self._link.host, self._link.customer, plan)

    def _dispatch(self) -> Plan[None]:
        yield DispatchHold(self.id)
        self._is_dispatched = True

    def _settling(self, usage: Any, amount: Amount | USD | None) -> Plan[Settlement]:
        return self._ending(lambda: self._settlement(usage, amount))

    @property
    def _is_correctable(self) -> bool:
        """Charged by policy, so that the true cost is still wanted, once (law L11)."""
        return self._state == "unknown"

    def _correcting(self, usage: Any, amount: Amount | USD | None) -> Plan[Settlement]:
        command = self._end.get("truth") or self._end.setdefault("truth", self._settlement(usage, amount))
        self._answer = settlement_of((yield command))
        self._resolve(self._answer.state)
        return self._answer

    def _body_ended(self, error: BaseException | None) -> Plan[Settlement]:
        if error is not None:
            return self._ending(lambda: self._failure(error))
        if self._streaming:
            return self._ending(lambda: self._failure(GeneratorExit()))
        return self._settling(None, None)

    def _ending(self, decide: Callable[[], End]) -> Plan[Settlement]:
        """Send the step's end. The first one decided stands; ``setdefault`` is atomic, and safe inside the
        collector."""
        command = self._end.get("end") or self._end.setdefault("end", decide())
        try:
            answer = yield command
        except HoldResolved as error:
            self._resolve(error.state)
            raise
        return self._resolved(answer)

    def _resolved(self, answer: Settled) -> Settlement:
        if self._answer is None:
            self._answer = settlement_of(answer)
        self._resolve(self._answer.state)
        return self._answer

    def _resolve(self, state: str) -> None:
        self._state = state  # type: ignore[assignment]
        self._link.host.live.discard(self.id)

    # --- what an end says ---------------------------------------------------------------------------------------------

    def _settlement(self, usage: Any, amount: Amount | USD | None) -> SettleHold:
        if usage is None:
            nano = self._priced.amount if amount is None else self._link.nano(amount)
            return SettleHold(self.id, nano, self._seconds(None), rate="stated" if amount is not None else "hold")
        usage = Usage.of(usage)
        counts = {name: count for name in COUNT_FIELDS if (count := getattr(usage, name))}
        nano, rate = self._charge(usage) if amount is None else (self._link.nano(amount), "stated")
        return SettleHold(
            self.id, nano, self._used(usage), usage=counts, model=usage.model, rate=rate,
            catalog=self._priced.catalog.version, stated=_stated(counts, usage, amount),
        )  # fmt: skip

    def _charge(self, usage: Usage) -> tuple[int, str]:
        if self._priced.request is None:
            return self._priced.amount, "fixed"
        charge = self._priced.catalog.charge(self._priced.request, usage)
        return charge.nano, charge.rate or ""

    def _used(self, usage: Usage) -> dict[str, int]:
        counted = usage.tokens or "tokens" in self._priced.measures
        return {"tokens": usage.tokens} | self._seconds(usage) if counted else self._seconds(usage)

    def _seconds(self, usage: Usage | None) -> dict[str, int]:
        """Whole seconds, rounded up: as the usage states them, else as they passed here."""
        if usage is not None and usage.seconds:
            return {"seconds": int(-(-usage.seconds // 1))}
        passed_us = self._link.clock.monotonic_us() - self._started_us
        return {"seconds": max(1, -(-passed_us // SECOND_US))}

    def _failure(self, error: BaseException | None) -> End:
        name = type(error).__name__ if error is not None else None
        if not self._is_dispatched or self._on_unknown == "release" or proves_not_billed(error):
            return ReleaseHold(self.id, error=name)
        nano = self._came_so_far() if self._streaming or self._came else self._priced.amount
        return SettleHold(self.id, nano, self._seconds(None), outcome="unknown", error=name, rate="unknown")

    def _came_so_far(self) -> int:
        """A stream's input as estimated and what came of it, at most the hold."""
        quote, request = self._priced.quote, self._priced.request
        if quote is None or request is None:
            return self._priced.amount
        usage = Usage(input_tokens=quote.input_tokens, output_tokens=self._came)
        return min(self._priced.amount, self._priced.catalog.charge(request, usage).nano)

    def abandon(self) -> None:
        """End the step without waiting for the answer: for the collector, and for generators that are being closed."""
        if self._state is not None:
            return
        self._link.host.live.discard(self.id)
        command = self._end.get("end") or self._end.setdefault("end", self._failure(GeneratorExit()))
        with contextlib.suppress(OwnerUnavailable):  # nobody to tell: the hold lapses by the same policy (law L5)
            self._link.host.submit(self._link.customer, command, ignore)

    def __del__(self) -> None:
        if self._is_shared and not self._end:  # a caller's own key may have another holder: its hold is left to lapse
            self._link.host.live.discard(self.id)
        else:
            self.abandon()


@contextlib.contextmanager
def _unheard(step: str, error: BaseException | None) -> Iterator[None]:
    """An end that could not be told must not hide why the body failed; it is told again when the step is collected."""
    try:
        yield
    except (OwnerUnavailable, HoldResolved) as unheard:
        if error is None:
            raise
        _log.warning("step %s failed (%s), and its end could not be booked: %s", step, type(error).__name__, unheard)


def _stated(counts: dict[str, int], usage: Usage, amount: Amount | USD | None) -> str:
    """What the caller stated, for the key's hash (law L4): never the price of it."""
    return repr((tuple(counts.items()), usage.model, str(usage.seconds), str(usage.cost), str(amount)))
