"""Runs in the peer's own interpreter, isolated (``python -I child.py NAME``): a question a line in, an answer a line out, as
JSON.

Standard library and the peer only; nothing of this project, whose import name one of the peers has too. What a peer raises
after a call is told to the agent at its next question, once: there it meets the exception."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any


class Agentbudget:
    """agentbudget 0.4.0 as its README has it: ``session.track(result, cost)`` after each call, sub-agents by
    ``child_session``."""

    asks = False

    def __init__(self, budget: float, session: Any = None) -> None:
        agentbudget: Any = import_module("agentbudget")

        self.exhausted = agentbudget.BudgetExhausted
        made = agentbudget.AgentBudget(max_spend=budget, max_repeated_calls=10**9) if session is None else None
        self.session = session if made is None else made.session()
        self.session.__enter__()

    def before(self, step: dict[str, Any]) -> str:
        return "would_exceed" if self.asks and self.session.would_exceed(step["estimate"]) else ""

    def after(self, step: dict[str, Any], cost: float | None, failure: str) -> str:
        if cost is None:
            return ""
        try:
            self.session.track(None, cost)
        except self.exhausted:
            return "BudgetExhausted"
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        """Nothing was begun, so nothing is told."""

    def child(self, budget: float | None) -> Any:
        most = self.session.remaining if budget is None else budget
        return type(self)(most, self.session.child_session(max_spend=most)) if self.session.remaining > 0 else None

    def ended(self) -> None:
        try:
            self.session.__exit__(None, None, None)
        except self.exhausted:
            return

    def books(self) -> tuple[float, float]:
        return self.session.spent, 0.0


class AgentbudgetAsking(Agentbudget):
    """The same, best configured: ``would_exceed(estimate)`` before each call."""

    asks = True


class TokenBudget:
    """token-budget-py: ``try_reserve(usd=estimate)``, then ``commit(usd=cost)``; the estimate where no usage came, ``release``
    after an error, as its context manager does. Sub-agents share the pool."""

    def __init__(self, budget: float) -> None:
        token_budget: Any = import_module("token_budget")

        self.exceeded = token_budget.BudgetExceeded
        self.pool, self.held = token_budget.BudgetPool(usd_cap=budget), dict[int, Any]()

    def before(self, step: dict[str, Any]) -> str:
        try:
            self.held[step["id"]] = self.pool.try_reserve(usd=step["estimate"])
        except self.exceeded:
            return "BudgetExceeded"
        return ""

    def after(self, step: dict[str, Any], cost: float | None, failure: str) -> str:
        held = self.held.pop(step["id"], None)
        if held is None:  # reported again: committing twice is an error of its own
            return ""
        if failure:
            held.release()
            return ""
        try:
            held.commit(usd=step["estimate"] if cost is None else cost)
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


class AgentBudgetGuard:
    """agent-budget-guard-py, best configured: ``preflight`` with the worst case before each call, ``record`` with its usage
    after it, at the provider's own prices; loop detection off. Sub-agents share the guard."""

    def __init__(self, budget: float) -> None:
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

    def after(self, step: dict[str, Any], cost: float | None, failure: str) -> str:
        if cost is None:
            return ""
        try:
            self.guard.record(model="step", input_tokens=0, output_tokens=1, price=self._price(cost))
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


PEERS = {
    "agentbudget_040": Agentbudget, "agentbudget_040_asking": AgentbudgetAsking, "token_budget": TokenBudget,
    "agent_budget_guard": AgentBudgetGuard,
}  # fmt: skip


class Desk:
    """The guards of one run, by the name of their agent."""

    def __init__(self, peer: Any) -> None:
        self.peer, self.guards, self.raised = peer, dict[str, Any](), dict[str, str]()

    def answer(self, said: dict[str, Any]) -> Any:
        name = said.get("name", "main")
        match said["ask"]:
            case "open":
                self.guards, self.raised = {"main": self.peer(said["budget"])}, {}
            case "before":
                return self.raised.pop(name, "") or self.guards[name].before(said["step"])
            case "after":
                raised = self.guards[name].after(said["step"], said["cost"], said["failure"])
                self.raised |= {name: raised} if raised else {}
            case "dropped":
                self.guards[name].dropped(said["step"])
            case "child":
                child = self.guards[name].child(said["budget"])
                if child is not None:
                    self.guards[said["child"]] = child
                return child is not None
            case "ended":
                self.guards[name].ended()
            case "close":
                return self.guards["main"].books()
        return None


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    desk = Desk(PEERS[name])
    for line in sys.stdin:
        answers.write(f"{json.dumps(desk.answer(json.loads(line)))}\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
