"""agent-budget-guard-py."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Asked:
    """agent-budget-guard-py, best configured: ``preflight`` with the worst case before each call, ``record`` with its usage
    after it, at the provider's own prices; loop detection off. Sub-agents share the guard."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        agentguard: Any = import_module("agentguard")

        self.agentguard, self.tripped = agentguard, agentguard.GuardTripped
        self.guard = agentguard.Guard(
            max_usd=budget, use_config=False, loop_detection=False, on_unknown_model="ignore", use_snapshot=False
        )

    def _price(self, usd: float) -> Any:
        return self.agentguard.Price(0.0, usd * 1e6)  # a million output tokens at this: one token is the whole cost

    def before(self, step: dict[str, Any]) -> str:
        try:
            self.guard.preflight("step", input_tokens=0, max_output_tokens=1, price=self._price(step["estimate"]))
        except self.tripped as error:
            return type(error).__name__
        return ""

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        if told["cost"] is None:
            return ""
        try:
            self.guard.record(model="step", input_tokens=0, output_tokens=1, price=self._price(told["cost"]))
        except self.tripped as error:
            return type(error).__name__
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        """Nothing was begun, so nothing is told."""

    def child(self, budget: float | None) -> Any:
        return self

    def ended(self) -> None:
        """The guard goes on."""

    def books(self) -> tuple[float, float]:
        return self.guard.spent_usd, 0.0
