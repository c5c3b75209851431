"""Guarded agents as the suite of every integration drives them, over chat completions, Responses and
Anthropic's messages; blocking streams without an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from agentbudget_pydantic_ai import BudgetCapability, BudgetModel
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream_sync
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from agentbudget.testing.integration_suite import Ask


class Chat:
    """Agents over chat completions."""

    name: str = "pydantic-ai chat"
    api: Any = "openai"
    calls: Any = ("sync", "async")
    streams: Any = ("sync", "async")
    cannot: Mapping[str, str] = {}

    def model(self, ask: Ask) -> Any:
        return OpenAIChatModel(ask.model, provider=OpenAIProvider(openai_client=openai_client_of(ask)))

    def agent(self, ask: Ask, **more: Any) -> Any:
        return Agent(
            self.model(ask), capabilities=[BudgetCapability()], model_settings={"max_tokens": ask.max_output_tokens}, **more
        )  # fmt: skip

    def call(self, ask: Ask) -> Any:
        return self.agent(ask).run_sync(ask.prompt)

    async def acall(self, ask: Ask) -> Any:
        return await self.agent(ask).run(ask.prompt)

    def stream(self, ask: Ask) -> Iterator[Any]:
        settings: Any = {"max_tokens": ask.max_output_tokens}
        asked = [ModelRequest.user_text_prompt(ask.prompt)]
        with model_request_stream_sync(BudgetModel(self.model(ask)), asked, model_settings=settings) as events:
            yield from events

    async def astream(self, ask: Ask) -> AsyncIterator[Any]:
        async with self.agent(ask).iter(ask.prompt) as run:
            async for node in run:
                if Agent.is_model_request_node(node):
                    async with node.stream(run.ctx) as events:
                        async for event in events:
                            yield event

    def nested(self, ask: Ask) -> Any:
        helper, agent = self.agent(ask), self.agent(ask)

        @agent.tool_plain
        async def ask_helper(question: str) -> str:
            """Asks a helper."""
            return str((await helper.run(question)).output)

        return asyncio.run(agent.run(ask.prompt)).output

    def doubled(self, ask: Ask) -> Any:
        agent = Agent(
            BudgetModel(BudgetModel(self.model(ask))), capabilities=[BudgetCapability(), BudgetCapability()],
            model_settings={"max_tokens": ask.max_output_tokens},
        )  # fmt: skip
        return agent.run_sync(ask.prompt)


class Responses(Chat):
    """Agents over Responses."""

    name: str = "pydantic-ai responses"

    def model(self, ask: Ask) -> Any:
        return OpenAIResponsesModel(ask.model, provider=OpenAIProvider(openai_client=openai_client_of(ask)))


class Messages(Chat):
    """Agents over Anthropic's messages."""

    name: str = "pydantic-ai anthropic"
    api: Any = "anthropic"

    def model(self, ask: Ask) -> Any:
        client = AsyncAnthropic(
            base_url=ask.url, api_key="none", timeout=ask.timeout_seconds, max_retries=ask.max_retries
        )
        return AnthropicModel(ask.model, provider=AnthropicProvider(anthropic_client=client))


def openai_client_of(ask: Ask) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=ask.openai_url, api_key="none", timeout=ask.timeout_seconds, max_retries=ask.max_retries
    )
