"""The port to an owner, and how a plan of commands is run over it, blocking or awaiting.

A *plan* is a generator that yields commands and is sent their answers: what to ask is written once, and :func:`run` and
:func:`arun` are the two faces of it (DESIGN.md §7: async never blocks the event loop).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeAlias, TypeVar

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer
from agentbudget.errors import AgentBudgetError, OwnerUnavailable

T = TypeVar("T")
Plan: TypeAlias = Generator[Command, Any, T]
OnAnswer: TypeAlias = Callable[[Answer | AgentBudgetError], None]


class Host(Protocol):
    """Carries commands to the owner. ``live``: ids of the steps that this process still works on (their holds do not
    lapse by silence). ``timeout_seconds``: how long a caller waits for one answer."""

    live: set[str]
    timeout_seconds: float

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        """The owner's answer, or its error raised. Blocks (``timeout_seconds``, else the host's); raises
        ``OwnerUnavailable`` when none came in time, and then the command may still be carried out: the same command
        again is safe."""
        ...

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        """Hand a command over without waiting; ``done`` is called once with its answer or error, from any thread, and
        must not block. Takes no lock, so a finalizer may call it. Raises ``OwnerUnavailable`` when nobody can take
        it."""
        ...

    def sweep(self) -> None:
        """End what is overdue now, instead of within a second."""
        ...

    def close(self) -> None:
        """Answer what waits, keep what is held, give the ledger up. Again: nothing."""
        ...


def run(host: Host, customer: str, plan: Plan[T], timeout_seconds: float | None = None) -> T:
    """Run a plan on this thread; each answer may take ``timeout_seconds``, else what the host allows."""
    try:
        command = next(plan)
        while True:
            try:
                answer = host.ask(customer, command, timeout_seconds)
            except BaseException as error:  # the plan decides: even an interrupt must give back what it may have held
                command = plan.throw(error)
            else:
                command = plan.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def arun(host: Host, customer: str, plan: Plan[T]) -> T:
    """Run a plan on this event loop, which goes on meanwhile."""
    try:
        command = next(plan)
        while True:
            try:
                answer = await _aask(host, customer, command)
            except BaseException as error:  # as in run; a cancelled task is told the plan too
                command = plan.throw(error)
            else:
                command = plan.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def _aask(host: Host, customer: str, command: Command) -> Answer:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[Answer] = loop.create_future()

    def done(answer: Answer | AgentBudgetError) -> None:
        try:
            loop.call_soon_threadsafe(_resolve, waiting, answer)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
            waiting.cancel()

    host.submit(customer, command, done)
    late = loop.call_later(host.timeout_seconds, _resolve, waiting, no_answer_within(host.timeout_seconds))
    try:
        return await waiting
    finally:
        late.cancel()


def _resolve(waiting: asyncio.Future[Answer], answer: Answer | AgentBudgetError) -> None:
    if waiting.done():
        return
    if isinstance(answer, AgentBudgetError):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


def ignore(answer: Answer | AgentBudgetError) -> None:
    """For a command whose answer nobody waits for: what it should have done is done by lapse (law L5)."""


def no_answer_within(seconds: float) -> OwnerUnavailable:
    return OwnerUnavailable(
        f"no answer within {seconds:g} s", "", "it may still be carried out: send it again with the same key"
    )
