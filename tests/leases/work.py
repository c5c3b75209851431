"""Work that other threads and processes do in a session that was carried to them. Functions of a module, so that they pickle."""

from __future__ import annotations

from multiprocessing.connection import Connection

from agentbudget import BudgetDenied, Credits, InvalidRequest, SessionHandle, current_session
from agentbudget.runtime.steps.current import require_session
from tests.leases.spending import reason_of


def spend(nano: int, times: int = 1) -> int:
    """Steps in the current session: what they came to."""
    total = 0
    for _ in range(times):
        step = require_session().reserve("tool", name="search", amount=Credits.of_nano(nano), dispatched=True)
        total += step.settle().charged.nano
    return total


def spend_all(nano: int) -> tuple[int, str]:
    """Steps until one is refused: what they came to, and why no more."""
    total = 0
    while True:
        try:
            total += spend(nano)
        except BudgetDenied as denied:
            return total, reason_of(denied)


def current() -> str | None:
    session = current_session()
    return None if session is None else session.id


def traced() -> tuple[int, int]:
    """A span of this process's own: its trace, and the span above it. It goes to an exporter that this process keeps."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("tests").start_as_current_span("work"):
        spend(1)
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    return span.context.trace_id, 0 if span.parent is None else span.parent.span_id


def join_and_spend(handle: SessionHandle, nano: int, times: int, out: Connection) -> None:
    """What a process of one's own does with a handle."""
    with handle.join() as session:
        assert session.id == handle.session
        out.send(spend(nano, times))


def join_or_say_why_not(handle: SessionHandle, out: Connection) -> None:
    try:
        with handle.join():
            out.send("joined")
    except InvalidRequest as error:
        out.send([error.field, str(error)])
