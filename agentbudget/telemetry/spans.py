"""Writing spans. A span here has no life of its own: its place in the trace is fixed when it begins, and it is written whole when
it has ended. That costs a tenth of a span of the SDK's that is filled while it lives, and so fits beside a step of 10 us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from agentbudget.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
_UNSET: Final = Status()
Value = str | int | float | bool


class Event(NamedTuple):
    """Something that happened in a span."""

    name: str
    attributes: Mapping[str, Value]
    time_ns: int


class Place(NamedTuple):
    """Where a span is in its trace; ``span``: the provider's, where it does not take whole ones."""

    context: SpanContext
    span: Span | None = None


class Written(NamedTuple):
    """A span that has ended."""

    name: str
    place: Place
    parent: SpanContext | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    events: tuple[Event, ...] = ()
    links: tuple[SpanContext, ...] = ()


class Writer(Protocol):
    """Where spans go."""

    def place(
        self, name: str, parent: SpanContext | None, start_ns: int, links: Sequence[SpanContext] = ()
    ) -> Place: ...
    def write(self, written: Written) -> None: ...


class Whole:
    """To the processors of an SDK's provider, each span whole: they see ``on_end`` and no ``on_start``. Its sampler decides."""

    def __init__(self, provider: Any, version: str) -> None:
        self._provider = provider
        self._scope = provider.get_tracer(names.SCOPE, version)._instrumentation_scope
        from opentelemetry.sdk.trace import Event as SdkEvent
        from opentelemetry.sdk.trace import ReadableSpan

        self._span, self._event = ReadableSpan, SdkEvent
        self._follows_parent = _follows_parent(provider.sampler)

    @staticmethod
    def fits(provider: Any) -> bool:
        """Whether the provider is one of the SDK's that this writer knows."""
        needed = ("_active_span_processor", "sampler", "id_generator", "resource")
        tracer = provider.get_tracer(names.SCOPE)
        return all(hasattr(provider, name) for name in needed) and hasattr(tracer, "_instrumentation_scope")

    def place(self, name: str, parent: SpanContext | None, start_ns: int, links: Sequence[SpanContext] = ()) -> Place:
        ids = self._provider.id_generator
        if self._follows_parent and parent is not None and not parent.is_remote:
            flags = SAMPLED if parent.trace_flags.sampled else UNSAMPLED
            return Place(SpanContext(parent.trace_id, ids.generate_span_id(), False, flags, parent.trace_state))
        if parent is None:
            above, trace_id = Context(), ids.generate_trace_id()
        else:
            above, trace_id = set_span_in_context(NonRecordingSpan(parent), Context()), parent.trace_id
        result = self._provider.sampler.should_sample(above, trace_id, name)
        flags = SAMPLED if result.decision.is_sampled() else UNSAMPLED
        return Place(SpanContext(trace_id, ids.generate_span_id(), False, flags, result.trace_state))

    def write(self, written: Written) -> None:
        if not written.place.context.trace_flags.sampled:
            return
        self._provider._active_span_processor.on_end(
            self._span(
                name=written.name, context=written.place.context, parent=written.parent, resource=self._provider.resource,
                attributes=written.attributes,
                events=[self._event(*event) for event in written.events] if written.events else (),
                links=[Link(context) for context in written.links] if written.links else (), kind=SpanKind.INTERNAL,
                status=_UNSET, start_time=written.start_ns, end_time=written.end_ns, instrumentation_scope=self._scope,
            )
        )  # fmt: skip


class Live:
    """To any other provider: a span of its own from the beginning, filled and ended when it is written."""

    def __init__(self, provider: Any, version: str) -> None:
        self._tracer = provider.get_tracer(names.SCOPE, version)

    def place(self, name: str, parent: SpanContext | None, start_ns: int, links: Sequence[SpanContext] = ()) -> Place:
        above = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        span = self._tracer.start_span(name, above, links=[Link(link) for link in links], start_time=start_ns)
        return Place(span.get_span_context(), span)

    def write(self, written: Written) -> None:
        span = written.place.span
        if span is None:
            return
        span.set_attributes(dict(written.attributes))
        for event in written.events:
            span.add_event(event.name, dict(event.attributes), event.time_ns)
        span.end(written.end_ns)


def _follows_parent(sampler: Any) -> bool:
    """Whether a child in this process is sampled if its parent is, so that the sampler need not be asked: the SDK's default,
    and each of its samplers that looks at roots only."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    sampled, not_sampled = (getattr(sampler, f"_local_parent_{name}", None) for name in ("sampled", "not_sampled"))
    return sampled is ALWAYS_ON and not_sampled is ALWAYS_OFF


def writer_of(provider: Any, version: str) -> Writer:
    """The quicker of the two, where the provider allows it."""
    return Whole(provider, version) if Whole.fits(provider) else Live(provider, version)


# --- whose span is current --------------------------------------------------------------------------------------------------

OPERATIONS: Final[dict[str, frozenset[str]]] = {
    "llm": frozenset({"chat", "generate_content", "text_completion", "LLM"}),
    "embedding": frozenset({"embeddings", "EMBEDDING"}),
    "tool": frozenset({"execute_tool", "TOOL"}),
    "retrieval": frozenset({"retrieval", "RETRIEVER"}),
    "agent": frozenset({"invoke_agent", "invoke_workflow", "AGENT"}),
}
"""By kind of a step, what GenAI instrumentations (``gen_ai.operation.name``) and OpenInference (``openinference.span.kind``) call
the same work."""


def frameworks_span(current: Span, kind: str) -> bool:
    """Whether the current span is a framework's for this very step, and no other step has taken it."""
    try:
        attributes = getattr(current, "attributes", None)
        if not attributes or not current.is_recording() or names.STEP_ID in attributes:
            return False
        said = attributes.get("gen_ai.operation.name") or attributes.get("openinference.span.kind")
    except Exception:  # a span of somebody else's making, which must not stop a step
        return False
    return said in OPERATIONS.get(kind, ())


def current_span() -> Span:
    return get_current_span()


# --- over threads and processes ---------------------------------------------------------------------------------------------


def as_text(context: SpanContext) -> str:
    """As W3C's ``traceparent``."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def from_text(text: str) -> SpanContext | None:
    """The same back; None for what is no sampled place."""
    parts = text.split("-")
    try:
        trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
    except (IndexError, ValueError):
        return None
    context = SpanContext(trace_id, span_id, True, TraceFlags(flags))
    return context if context.is_valid and flags & 1 else None
