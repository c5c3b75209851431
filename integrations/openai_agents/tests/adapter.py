"""A guarded agent as the suite of every integration drives it, over chat completions and Responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from agentbudget_openai_agents import BudgetModel, guard_agent
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from agentbudget.testing.integration_suite import Ask

set_tracing_disabled(True)  # its exporter would send what the tests do to OpenAI


class Agents:
    """Agents over Responses."""

    name: str = "openai-agents responses"
    api: Any = "openai"
    calls: Any = ("sync", "async")
    streams: Any = ("async",)
    cannot: Mapping[str, str] = {}

    def model(self, ask: Ask) -> Any:
        return OpenAIResponsesModel(ask.model, client_of(ask))

    def agent(self, ask: Ask, **more: Any) -> Any:
        settings = ModelSettings(max_tokens=ask.max_output_tokens)
        return guard_agent(Agent("asker", model=self.model(ask), model_settings=settings, **more))

    def call(self, ask: Ask) -> Any:
        return asyncio.run(self.acall(ask))

    async def acall(self, ask: Ask) -> Any:
        return await Runner.run(self.agent(ask), ask.prompt)

    def stream(self, ask: Ask) -> Iterator[Any]:
        raise AssertionError("see streams")

    async def astream(self, ask: Ask) -> AsyncIterator[Any]:
        run = Runner.run_streamed(self.agent(ask), ask.prompt)
        try:
            async for event in run.stream_events():
                if event.type == "raw_response_event":  # the others come before and after what the model says
                    yield event
        finally:
            run.cancel()

    def nested(self, ask: Ask) -> Any:
        helper = self.agent(ask)

        @function_tool
        async def ask_helper(question: str) -> str:
            """Asks a helper."""
            return str((await Runner.run(helper, question)).final_output)

        return Runner.run_sync(self.agent(ask, tools=[ask_helper]), ask.prompt).final_output

    def doubled(self, ask: Ask) -> Any:
        agent = self.agent(ask)
        agent.model = BudgetModel(agent.model)
        return Runner.run_sync(guard_agent(agent), ask.prompt)


class ChatAgents(Agents):
    """Agents over chat completions."""

    name: str = "openai-agents chat"

    def model(self, ask: Ask) -> Any:
        return OpenAIChatCompletionsModel(ask.model, client_of(ask))


def client_of(ask: Ask) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=ask.openai_url, api_key="none", timeout=ask.timeout_seconds, max_retries=ask.max_retries
    )
