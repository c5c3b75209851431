"""What an integration gives the suite: a few calls through its own guarded client or agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agentbudget import Session

How = Literal["sync", "async"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a test asks of an adapter: one model call, of ``model``, at a fake provider.

    session: it pays, and it is also the current one. url: the fake's root: Anthropic's ``base_url``; OpenAI's is
    ``openai_url``. max_output_tokens: the cap to write into the request. timeout_seconds: of the HTTP client; ``max_retries``:
    where the SDK or framework retries by itself. The key of the client may be any text.
    """

    session: Session
    url: str
    model: str = "counted"
    prompt: str = "hi"
    max_output_tokens: int = 100
    timeout_seconds: float = 60.0
    max_retries: int = 0

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"


class Adapter(Protocol):
    """One integration, as the suite drives it. Each method makes a new client or agent, guards it, and lets what it raises
    through: the suite looks for ``BudgetDenied`` with ``find_denied``.

    name: for test ids. api: whose wire format it speaks. calls, streams: the ways in which it can be called and streamed
    from. cannot: names of tests (without ``test_``) that do not apply, each with the reason why; they are skipped with it, and a
    name that no test has fails.
    """

    @property
    def name(self) -> str: ...
    @property
    def api(self) -> Literal["openai", "anthropic"]: ...
    @property
    def calls(self) -> tuple[How, ...]: ...
    @property
    def streams(self) -> tuple[How, ...]: ...
    @property
    def cannot(self) -> Mapping[str, str]: ...

    def call(self, ask: Ask) -> Any:
        """One model call, to its end."""
        ...

    async def acall(self, ask: Ask) -> Any:
        """The same, awaited; a cancelled task must cancel the request."""
        ...

    def stream(self, ask: Ask) -> Iterator[Any]:
        """A model call streamed: each item that the consumer sees (from the first that brings output on, where a stream that is
        left before is charged all that it held). Closing the iterator leaves the stream."""
        ...

    def astream(self, ask: Ask) -> AsyncIterator[Any]:
        """The same; ``aclose()``, or cancelling who reads, leaves it."""
        ...

    def nested(self, ask: Ask) -> Any:
        """A model call whose reply calls a tool; the tool makes a model call of its own (a sub-agent, or the guarded client
        again) with the same model; then the first model is called again with the tool's answer. The fake's first reply asks for
        the tool ``ask_helper`` with the argument ``question``. Frameworks: an agent; a raw client: the loop by hand."""
        ...

    def doubled(self, ask: Ask) -> Any:
        """One model call with the guard put on twice (two handlers, a guarded client guarded again)."""
        ...
