"""``BudgetCapability``: an agent whose models and tools are held; ``guard_agent`` for an agent that is made already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.agent import AbstractAgent, WrapperAgent
from pydantic_ai.capabilities import AbstractCapability, BatchModelRequests, CapabilityOrdering
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, SkipToolExecution

from agentbudget.runtime.steps.current import session_for
from agentbudget_pydantic_ai.model import BudgetModel, is_guarded

if TYPE_CHECKING:
    from pydantic_ai.messages import ToolCallPart
    from pydantic_ai.models import Model
    from pydantic_ai.tools import RunContext, ToolDefinition

    from agentbudget import USD, Credits, Session

_HELD: Final[ContextVar[Any]] = ContextVar("agentbudget_pydantic_ai_call", default=None)
"""The call of a tool that a step is open for: of two capabilities the outer one holds it."""

_NOT_RUN: Final = (ApprovalRequired, CallDeferred, SkipToolExecution)
"""What a tool raises that leaves its work to somebody else: a human, another process, a hook."""


@dataclass
class BudgetCapability(AbstractCapability[Any]):
    """``Agent(model, capabilities=[BudgetCapability()])``: every model call and tool call of the agent's runs is held before
    it is made, refused by ``BudgetDenied`` where it does not fit, and settled by what it really cost.

    session: whose budget pays; None means the current session at each call, and without one the call is refused
    (``no_session``).  prices: of tools, by name; the others cost what the catalog's rates say.  provider: the price table's
    name of who serves (default: the model's).  feature: what the plan must entitle. A sub-agent needs a capability of its own;
    the session is inherited.
    """

    session: Session | None = None
    _: KW_ONLY
    prices: Mapping[str, Credits | USD | int | str] = field(default_factory=dict)
    provider: str | None = None
    feature: str | None = None

    def get_ordering(self) -> CapabilityOrdering:
        """Outside of batches: they send requests past the model that they wrap."""
        return CapabilityOrdering(wraps=[BatchModelRequests])

    def get_wrapper_model(self, model: Model) -> Model | None:
        """The model that serves an attempt, guarded."""
        if is_guarded(model):
            return None
        return BudgetModel(model, self.session, provider=self.provider, feature=self.feature)

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any],
        handler: Callable[[dict[str, Any]], Awaitable[Any]],
    ) -> Any:  # fmt: skip
        """Hold, run, settle. A call that is deferred, waits for an approval or is skipped gives its hold back."""
        if _HELD.get() is call:
            return await handler(args)
        step = await session_for(self.session).areserve(
            "tool", name=call.tool_name, amount=self.prices.get(call.tool_name), arguments=args, feature=self.feature,
            dispatched=True,
        )  # fmt: skip
        async with step:
            held = _HELD.set(call)
            try:
                done = await handler(args)
            except _NOT_RUN:
                await step.arelease()
                raise
            finally:
                _HELD.reset(held)
            await step.asettle()
            return done


def guard_agent(
    agent: AbstractAgent[Any, Any],
    session: Session | None = None,
    *,
    prices: Mapping[str, Credits | USD | int | str] | None = None,
    provider: str | None = None,
    feature: str | None = None,
) -> AbstractAgent[Any, Any]:
    """The same agent, whose runs have a :class:`BudgetCapability` with these arguments. The agent that is passed stays as it
    was; sub-agents that its tools run are agents of their own, to be guarded by themselves."""
    return _Guarded(agent, BudgetCapability(session, prices=prices or {}, provider=provider, feature=feature))


class _Guarded(WrapperAgent[Any, Any]):
    """An agent that adds a capability to each of its runs."""

    def __init__(self, wrapped: AbstractAgent[Any, Any], budget: BudgetCapability) -> None:
        super().__init__(wrapped)
        self._budget = budget

    def iter(self, user_prompt: Any = None, *, capabilities: Any = None, **how: Any) -> Any:
        return super().iter(user_prompt, capabilities=[self._budget, *(capabilities or ())], **how)
