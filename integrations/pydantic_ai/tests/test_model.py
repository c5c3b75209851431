"""``BudgetModel``: caps, what a hold covers, fallbacks, retries of the client below, work that goes on at the provider."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any, Final

import pytest
from agentbudget_pydantic_ai import BudgetCapability, BudgetModel
from agentbudget_pydantic_ai.reply import told
from agentbudget_pydantic_ai.request import payload_of, provider_of, thinking_budget
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ImageUrl, ToolReturn, UploadedFile
from pydantic_ai.exceptions import ModelConnectionError, ModelHTTPError
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.native_tools import WebSearchTool

from agentbudget import BudgetDenied, InvalidRequest, Session
from agentbudget.catalog import estimate_input
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.steps.failures import proves_not_billed
from agentbudget.testing.integration_suite import Ask, _applies, ask, customer, provider, session
from agentbudget.testing.provider import FakeProvider, Reply
from integrations.pydantic_ai.tests.adapter import Chat, Messages, Responses

__all__ = ["_applies", "ask", "customer", "provider", "session"]

ASKED: Final = [ModelRequest.user_text_prompt("hi")]
PNG: Final = BinaryContent(b"\x89PNG\r\n\x1a\n" + bytes(20), media_type="image/png")


def run(model: Any, prompt: Any = "hi", **settings: Any) -> Any:
    return Agent(BudgetModel(model), model_settings=settings or None).run_sync(prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("api", "name"),
    [(Chat, "max_completion_tokens"), (Responses, "max_output_tokens"), (Messages, "max_tokens")],
    ids=["chat", "responses", "anthropic"],
)
def test_a_call_without_a_cap_gets_the_sessions(
    customer: Customer, ask: Ask, provider: FakeProvider, api: Any, name: str
) -> None:
    with customer.session(budget=5, max_output_tokens=321):
        run(api().model(ask))
    assert provider.bodies[0][name] == 321


def test_a_cap_of_the_model_itself_is_the_cap_that_is_held(
    customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    """H5-02: the settings of a call are merged with those of its model."""
    model = Chat().model(ask)
    model._settings = {"max_tokens": 200_000}
    with customer.session(budget=1), pytest.raises(BudgetDenied):
        run(model)
    assert provider.calls == []


@pytest.mark.parametrize(
    "settings", [{"max_tokens": 5_000}, {"extra_body": {"max_completion_tokens": 5_000}}], ids=["setting", "extra"]
)
def test_a_cap_is_clamped_to_what_fits(
    customer: Customer, ask: Ask, provider: FakeProvider, settings: dict[str, Any]
) -> None:
    with customer.session(budget="0.002", on_short="clamp"):
        run(Chat().model(ask), **settings)
    assert 100 < provider.bodies[0]["max_completion_tokens"] < 200


def test_the_sessions_cap_comes_beyond_a_thinking_budget(customer: Customer, ask: Ask, provider: FakeProvider) -> None:
    """Anthropic counts thinking as output and refuses a cap that is not above its budget."""
    with customer.session(budget=5, max_output_tokens=500):
        run(Messages().model(ask), anthropic_thinking={"type": "enabled", "budget_tokens": 2_000})
    assert provider.bodies[0]["max_tokens"] == 2_500


def test_only_claude_counts_the_budget_of_the_setting_that_all_models_share() -> None:
    def budget(system: str, name: str, **profile: Any) -> int:
        model: Any = SimpleNamespace(system=system, model_name=name, profile=profile)
        return thinking_budget(model, {}, ModelRequestParameters(thinking="low"))

    assert budget("anthropic", "claude-3-7-sonnet") == budget("bedrock", "us.anthropic.claude-3-7") == 2_048
    assert budget("anthropic", "claude-opus", anthropic_supports_adaptive_thinking=True) == 0
    assert budget("openai", "gpt-5") == 0


def test_who_serves_is_named_as_the_price_table_names_it() -> None:
    found = [provider_of(name) for name in ("openai", "anthropic", "bedrock", "xai", "google-cloud", "groq")]
    assert found == [None, "anthropic", "aws", "x-ai", "google", "groq"]


def test_several_candidates_are_held(customer: Customer, ask: Ask, provider: FakeProvider) -> None:
    with customer.session(budget="0.004"), pytest.raises(BudgetDenied):
        run(Chat().model(ask), max_tokens=100, extra_body={"n": 5})
    assert provider.calls == []


@pytest.mark.parametrize(
    "prompt",
    [
        ["look", ImageUrl("https://example.com/a.png")],
        ["read", UploadedFile("file-1", provider_name="openai", media_type="application/pdf")],
    ],
    ids=["url", "file"],
)
def test_what_is_kept_elsewhere_holds_the_context_window(
    customer: Customer, ask: Ask, provider: FakeProvider, prompt: Any
) -> None:
    with customer.session(budget="0.15"), pytest.raises(BudgetDenied):
        run(Chat().model(ask), prompt, max_tokens=10)
    assert provider.calls == []


def test_a_response_that_the_provider_keeps_holds_the_context_window(
    customer: Customer, ask: Ask, provider: FakeProvider
) -> None:
    with customer.session(budget="0.15"):
        with pytest.raises(BudgetDenied):
            run(Responses().model(ask), max_tokens=10, openai_previous_response_id="resp_0")
        run(Responses().model(ask), max_tokens=10, openai_previous_response_id="auto")  # it is in the history
    assert len(provider.calls) == 1


def test_tools_of_the_provider_hold_their_ceiling(customer: Customer, ask: Ask, provider: FakeProvider) -> None:
    parameters = ModelRequestParameters(native_tools=[WebSearchTool()])
    with customer.session(budget="0.9"), pytest.raises(BudgetDenied):
        asyncio.run(BudgetModel(Responses().model(ask)).request(ASKED, {"max_tokens": 10}, parameters))
    assert provider.calls == []


class Answer(BaseModel):
    """What the structured run says."""

    city: str
    reasons: list[str]


class Measuring(WrapperModel):
    """Notes the estimate of each call."""

    def __init__(self, wrapped: Any) -> None:
        super().__init__(wrapped)
        self.estimates: list[int] = []

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> Any:
        settings, parameters = self.wrapped.prepare_request(model_settings, model_request_parameters)
        payload = payload_of(messages, settings or {}, parameters)
        self.estimates.append(estimate_input(payload, window=10**6).tokens)
        return await super().request(messages, model_settings, model_request_parameters)


@pytest.mark.parametrize("api", [Chat, Responses, Messages], ids=["chat", "responses", "anthropic"])
def test_the_estimate_covers_instructions_tools_history_files_and_schemas(
    ask: Ask, session: Session, provider: FakeProvider, api: Any
) -> None:
    """L3: of every request of a run, whatever Pydantic AI adds to it."""
    measuring = Measuring(api().model(ask))
    agent: Any = Agent(
        BudgetModel(measuring), instructions="Answer in one word. " * 5, system_prompt="You are terse.", output_type=Answer,
        model_settings={"max_tokens": 100}, retries=2,
    )  # fmt: skip

    @agent.tool_plain
    def look(question: str) -> ToolReturn[str]:
        """Looks at something, closely."""
        return ToolReturn(return_value="seen", content=["a picture", PNG])

    provider.say(
        Reply(text="", tools=(("look", {"question": "what?"}),)),
        Reply(text="", tools=(("final_result", {"city": 1}),)),  # asked for again, with what was wrong
        Reply(text="", tools=(("final_result", {"city": "Rome", "reasons": ["old"]}),)),
    )
    assert agent.run_sync(["look at it", PNG]).output.city == "Rome"
    asked = [call.asked.input_tokens for call in provider.calls]
    assert len(asked) == 3
    assert all(most >= real for most, real in zip(measuring.estimates, asked, strict=True))
    assert session.status().spent.nano == provider.billed


# --- fallbacks, and clients that try again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_each_candidate_of_a_fallback_is_held_at_its_own_price(
    ask: Ask, session: Session, provider: FakeProvider, wrapped: bool
) -> None:
    flat = Chat().model(Ask(session=ask.session, url=ask.url, model="flat"))
    fallback: Any = FallbackModel(Chat().model(ask), flat)
    provider.say(Reply(status=500))
    agent: Any = Agent(
        ConcurrencyLimitedModel(fallback, 1) if wrapped else fallback, capabilities=[BudgetCapability()],
        model_settings={"max_tokens": 100},
    )  # fmt: skip
    agent.run_sync("hi")
    assert [call.asked.model for call in provider.calls] == ["counted", "flat"]
    assert session.status().spent == 1
    assert fallback.models[1] is flat  # the copy is ours


def test_without_what_looks_after_its_retries_a_client_that_makes_some_is_refused(
    ask: Ask, session: Session, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L8, L11: a retry that nobody sees is spend that nobody holds."""
    monkeypatch.setitem(sys.modules, "agentbudget_openai", None)
    retrying = Ask(session=ask.session, url=ask.url, max_retries=2)
    with pytest.raises(InvalidRequest, match=r"agentbudget-pydantic-ai\[openai\]"):
        run(Chat().model(retrying), max_tokens=100)
    assert provider.calls == []
    run(Chat().model(ask), max_tokens=100)
    assert len(provider.calls) == 1


def test_a_batch_by_hand_is_refused(ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="a batch is not held"):
        asyncio.run(BudgetModel(Responses().model(ask)).batch_create([]))


def test_only_what_came_before_a_stream_proves_that_nothing_was_billed() -> None:
    """L11: an error in a stream carries the status that it would have had before."""
    refused, in_stream = ModelHTTPError(503, "m"), ModelHTTPError(503, "m", in_stream=True)
    lost, never = ModelConnectionError("m", "lost"), ModelConnectionError("m", "never")
    never.__cause__ = ConnectionRefusedError()
    assert [proves_not_billed(told(each)) for each in (refused, in_stream, lost, never)] == [True, False, False, True]
