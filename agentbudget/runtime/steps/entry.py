"""What ``session.step(...)`` gives: the step as a context manager that reserves when it is entered."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentbudget.account.commands import Kind
from agentbudget.runtime import watching
from agentbudget.runtime.steps import reserving
from agentbudget.runtime.steps.asking import StepArguments
from agentbudget.runtime.steps.step import Step

if TYPE_CHECKING:
    from agentbudget.runtime.session import Session


class StepEntry:
    """What ``session.step(...)`` gives: entering it reserves the step and gives it to the body."""

    __slots__ = ("_kind", "_session", "_step", "_trace", "_what")

    def __init__(self, session: Session, kind: Kind, what: StepArguments) -> None:
        self._session, self._kind, self._what = session, kind, what
        self._step: Step | None = None
        self._trace: Any = None

    def __enter__(self) -> Step:
        session = self._session
        begun = session.at_once(self._kind, self._what)
        self._step = step = begun if isinstance(begun, Step) else session.run(reserving.reserve(session, *begun))
        step.__enter__()
        self._trace = watching.entered(step)
        return step

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watching.left(self._trace)
        if self._step is not None:
            self._step.__exit__(kind, error, trace)

    async def __aenter__(self) -> Step:
        session = self._session
        begun = session.at_once(self._kind, self._what)
        self._step = step = begun if isinstance(begun, Step) else await session.arun(reserving.reserve(session, *begun))
        await step.__aenter__()
        self._trace = watching.entered(step)
        return step

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watching.left(self._trace)
        if self._step is not None:
            await self._step.__aexit__(kind, error, trace)
