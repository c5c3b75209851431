"""The agent of the demonstration: real LangChain, a scripted model, a tool whose results grow, a loop without end.

The only module here that imports LangChain; ``demo`` imports it when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, ScriptedChatModel
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langsmith import tracing_context

TASK: Final = "Find out why the nightly build got slower."
FIRST_LINES: Final = 20
MORE_LINES: Final = 4
"""The first page of results has the first number of lines and the second, and every page the second more."""
REASONING_TOKENS: Final = 1_800
"""Hidden output of each reply, as reasoning models have it."""
MAX_GRAPH_STEPS: Final = 2_000
"""LangGraph's own stop, put out of the way: the budget is to stop the loop."""

Checked = Callable[[list[BaseMessage]], None]


@tool
def search_logs(query: str, page: int) -> str:
    """Search the logs of the build. Gives one page of results."""
    lines = FIRST_LINES + MORE_LINES * page
    return "\n".join(
        f"{page}-{line:04d} compile unit {line * 37 % 991}: {line * 53 % 89} ms, ok" for line in range(lines)
    )


def without_tracing() -> AbstractContextManager[Any]:
    """No traces are sent, whatever the environment says: the demonstration uses no network."""
    return tracing_context(enabled=False)


class Agent:
    """The agent, with what was sent to its model."""

    def __init__(self, model: str, *, guarded: bool, latency: float, on_call: Checked | None = None) -> None:
        self._model = ScriptedChatModel(
            model=model, provider="", replies=_one_more_page, reasoning_tokens=REASONING_TOKENS, latency=latency,
            on_call=on_call,
        )  # fmt: skip
        guard: Any = {"middleware": [BudgetMiddleware()], "checkpointer": InMemorySaver()} if guarded else {}
        self._agent: Any = create_agent(self._model, [search_logs], **guard)
        self._config = {
            "recursion_limit": MAX_GRAPH_STEPS,
            "configurable": {"thread_id": "demo"},
            "callbacks": [BudgetCallbackHandler()]
            if guarded
            else [],  # both attached: a call is charged once all the same
        }

    @property
    def model_calls(self) -> int:
        """Requests that reached the model."""
        return len(self._model.received)

    def work(self) -> Iterator[list[BaseMessage]]:
        """Do the task; yields the messages of each step when it is done, and raises what a step raises."""
        yield from self._stream({"messages": [("user", TASK)]})

    def go_on(self) -> Iterator[list[BaseMessage]]:
        """Try the step again that raised, from where the agent was."""
        yield from self._stream(None)

    def _stream(self, start: Any) -> Iterator[list[BaseMessage]]:
        for update in self._agent.stream(start, self._config, stream_mode="updates"):
            for change in update.values():
                if change and change.get("messages"):
                    yield change["messages"]


def _one_more_page(messages: list[BaseMessage]) -> AIMessage:
    """What the model always says. Each page is another one, so no rule against repeated calls sees a loop."""
    page = 1 + sum(isinstance(message, ToolMessage) for message in messages)
    call = {"name": "search_logs", "args": {"query": "slow", "page": page}, "id": f"call_{page}"}
    return AIMessage(content="Nothing yet. I will look at one more page.", tool_calls=[call])
