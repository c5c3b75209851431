"""``BudgetMiddleware``: admission, output cap and true cost for every model call and tool call of a langchain v1 agent.

Put it last in ``middleware=[...]``: the last is the innermost, so every attempt of a retry or a fallback passes it.
Where something between it and the model tries again all the same, the callback net inside holds each further attempt on
its own. The same net sees what no middleware sees: models called inside tools, sub-agents without this middleware,
retrievers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from agentbudget import BudgetDenied, InvalidRequest
from agentbudget.errors import find_denied
from agentbudget_langchain import approval
from agentbudget_langchain.around import Around, inside
from agentbudget_langchain.caps import thinking_budget, with_cap
from agentbudget_langchain.handler import DEFAULT_TIMEOUT, BudgetCallbackHandler
from agentbudget_langchain.holding import model_ask, session_for
from agentbudget_langchain.request import ModelCall, call_of_model
from agentbudget_langchain.runs import is_message_of_graph, is_pause
from agentbudget_langchain.usage import is_cache_hit, usage_of_messages

try:
    from langchain.agents.middleware import AgentMiddleware
    from langchain.agents.middleware.types import ModelRequest, ToolCallRequest

    from agentbudget_langchain import stopping
except ImportError as error:
    raise ImportError(
        "BudgetMiddleware is a middleware of langchain v1, which is not installed: "
        "pip install 'agentbudget-langchain[middleware]'. BudgetCallbackHandler works without it."
    ) from error

if TYPE_CHECKING:
    from agentbudget import Session, Step
    from agentbudget.account.commands import Kind

OnRefused: TypeAlias = Literal["raise", "end", "ask"]

End: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]
"""How a step ends: the name of its method, and the arguments."""

MAX_SCHEMAS: Final = 512
"""Tool schemas kept per middleware: converting one costs a millisecond; an agent has tens, and one that makes them up
as it goes must not fill the memory."""


class BudgetMiddleware(AgentMiddleware[Any, Any, Any]):
    """``create_agent(model, tools, middleware=[..., BudgetMiddleware()])``: last, so that it is innermost.

    Before each attempt it holds what the call may cost, and refuses it by ``BudgetDenied`` (``BudgetAbort`` by the
    session's ``on_denied``) before the model is reached. A call that nobody capped gets the session's
    ``max_output_tokens`` written into it; with ``on_short="clamp"`` the cap is lowered to what fits. It settles what
    the reply states.

    session: whose budget pays; None means the current session at each call, and without one the call is refused
    (``no_session``). cap_parameter: the name under which the model takes an output cap, where its class does not tell.
    assume_max_output_tokens: for model calls inside tools, which only the callback net sees. feature: what the plan
    must entitle (None: the session's). on_refused: what a refused step does to the agent. ``raise``: the refusal leaves
    it. ``end``: it ends with a message that says why, and what would unblock it (a refused tool call is answered by an
    error first). ``ask``: it stops to ask a human, needs a checkpointer, and goes on when that is approved (see
    ``approval``); else it ends as with ``end``. A ``BudgetAbort``, and a call without a session, are raised in any
    case.
    """

    def __init__(
        self,
        session: Session | None = None,
        *,
        cap_parameter: str | None = None,
        feature: str | None = None,
        assume_max_output_tokens: int | None = None,
        handler_timeout: float = DEFAULT_TIMEOUT,
        on_refused: OnRefused = "raise",
    ) -> None:
        super().__init__()
        if on_refused not in get_args(OnRefused):
            raise InvalidRequest(f"{on_refused!r} is none of {', '.join(get_args(OnRefused))}", "on_refused")
        self._ends, self._asks = on_refused != "raise", on_refused == "ask"
        if self._ends:
            stopping.needs_jumps()
        self._session, self._cap_parameter, self._feature = session, cap_parameter, feature
        self._net = BudgetCallbackHandler(
            session,
            handler_timeout=handler_timeout,
            assume_max_output_tokens=assume_max_output_tokens,
            feature=feature,
            on_refused="ask" if self._asks else "raise",
        )
        self._schemas: dict[int, tuple[Any, Any]] = {}

    # --- models -----------------------------------------------------------------------------------------------------

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Hold, call, settle."""
        if not self._ends:
            return self._model_call(request, handler)
        ended = stopping.ended_before(request)
        try:
            return self._model_call(request, handler) if ended is None else ended
        except BudgetDenied as refused:
            return stopping.ended(_stoppable(refused))

    def _model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        session, call = session_for(self._session), self._call_of(request)
        step = self._reserve(session, "llm", self._ask(session, call, request))
        around = Around(step, session)
        try:
            with inside(around, self._net):
                reply = handler(self._capped(request, call, step))
        except BaseException as error:
            _do(step, _end_of_model(around, request.model, None, error))
            raise
        _do(step, _end_of_model(around, request.model, reply, None))
        return reply

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """Hold, call, settle; awaited, so the event loop goes on."""
        if not self._ends:
            return await self._amodel_call(request, handler)
        ended = stopping.ended_before(request)
        try:
            return await self._amodel_call(request, handler) if ended is None else ended
        except BudgetDenied as refused:
            return stopping.ended(_stoppable(refused))

    async def _amodel_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        session, call = session_for(self._session), self._call_of(request)
        step = await self._areserve(session, "llm", self._ask(session, call, request))
        around = Around(step, session)
        try:
            with inside(around, self._net):
                reply = await handler(self._capped(request, call, step))
        except BaseException as error:
            await _ado(step, _end_of_model(around, request.model, None, error))
            raise
        await _ado(step, _end_of_model(around, request.model, reply, None))
        return reply

    # --- tools ------------------------------------------------------------------------------------------------------

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Hold, run, settle."""
        try:
            return self._tool_call(request, handler)
        except BudgetDenied as refused:
            if not self._ends:
                raise
            return stopping.refused_tool(request, _stoppable(refused))

    def _tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        session = session_for(self._session)
        step = self._reserve(session, "tool", self._tool_ask(request))
        around = Around(step, session)
        try:
            with inside(around, self._net):
                reply = handler(request)
        except BaseException as error:
            _do(step, _end_of_tool(around, request.tool, error))
            raise
        _do(step, _end_of_tool(around, request.tool, None))
        return reply

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """Hold, run, settle; awaited."""
        try:
            return await self._atool_call(request, handler)
        except BudgetDenied as refused:
            if not self._ends:
                raise
            return stopping.refused_tool(request, _stoppable(refused))

    async def _atool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        session = session_for(self._session)
        step = await self._areserve(session, "tool", self._tool_ask(request))
        around = Around(step, session)
        try:
            with inside(around, self._net):
                reply = await handler(request)
        except BaseException as error:
            await _ado(step, _end_of_tool(around, request.tool, error))
            raise
        await _ado(step, _end_of_tool(around, request.tool, None))
        return reply

    def _reserve(self, session: Session, kind: Kind, what: dict[str, Any]) -> Step:
        return approval.reserve(session, kind, what) if self._asks else session.reserve(kind, **what)

    async def _areserve(self, session: Session, kind: Kind, what: dict[str, Any]) -> Step:
        return await (approval.areserve(session, kind, what) if self._asks else session.areserve(kind, **what))

    # --- what to ask for --------------------------------------------------------------------------------------------

    def _call_of(self, request: ModelRequest[Any]) -> ModelCall:
        messages = (
            [request.system_message, *request.messages] if request.system_message is not None else request.messages
        )
        settings: Mapping[str, Any] = request.model_settings
        if request.response_format is not None:
            settings = {**settings, "response_format": self._schema(request.response_format)}
        return call_of_model(request.model, messages, [self._schema(tool) for tool in request.tools], settings)

    def _ask(self, session: Session, call: ModelCall, request: ModelRequest[Any]) -> dict[str, Any]:
        cap = call.cap
        if cap is None and (thinking := thinking_budget(request.model, request.model_settings)):
            cap = thinking + session.max_output_tokens  # beyond the thinking budget, which counts as output
        return model_ask(call, cap=cap, cap_enforced=True, feature=self._feature)

    def _capped(self, request: ModelRequest[Any], call: ModelCall, step: Step) -> ModelRequest[Any]:
        """The request with the cap that the hold rests on, unless it carries that cap already."""
        cap = step.max_output_tokens
        return request if cap is None or cap == call.cap else with_cap(request, cap, self._cap_parameter)

    def _tool_ask(self, request: ToolCallRequest) -> dict[str, Any]:
        call = request.tool_call
        return {"name": call["name"], "arguments": call["args"], "feature": self._feature, "dispatched": True}

    def _schema(self, thing: Any) -> Any:
        """A tool (or the format of a structured reply) as a provider sees it; converted once."""
        if isinstance(thing, Mapping):
            return thing
        known = self._schemas.get(id(thing))
        if known is None or known[0] is not thing:
            if len(self._schemas) >= MAX_SCHEMAS:
                self._schemas.clear()
            known = self._schemas[id(thing)] = (thing, _to_schema(thing))
        return known[1]


def _to_schema(thing: Any) -> Any:
    described = thing if isinstance(thing, BaseTool) else getattr(thing, "schema", thing)
    try:
        return convert_to_openai_tool(described)
    except (TypeError, ValueError, AttributeError):
        return {"type": "function", "function": {"description": repr(described)}}


def _stoppable(refused: BudgetDenied) -> BudgetDenied:
    """A refusal that may end the agent with a message. Without a session the program is wrong, which must not pass for
    an answer."""
    if refused.decision is not None and refused.decision.reason == "no_session":
        raise refused
    return refused


# --- how a step ends ---------------------------------------------------------------------------------------------


def _end_of_model(around: Around, model: Any, reply: Any, error: BaseException | None) -> End:
    """The first attempt inside the step is what the step pays for; what the run itself reported counts before what came
    back, since parsing may fail after a paid reply, and a later attempt may have brought the reply."""
    if around.ended:
        return _settled(around.usage, cached=around.cached)
    if not around.started and isinstance(model, BaseChatModel):
        return ("release", (), {})  # LangChain announces every call of a chat model, so none was made
    failure = around.error or error
    if failure is not None:
        return _failed(failure, around)
    messages = _messages_of(reply)
    return _settled(usage_of_messages(messages), cached=is_cache_hit(messages))


def _end_of_tool(around: Around, tool: Any, error: BaseException | None) -> End:
    """``around.error`` counts where the agent turned the tool's error into a message for the model."""
    if not around.ended and not around.started and (tool is None or isinstance(tool, BaseTool)):
        return ("release", (), {})  # LangChain announces every run of a tool, so it did not run
    failure = None if around.ended else around.error or error
    if failure is None or (is_message_of_graph(failure) and not is_pause(failure)):
        return ("settle", (), {})
    return ("release", (), {}) if is_pause(failure) else _failed(failure, around)


def _settled(usage: Any, *, cached: bool) -> End:
    if cached:
        return ("settle", (), {"amount": 0})
    return ("settle", (), {}) if usage is None else ("settle", (usage,), {})


def _failed(failure: BaseException, around: Around) -> End:
    refused_before_the_call = find_denied(failure) is not None and not around.started
    return ("release", (), {}) if refused_before_the_call else ("fail", (failure,), {})


def _messages_of(reply: Any) -> Sequence[Any]:
    inner = getattr(reply, "model_response", reply)
    result = getattr(inner, "result", None)
    return result if isinstance(result, list) else [inner]


def _do(step: Step, end: End) -> None:
    name, arguments, named = end
    getattr(step, name)(*arguments, **named)


async def _ado(step: Step, end: End) -> None:
    name, arguments, named = end
    await getattr(step, f"a{name}")(*arguments, **named)
