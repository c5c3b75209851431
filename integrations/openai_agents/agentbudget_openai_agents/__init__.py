"""agentbudget for the OpenAI Agents SDK: each model call and each tool call of a run is held before it is made, and settled by
what it really cost."""

from __future__ import annotations

from agentbudget_openai_agents.agents import guard_agent, guard_tool
from agentbudget_openai_agents.model import BudgetModel, BudgetProvider

__version__ = "0.1.0"

__all__ = ["BudgetModel", "BudgetProvider", "__version__", "guard_agent", "guard_tool"]
