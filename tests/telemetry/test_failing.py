"""Providers that are stuck, raise or are gone: no step waits for them, memory is bounded, and counters stay exact."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler

from agentbudget import Session, telemetry
from agentbudget.runtime.customer import Customer
from agentbudget.telemetry import names, watcher
from tests.telemetry.watched import Seen, parent_id, span_id


class Stuck(SpanExporter):
    """Does not come back until it is let go."""

    def __init__(self) -> None:
        self.called, self.go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.called.set()
        self.go.wait(60)
        return SpanExportResult.SUCCESS


class Raising(SpanProcessor):
    """A processor with a bug."""

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("no")


class RaisingSampler(Sampler):
    def should_sample(self, *arguments: Any, **more: Any) -> Any:
        raise RuntimeError("no")

    def get_description(self) -> str:
        return "raises"


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    exporter = Stuck()
    yield exporter
    exporter.go.set()


def spend(session: Session, times: int) -> None:
    for _ in range(times):
        session.reserve("tool", name="search", amount="0.01").settle()


@pytest.mark.parametrize("processor", [SimpleSpanProcessor, BatchSpanProcessor])
def test_L8_an_exporter_that_is_stuck_keeps_no_step_and_no_owner_waiting(
    seen: Seen, acme: Customer, stuck: Stuck, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that the application calls in line. What waits is bounded, and every step is counted."""
    monkeypatch.setattr(watcher, "MAX_WAITING", 200)
    tracers = TracerProvider()
    tracers.add_span_processor(
        processor(stuck, schedule_delay_millis=1) if processor is BatchSpanProcessor else processor(stuck)
    )
    telemetry.use(tracer_provider=tracers, meter_provider=seen.meters)
    watch = telemetry.watch()
    assert watch is not None
    with acme.session(budget=500, mode="strict") as strict, acme.session(budget=500) as leased:
        spend(strict, 20)
        assert stuck.called.wait(20) or processor is BatchSpanProcessor
        spend(leased, 1_000)
        spend(strict, 20)
        assert strict.status().spent + leased.status().spent == 10.4
        assert watch._waiting.qsize() <= 2 * watcher.MAX_WAITING
        assert len(watch.open) == 0
    if processor is SimpleSpanProcessor:
        (dropped,) = _points(seen, names.DROPPED)
        assert dropped.value > 500
    stuck.go.set()
    assert watch.flush(20)
    assert sum(point.value for point in _points(seen, names.STEPS_ENDED)) == 1_040
    assert sum(point.value for point in _points(seen, names.CREDITS_CHARGED)) == pytest.approx(10.4)


def _points(seen: Seen, name: str) -> list[Any]:
    """Without waiting for what is stuck."""
    data = seen.reader.get_metrics_data()
    assert data is not None
    scopes = [scope for one in data.resource_metrics for scope in one.scope_metrics]
    return [point for scope in scopes for m in scope.metrics if m.name == name for point in m.data.data_points]


def test_a_processor_that_raises_is_said_once_and_steps_go_on(
    seen: Seen, acme: Customer, caplog: pytest.LogCaptureFixture
) -> None:
    seen.tracers.add_span_processor(Raising())
    with acme.session(budget=50) as session, caplog.at_level(logging.WARNING, "agentbudget"):
        spend(session, 50)
        assert seen.value(names.STEPS_ENDED, outcome="settled") == 50
    said = [record.message for record in caplog.records if "telemetry met" in record.message]
    assert said == ["telemetry met RuntimeError; budgets work as before, spans or metrics may be missing"]


def test_a_sampler_that_raises_costs_the_spans_and_nothing_else(seen: Seen, acme: Customer) -> None:
    telemetry.use(tracer_provider=TracerProvider(sampler=RaisingSampler()), meter_provider=seen.meters)
    with acme.session(budget=50, mode="strict") as session, session.step("tool", name="search", amount=1) as step:
        step.settle()
    assert sum(point.value for point in seen.metrics()[names.STEPS_ENDED]) == 1


def test_a_framework_span_that_raises_does_not_reach_the_step(seen: Seen, acme: Customer, monkeypatch: Any) -> None:
    with acme.session(budget=50) as session, seen.chat() as span:
        step = session.reserve("llm", model="m-1", request="hi", amount=1)
        monkeypatch.setattr(span, "set_attributes", lambda *_: 1 / 0)
        assert step.settle().charged == 1
    assert seen.value(names.STEPS_ENDED, outcome="settled") == 1


def test_a_provider_that_was_shut_down_is_no_reason_to_stop(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50) as session:
        spend(session, 5)
        seen.tracers.shutdown()
        spend(session, 5)
        assert session.status().steps == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_neither_hangs_nor_tells_what_is_its_parents(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50) as session:
        step = session.reserve("tool", name="search", amount=1)
        child = os.fork()
        if child == 0:
            watch = telemetry.watch()
            assert watch is not None
            is_clean = not watch.open and not watch.sessions and watch.flush(20)
            before = len(seen.spans())
            del step
            session.seen = None  # collected here, and still its parent's
            os._exit(0 if is_clean and len(seen.spans()) == before else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        step.settle()
    assert len(seen.spans(names.STEP)) == 1


class Other:
    """A provider that is not the SDK's: it passes everything on to one that is."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *arguments: Any, **more: Any) -> Any:
        return _OtherTracer(self._provider.get_tracer(*arguments, **more))


class _OtherTracer:
    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    def start_span(self, *arguments: Any, **more: Any) -> Any:
        return self._tracer.start_span(*arguments, **more)


def test_a_provider_of_another_making_gets_live_spans_that_nest_the_same(seen: Seen, acme: Customer) -> None:
    telemetry.use(tracer_provider=Other(seen.tracers))
    with acme.session(budget=50) as session:
        with session.step("tool", name="search", amount=1), seen.tracer.start_as_current_span("inside"):
            pass
        step = session.reserve("tool", name="search", amount=1, dispatched=True)
        step.fail(TimeoutError())
        step.settle(amount=2)
    whole, first = seen.only(names.SESSION), seen.spans(names.STEP)[0]
    inside, late = seen.only("inside"), seen.only(names.LATE)
    assert (parent_id(first), parent_id(inside)) == (span_id(whole), span_id(first))
    assert len(late.links) == 1
