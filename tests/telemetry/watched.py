"""Everything that is emitted, in memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentbudget import telemetry


class Seen:
    """Providers of the SDK, given to ``telemetry.use``; ``tracer``: an application's own on the same provider."""

    def __init__(self, metric_ids: Collection[str] = ()) -> None:
        self._spans, self._logs, self.reader = (
            InMemorySpanExporter(),
            InMemoryLogRecordExporter(),
            InMemoryMetricReader(),
        )
        self.tracers, self.loggers = TracerProvider(), LoggerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.tracer = self.tracers.get_tracer("application")
        self.watch(metric_ids)

    def watch(self, metric_ids: Collection[str] = ()) -> None:
        telemetry.use(
            tracer_provider=self.tracers,
            meter_provider=self.meters,
            logger_provider=self.loggers,
            metric_ids=metric_ids,
        )

    def chat(self) -> Any:
        """A framework's span for a call of a model, current in the block."""
        return self.tracer.start_as_current_span("theirs", attributes={"gen_ai.operation.name": "chat"})

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """In the order in which they ended."""
        assert telemetry.flush(20)
        return [span for span in self._spans.get_finished_spans() if name is None or span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def logs(self) -> list[Any]:
        assert telemetry.flush(20)
        return [data.log_record for data in self._logs.get_finished_logs()]

    def metrics(self) -> dict[str, list[Any]]:
        """By name the points of an instrument."""
        assert telemetry.flush(20)
        data = self.reader.get_metrics_data()
        scopes = [] if data is None else [scope for one in data.resource_metrics for scope in one.scope_metrics]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def units(self) -> dict[str, tuple[str, str]]:
        """By name the kind of data and the unit of an instrument."""
        assert telemetry.flush(20)
        data = self.reader.get_metrics_data()
        scopes = [] if data is None else [scope for one in data.resource_metrics for scope in one.scope_metrics]
        return {m.name: (type(m.data).__name__, m.unit or "") for scope in scopes for m in scope.metrics}

    def value(self, name: str, **attributes: str) -> float:
        """The sum of the points that carry these (by the last part of the key)."""
        points = self.metrics().get(name, [])
        return sum(point.value for point in points if _carries(point, attributes))


def _carries(point: Any, attributes: dict[str, str]) -> bool:
    short = {key.rpartition(".")[2]: value for key, value in point.attributes.items()}
    return all(short.get(key) == value for key, value in attributes.items())


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id
