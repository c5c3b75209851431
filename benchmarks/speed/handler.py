"""Row ``handler``: what enforcement adds to a LangChain call, in memory, so without the commit."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, ScriptedChatModel
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler

from agentbudget import Catalog, Runtime
from agentbudget.clock import SystemClock
from agentbudget.runtime.owner.local_host import LocalHost
from agentbudget.runtime.settings import Settings
from agentbudget.testing import MemoryJournal
from benchmarks.speed.measure import Effort, Row, count, elapsed_us, figures

MOST_ADDED_US: Final = 150
FLOOR: Final = "invoke with a handler that does nothing"
GUARDED: Final = "invoke with BudgetCallbackHandler"
AGENT: Final = "agent with a middleware that does nothing"
GUARDED_AGENT: Final = "agent with BudgetMiddleware"
ASK: Final[Any] = {"messages": [("user", "hi")]}


class Watched:
    """A host, with the time that its callers waited for answers: commit, owner and the way there and back."""

    def __init__(self, host: LocalHost) -> None:
        self._host, self._waited_us = host, 0.0

    def ask(self, *arguments: Any) -> Any:
        start = time.perf_counter_ns()
        try:
            return self._host.ask(*arguments)
        finally:
            self._waited_us += (time.perf_counter_ns() - start) / 1e3

    def take(self) -> float:
        """Microseconds waited since the last look."""
        waited, self._waited_us = self._waited_us, 0.0
        return waited

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


class Nothing(BaseCallbackHandler):
    """A handler that LangChain calls at the same places."""

    raise_error = True
    run_inline = True

    def on_chat_model_start(self, *arguments: Any, **more: Any) -> None:
        """Nothing."""

    def on_llm_end(self, *arguments: Any, **more: Any) -> None:
        """Nothing."""


class NothingAround(AgentMiddleware):
    """A middleware around each model call."""

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request)


def added_to_an_invoke(effort: Effort) -> Row:
    """Calls of a scripted gpt-5-mini at its real price, without a handler, with one that does nothing, with ours."""
    journal = MemoryJournal()
    host = Watched(LocalHost(journal, SystemClock()))
    with Runtime(host, journal, Catalog.bundled(), SystemClock(), Settings()) as runtime:
        session = runtime.customers.create("acme", plan="local").session().open()
        turns, aside = _measured(_runs(session), host, effort)
        if session.status().spent == 0:
            raise RuntimeError("the benchmark is wrong: nothing was charged")
    row = Row(
        "handler",
        "a chat model call held and settled on memory://, prices from genai-prices",
        figures(turns),
        floor=FLOOR,
    )
    base, agent = row[FLOOR].median, row[AGENT].median
    added = statistics.median(aside[GUARDED]) - base
    found = [
        *row.figures,
        count("added by the handler", row[GUARDED].median - base, "us added"),
        count("by the handler, the owner's answers aside", added, "us added"),
        count("added by the middleware", row[GUARDED_AGENT].median - agent, "us added"),
        count(
            "by the middleware, the owner's answers aside", statistics.median(aside[GUARDED_AGENT]) - agent, "us added"
        ),
    ]
    target = f"handler <= {MOST_ADDED_US} us added, commits aside"
    return Row(row.name, row.what, found, target, added <= MOST_ADDED_US, FLOOR)


def _measured(
    runs: dict[str, Callable[[], object]], host: Watched, effort: Effort
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Microseconds a call, and microseconds of it that were no waiting for the owner."""
    turns: dict[str, list[float]] = {label: [] for label in runs}
    aside: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(effort.rounds + 1):
        for label, run in runs.items():
            for _ in range(20):
                host.take()
                turns[label].append(elapsed_us(run))
                aside[label].append(turns[label][-1] - host.take())
    return {k: v[20:] for k, v in turns.items()}, {k: v[20:] for k, v in aside.items()}  # the first turns warm up


def _runs(session: Any) -> dict[str, Callable[[], object]]:
    model = ScriptedChatModel(model="gpt-5-mini", max_tokens=100)
    nothing: Any = {"callbacks": [Nothing()]}
    guard: Any = {"callbacks": [BudgetCallbackHandler(session)]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = create_agent(model, [], middleware=[NothingAround()])
        guarded = create_agent(model, [], middleware=[BudgetMiddleware(session)])
    return {
        "invoke without a handler": lambda: model.invoke("hi"),
        FLOOR: lambda: model.invoke("hi", nothing),
        GUARDED: lambda: model.invoke("hi", guard),
        AGENT: lambda: plain.invoke(ASK),
        GUARDED_AGENT: lambda: guarded.invoke(ASK),
    }
