"""Calls of a library that are under way, for peers whose check lives inside their own call: adapters import it as
``peer_calls``. Standard library only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

Provider = Callable[[], Awaitable[Any]]
"""What stands for the model provider: comes back when the lab says what came of the call, with it or by raising it."""


LOOP = asyncio.new_event_loop()
"""Of the whole process: what a library leaves running between two runs goes on here."""


class Failed(Exception):
    """What the provider raises."""


class Calls:
    """Each a task that has come to its provider and waits there."""

    def __init__(self) -> None:
        self.loop = LOOP
        self._under_way: dict[int, tuple[asyncio.Task[Any], asyncio.Future[Any]]] = {}

    def begin(
        self, number: int, call: Callable[[Provider], Coroutine[Any, Any, Any]], context: Context | None = None
    ) -> BaseException | None:
        """Let ``call`` run until it has come to its provider; what it raised, if it never did."""
        told, reached = self.loop.create_future(), self.loop.create_future()

        async def provider() -> Any:
            reached.set_result(None)
            return await told

        task = self.loop.create_task(call(provider), context=context)
        self.loop.run_until_complete(asyncio.wait((task, reached), return_when=asyncio.FIRST_COMPLETED))
        if task.done():
            return task.exception()
        self._under_way[number] = task, told
        return None

    def end(self, number: int, came: Any) -> BaseException | None:
        """The provider answers with ``came``, or raises it; what the library raised then. Nothing if the call is over."""
        task, told = self._under_way.pop(number, (None, None))
        if task is None or told is None:
            return None
        if isinstance(came, Exception):
            told.set_exception(came)
        else:
            told.set_result(came)
        return self._over(task)

    def cancel(self, number: int) -> None:
        """The caller of it is cancelled."""
        task, _ = self._under_way.pop(number)
        task.cancel()
        self._over(task)

    def _over(self, task: asyncio.Task[Any]) -> BaseException | None:
        self.loop.run_until_complete(asyncio.wait([task]))
        return None if task.cancelled() else task.exception()

    def close(self) -> None:
        """Whatever is left is cancelled."""
        for number in tuple(self._under_way):
            self.cancel(number)
