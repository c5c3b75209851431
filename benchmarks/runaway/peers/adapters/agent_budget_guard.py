"""agent-budget-guard-py."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Recorded:
    """As documented: each call's usage is recorded after it, at the provider's own prices; what trips is refused from then on.
    Loop detection is off: the lab's tools have arguments like ``q7``, which are more alike than real ones. Sub-agents share the
    guard."""

    asks = False

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
            if self.asks:
                self.guard.preflight("step", input_tokens=0, max_output_tokens=1, price=self._price(step["estimate"]))
            self.guard.check()
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


class Asked(Recorded):
    """Best configured: ``preflight`` with the worst case before each call."""

    asks = True
