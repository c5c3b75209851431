"""Sending by OTLP: providers of our own, so that the application's stay as they are. Needs the extra ``otlp``."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from agentbudget.errors import InvalidRequest
from agentbudget.telemetry import active
from agentbudget.telemetry.watcher import is_disabled

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

Protocol = Literal["grpc", "http/protobuf"]
GRPC_PORT: Final = 4317
_HTTP_PATHS: Final = {"traces": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}
_BY_ENVIRONMENT: Final = {"", "1", "on", "true", "yes"}
"""What says "export, and where is in OTEL_EXPORTER_OTLP_ENDPOINT" (by default this machine)."""


class Export(NamedTuple):
    """The providers that send; set them globally to have other libraries' spans sent too. None: a signal that is switched off."""

    tracer_provider: TracerProvider | None
    meter_provider: MeterProvider | None
    logger_provider: LoggerProvider | None

    def flush(self, seconds: float = 10.0) -> bool:
        """Send everything now; whether it was taken in time."""
        active.flush(seconds)
        return all(one.force_flush(int(seconds * 1000)) for one in self if one is not None)

    def shutdown(self) -> None:
        """Send what there is and stop. It happens by itself when the process ends."""
        active.stop()
        for one in self:
            if one is not None:
                one.shutdown()


def export(
    endpoint: str | None = None, *, protocol: Protocol | None = None, headers: Mapping[str, str] | None = None,
    metric_ids: Collection[str] | None = None, metrics_seconds: float | None = None,
) -> Export:  # fmt: skip
    """Send spans, metrics and denial events of this process from now on.

    endpoint: ``http://host:4318``, ``grpc://host:4317`` (without TLS; ``https://`` with); None: OTEL_EXPORTER_OTLP_ENDPOINT and
    its kin, by default this machine.  protocol: default OTEL_EXPORTER_OTLP_PROTOCOL, else by the endpoint.  metric_ids: see
    ``use``; default AGENTBUDGET_METRIC_IDS.  metrics_seconds: between two sendings of metrics (OTEL_METRIC_EXPORT_INTERVAL, a
    minute).  All other OTEL_* variables count as for any program. Raises ``InvalidRequest`` where the extra is not installed."""
    if is_disabled():
        return Export(None, None, None)
    endpoint = None if (endpoint or "").strip().lower() in _BY_ENVIRONMENT else endpoint
    chosen = _protocol(endpoint, protocol)
    exporters = _exporters(chosen, endpoint, headers)
    made = _providers(exporters, metrics_seconds)
    ids = active.ids_by_environment() if metric_ids is None else metric_ids
    active.stop()
    active.use(
        tracer_provider=made.tracer_provider, meter_provider=made.meter_provider, logger_provider=made.logger_provider,
        metric_ids=ids,
    )  # fmt: skip
    return made


def _protocol(endpoint: str | None, stated: str | None) -> Protocol:
    if endpoint is None:
        endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    url = urlsplit(endpoint)
    by_endpoint = "grpc" if url.scheme == "grpc" or url.port == GRPC_PORT else "http/protobuf"
    found = stated or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or by_endpoint
    if found not in ("grpc", "http/protobuf"):
        raise InvalidRequest(f"{found!r} is neither grpc nor http/protobuf", "protocol")
    return found  # type: ignore[return-value]


def _exporters(protocol: Protocol, endpoint: str | None, headers: Mapping[str, str] | None) -> dict[str, Any]:
    """By signal the exporter that sends it, without those that are switched off."""
    wanted = [signal for signal in _HTTP_PATHS if os.environ.get(f"OTEL_{signal.upper()}_EXPORTER") != "none"]
    try:
        kinds = _grpc() if protocol == "grpc" else _http()
    except ImportError as error:
        what = f"the exporter is not installed ({error}): pip install 'agentbudget-runtime[otlp]'"
        raise InvalidRequest(what, "export") from error
    options: dict[str, Any] = {} if headers is None else {"headers": dict(headers)}
    made: dict[str, Any] = {}
    for signal in wanted:
        more = dict(options)
        if endpoint is not None and protocol == "grpc":
            more["endpoint"] = endpoint.replace("grpc://", "http://", 1)
        elif endpoint is not None:
            more["endpoint"] = endpoint.rstrip("/") + _HTTP_PATHS[signal]
        made[signal] = kinds[signal](**more)
    return made


def _grpc() -> dict[str, Any]:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return {"traces": OTLPSpanExporter, "metrics": OTLPMetricExporter, "logs": OTLPLogExporter}


def _http() -> dict[str, Any]:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return {"traces": OTLPSpanExporter, "metrics": OTLPMetricExporter, "logs": OTLPLogExporter}


def _providers(exporters: dict[str, Any], metrics_seconds: float | None) -> Export:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "agentbudget"}))
    tracers = meters = loggers = None
    if "traces" in exporters:
        tracers = TracerProvider(resource=resource)
        tracers.add_span_processor(BatchSpanProcessor(exporters["traces"]))
    if "metrics" in exporters:
        millis = None if metrics_seconds is None else metrics_seconds * 1000
        reader = PeriodicExportingMetricReader(exporters["metrics"], export_interval_millis=millis)
        meters = MeterProvider(metric_readers=[reader], resource=resource)
    if "logs" in exporters:
        loggers = LoggerProvider(resource=resource)
        loggers.add_log_record_processor(BatchLogRecordProcessor(exporters["logs"]))
    return Export(tracers, meters, loggers)
