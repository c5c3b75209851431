"""agentbudget for Pydantic AI: each model call and each tool call of a run is held before it is made, and settled by what
it really cost."""

from __future__ import annotations

from agentbudget_pydantic_ai.capability import BudgetCapability, guard_agent
from agentbudget_pydantic_ai.embeddings import BudgetEmbeddings
from agentbudget_pydantic_ai.model import BudgetModel

__version__ = "0.1.0"

__all__ = ["BudgetCapability", "BudgetEmbeddings", "BudgetModel", "__version__", "guard_agent"]
