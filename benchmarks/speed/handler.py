"""Row ``handler``: what enforcement adds to a LangChain call on a leased session, over hooks that do nothing."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, ScriptedChatModel
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler

from agentbudget import Runtime
from benchmarks.speed.measure import Effort, Figure, Row, figure, figures, taking_turns

MOST_ADDED_US: Final = 60
BLOCK: Final = 20
FLOOR: Final = "invoke with a handler that does nothing"
STATED: Final = "invoke with a handler that holds and settles a stated price"
GUARDED: Final = "invoke with BudgetCallbackHandler"
AGENT: Final = "agent with a middleware that does nothing"
WATCHED_AGENT: Final = "the same, with a handler that does nothing"
GUARDED_AGENT: Final = "agent with BudgetMiddleware"
ASK: Final[Any] = {"messages": [("user", "hi")]}


class Nothing(BaseCallbackHandler):
    """A handler that LangChain calls at the same places."""

    raise_error = True
    run_inline = True

    def on_chat_model_start(self, *arguments: Any, **more: Any) -> None:
        """Nothing."""

    def on_llm_end(self, *arguments: Any, **more: Any) -> None:
        """Nothing."""


class Stated(BaseCallbackHandler):
    """A handler with a step at a stated price and nothing else: what a step itself costs between two calls of LangChain."""

    raise_error = True
    run_inline = True

    def __init__(self, session: Any) -> None:
        self._session = session

    def on_chat_model_start(self, *arguments: Any, **more: Any) -> None:
        self._step = self._session.reserve("tool", name="call", amount="0.0001", dispatched=True)

    def on_llm_end(self, *arguments: Any, **more: Any) -> None:
        self._step.settle()


class NothingAround(AgentMiddleware):
    """A middleware around each model call and each tool call: for the latter LangChain adds a node to the graph."""

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request)


def added_to_an_invoke(effort: Effort) -> Row:
    """Calls of a scripted gpt-5-mini at its real price, without a handler, with one that does nothing, with ours."""
    with tempfile.TemporaryDirectory() as folder, Runtime.open(f"sqlite:///{folder}/ledger.db") as runtime:
        session = runtime.customers.create("acme", plan="local").session().open()
        found = taking_turns(_runs(session), rounds=effort.rounds, block=BLOCK, warm_up=BLOCK)
        if session.status().spent == 0:
            raise RuntimeError("the benchmark is wrong: nothing was charged")
    by_handler = _added("added by the handler", found, GUARDED, FLOOR)
    by_step = _added("of it by a step at a stated price", found, STATED, FLOOR)
    by_middleware = _added("added by the middleware", found, GUARDED_AGENT, AGENT)
    by_langchain = _added("added to an agent by a handler that does nothing", found, WATCHED_AGENT, AGENT)
    target = f"handler and middleware <= {MOST_ADDED_US} us added"
    is_met = max(by_handler.median, by_middleware.median) <= MOST_ADDED_US
    what = "a chat model call held and settled on a leased session (SQLite), prices from genai-prices"
    return Row(
        "handler", what, [*figures(found), by_handler, by_step, by_middleware, by_langchain], target, is_met, FLOOR
    )


def _added(label: str, found: Mapping[str, Sequence[float]], with_it: str, without: str) -> Figure:
    """By round, the median of one block over that of the block beside it: a machine that is slow for a while is so for both."""
    dear, cheap = _by_block(found[with_it]), _by_block(found[without])
    return figure(label, "us added", [a - b for a, b in zip(dear, cheap, strict=True)])


def _by_block(samples: Sequence[float]) -> list[float]:
    return [statistics.median(samples[at : at + BLOCK]) for at in range(0, len(samples), BLOCK)]


def _runs(session: Any) -> dict[str, Callable[[], object]]:
    model = ScriptedChatModel(model="gpt-5-mini", max_tokens=100)
    nothing: Any = {"callbacks": [Nothing()]}
    stated: Any = {"callbacks": [Stated(session)]}
    guard: Any = {"callbacks": [BudgetCallbackHandler(session)]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = create_agent(model, [], middleware=[NothingAround()])
        watched = create_agent(model.model_copy(update={"callbacks": [Nothing()]}), [], middleware=[NothingAround()])
        guarded = create_agent(model, [], middleware=[BudgetMiddleware(session)])
    return {
        "invoke without a handler": lambda: model.invoke("hi"),
        FLOOR: lambda: model.invoke("hi", nothing),
        STATED: lambda: model.invoke("hi", stated),
        GUARDED: lambda: model.invoke("hi", guard),
        AGENT: lambda: plain.invoke(ASK),
        WATCHED_AGENT: lambda: watched.invoke(ASK),
        GUARDED_AGENT: lambda: guarded.invoke(ASK),
    }
