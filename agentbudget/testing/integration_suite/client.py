"""The adapter of a provider's SDK, as far as it is the same for all of them: clients with ``close``, sync and async, that a guard
takes and gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal

from agentbudget.testing.integration_suite.adapter import Ask, How


class ClientAdapter(ABC):
    """See ``Adapter``; a subclass says how its clients are made and asked, and has ``nested``, whose loop is each API's own.

    made: a new client, not guarded. guard: the integration's. create: a call of a client, or a stream of it with ``stream=True``
    in ``more``; awaited where the client is asynchronous.
    """

    name: str
    api: Literal["openai", "anthropic"]
    calls: tuple[How, ...] = ("sync", "async")
    streams: tuple[How, ...] = ("sync", "async")
    cannot: Mapping[str, str] = {}

    @abstractmethod
    def made(self, ask: Ask, how: How) -> Any: ...
    @abstractmethod
    def guard(self, client: Any) -> Any: ...
    @abstractmethod
    def create(self, client: Any, ask: Ask, **more: Any) -> Any: ...

    def client(self, ask: Ask, how: How = "sync") -> Any:
        """A guarded client of the fake."""
        return self.guard(self.made(ask, how))

    def call(self, ask: Ask) -> Any:
        with self.client(ask) as client:
            return self.create(client, ask)

    async def acall(self, ask: Ask) -> Any:
        async with self.client(ask, "async") as client:
            return await self.create(client, ask)

    def stream(self, ask: Ask) -> Iterator[Any]:
        with self.client(ask) as client, self.create(client, ask, stream=True) as items:
            yield from items

    async def astream(self, ask: Ask) -> AsyncIterator[Any]:
        async with self.client(ask, "async") as client, await self.create(client, ask, stream=True) as items:
            async for item in items:
                yield item

    def doubled(self, ask: Ask) -> Any:
        with self.client(ask) as client:
            return self.create(self.guard(client), ask)
