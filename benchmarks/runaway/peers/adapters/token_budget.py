"""token-budget-py."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Reserved:
    """token-budget-py: ``try_reserve(usd=estimate)``, then ``commit(usd=cost)``; the estimate where no usage came, ``release``
    after an error, as its context manager does. Sub-agents share the pool."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        token_budget: Any = import_module("token_budget")

        self.exceeded = token_budget.BudgetExceeded
        self.pool, self.held = token_budget.BudgetPool(usd_cap=budget), dict[int, Any]()

    def before(self, step: dict[str, Any]) -> str:
        try:
            self.held[step["id"]] = self.pool.try_reserve(usd=step["estimate"])
        except self.exceeded:
            return "BudgetExceeded"
        return ""

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        held = self.held.pop(step["id"], None)
        if held is None:  # reported again: committing twice is an error of its own
            return ""
        if told["failure"]:
            held.release()
            return ""
        try:
            held.commit(usd=step["estimate"] if told["cost"] is None else told["cost"])
        except self.exceeded:
            return "BudgetExceeded"
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        self.held.pop(step["id"]).release()

    def child(self, budget: float | None) -> Any:
        return self

    def ended(self) -> None:
        """The pool goes on."""

    def books(self) -> tuple[float, float]:
        return self.pool.snapshot().usd_used, sum(held._usd for held in self.held.values())
