"""The open runs: every LangChain run for which a callback handler holds credits, until its end event, or what
replaces it.

LangChain has no end event for a cancelled or timed out ``ainvoke``, a cancelled retriever, a handler that raises after
ours held, and parts of a failed batch. Two nets catch those (law L5: every hold ends): the end of the asyncio task in
which the run started, and the end of the run's id, an object that LangChain keeps exactly as long as the call. Both may
fire inside the garbage collector or an event loop, so they end a step by ``abandon``, which waits for nobody. Under
both lies the hold's time to live at the owner.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from agentbudget.runtime.steps.current import announce, claim
from agentbudget_langchain.usage import merge, text_bytes, usage_of_message

if TYPE_CHECKING:
    from agentbudget import Session, Step, Usage
    from agentbudget_langchain.around import Around

BYTES_PER_TOKEN: Final = 2
"""Of streamed text, when a stream breaks off before it states its usage: the catalog's ``typical`` estimate (prose
has 4)."""

_FINISHED: Final = ("finish_reason", "stop_reason", "done_reason", "finishReason")


class Run:
    """One open run. ``batch``: the object that all runs of one batched call share; ``place``: its order among all runs;
    ``stops_alone``: when it fails, LangChain reports no other run of its batch."""

    __slots__ = (
        "_finished", "_reports", "_running_total", "_task", "_watch", "around", "batch", "handler", "id", "place", "session",
        "stated", "step", "stops_alone",
    )  # fmt: skip

    def __init__(self, run_id: UUID, handler: object, session: Session, *, batch: object = None) -> None:
        self.id, self.handler, self.session, self.batch = run_id.int, handler, session, batch
        self.step: Step | None = None
        self.around: Around | None = None
        self.stops_alone = False
        self.place = next(_places)
        self.stated: Usage | None = None
        self._reports, self._running_total, self._finished = 0, True, False
        self._task: asyncio.Task[Any] | None = None
        self._watch: weakref.ref[UUID] | None = None

    @property
    def target(self) -> Step | None:
        """The step that this run spends on: its own, or the one of the middleware around it."""
        return self.around.step if self.around is not None else self.step

    def hear(self, text: Any, message: Any, timeout_seconds: float) -> None:
        """A streamed piece: meter what came, and keep the usage that it may carry. Raises the refusal of output that cannot be
        held: LangChain then cuts the stream."""
        size = text_bytes(text) + sum(
            text_bytes(part.get("args")) for part in getattr(message, "tool_call_chunks", None) or ()
        )
        if size and self.target is not None:
            claim(self.target)  # its call was made: what a guarded client sends while the stream runs is other work
            self.target.meter(-(-size // BYTES_PER_TOKEN), at_least=1, timeout_seconds=timeout_seconds)
        if message is None:
            return
        metadata = getattr(message, "response_metadata", None) or {}
        said_last = getattr(message, "chunk_position", None) == "last" or any(metadata.get(name) for name in _FINISHED)
        self._finished = self._finished or said_last
        usage = usage_of_message(message)
        if usage is not None:
            self._report(usage)

    def _report(self, usage: Usage) -> None:
        last = self.stated
        if last is not None:
            grows = usage.input_tokens >= last.input_tokens > 0 and usage.output_tokens >= last.output_tokens
            self._running_total = self._running_total and grows
        self._reports += 1
        self.stated = merge(last, usage)

    @property
    def final(self) -> Usage | None:
        """The usage of a stream that has said its last word, though LangChain has not reported its end yet."""
        one = self._finished and self._reports == 1 and self.stated is not None and self.stated.output_tokens > 0
        return self.stated if one else None

    def used(self, reported: Usage | None) -> Usage | None:
        """The usage of the whole run. LangChain adds up what chunks state; where each stated a running total, the sum
        is wrong and the largest is right. A chunk that states only what is new has no input tokens after the first."""
        if self.stated is None:
            return reported
        if self._reports > 1 and self._running_total:
            return self.stated
        return merge(self.stated, reported)

    def watch(self, run_id: UUID) -> None:
        """End the run when its task or its id ends without an end event."""
        self._watch = weakref.ref(run_id, self._lost)
        self._task = current_task()
        if self._task is not None:
            self._task.add_done_callback(self._lost)

    def unwatch(self) -> None:
        self._watch, task, self._task = None, self._task, None
        if task is not None:
            task.remove_done_callback(self._lost)

    def is_reported_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether an event that ``task`` delivers comes from the code that started the run (not from a shielded
        task)."""
        return task is self._task

    def _lost(self, gone: object) -> None:
        """No end event will come. A task that was not cancelled may have handed its stream to another, so it proves
        nothing."""
        if isinstance(gone, asyncio.Task) and not gone.cancelled():
            return
        if OPEN.remove(self) and self.step is not None:
            self.step.abandon()


class OpenRuns:
    """All open runs of this process, whichever handler opened them: two handlers may be told of the same run.

    Without locks, since a run may be lost inside the garbage collector: each method is one atomic step of a dict or a
    list.
    """

    def __init__(self) -> None:
        self._runs: dict[int, list[Run]] = {}
        self._claimed: weakref.WeakSet[Step] = weakref.WeakSet()
        self._claims = threading.Lock()

    def claim(self, step: Step) -> bool:
        """Whether a run is the call that a caller's own ``with session.step(...)`` holds: the first run inside it, no
        other."""
        with self._claims:
            if step in self._claimed:
                return False
            self._claimed.add(step)
            return True

    def add(self, run: Run, run_id: UUID) -> None:
        """Enter a run and watch over its end. A guarded client that makes its call does not hold it again."""
        self._runs.setdefault(run.id, []).append(run)
        if run.step is not None and run.step.kind == "llm":
            announce(run.step)
        run.watch(run_id)

    def has(self, run_id: UUID, session: Session) -> bool:
        """Whether some handler holds for this run on this session."""
        runs = self._runs.get(run_id.int)
        return runs is not None and any(run.session.id == session.id for run in runs)

    def of(self, run_id: UUID, handler: object) -> Run | None:
        """The run of this id that this handler opened."""
        for run in self._runs.get(run_id.int, ()):
            if run.handler is handler:
                return run
        return None

    def take(self, run_id: UUID, handler: object) -> Run | None:
        """Take that run out, so that exactly one caller ends it."""
        run = self.of(run_id, handler)
        return run if run is not None and self.remove(run) else None

    def batch_of(self, batch: object, handler: object) -> list[Run]:
        """The open runs of one batched call, in the order in which they started."""
        found = [
            run for runs in list(self._runs.values()) for run in runs if run.batch is batch and run.handler is handler
        ]
        return sorted(found, key=lambda run: run.place)

    def remove(self, run: Run) -> bool:
        """Take a run out; False when it was out already."""
        runs = self._runs.get(run.id, [])
        try:
            runs.remove(run)
        except ValueError:
            return False
        if not runs:
            self._runs.pop(run.id, None)
        run.unwatch()
        return True

    def __len__(self) -> int:
        return len(self._runs)


OPEN: Final = OpenRuns()
_places = itertools.count()


def is_pause(error: BaseException) -> bool:
    """Whether a graph stopped to ask a human (``GraphInterrupt``): the tool starts again on resume, so this start was
    none."""
    return any(cls.__name__ == "GraphInterrupt" for cls in type(error).__mro__)


def is_message_of_graph(error: BaseException) -> bool:
    """Whether a graph's own signal left a tool that did its work (``ParentCommand``: a hand-over to another agent)."""
    return any(cls.__name__ == "GraphBubbleUp" for cls in type(error).__mro__)


def current_task() -> asyncio.Task[Any] | None:
    """The asyncio task of this code, or None."""
    loop = asyncio._get_running_loop()  # its public twin raises without one, which costs a microsecond at every call
    return None if loop is None else asyncio.current_task(loop)


def text_of_event(event: Mapping[str, Any]) -> str:
    """What a ``stream_events(version="v3")`` event adds to the reply."""
    delta = event.get("delta") if event.get("event") == "content-block-delta" else None
    if not isinstance(delta, Mapping):
        return ""
    return "".join(str(delta[name]) for name in ("text", "reasoning", "args", "data") if delta.get(name))
