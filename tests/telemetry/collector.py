"""A receiver of OTLP over gRPC and HTTP on this machine; what came is kept as protobufs."""

from __future__ import annotations

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

REQUESTS: dict[str, Any] = {
    "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "/v1/logs": logs_service_pb2.ExportLogsServiceRequest,
}
ANSWERS: dict[str, Any] = {
    "/v1/traces": trace_service_pb2.ExportTraceServiceResponse,
    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceResponse,
    "/v1/logs": logs_service_pb2.ExportLogsServiceResponse,
}


class Collector:
    """``with Collector("grpc")`` or ``"http"``: its ``endpoint``; ``headers`` of the last request."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.came = threading.Condition()
        self.requests: list[tuple[str, Any]] = []
        self.headers: dict[str, str] = {}

    def take(self, path: str, request: Any, headers: dict[str, str]) -> None:
        with self.came:
            self.requests.append((path, request))
            self.headers = headers
            self.came.notify_all()

    def __enter__(self) -> Collector:
        if self.protocol == "grpc":
            self._grpc = grpc.server(ThreadPoolExecutor(4))
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Servicer(self, "/v1/traces"), self._grpc)
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Servicer(self, "/v1/metrics"), self._grpc)
            logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Servicer(self, "/v1/logs"), self._grpc)
            self.endpoint = f"grpc://127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
            self._grpc.start()
        else:
            self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
            self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
            threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.protocol == "grpc":
            self._grpc.stop(None).wait()
        else:
            self._http.shutdown()
            self._http.server_close()

    # --- what came ----------------------------------------------------------------------------------------------------------

    def spans(self) -> list[Any]:
        return [
            span
            for path, request in list(self.requests)
            if path == "/v1/traces"
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans() if span.name == name]

    def metrics(self) -> dict[str, Any]:
        """By name, as they came last."""
        return {
            metric.name: metric
            for path, request in list(self.requests)
            if path == "/v1/metrics"
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def examples(self, name: str) -> list[bytes]:
        """Spans that points of a distribution named as examples, in any message."""
        return [
            example.span_id
            for path, request in list(self.requests)
            if path == "/v1/metrics"
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.histogram.data_points
            for example in point.exemplars
        ]

    def logs(self) -> list[Any]:
        return [
            record
            for path, request in list(self.requests)
            if path == "/v1/logs"
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def services(self) -> set[str]:
        """The names of the services that sent spans."""
        return {
            attribute.value.string_value
            for path, request in list(self.requests)
            if path == "/v1/traces"
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }

    def wait_for(self, name: str, seconds: float = 60) -> list[Any]:
        """Spans of that name, as soon as there are any."""
        with self.came:
            assert self.came.wait_for(lambda: self.named(name), seconds), f"no span {name!r} came"
        return self.named(name)


class _Servicer:
    def __init__(self, collector: Collector, path: str) -> None:
        self._collector, self._path = collector, path

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.take(self._path, request, {key: str(value) for key, value in context.invocation_metadata()})
        return ANSWERS[self._path]()


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = REQUESTS[self.path]()
            request.ParseFromString(body)
            collector.take(self.path, request, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ANSWERS[self.path]().SerializeToString())

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal."""

    return Handler


def attributes_of(span: Any) -> dict[str, Any]:
    """As plain values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
