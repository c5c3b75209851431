"""The trace that work belongs to, across threads and processes (W3C Trace Context), where OpenTelemetry is in use."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def trace_here() -> dict[str, str]:
    """The current trace as headers (``traceparent`` ...); empty where nobody traces."""
    if "opentelemetry" not in sys.modules:
        return {}
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def in_trace(carrier: Mapping[str, str]) -> Iterator[None]:
    """Run the body in the trace that was carried here."""
    if not carrier:
        yield
        return
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
