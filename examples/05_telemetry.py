"""What an agent's budget did, as a trace: the session, its steps, what the ledger's owner did for them, and why one was refused.

pip install agentbudget-runtime. With `agentbudget.telemetry.export("http://collector:4318")`, or AGENTBUDGET_OTLP, it goes to a
collector instead of a list.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentbudget import BudgetDenied, Runtime, Usage, telemetry


def work(runtime: Runtime) -> None:
    acme = runtime.customers.create("acme", plan="local")
    with acme.session(budget="0.05", entities=["agent:researcher"]) as session:
        for _ in range(3):  # the first asks the owner; then the process decides by itself
            with session.step("llm", model="gpt-5-mini", request="What is new?", max_output_tokens=800) as step:
                time.sleep(0.004)  # the model
                step.settle(Usage(input_tokens=900, output_tokens=400))
        lost = session.reserve("tool", name="search", amount="0.01", dispatched=True)
        lost.fail(TimeoutError())  # the search may have run: it is charged
        lost.settle(amount="0.004")  # what it really cost came late
        try:
            session.reserve("llm", model="gpt-5", request="Read it all.", max_output_tokens=20_000)
        except BudgetDenied as refused:
            print(refused)


def show(spans: Sequence[ReadableSpan], parent: int | None = None, depth: int = 0) -> None:
    """The spans below that one, in the order in which they began, with the most telling attributes."""
    for span in sorted(spans, key=lambda span: span.start_time or 0):
        if (span.parent.span_id if span.parent else None) == parent and span.context is not None:
            said = {key.removeprefix("agentbudget."): value for key, value in (span.attributes or {}).items()}
            told = [f"{key} {said[key]}" for key in ("step.kind", "owner.command", "outcome", "charged") if key in said]
            told += [f"<- {event.name}" for event in span.events] + ["(linked)" for _ in span.links]
            print("  " * depth + span.name.ljust(34 - 2 * depth), ", ".join(told))
            show(spans, span.context.span_id, depth + 1)


def main() -> Sequence[ReadableSpan]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use(tracer_provider=provider)
    with Runtime.open("memory://") as runtime:
        work(runtime)
    telemetry.stop()  # everything is with the exporter now
    show(exporter.get_finished_spans())
    return exporter.get_finished_spans()


if __name__ == "__main__":
    main()
