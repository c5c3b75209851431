"""One call or one variable sends it all, over gRPC and HTTP, beside an application's own providers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from agentbudget import BudgetDenied, InvalidRequest, Usage, telemetry
from agentbudget.runtime.customer import Customer
from agentbudget.telemetry import active, names, otlp
from tests.telemetry.collector import Collector, attributes_of
from tests.tidy import rules


@pytest.fixture(params=["grpc", "http"])
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    with Collector(request.param) as running:
        yield running


def work(acme: Customer) -> str:
    with acme.session(budget=5) as session:
        with session.step("llm", model="m-1", request="hello", max_output_tokens=10) as step:
            step.settle(Usage(input_tokens=5, output_tokens=3))
        with contextlib.suppress(BudgetDenied):
            session.reserve("tool", name="search", amount=100)
    return session.id


def test_spans_metrics_and_denials_arrive_as_they_were(acme: Customer, collector: Collector) -> None:
    export = telemetry.export(collector.endpoint, headers={"x-who": "me"})
    session = work(acme)
    assert export.flush()
    export.shutdown()
    (whole,) = collector.named(names.SESSION)
    settled, denied = collector.named(names.STEP)
    assert settled.parent_span_id == denied.parent_span_id == whole.span_id
    assert settled.trace_id == denied.trace_id == whole.trace_id
    assert whole.start_time_unix_nano <= settled.start_time_unix_nano < settled.end_time_unix_nano
    assert settled.end_time_unix_nano <= whole.end_time_unix_nano
    found = attributes_of(settled)
    assert (found[names.SESSION_ID], found[names.OUTCOME]) == (session, "settled")
    assert found[names.CHARGED] == pytest.approx(0.011)
    assert attributes_of(denied)[names.REASON] == "session_budget"
    assert [event.name for event in denied.events] == [names.STEP_DENIED]
    assert {span.parent_span_id for span in collector.named(names.OWNER)} >= {settled.span_id, whole.span_id}
    (record,) = collector.logs()
    assert (record.event_name, record.span_id) == (names.STEP_DENIED, denied.span_id)
    assert attributes_of(record)[names.CONSTRAINT_KIND] == "session_budget"
    points = {
        attributes_of(point)[names.OUTCOME]: point.as_int
        for point in collector.metrics()[names.STEPS_ENDED].sum.data_points
    }
    assert points == {"settled": 1, "denied": 1}
    assert collector.metrics()[names.CREDITS_CHARGED].sum.is_monotonic
    (utilization,) = collector.metrics()[names.UTILIZATION].histogram.data_points
    assert utilization.count == 1
    assert collector.examples(names.UTILIZATION) == [settled.span_id]
    assert collector.services() == {"agentbudget"}
    assert collector.headers["x-who"] == "me"


PROGRAM = """
import agentbudget
with agentbudget.session(budget=5) as session:
    with session.step("tool", name="search", amount=1):
        pass
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "AGENTBUDGET_"))}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**kept, "PYTHONPATH": str(rules.ROOT), **environment},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


def test_a_variable_is_enough_and_nothing_is_lost_when_the_program_ends(collector: Collector) -> None:
    done = run(AGENTBUDGET_OTLP=collector.endpoint, OTEL_SERVICE_NAME="my-agents")
    assert "Traceback" not in done.stderr
    assert len(collector.named(names.SESSION)) == len(collector.named(names.STEP)) == 1
    assert names.CREDITS_CHARGED in collector.metrics()
    assert collector.services() == {"my-agents"}


def test_the_standard_variables_say_where_and_how(collector: Collector) -> None:
    protocol = "grpc" if collector.protocol == "grpc" else "http/protobuf"
    run(
        AGENTBUDGET_OTLP="on", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint.replace("grpc://", "http://"),
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_EXPORTER_OTLP_HEADERS="x-who=me", OTEL_METRICS_EXPORTER="none",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
    )  # fmt: skip
    assert len(collector.named(names.STEP)) == 1
    assert collector.metrics() == {}
    assert collector.headers["x-who"] == "me"


def test_a_program_whose_collector_is_not_there_ends_as_usual(tmp_path: Path) -> None:
    done = run(AGENTBUDGET_OTLP="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert done.returncode == 0


def test_opentelemetrys_own_switch_switches_it_off(collector: Collector) -> None:
    run(AGENTBUDGET_OTLP=collector.endpoint, OTEL_SDK_DISABLED="true")
    assert collector.requests == []


def test_an_export_leaves_the_applications_providers_as_they_are(acme: Customer, collector: Collector) -> None:
    before = trace.get_tracer_provider()
    export = telemetry.export(collector.endpoint)
    assert trace.get_tracer_provider() is before
    assert export.tracer_provider is not None
    with export.tracer_provider.get_tracer("application").start_as_current_span("request"):
        work(acme)
    assert export.flush()
    export.shutdown()
    (request,), (whole,) = collector.named("request"), collector.named(names.SESSION)
    assert whole.parent_span_id == request.span_id


GLOBALS = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[1] + "/v1/traces")))
trace.set_tracer_provider(provider)
with trace.get_tracer("application").start_as_current_span("request"):
    exec(sys.argv[2])
"""


def test_a_provider_that_the_application_has_set_is_used_without_being_asked() -> None:
    with Collector("http") as collector:
        subprocess.run(
            [sys.executable, "-c", GLOBALS, collector.endpoint, PROGRAM],
            env={**os.environ, "PYTHONPATH": str(rules.ROOT)}, check=True, timeout=120,
        )  # fmt: skip
        (request,), (whole,) = collector.named("request"), collector.named(names.SESSION)
    assert whole.parent_span_id == request.span_id


@pytest.mark.parametrize(
    ("endpoint", "environment", "protocol"),
    [
        ("http://h:4318", "", "http/protobuf"),
        ("http://h:4317", "", "grpc"),
        ("grpc://h:9", "", "grpc"),
        (None, "", "http/protobuf"),
        (None, "grpc", "grpc"),
        ("http://h:4318", "grpc", "grpc"),
    ],
)
def test_the_protocol_is_what_is_stated_else_what_the_endpoint_means(
    endpoint: str | None, environment: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", environment)
    assert otlp._protocol(endpoint, None) == protocol


def test_what_cannot_be_exported_is_refused_by_a_call_and_said_for_a_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> Any:
        raise ImportError("No module named 'grpc'")

    monkeypatch.setattr(otlp, "_http", missing)
    with pytest.raises(InvalidRequest, match=r"agentbudget-runtime\[otlp\]"):
        telemetry.export("http://127.0.0.1:4318")
    with pytest.raises(InvalidRequest, match="neither grpc nor"):
        telemetry.export("http://127.0.0.1:4318", protocol="json")  # type: ignore[arg-type]
    monkeypatch.setattr(active._state, "has_read_environment", False)
    monkeypatch.setenv(active.ENDPOINT_VARIABLE, "http://127.0.0.1:4318")
    telemetry.start()
    assert "nothing is exported" in caplog.text


def test_only_otlp_imports_the_exporters_and_importing_telemetry_nothing_of_opentelemetry() -> None:
    sources = rules.files(".py", under="agentbudget")
    assert [path.name for path in sources if "opentelemetry.exporter" in path.read_text("utf-8")] == ["otlp.py"]
    code = "import agentbudget.telemetry, sys; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=rules.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
