"""``guard_agent`` and ``guard_tool``: an agent whose models and tools are held, with the agents that it hands over to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agents import Agent, FunctionTool, Handoff, Model, ModelProvider, MultiProvider

from agentbudget.runtime.steps.current import session_for
from agentbudget_openai_agents.model import BudgetModel, BudgetProvider

if TYPE_CHECKING:
    from agentbudget import USD, Credits, Session


def guard_tool(
    tool: FunctionTool, session: Session | None = None, *, price: Credits | USD | int | str | None = None,
    feature: str | None = None,
) -> FunctionTool:  # fmt: skip
    """The same tool, each call of it a step: of kind ``agent`` where it is one (``as_tool``), else ``tool``. ``price``: an
    amount; None: the catalog's. A refused call does not run the tool: ``BudgetDenied`` comes out of the run as the
    cause of the SDK's ``UserError``. The models of an agent that is a tool are guarded too, where they are named."""
    invoke, is_agent = tool.on_invoke_tool, tool._is_agent_tool
    if getattr(invoke, "_agentbudget", False):
        return tool

    async def on_invoke_tool(context: Any, arguments: str) -> Any:
        async with await session_for(session).areserve(
            "agent" if is_agent else "tool",
            name=tool.name, amount=price, arguments=arguments, feature=feature, dispatched=True,
        ) as step:  # fmt: skip
            if is_agent:
                _guard_models(context, session)
            done = await invoke(context, arguments)
            await step.asettle()
            return done

    on_invoke_tool._agentbudget = True  # type: ignore[attr-defined]
    return dataclasses.replace(tool, on_invoke_tool=on_invoke_tool)


def guard_agent(
    agent: Agent[Any],
    session: Session | None = None,
    *,
    prices: Mapping[str, Credits | USD | int | str] | None = None,
    provider: ModelProvider | None = None,
    feature: str | None = None,
) -> Agent[Any]:
    """A copy of the agent, and of every agent that it may hand over to, whose models are :class:`BudgetModel` and whose tools are
    guarded.

    session: whose budget pays; None means the current session at each call.  prices: of tools, by name; the others cost what the
    catalog's rates say.  provider: where named models come from (default: the SDK's).  feature: what the plan must entitle.
    """
    return _Guarding(session, prices or {}, provider or MultiProvider(), feature).agent(agent)


class _Guarding:
    """One call of ``guard_agent``: agents that hand over to each other are copied once."""

    def __init__(
        self, session: Session | None, prices: Mapping[str, Any], provider: ModelProvider, feature: Any
    ) -> None:
        self._session, self._prices, self._provider, self._feature = session, prices, provider, feature
        self._made: dict[int, Agent[Any]] = {}

    def agent(self, agent: Agent[Any]) -> Agent[Any]:
        made = self._made.get(id(agent))
        if made is None:
            made = self._made[id(agent)] = agent.clone(tools=[self._tool(tool) for tool in agent.tools])
            made.model = BudgetModel(self._model_of(agent.model), self._session, feature=self._feature)
            made.handoffs = [self._handoff(each) for each in agent.handoffs]
        return made

    def _model_of(self, model: Any) -> Any:
        provider = self._provider
        return model if isinstance(model, Model) else lambda: provider.get_model(model)

    def _tool(self, tool: Any) -> Any:
        if not isinstance(tool, FunctionTool):
            return tool  # a tool of the provider: part of the model's call
        return guard_tool(tool, self._session, price=self._prices.get(tool.name), feature=self._feature)

    def _handoff(self, handoff: Any) -> Any:
        if isinstance(handoff, Agent):
            return self.agent(handoff)
        return dataclasses.replace(handoff, on_invoke_handoff=self._invoking(handoff))

    def _invoking(self, handoff: Handoff[Any, Any]) -> Any:
        async def on_invoke_handoff(context: Any, arguments: str) -> Any:
            return self.agent(await handoff.on_invoke_handoff(context, arguments))

        return on_invoke_handoff


def _guard_models(context: Any, session: Session | None) -> None:
    """An agent that is a tool takes the configuration of the run that it is called from."""
    config = getattr(context, "run_config", None)
    if config is not None and not isinstance(config.model_provider, BudgetProvider):
        context.run_config = dataclasses.replace(config, model_provider=BudgetProvider(config.model_provider, session))
