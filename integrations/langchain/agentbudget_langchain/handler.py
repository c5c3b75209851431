"""``BudgetCallbackHandler``: a hold before every chat model, LLM, tool and retriever that LangChain announces.

One synchronous handler serves the synchronous and the asynchronous world: LangChain swallows what an asynchronous
handler raises on the synchronous path, and runs a handler outside ``run_inline`` in another thread. The price is the
one place where agentbudget blocks an event loop: for one answer of the owner at the start of a run, and one at its end.

A handler cannot change the request. Where a call has no output cap it therefore holds the model's maximum.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from agentbudget import (
    AgentBudgetError,
    BudgetAbort,
    BudgetDenied,
    InvalidRequest,
    OwnerUnavailable,
    Usage,
    current_step,
)
from agentbudget.account.commands import Kind
from agentbudget_langchain import approval
from agentbudget_langchain.around import enclosing
from agentbudget_langchain.holding import explained, model_ask, session_for
from agentbudget_langchain.request import call_of_callback
from agentbudget_langchain.runs import OPEN, Run, current_task, is_message_of_graph, is_pause, text_of_event
from agentbudget_langchain.usage import counted_with_first, report_of

if TYPE_CHECKING:
    from agentbudget import Session, Step

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that a start waits for the owner. An answer takes milliseconds; an event loop that waits longer is a
stalled server."""

_log = logging.getLogger("agentbudget.langchain")


class BudgetCallbackHandler(BaseCallbackHandler):
    """Give it to ``config={"callbacks": [...]}``, to a model, or to an agent; where the same run is announced to
    several of them (or to a ``BudgetMiddleware`` around it), it is held once.

    session: whose budget pays; None means the current session at each call, and without one the call is refused
    (``no_session``). handler_timeout: seconds to wait for the owner before a call; then ``OwnerUnavailable`` and the
    call does not run. assume_max_output_tokens: what a call without an output cap holds, instead of the model's
    maximum; what goes beyond it is booked as an overrun. feature: what the plan must entitle (None: the session's).
    on_refused: ``raise``, or ``ask``: inside of a LangGraph graph a refused run asks a human first (see ``approval``).

    Raises from inside LangChain, before the model, tool or retriever is reached: ``BudgetDenied`` (or ``BudgetAbort``,
    by the session's ``on_denied``).
    """

    raise_error = True  # else LangChain logs the refusal and makes the call
    run_inline = True  # else it runs in another thread, where the task of the call is not known

    def __init__(
        self,
        session: Session | None = None,
        *,
        handler_timeout: float = DEFAULT_TIMEOUT,
        assume_max_output_tokens: int | None = None,
        feature: str | None = None,
        on_refused: Literal["raise", "ask"] = "raise",
    ) -> None:
        if on_refused not in ("raise", "ask"):
            raise InvalidRequest(f"{on_refused!r} is none of raise, ask", "on_refused")
        if not 0 < handler_timeout <= 3_600:
            raise InvalidRequest(f"{handler_timeout!r} is not between 0 and 3600 seconds", "handler_timeout")
        self._session, self._timeout, self._feature = session, handler_timeout, feature
        self._assumed, self._asks = assume_max_output_tokens, on_refused == "ask"

    @property
    def session(self) -> Session | None:
        """Whose budget pays; None: the current session at each call."""
        return self._session

    # Chains and retries are no work of their own; what they do is announced by itself. (LangChain's ignore_agent
    # covers tools.)
    @property
    def ignore_chain(self) -> bool:
        return True

    @property
    def ignore_retry(self) -> bool:
        return True

    @property
    def ignore_custom_event(self) -> bool:
        return True

    # --- models -----------------------------------------------------------------------------------------------------

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[Any]],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        invocation_params: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        **kwargs: Any,
    ) -> None:
        """Hold a chat model call; raises the refusal."""
        said = messages[0] if len(messages) == 1 else [message for part in messages for message in part]
        self._start_model(said, run_id, metadata, invocation_params, batch_size, stops_alone=True)

    def on_llm_start(
        self,
        serialized: Any,
        prompts: list[str],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        invocation_params: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        **kwargs: Any,
    ) -> None:
        """Hold one prompt of a plain LLM (each prompt of a batch is a run of its own); raises the refusal."""
        self._start_model(prompts, run_id, metadata, invocation_params, batch_size, stops_alone=False)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        """Meter what a stream has brought, cut it where more cannot be held (raises the refusal), and settle as soon as it has
        said its last word."""
        run = OPEN.of(run_id, self)
        if run is None:
            return
        run.hear(token, getattr(chunk, "message", None), self._timeout)
        if run.final is not None and run.step is not None and run.step.is_open:
            self._end(run, lambda step: step.settle(run.final, timeout_seconds=self._timeout))

    def on_stream_event(self, event: Mapping[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """The same for ``stream_events(version="v3")``."""
        run = OPEN.of(run_id, self)
        if run is not None:
            run.hear(text_of_event(event), None, self._timeout)

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Settle what the call used; a reply out of LangChain's cache cost nothing."""
        run = OPEN.take(run_id, self)
        if run is None:
            return
        cached, usage = report_of(response)
        usage = None if cached else run.used(usage)
        if run.around is not None:
            run.around.ended, run.around.cached, run.around.usage = True, cached, usage
        elif cached or (usage is None and run.batch is not None and counted_with_first(response)):
            self._end(run, lambda step: step.settle(amount=0, timeout_seconds=self._timeout))
        else:
            self._end(run, lambda step: step.settle(usage, timeout_seconds=self._timeout))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a call that failed, was cancelled, or whose stream was left."""
        run = OPEN.of(run_id, self)
        if run is None:
            return
        stops_batch = run.batch is not None and run.stops_alone and run.is_reported_by(current_task())
        if OPEN.remove(run):
            self._fail(run, error)
        if stops_batch:
            self._end_batch_of(run, error)

    # --- tools and retrievers ---------------------------------------------------------------------------------------

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        inputs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Hold a tool call; raises the refusal."""
        tool = (serialized or {}).get("name") or name or "tool"
        arguments = inputs if inputs is not None else input_str
        self._start(run_id, "tool", tool, arguments=arguments)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Settle a tool call at what it held (its price is fixed by its rate)."""
        self._settle(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a tool call that failed. One that stopped to ask a human runs again on resume, so this start costs
        nothing."""
        run = OPEN.take(run_id, self)
        if run is None:
            return
        if run.around is not None:
            run.around.error = error
        elif is_pause(error):
            self._end(run, lambda step: step.release())
        elif is_message_of_graph(error):
            self._end(run, lambda step: step.settle(timeout_seconds=self._timeout))
        else:
            self._fail(run, error)

    def on_retriever_start(
        self,
        serialized: Any,
        query: str,
        *,
        run_id: UUID,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Hold a retrieval; raises the refusal."""
        named = name or (metadata or {}).get("ls_retriever_name") or "retriever"
        self._start(run_id, "retrieval", named, arguments=query)

    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        """Settle a retrieval by the documents that it brought."""
        self._settle(run_id, Usage(documents=len(documents)))

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a retrieval that failed."""
        run = OPEN.take(run_id, self)
        if run is not None:
            self._fail(run, error)

    # --- starts -----------------------------------------------------------------------------------------------------

    def _start_model(
        self,
        messages: Sequence[Any],
        run_id: UUID,
        metadata: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
        batch_size: int,
        *,
        stops_alone: bool,
    ) -> None:
        run = self._new_run(run_id, params if batch_size > 1 else None)
        if run is None or self._is_attempt(run, "llm", None):
            return self._enter(run, run_id)
        call = call_of_callback(messages, metadata, params)
        cap = call.cap if call.cap is not None else self._assumed
        try:
            what = model_ask(call, cap=cap, cap_enforced=False, feature=self._feature)
            run.step = self._reserve(run.session, "llm", what)
        except BaseException as error:
            self._release_batch(run)
            if cap is None and isinstance(error, (BudgetDenied, BudgetAbort)):
                raise explained(error) from None
            raise
        run.stops_alone = stops_alone
        self._enter(run, run_id)

    def _start(self, run_id: UUID, kind: Kind, name: str, *, arguments: Any) -> None:
        run = self._new_run(run_id, None)
        if run is not None and not self._is_attempt(run, kind, name):
            what = {"name": name, "arguments": arguments, "feature": self._feature, "dispatched": True}
            run.step = self._reserve(run.session, kind, what)
        self._enter(run, run_id)

    def _reserve(self, session: Session, kind: Kind, what: dict[str, Any]) -> Step:
        if self._asks:
            return approval.reserve(session, kind, what, timeout_seconds=self._timeout)
        return session.reserve(kind, timeout_seconds=self._timeout, **what)

    def _new_run(self, run_id: UUID, batch: object) -> Run | None:
        """A run to hold for, or None when another handler already does on this session. Raises ``no_session``."""
        session = session_for(self._session)
        return None if OPEN.has(run_id, session) else Run(run_id, self, session, batch=batch)

    def _is_attempt(self, run: Run, kind: str, name: str | None) -> bool:
        """Whether the run is the very call that an enclosing step already holds: a middleware's, or a caller's ``with
        step``."""
        around = enclosing()
        if around is not None and around.claim(run.session, kind, name):
            run.around = around
            return True
        outer = current_step()
        if outer is None or outer.kind != kind or outer.session != run.session.id or outer.name != name:
            return False
        return OPEN.claim(outer)

    def _enter(self, run: Run | None, run_id: UUID) -> None:
        if run is not None and run.target is not None:
            OPEN.add(run, run_id)

    # --- ends -------------------------------------------------------------------------------------------------------

    def _settle(self, run_id: UUID, usage: Usage | None) -> None:
        run = OPEN.take(run_id, self)
        if run is None:
            return
        if run.around is not None:
            run.around.ended, run.around.usage = True, usage
        else:
            self._end(run, lambda step: step.settle(usage, timeout_seconds=self._timeout))

    def _fail(self, run: Run, error: BaseException) -> None:
        if run.around is not None:
            run.around.error = error
        elif run.step is not None and isinstance(error, GeneratorExit):
            run.step.abandon()  # may come out of the garbage collector, so it waits for nobody
        else:
            self._end(run, lambda step: step.fail(error, timeout_seconds=self._timeout))

    def _end(self, run: Run, end: Callable[[Step], object]) -> None:
        """Book an end. The reply has been paid for and is the caller's: an owner that does not answer must not take it
        away. The hold then stays, and ends by its time to live as ``on_unknown`` says (laws L5, L8)."""
        if run.step is None:
            return
        try:
            end(run.step)
        except AgentBudgetError as error:
            _log.warning("step %s could not be ended as reported; its hold ends by policy: %s", run.step.id, error)
            if not isinstance(error, OwnerUnavailable):
                run.step.abandon()

    def _release_batch(self, run: Run) -> None:
        """A refused prompt of a batch stops the whole batch before any call: what the prompts before it hold goes
        back."""
        for other in OPEN.batch_of(run.batch, self) if run.batch is not None else ():
            if OPEN.remove(other):
                self._end(other, lambda step: step.release())

    def _end_batch_of(self, run: Run, error: BaseException) -> None:
        """``generate`` stops at the first prompt that fails, and reports only that one: the chat calls before it were
        made (and paid), those after it never. ``agenerate`` reports each, from a task of its own; a plain LLM reports
        all."""
        for other in OPEN.batch_of(run.batch, self):
            if OPEN.remove(other):
                was_made = other.place < run.place
                self._end(
                    other,
                    (lambda step: step.fail(error_of_sibling(error))) if was_made else (lambda step: step.release()),
                )


def error_of_sibling(error: BaseException) -> RuntimeError:
    """The failure of a call whose reply was thrown away because another call of its batch failed: never "not
    billed"."""
    return RuntimeError(
        f"another call of the batch failed ({type(error).__name__}), so the usage of this one is not known"
    )
