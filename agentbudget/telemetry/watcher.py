"""Who watches: the providers that were found or given, and the thread that writes to them.

What is handed over waits in a queue that has an end; one thread writes it. So an exporter that is down, slow, stuck or raising
keeps nobody waiting: at worst spans are dropped, and counted. Counters lose nothing even then.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from agentbudget.telemetry import names
from agentbudget.telemetry.meters import meters_of
from agentbudget.telemetry.seen import SessionSeen, StepSeen
from agentbudget.telemetry.spans import UNSAMPLED, Event, Place, Writer, Written, from_text, writer_of

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_log = logging.getLogger("agentbudget")

VERSION: Final = "0.1.0"
MAX_WAITING: Final = 8_192
"""Things that wait to be written, some hundred bytes each: a quarter of a second of the tightest loop."""
ROUND_SECONDS: Final = 0.05
"""The thread takes what came in so long at once: waking it for each step would cost more than the step."""
MOST_MEASURED: Final = 50
"""Steps in one round whose distributions are recorded, so 1,000 a second; beyond that they are a sample. Counters count all."""
FLUSH_SECONDS: Final = 2.0
SAID_AGAIN_SECONDS: Final = 300.0

Write = Callable[[], Written]


class Watch:
    """One set of providers; None where a signal is not wanted."""

    def __init__(
        self, tracers: Any = None, meters: Any = None, loggers: Any = None, *,
        metric_ids: Collection[str] = (), depths: Callable[[], int] = int,
    ) -> None:  # fmt: skip
        self._writer: Writer | None = None if tracers is None else writer_of(tracers, VERSION)
        self._meters = None if meters is None else meters_of(meters, VERSION, frozenset(metric_ids), depths)
        self._logger = None if loggers is None else loggers.get_logger(names.SCOPE, VERSION)
        self.open: dict[int, StepSeen] = {} if self._meters is None else self._meters.open
        self.sessions: weakref.WeakSet[SessionSeen] = weakref.WeakSet()
        self.born = 0
        self._said_at = 0.0
        self._born()

    def _born(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # put() takes no lock
        self._bell, self._starting = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._measured = 0

    def forked(self) -> None:
        """In a forked child: what waits is the parent's, and so is what is open."""
        self.open.clear()
        self.sessions = weakref.WeakSet()
        self.born += 1
        self._born()

    # --- for the runtime --------------------------------------------------------------------------------------------------------

    def session(self, session: str, customer: str, *, is_leased: bool, above: SessionSeen | None = None) -> SessionSeen:
        """A session begins here."""
        return SessionSeen(self, session, customer, is_leased=is_leased, above=above)

    def place(self, name: str, parent: SpanContext | None, start_ns: int, links: Sequence[SpanContext] = ()) -> Place:
        """Where a span is in its trace; an invalid place where there are no spans, or the sampler failed."""
        if self._writer is not None:
            try:
                return self._writer.place(name, parent, start_ns, links)
            except Exception as error:  # a sampler is the application's: it must not stop a step
                self.failed(error)
        return Place(nowhere() if parent is None else parent)

    def put(self, write: Write, *, in_collector: bool = False) -> None:
        """Have a span written."""
        if self._writer is not None:
            self._hand_over(lambda: self._write(write()), starts=not in_collector)

    def step_over(
        self, seen: StepSeen, write: Write | None, outcome: str, reason: str, charged: int | None, overrun: int,
        returned: int, event: Event | None, *, in_collector: bool = False,
    ) -> None:  # fmt: skip
        """A step ended; ``write`` None: a framework's span has it."""
        meters = self._meters

        def count() -> None:
            if meters is not None:
                meters.count(seen, outcome, reason, charged or 0, overrun, returned)

        def tell() -> None:
            count()
            if meters is not None:
                self._measure(seen, None if outcome == "corrected" else charged, write is None, outcome)
            if write is not None and self._writer is not None:
                self._write(write())
            if event is not None and self._logger is not None:
                self._say(event, seen.context)

        if in_collector:
            self._hand_over(tell, more=MAX_WAITING, starts=False)
        elif not self._hand_over(tell):
            count()

    def decided(self, owner: str, start_ns: int, batch: int, carried: Sequence[tuple[str, str, str]]) -> None:
        """An owner decided a batch and wrote it down: of each command that came with a trace, that, what it was, the answer."""
        if self._writer is None:
            return
        end_ns = time.time_ns()
        for trace, command, answer in carried:
            parent = from_text(trace)
            if parent is not None:
                attributes = {
                    names.OWNER_NAME: owner, names.COMMAND: command, names.ANSWER: answer, names.BATCH: batch,
                }  # fmt: skip
                self.put(_written(self, parent, start_ns, end_ns, attributes))

    def committed(self, took_ns: int, lapses: int) -> None:
        """An owner's transaction took so long, and ended so many holds by lapse."""
        meters = self._meters
        if meters is not None:
            self._hand_over(lambda: meters.committed(took_ns, lapses))

    def failed(self, error: BaseException) -> None:
        """A provider raised: said once in a while, and otherwise without effect."""
        now = time.monotonic()
        if now - self._said_at > SAID_AGAIN_SECONDS or not self._said_at:
            self._said_at = now
            _log.warning(
                "telemetry met %s; budgets work as before, spans or metrics may be missing", type(error).__name__
            )

    # --- the thread -------------------------------------------------------------------------------------------------------------

    def _hand_over(self, tell: Callable[[], None], *, more: int = 0, starts: bool = True) -> bool:
        """Whether there was room. ``starts`` False: called by the collector, which may have interrupted any lock's holder."""
        if self._waiting.qsize() >= MAX_WAITING + more:
            if self._meters is not None and starts:
                self._meters.drop()
            return False
        self._waiting.put(tell)
        if self._thread is None and starts:
            self._start()
        return True

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentbudget-telemetry", daemon=True)
                self._thread.start()
        except RuntimeError:  # the interpreter ends: nothing can be written any more
            _log.debug("no thread for telemetry: the interpreter ends")
        finally:
            self._starting.release()

    def _run(self) -> None:
        while True:
            tell = self._waiting.get()
            self._bell.wait(ROUND_SECONDS)
            self._measured = 0
            while True:
                try:
                    tell()
                except Exception as error:
                    self.failed(error)
                try:
                    tell = self._waiting.get_nowait()
                except queue.Empty:
                    break

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until everything that was handed over is with the providers; whether it is."""
        done = threading.Event()
        self._waiting.put(done.set)
        if self._thread is None:
            self._start()
        self._bell.set()
        try:
            return done.wait(seconds)
        finally:
            self._bell.clear()

    def farewell(self) -> None:
        """The process ends: sessions that are still open end with it."""
        for seen in list(self.sessions):
            seen.closed()
        self.flush()

    # --- writing, on the thread -----------------------------------------------------------------------------------------------

    def _write(self, written: Written) -> None:
        if self._writer is not None:
            self._writer.write(written)

    def _measure(self, seen: StepSeen, charged: int | None, is_frameworks: bool, outcome: str) -> None:
        if outcome == "corrected" or self._measured >= MOST_MEASURED:
            return
        self._measured += 1
        assert self._meters is not None
        context = in_context(seen.context) if self._writer is not None or is_frameworks else None
        self._meters.measure(seen, charged, context)

    def _say(self, event: Event, context: SpanContext) -> None:
        from opentelemetry._logs import LogRecord, SeverityNumber

        assert self._logger is not None
        self._logger.emit(
            LogRecord(
                timestamp=event.time_ns, context=in_context(context), severity_number=SeverityNumber.WARN,
                event_name=event.name, attributes=dict(event.attributes),
            )
        )  # fmt: skip


def _written(watch: Watch, parent: SpanContext, start_ns: int, end_ns: int, attributes: dict[str, Any]) -> Write:
    return lambda: Written(
        names.OWNER, watch.place(names.OWNER, parent, start_ns), parent, start_ns, end_ns, attributes
    )


def nowhere() -> SpanContext:
    from opentelemetry.trace import SpanContext

    return SpanContext(0, 0, False, UNSAMPLED)


def in_context(context: SpanContext) -> Any:
    """An OpenTelemetry context in which that span is current."""
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(context))


def is_disabled() -> bool:
    """By OpenTelemetry's own switch."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
