"""``BudgetModel``: a model whose every call is held, and ``BudgetProvider``, which makes every model of a run one.

The SDK tries a call again by calling the model again, so each of its attempts passes here. What the OpenAI client under a model
tries again out of sight is accounted beside the step (``account_retries``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from agentbudget_openai import account_retries
from agents import Model, ModelProvider, MultiProvider
from openai import AsyncOpenAI

from agentbudget.runtime.steps.current import announce, claim, session_for
from agentbudget_openai_agents.request import (
    cap_of,
    payload_of,
    tokens_of_event,
    usage_of,
    usage_of_event,
    uses_server_tools,
    with_cap,
    with_usage,
)

if TYPE_CHECKING:
    from agents.items import ModelResponse, TResponseStreamEvent
    from agents.model_settings import ModelSettings

    from agentbudget import Session, Step


class BudgetModel(Model):
    """``Agent(model=BudgetModel(model))``: the same model; before each call it holds what the call may cost and refuses it by
    ``BudgetDenied`` (``BudgetAbort`` by the session's ``on_denied``). A call without an output cap gets the session's;
    ``on_short="clamp"`` lowers one to what fits. It settles what the reply states.

    model: the model, or a function that makes it at its first call.  session: whose budget pays; None means the current session
    at each call, and without one the call is refused (``no_session``).  name, provider: what the catalog prices (default: the
    name that the model carries).  feature: what the plan must entitle (None: the session's). A model that is guarded already
    is not guarded twice.
    """

    def __init__(
        self,
        model: Model | Callable[[], Model],
        session: Session | None = None,
        *,
        name: str | None = None,
        provider: str | None = None,
        feature: str | None = None,
    ) -> None:
        self._given, self._session, self._name = model, session, name
        self._provider, self._feature = provider, feature
        self._found: Model | None = None

    @property
    def inner(self) -> Model:
        """The model that is guarded."""
        if self._found is None:
            made = self._given if isinstance(self._given, Model) else self._given()
            while isinstance(made, BudgetModel):
                made = made.inner
            client = getattr(made, "_client", None)
            if isinstance(client, AsyncOpenAI):
                account_retries(client)
            self._found = made
        return self._found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def get_retry_advice(self, request: Any) -> Any:
        return self.inner.get_retry_advice(request)

    async def close(self) -> None:
        await self.inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)

    async def get_response(
        self, system_instructions: str | None, input: Any, model_settings: ModelSettings, tools: list[Any],
        output_schema: Any, handoffs: list[Any], tracing: Any, **stored: Any,
    ) -> ModelResponse:  # fmt: skip
        """Hold, call, settle."""
        payload = payload_of(system_instructions, input, tools, output_schema, handoffs, _stored(stored))
        async with await self._held(payload, model_settings, tools) as step:
            reply = await self.inner.get_response(
                system_instructions, input, _capped(model_settings, step), tools, output_schema, handoffs, tracing,
                **stored,
            )  # fmt: skip
            await step.asettle(usage_of(reply))
            return reply

    async def stream_response(
        self, system_instructions: str | None, input: Any, model_settings: ModelSettings, tools: list[Any],
        output_schema: Any, handoffs: list[Any], tracing: Any, **stored: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:  # fmt: skip
        """Hold, pass on what comes, settle with the event that ends the response, before it is passed on."""
        payload = payload_of(system_instructions, input, tools, output_schema, handoffs, _stored(stored))
        step = await self._held(payload, model_settings, tools)
        announce(step)
        events = self.inner.stream_response(
            system_instructions, input, with_usage(_capped(model_settings, step)), tools, output_schema, handoffs, tracing,
            **stored,
        )  # fmt: skip
        async with aclosing(step.awrap(events, usage_of_event, tokens_of_event)) as passed:
            async for event in passed:
                claim(step)  # its call was made: what a guarded client sends while the stream runs is other work
                yield event

    async def _held(self, payload: Any, settings: ModelSettings, tools: list[Any]) -> Step:
        name = self._name or getattr(self.inner, "model", None)
        return await session_for(self._session).areserve(
            "llm",
            model=name if isinstance(name, str) else None,
            provider=self._provider,
            request=payload,
            max_output_tokens=cap_of(settings),
            server_tools=uses_server_tools(tools),
            feature=self._feature,
            dispatched=True,
        )


class BudgetProvider(ModelProvider):
    """``Runner.run(agent, ..., run_config=RunConfig(model_provider=BudgetProvider()))``: every model of the run that is named,
    also of agents it hands over to and of agents that are tools, is a :class:`BudgetModel`. Model objects are not looked up:
    wrap those. ``provider``: where the models come from (default: the SDK's)."""

    def __init__(
        self, provider: ModelProvider | None = None, session: Session | None = None, *, feature: str | None = None
    ) -> None:
        self._inner, self._session, self._feature = provider or MultiProvider(), session, feature

    def get_model(self, model_name: str | None) -> Model:
        return BudgetModel(self._inner.get_model(model_name), self._session, feature=self._feature)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _capped(settings: ModelSettings, step: Step) -> ModelSettings:
    """The settings with the cap that the hold rests on, unless they carry it already."""
    cap = step.max_output_tokens
    return settings if cap is None or cap == cap_of(settings) else with_cap(settings, cap)


def _stored(stored: dict[str, Any]) -> dict[str, Any]:
    """Under the names by which an estimate knows that part of the input is kept elsewhere."""
    names = {"previous_response_id": "previous_response_id", "conversation_id": "conversation", "prompt": "prompt"}
    return {names[name]: value for name, value in stored.items() if name in names}
