"""Calls that go on at the provider after their reply, of a model that is scripted: the fake of the suite answers at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from agentbudget_pydantic_ai import BudgetCapability, BudgetModel, jobs
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestContext, ModelRequestParameters
from pydantic_ai.usage import RequestUsage

from agentbudget import Catalog, Credits, Runtime
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite.world import CATALOG

DONE: Final = Credits("0.0006")
"""A hundred tokens of input, fifty of output."""

RUNNING: Final[dict[str, Any]] = {
    "state": "suspended", "provider_response_id": "resp_1", "provider_details": {"background": True},
}  # fmt: skip


def running() -> ModelResponse:
    return ModelResponse(parts=[], model_name="counted", usage=RequestUsage(unmeasured_requests=1), **RUNNING)


def done(**more: Any) -> ModelResponse:
    usage = RequestUsage(input_tokens=100, output_tokens=50)
    said = {"provider_response_id": "resp_1", **more}
    return ModelResponse(parts=[TextPart("done")], model_name="counted", usage=usage, **said)


class Scripted(Model):
    """Answers with these replies, in order."""

    def __init__(self, *replies: ModelResponse | Exception) -> None:
        super().__init__()
        self.replies = list(replies)

    model_name: Any = "counted"
    system: Any = "openai"

    def _next(self) -> ModelResponse:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> ModelResponse:
        return self._next()

    @asynccontextmanager
    async def request_stream(
        self, messages: Any, model_settings: Any, model_request_parameters: Any, run_context: Any = None
    ) -> AsyncGenerator[CompletedStreamedResponse]:
        yield CompletedStreamedResponse(
            self._next(), model_request_parameters=model_request_parameters, replay_events=True
        )

    async def compact_messages(self, request_context: Any, *, instructions: str | None = None) -> ModelResponse:
        return self._next()


@pytest.fixture(autouse=True)
def _no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test uses the same ids; a provider's are used once."""
    monkeypatch.setattr(jobs, "_jobs", OrderedDict())


@pytest.fixture
def customer() -> Iterator[Customer]:
    """Afterwards nothing is held (L5), and the books balance (L2)."""
    with Runtime.open("memory://", catalog=Catalog.loads(CATALOG)) as runtime:
        acme = runtime.customers.create("acme", plan="suite")
        yield acme
        assert acme.wallet.balance().held == 0
        assert acme.ledger.reconcile() == []


def agent_of(model: Model) -> Any:
    return Agent(model, capabilities=[BudgetCapability()], model_settings={"max_tokens": 1_000})


async def streamed(agent: Any) -> str:
    async with agent.run_stream("hi") as run:
        return str(await run.get_output())


@pytest.mark.parametrize("how", ["whole", "streamed"])
def test_a_background_response_costs_what_the_last_poll_states(customer: Customer, how: str) -> None:
    """L11: charged at once by policy, corrected once; polls cost nothing."""
    model = Scripted(running(), running(), done())
    with customer.session(budget=1) as session:
        agent = agent_of(model)
        output = agent.run_sync("hi").output if how == "whole" else asyncio.run(streamed(agent))
        assert (output, model.replies, session.status().spent) == ("done", [], DONE)


def test_until_its_result_is_there_a_background_response_costs_what_it_held(customer: Customer) -> None:
    with customer.session(budget=1) as session:
        with pytest.raises(RuntimeError):
            agent_of(Scripted(running(), RuntimeError("the poll failed"))).run_sync("hi")
        assert session.status().spent > Credits("0.01")  # a thousand tokens of output


def test_a_policy_that_gives_back_charges_the_result_with_its_poll(customer: Customer) -> None:
    with customer.session(budget=1, on_unknown="release") as session:
        agent_of(Scripted(running(), running(), done())).run_sync("hi")
        assert session.status().spent == DONE


def continued(model: Model, said: Sequence[ModelMessage]) -> ModelResponse:
    return asyncio.run(BudgetModel(model).request(list(said), {"max_tokens": 1_000}, ModelRequestParameters()))


def test_a_job_of_another_process_is_charged_by_the_poll_that_brings_its_result(customer: Customer) -> None:
    said = [ModelRequest.user_text_prompt("hi"), ModelResponse(parts=[], **{**RUNNING, "provider_response_id": "else"})]
    still = ModelResponse(parts=[], model_name="counted", **{**RUNNING, "provider_response_id": "else"})
    with customer.session(budget=1) as session:
        continued(Scripted(still), said)
        assert session.status().spent == 0
        continued(Scripted(done(provider_response_id="else")), said)
        assert session.status().spent == DONE


def test_a_pause_with_its_cost_stated_is_a_call_like_any_other(customer: Customer) -> None:
    """Anthropic's ``pause_turn``: what continues it is another call."""
    model = Scripted(done(state="suspended"), done(provider_response_id="resp_2"))
    with customer.session(budget=1) as session:
        agent_of(model).run_sync("hi")
        assert session.status().spent == DONE * 2


def test_no_more_jobs_are_kept_than_are_promised(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_JOBS", 2)
    with customer.session(budget=1):
        for number in range(4):
            reply = ModelResponse(
                parts=[], model_name="counted", **{**RUNNING, "provider_response_id": f"job_{number}"}
            )
            continued(Scripted(reply), [ModelRequest.user_text_prompt("hi")])
    assert [jobs.find(f"job_{number}") is not None for number in range(4)] == [False, False, True, True]


def test_a_summary_that_the_provider_makes_is_held_and_charged(customer: Customer) -> None:
    asked = ModelRequestContext(
        model=Scripted(), messages=[ModelRequest.user_text_prompt("hi")], model_settings={"max_tokens": 1_000},
        model_request_parameters=ModelRequestParameters(),
    )  # fmt: skip
    with customer.session(budget=1) as session:
        asyncio.run(BudgetModel(Scripted(done())).compact_messages(asked))
        assert session.status().spent == DONE
