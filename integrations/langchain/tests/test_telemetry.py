"""Beside OpenTelemetry's own instrumentation of LangChain: one inference span a call, and it is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

from agentbudget import telemetry
from agentbudget.runtime.customer import Customer
from agentbudget.telemetry import names
from integrations.langchain.tests.support import CALL, agent_of, config, counted, flat, run, search
from tests.telemetry.watched import Seen, attributes_of, parent_id, span_id


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen, instrumentor = Seen(), LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=seen.tracers, meter_provider=seen.meters, logger_provider=seen.loggers)
    yield seen
    instrumentor.uninstrument()
    telemetry.stop()


def operations(seen: Seen) -> list[str]:
    """The GenAI operations that were told of, by whomever."""
    found = (attributes_of(span).get("gen_ai.operation.name") for span in seen.spans())
    return sorted(str(one) for one in found if one is not None)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("route", ["handler", "middleware"])
def test_an_agents_calls_are_inference_spans_once_and_steps_are_below_the_agent(
    seen: Seen, customer: Customer, how: str, route: str
) -> None:
    with customer.session(budget=10) as session:
        if route == "handler":
            run(agent_of(flat(CALL, "done"), search, middleware=[]), how, config())
        else:
            run(agent_of(flat(CALL, "done"), search), how)
        assert session.status().steps == 3
    assert operations(seen) == ["chat", "chat", "execute_tool", "invoke_agent"]
    (agent,) = [span for span in seen.spans() if attributes_of(span).get("gen_ai.operation.name") == "invoke_agent"]
    steps = seen.spans(names.STEP)
    assert [parent_id(span) for span in steps] == [span_id(agent)] * 3
    assert sorted(attributes_of(span)[names.CHARGED] for span in steps) == [0.5, 1, 1]
    assert parent_id(agent) == span_id(seen.only(names.SESSION))


def test_a_model_alone_is_one_inference_span(seen: Seen, customer: Customer) -> None:
    with customer.session(budget=10):
        counted().invoke("hi", config())
    assert operations(seen) == ["chat"]
    assert len(seen.spans(names.STEP)) == 1


def test_a_call_inside_a_frameworks_current_span_is_told_on_that_span(seen: Seen, customer: Customer) -> None:
    model: Any = counted()
    with customer.session(budget=10), seen.chat():
        model.invoke("hi", config())
    assert seen.spans(names.STEP) == []
    assert attributes_of(seen.only("theirs"))[names.OUTCOME] == "settled"
