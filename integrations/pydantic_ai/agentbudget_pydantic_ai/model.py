"""``BudgetModel``: a model whose every call is held.

Pydantic AI tries a call again by calling the model again, so each of its attempts passes here. What the SDK's client under a
model tries again out of sight is accounted beside the step (``clients``).
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel

from agentbudget.errors import InvalidRequest
from agentbudget.runtime.steps.current import announced, claim, session_for
from agentbudget_pydantic_ai import jobs, request
from agentbudget_pydantic_ai.clients import account_client
from agentbudget_pydantic_ai.reply import told, usage_of
from agentbudget_pydantic_ai.streams import Reading

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import RunContext

    from agentbudget import Session, Step


class Terms(Struct, frozen=True, kw_only=True):
    """How a model is held: see :class:`BudgetModel`."""

    session: Session | None = None
    name: str | None = None
    provider: str | None = None
    feature: str | None = None


class BudgetModel(WrapperModel):
    """``Agent(BudgetModel("openai:gpt-5-mini"))``: the same model; before each call it holds what the call may cost and refuses
    it by ``BudgetDenied`` (``BudgetAbort`` by the session's ``on_denied``). A call without an output cap gets the session's;
    ``on_short="clamp"`` lowers one to what fits. It settles what the reply states.

    wrapped: the model, or its name.  session: whose budget pays; None means the current session at each call, and without one
    the call is refused (``no_session``).  name, provider: what the catalog prices (default: those of the model).  feature: what
    the plan must entitle (None: the session's). Of a ``FallbackModel`` each candidate is held by itself, at its own price (and
    under its own name). A model that is guarded already is not guarded twice.
    """

    def __init__(
        self,
        wrapped: Model | str,
        session: Session | None = None,
        *,
        name: str | None = None,
        provider: str | None = None,
        feature: str | None = None,
    ) -> None:
        super().__init__(wrapped)
        self._terms = Terms(session=session, name=name, provider=provider, feature=feature)
        self._parts = _by_parts(self.wrapped, self._terms)

    async def request(
        self, messages: list[ModelMessage], model_settings: ModelSettings | None, model_request_parameters: ModelRequestParameters
    ) -> ModelResponse:  # fmt: skip
        """Hold, call, settle."""
        if self._parts is not None:
            return await self._parts.request(messages, model_settings, model_request_parameters)
        continued = jobs.continued_by(messages)
        job = jobs.find(continued)
        if job is not None:
            reply = await self.wrapped.request(messages, model_settings, model_request_parameters)
            await jobs.polled(job, reply)
            return reply
        step, settings = await self._held(messages, model_settings, model_request_parameters)
        async with step:
            try:
                reply = await self.wrapped.request(messages, settings, model_request_parameters)
            except Exception as error:
                await step.afail(told(error))
                raise
            await _settled(step, reply, continued)
            return reply

    @asynccontextmanager
    async def request_stream(
        self, messages: list[ModelMessage], model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters, run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:  # fmt: skip
        """Hold, pass on what comes, settle before the last event is passed on."""
        job = None if self._parts is not None else jobs.find(jobs.continued_by(messages))
        if self._parts is not None or job is not None:
            async with (self._parts or self.wrapped).request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                yield stream
            if job is not None:
                await jobs.polled(job, stream.get())
            return
        step, settings = await self._held(messages, model_settings, model_request_parameters)
        opening = self.wrapped.request_stream(messages, settings, model_request_parameters, run_context)
        async with AsyncExitStack() as stack:
            try:
                with announced(step):
                    reading = Reading(await stack.enter_async_context(opening), step)
            except BaseException as error:
                await step.afail(told(error))
                raise
            claim(step)  # its call was made: what a guarded client sends while the stream runs is other work
            try:
                yield reading.stream
            except GeneratorExit:  # whoever waits is being closed: nothing may be awaited any more
                step.abandon()
                raise
            except BaseException:
                await reading.leave()
                raise
            await reading.leave()

    async def compact_messages(
        self, request_context: ModelRequestContext, *, instructions: str | None = None
    ) -> ModelResponse:
        """A summary that the provider makes is a call like any other."""
        if self._parts is not None:
            return await self._parts.compact_messages(request_context, instructions=instructions)
        asked = request_context
        step, settings = await self._held(asked.messages, asked.model_settings, asked.model_request_parameters)
        async with step:
            capped = copy.copy(asked)
            capped.model_settings = settings
            reply = await self.wrapped.compact_messages(capped, instructions=instructions)
            await step.asettle(usage_of(reply))
            return reply

    async def batch_create(self, requests: Sequence[Any]) -> Any:
        """Batches are billed when nobody of this process may look any more, so they are not sent from here."""
        raise InvalidRequest(
            "a batch is not held: use BudgetCapability beside BatchModelRequests, which holds each request, or send the batch by "
            "the bare model inside `with session.step('llm', amount=...)`",
            "model",
        )

    async def _held(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> tuple[Step, ModelSettings | None]:
        """The step of a call, and the settings with the cap that its hold rests on."""
        model, terms = self.wrapped, self._terms
        account_client(model)
        prepared, parameters = model.prepare_request(settings, parameters)
        merged = prepared or {}
        session, cap = session_for(terms.session), request.cap_of(merged)
        thinking = request.thinking_budget(model, merged, parameters) if cap is None else 0
        step = await session.areserve(
            "llm",
            model=terms.name or model.model_name,
            provider=terms.provider or request.provider_of(model.system),
            request=request.payload_of(messages, merged, parameters),
            max_output_tokens=session.max_output_tokens + thinking if thinking else cap,
            quantity=request.quantity_of(merged),
            server_tools=request.uses_server_tools(parameters),
            feature=terms.feature,
            dispatched=True,
        )
        most = step.max_output_tokens
        return step, settings if most is None or most == cap else request.with_cap(settings, merged, most)


def is_guarded(model: Model) -> bool:
    """Whether a model, or one that it wraps, is a :class:`BudgetModel`."""
    while not isinstance(model, BudgetModel):
        if not isinstance(model, WrapperModel):
            return False
        model = model.wrapped
    return True


def _by_parts(model: Model, terms: Terms) -> Model | None:
    """A copy of a ``FallbackModel``, also of a wrapped one, whose candidates are guarded; of a model that is guarded already,
    itself. None for a model that makes its calls itself."""
    if isinstance(model, BudgetModel):
        return model
    if isinstance(model, FallbackModel):
        parts = copy.copy(model)
        parts.models = [BudgetModel(each, terms.session, feature=terms.feature) for each in model.models]
        return parts
    if isinstance(model, WrapperModel) and (inner := _by_parts(model.wrapped, terms)) is not None:
        outer = copy.copy(model)
        outer.wrapped = inner
        return outer
    return None


async def _settled(step: Step, reply: ModelResponse, continued: str | None) -> None:
    """Book what a reply states, or, while the provider still works on it, a guess."""
    if not jobs.is_running(reply):
        await step.asettle(usage_of(reply))
    elif continued is not None and continued == reply.provider_response_id:
        await step.arelease()  # a poll, of a job of another process, which brought nothing
    else:
        await jobs.guessed(step, reply)
