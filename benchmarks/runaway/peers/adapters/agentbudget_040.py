"""The unrelated agentbudget 0.4.0."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Tracked:
    """agentbudget 0.4.0 as its README has it: ``session.track(result, cost)`` after each call, sub-agents by
    ``child_session``."""

    asks = False

    def __init__(self, budget: float, usual_calls: int, session: Any = None) -> None:
        agentbudget: Any = import_module("agentbudget")

        self.exhausted = agentbudget.BudgetExhausted
        made = agentbudget.AgentBudget(max_spend=budget, max_repeated_calls=10**9) if session is None else None
        self.session = session if made is None else made.session()
        self.session.__enter__()

    def before(self, step: dict[str, Any]) -> str:
        return "would_exceed" if self.asks and self.session.would_exceed(step["estimate"]) else ""

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        if told["cost"] is None:
            return ""
        try:
            self.session.track(None, told["cost"])
        except self.exhausted:
            return "BudgetExhausted"
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        """Nothing was begun, so nothing is told."""

    def child(self, budget: float | None) -> Any:
        most = self.session.remaining if budget is None else budget
        if self.session.remaining <= 0:
            return None
        return type(self)(most, 0, self.session.child_session(max_spend=most))

    def ended(self) -> None:
        try:
            self.session.__exit__(None, None, None)
        except self.exhausted:
            return

    def books(self) -> tuple[float, float]:
        return self.session.spent, 0.0


class Asked(Tracked):
    """The same, best configured: ``would_exceed(estimate)`` before each call."""

    asks = True
