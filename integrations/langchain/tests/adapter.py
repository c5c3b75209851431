"""LangChain and LangGraph as the suite of every integration drives them: by a handler that is given, by ``attach``, by the
middleware of an agent, in the nodes of a graph, and over guarded clients; each by ChatOpenAI and ChatAnthropic."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, closing
from typing import Any, Final, Literal

import agentbudget_anthropic
import agentbudget_openai
from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, account_retries, attach
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from agentbudget.testing.integration_suite import Ask, How

Api = Literal["openai", "anthropic"]

_HIDDEN: Final = {
    "a_retry_after_a_timeout_is_charged_for_both": "an SDK that tries again tells no callback of it; account_retries(model) does"
}


def model_of(api: Api, ask: Ask, **more: Any) -> Any:
    """The usual chat model of a provider, at the fake."""
    if api == "openai":
        return ChatOpenAI(
            model=ask.model, base_url=ask.openai_url, api_key="none", max_completion_tokens=ask.max_output_tokens,
            timeout=ask.timeout_seconds, max_retries=ask.max_retries, stream_usage=True,
            stream_chunk_timeout=None, **more,  # its wait_for loses a cancellation now and then on Python 3.11
        )  # fmt: skip
    return ChatAnthropic(
        model_name=ask.model, base_url=ask.url, api_key="none", max_tokens_to_sample=ask.max_output_tokens,
        timeout=ask.timeout_seconds, max_retries=ask.max_retries, stop=None, **more,
    )  # fmt: skip


class Attached:
    """A model as it is, in a block of ``attach``."""

    calls: tuple[How, ...] = ("sync", "async")
    streams: tuple[How, ...] = ("sync", "async")
    cannot: Mapping[str, str] = _HIDDEN

    def __init__(self, api: Api) -> None:
        self.api = api
        self.name = f"{type(self).__name__.lower()} {api}"

    # --- what the kinds differ in -----------------------------------------------------------------------------------------

    def model(self, ask: Ask, **more: Any) -> Any:
        return model_of(self.api, ask, **more)

    def runs(self, ask: Ask) -> Any:
        """The runnable that makes one model call."""
        return self.model(ask)

    def agent(self, ask: Ask) -> Any:
        return create_agent(self.model(ask), [self.helper(ask)])

    def around(self, ask: Ask) -> AbstractContextManager[Any]:
        return attach(ask.session)

    @property
    def config(self) -> Any:
        return None

    def given(self, ask: Ask) -> Any:
        return ask.prompt

    @property
    def how_streamed(self) -> dict[str, Any]:
        return {}

    # --- the same for all -------------------------------------------------------------------------------------------------

    def helper(self, ask: Ask) -> BaseTool:
        """A tool that makes a model call of its own."""
        model = self.model(ask)

        @tool
        def ask_helper(question: str) -> str:
            """Asks a helper."""
            return str(model.invoke(question).content)

        return ask_helper

    def call(self, ask: Ask) -> Any:
        with self.around(ask):
            return self.runs(ask).invoke(self.given(ask), self.config)

    async def acall(self, ask: Ask) -> Any:
        with self.around(ask):
            return await self.runs(ask).ainvoke(self.given(ask), self.config)

    def stream(self, ask: Ask) -> Iterator[Any]:
        begun = False
        with (
            self.around(ask),
            closing(self.runs(ask).stream(self.given(ask), self.config, **self.how_streamed)) as items,
        ):
            for item in items:
                if begun := begun or brings_output(item):
                    yield item

    async def astream(self, ask: Ask) -> AsyncIterator[Any]:
        begun, runs = False, self.runs(ask)
        with self.around(ask):
            async with aclosing(runs.astream(self.given(ask), self.config, **self.how_streamed)) as items:
                async for item in items:
                    if begun := begun or brings_output(item):
                        yield item

    def nested(self, ask: Ask) -> Any:
        with self.around(ask):
            return self.agent(ask).invoke({"messages": [("user", ask.prompt)]}, self.config)

    def doubled(self, ask: Ask) -> Any:
        """A handler on the model, and one on the block."""
        with attach(ask.session):
            return self.model(ask, callbacks=[BudgetCallbackHandler(ask.session)]).invoke(ask.prompt)


def brings_output(item: Any) -> bool:
    """Whether a chunk brings anything. A stream begins with one that has only a role; who leaves it there is charged all that it
    held, for nobody knows what the model had thought until then (``test_streams`` has that)."""
    chunk = item[0] if isinstance(item, tuple) else item
    return bool(chunk.content or chunk.tool_call_chunks)


class Handler(Attached):
    """A handler among the callbacks of each call."""

    def around(self, ask: Ask) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    @property
    def config(self) -> Any:
        return {"callbacks": [BudgetCallbackHandler()]}

    def doubled(self, ask: Ask) -> Any:
        """Two handlers on one call."""
        return self.model(ask).invoke(ask.prompt, {"callbacks": [BudgetCallbackHandler(), BudgetCallbackHandler()]})


class Middleware(Attached):
    """The middleware of an agent."""

    def runs(self, ask: Ask) -> Any:
        return create_agent(self.model(ask), [], middleware=[BudgetMiddleware(ask.session)])

    def agent(self, ask: Ask) -> Any:
        return create_agent(self.model(ask), [self.helper(ask)], middleware=[BudgetMiddleware(ask.session)])

    def around(self, ask: Ask) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def given(self, ask: Ask) -> Any:
        return {"messages": [("user", ask.prompt)]}

    @property
    def how_streamed(self) -> dict[str, Any]:
        return {"stream_mode": "messages"}

    def doubled(self, ask: Ask) -> Any:
        """The middleware, in a block of ``attach``."""
        with attach(ask.session):
            return self.call(ask)


class Graph(Attached):
    """A node of a graph, and the retries of the SDK below it."""

    cannot: Mapping[str, str] = {}

    def model(self, ask: Ask, **more: Any) -> Any:
        return account_retries(model_of(self.api, ask, **more))

    def runs(self, ask: Ask) -> Any:
        return built(self.model(ask)).compile()

    def agent(self, ask: Ask) -> Any:
        helper = self.helper(ask)
        graph = built(self.model(ask).bind_tools([helper]))
        graph.add_node("tools", ToolNode([helper]))
        graph.add_conditional_edges("ask", tools_condition)
        graph.add_edge("tools", "ask")
        return graph.compile()

    def given(self, ask: Ask) -> Any:
        return {"messages": [("user", ask.prompt)]}

    @property
    def how_streamed(self) -> dict[str, Any]:
        return {"stream_mode": "messages"}


class Guarded(Attached):
    """The SDK's clients inside the model are guarded, too: each call is an attempt of the step that the handler holds."""

    cannot: Mapping[str, str] = {}

    def model(self, ask: Ask, **more: Any) -> Any:
        model = model_of(self.api, ask, **more)
        if self.api == "openai":
            agentbudget_openai.guard(model.root_client)
            agentbudget_openai.guard(model.root_async_client)
        else:
            agentbudget_anthropic.guard(model._client)
            agentbudget_anthropic.guard(model._async_client)
        return model


def built(model: Any) -> Any:
    """A graph with one node, which asks the model."""

    def node(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def anode(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("ask", RunnableLambda(node, afunc=anode))
    graph.add_edge(START, "ask")
    return graph
