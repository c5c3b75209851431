"""Row ``telemetry``: a leased step that nobody watches, and one whose spans and metrics go to the SDK's own processors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentbudget import Runtime, Session, telemetry
from benchmarks.speed.leased import FLOOR, bare_pair, fixed_pair, furnished, opened
from benchmarks.speed.measure import Effort, Row, count, elapsed_us, figure
from benchmarks.speed.owner import CATALOG, ledgers

ALONE: Final = "reserve + settle, no provider"
WATCHED: Final = "the same with a batch processor and an exporter in memory"
LOOKED: Final = "what a step does for it without a provider"
WHOLE: Final = "added with one, other threads' work included"
MOST_US: Final = 25
MOST_NONE_US: Final = 2
BLOCK: Final = 1_000
LOOKS: Final = 20_000


def telemetry_row(effort: Effort) -> Row:
    """Pairs of both kinds in turns; then blocks of them, until everything that they caused has been exported."""
    with ledgers() as url, Runtime.open(url("watched"), CATALOG) as runtime:
        acme = furnished(runtime)
        bare = opened(acme)
        runs = {FLOOR: bare_pair(), ALONE: fixed_pair(bare)}
        exporter, processor = InMemorySpanExporter(), None
        tracers = TracerProvider()
        processor = BatchSpanProcessor(exporter)
        tracers.add_span_processor(processor)
        telemetry.use(tracer_provider=tracers, meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]))
        try:
            watched = opened(acme)
            runs[WATCHED] = fixed_pair(watched)
            singles, wholes = _in_turns(runs, effort.rounds, exporter, processor.force_flush)
            if bare.seen is not None or watched.seen is None:
                raise RuntimeError("the benchmark is wrong: nobody, or everybody, is watched")
            looks = _looks(bare)
            watched.close()
        finally:
            telemetry.stop()
            tracers.shutdown()
    return _row(singles, wholes, looks)


def _row(singles: dict[str, list[float]], wholes: dict[str, list[float]], looks: float) -> Row:
    found = [figure(label, "us", samples) for label, samples in singles.items()]
    bare, watched = (figure(label, "us", wholes[label]).median for label in (ALONE, WATCHED))
    found += [count(LOOKED, looks, "us added"), count(WHOLE, watched - bare, "us added")]
    added = found[2].median - found[1].median
    target = f"<= {MOST_NONE_US} us added without a provider, <= {MOST_US} us with a batch processor, threads included"
    is_met = looks <= MOST_NONE_US and max(added, watched - bare) <= MOST_US
    return Row("telemetry", "a leased step watched by nobody, and by a batch processor", found, target, is_met, FLOOR)


def _in_turns(
    runs: dict[str, Callable[[], None]], rounds: int, exporter: InMemorySpanExporter, flush: Callable[[], object]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    singles: dict[str, list[float]] = {label: [] for label in runs}
    wholes: dict[str, list[float]] = {label: [] for label in runs}
    for turn in range(rounds + 1):
        for label, run in runs.items():
            began = time.perf_counter_ns()
            taken = [elapsed_us(run) for _ in range(BLOCK)]
            telemetry.flush(60)
            flush()
            exporter.clear()
            if turn:  # the first warms up
                singles[label] += taken
                wholes[label].append((time.perf_counter_ns() - began) / 1e3 / BLOCK)
    return singles, wholes


def _looks(session: Session) -> float:
    """What is looked at in a step that nobody watches: whether its session is, twice, and whether the step is."""
    step = session.reserve("tool", name="search", amount="0.001")
    began = time.perf_counter_ns()
    for _ in range(LOOKS):
        _ = 0 if session.seen is None else 1
        _ = 0 if session.seen is None else 1
        _ = 0 if step._seen is None else 1
    looked = (time.perf_counter_ns() - began) / 1e3 / LOOKS
    step.release()
    return looked
