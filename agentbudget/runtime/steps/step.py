"""A step: reserved -> dispatched -> settled | released | unknown.

Every transition is idempotent and safe from any thread: the first end that anybody decides is the end, and whoever asks
again sends that same command again and gets its answer (law L4). Nothing here holds a lock, so a step may be ended by
the garbage collector too."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterable, Callable, Iterable
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from msgspec import Struct

from agentbudget.account.commands import DispatchHold, Kind, ReleaseHold, SettleHold
from agentbudget.account.decision import Settled
from agentbudget.amounts import USD, Amount, Credits
from agentbudget.catalog import Usage
from agentbudget.errors import HoldResolved, OwnerUnavailable
from agentbudget.runtime.forks import generation
from agentbudget.runtime.host import Plan, arun, run
from agentbudget.runtime.leases.lease import Lease
from agentbudget.runtime.leases.session_leases import SessionLeases
from agentbudget.runtime.link import Link
from agentbudget.runtime.steps import ends, on_lease, streams
from agentbudget.runtime.steps.asking import Ask, Priced
from agentbudget.runtime.steps.current import STEP
from agentbudget.runtime.steps.ends import End
from agentbudget.runtime.views import Settlement, StepState, settlement_of
from agentbudget.runtime.watching import under

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session
    from agentbudget.telemetry.seen import StepSeen

T = TypeVar("T")
_log = logging.getLogger("agentbudget")


class Step(Struct, eq=False, weakref=True):
    """One unit of agent work that holds its cost. Made by a session's ``reserve``, ``areserve`` and ``step``.

    As a context manager, entering the body marks dispatch; a body that ends without ``settle`` books the hold, one that
    raises ends by :meth:`fail`. A step that is forgotten is ended as abandoned.
    """

    id: str
    _of: Session
    _ask: Ask
    _priced: Priced
    _is_dispatched: bool
    _started_us: int
    _born: int
    outer: Step | None
    _own: SessionLeases | None = None
    _lease: Lease | None = None
    _n: int = 0
    _state: StepState | None = None
    _answer: Settlement | None = None
    _end: dict[str, End] = {}
    _token: Token[Step | None] | None = None
    _streaming: bool = False
    _came: int = 0
    _meter: streams.Meter | None = None
    _parts: int = 0
    _seen: StepSeen | None = None

    @property
    def session(self) -> str:
        """The session that it is a step of."""
        return self._of.id

    @property
    def _link(self) -> Link:
        return self._of.link

    @property
    def kind(self) -> Kind:
        """llm, tool, retrieval, embedding or agent."""
        return self._ask.kind

    @property
    def model(self) -> str | None:
        """The model asked for."""
        return self._ask.model

    @property
    def name(self) -> str | None:
        """The tool's, retriever's or agent's name."""
        return self._ask.name

    @property
    def max_output_tokens(self) -> int | None:
        """The output cap that the hold rests on; write it into the request. None: not a model step."""
        return self._priced.cap

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
        if not self._is_dispatched and not self._dispatched_on_lease():
            run(self._link.host, self._link.customer, self._dispatch())

    async def adispatched(self) -> None:
        """:meth:`dispatched`, awaited."""
        if not self._is_dispatched and not self._dispatched_on_lease():
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
        if self._state is None and self._lease is not None and not self._end:
            answer = on_lease.settled(self, usage, amount)
            if answer is not None:
                return answer
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

    # --- more output, and streams -------------------------------------------------------------------------------------

    def extend(self, output_tokens: int = 0, *, amount: Amount | USD | None = None) -> Credits:
        """Hold more while it runs: for so many more tokens of output, or an amount; what it holds then.

        It is judged as a new step of that size: raises ``BudgetDenied`` (the step then holds what it did), ``OwnerUnavailable``,
        and ``HoldResolved`` when the step has ended."""
        run(self._link.host, self._link.customer, self._extending(output_tokens, amount))
        return self.hold

    async def aextend(self, output_tokens: int = 0, *, amount: Amount | USD | None = None) -> Credits:
        """:meth:`extend`, awaited."""
        await arun(self._link.host, self._link.customer, self._extending(output_tokens, amount))
        return self.hold

    def _extending(self, output_tokens: int, amount: Amount | USD | None) -> Plan[None]:
        from agentbudget.runtime.steps.extending import extending

        return extending(self, output_tokens, amount)

    def count(self, output_tokens: int = 1) -> None:
        """Note output that came: it is charged when the stream is abandoned without a usage."""
        self._came += output_tokens

    def meter(
        self, output_tokens: int = 1, *, at_least: int | None = None, timeout_seconds: float | None = None
    ) -> None:
        """:meth:`count`, and hold more where output passes what is held (``at_least``: tokens that surely came, where the count
        is an estimate; of a request with a cap only those count for this). Where more is refused, the step ends, charged for
        what came, and ``BudgetDenied`` is raised: cut the stream."""
        if streams.counted(self, output_tokens, at_least) > 0:
            run(self._link.host, self._link.customer, streams.keeping_up(self, self._metered()), timeout_seconds)

    async def ameter(self, output_tokens: int = 1, *, at_least: int | None = None) -> None:
        """:meth:`meter`, awaited."""
        if streams.counted(self, output_tokens, at_least) > 0:
            await arun(self._link.host, self._link.customer, streams.keeping_up(self, self._metered()))

    def _metered(self) -> streams.Meter:
        if self._meter is None:
            self._meter = streams.Meter(self)
        return self._meter

    def wrap(
        self, items: Iterable[T], usage_of: Callable[[T], Usage | None], tokens_of: Callable[[T], int] | None = None
    ) -> streams.Stream[T]:
        """The stream's items, metered as they come (``tokens_of``: output tokens of an item, rather too many than too few;
        None: one each). ``usage_of`` gives the usage that an item states, else None.

        The step is settled by the last usage, before that item is passed on; a usage in every item is a running total, of which
        the largest counts. Output beyond the cap is held as it comes; where that is refused, the stream is closed, charged
        for what came, and raises ``BudgetDenied``. One that is left early (``close()``, an error, forgotten, never begun) is
        closed and charges its input and what came; one that ends without a usage charges what is held."""
        self._streaming = True
        self.dispatched()
        return streams.Stream(self, items, usage_of, tokens_of)

    def awrap(
        self,
        items: AsyncIterable[T],
        usage_of: Callable[[T], Usage | None],
        tokens_of: Callable[[T], int] | None = None,
    ) -> streams.AsyncStream[T]:
        """:meth:`wrap` for an asynchronous stream; ``aclose()`` leaves it."""
        self._streaming = True
        return streams.AsyncStream(self, items, usage_of, tokens_of)

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
            with ends.unheard(self.id, error):
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
            with ends.unheard(self.id, error):
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
        return run(self._link.host, self._link.customer, under(self._seen, plan), timeout_seconds)

    async def _arun(self, plan: Plan[Settlement]) -> Settlement:
        if self._answer is not None:
            return self._answer
        return await arun(self._link.host, self._link.customer, under(self._seen, plan))

    def _dispatch(self) -> Plan[None]:
        yield DispatchHold(self.id)
        self._is_dispatched = True

    def _dispatched_on_lease(self) -> bool:
        """Note it where the lease's steps are noted; False for a step that the owner holds."""
        own, lease = self._own, self._lease
        if own is None or lease is None:
            return False
        if not own.dispatch(lease, self._n):
            raise OwnerUnavailable("that the step is sent could not be written to the spool", "", "do not send it")
        self._is_dispatched = True
        return True

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
        if on_lease.ended(self, command):
            assert self._answer is not None
            return self._answer
        try:
            answer = yield command
        except HoldResolved as error:
            if on_lease.lapsed(self, command):
                assert self._answer is not None
                return self._answer
            self._resolve(error.state)
            raise
        return self._resolved(answer)

    def _ended(self, answer: Settlement) -> None:
        """The step has ended on its lease: with the session's lock held, so that nobody else can end it meanwhile."""
        self._answer, self._state = answer, answer.state
        if self._seen is not None:
            self._seen.resolved(answer.state, answer)

    def _resolved(self, answer: Settled) -> Settlement:
        if self._answer is None:
            self._answer = settlement_of(answer)
        own, lease = self._own, self._lease
        if own is not None and lease is not None and isinstance(end := self._end.get("end"), SettleHold):
            own.guessed(lease, self._n, end)
        self._resolve(self._answer.state)
        return self._answer

    def _resolve(self, state: str) -> None:
        self._state = state  # type: ignore[assignment]
        if self._seen is not None:
            self._seen.resolved(state, self._answer)
        if self._lease is None:
            self._link.host.live.discard(self.id)

    # --- what an end says ---------------------------------------------------------------------------------------------

    @property
    def _passed_us(self) -> int:
        return self._link.clock.monotonic_us() - self._started_us

    def _settlement(self, usage: Any, amount: Amount | USD | None) -> SettleHold:
        return ends.settlement(self.id, self._priced, self._link, usage, amount, self._passed_us)

    def _failure(self, error: BaseException | None) -> End:
        return ends.failure(self, error)

    def abandon(self) -> None:
        """End the step without waiting for the answer: for the collector, and for generators that are being closed."""
        if self._state is not None or self._born != generation():  # what was begun before a fork is the parent's
            return
        command = self._end.get("end") or self._end.setdefault("end", self._failure(GeneratorExit()))
        if self._seen is not None:
            self._seen.abandoned(command)
        on_lease.hand_over(self, command)

    def __del__(self) -> None:
        if self._state is not None:
            return
        if self._ask.key is not None and not self._end:  # it may have another holder: its hold is left to lapse
            self._link.host.live.discard(self.id)
            if self._seen is not None:
                self._seen.forgotten()
        else:
            self.abandon()
