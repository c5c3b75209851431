"""Pydantic AI's UsageLimits: its own ``UsageLimits`` and ``RunUsage``, asked in the order of its agent graph.

``check_before_request`` before a model request; after its response the usage is added (``incr`` and ``requests``), then
``check_tokens`` and ``check_cost``; ``check_before_tool_call`` before a tool. A response brings its true cost, as a gateway
reports it; one without usage is an unmeasured request. A limit that is passed raises UsageLimitExceeded and ends the run;
whoever goes on calls ``agent.run`` again. A failed or cancelled request is tried again within its run and is not counted."""

from __future__ import annotations

import warnings
from decimal import Decimal
from importlib import import_module
from typing import Any


class PerRun:
    """As documented: ``cost_limit`` and what is set by itself (50 requests); a run has a usage of its own, and so has the run of
    a sub-agent."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        usage: Any = import_module("pydantic_ai.usage")
        self.exceeded = import_module("pydantic_ai.exceptions").UsageLimitExceeded
        warnings.simplefilter("ignore")  # that usage is missing: it warns, and goes on
        self.budget, self.usual_calls, self.types = budget, usual_calls, usage
        self.limits = self._limits(Decimal(str(budget)))
        self.spent, self.runs, self.seen = Decimal(0), dict[str, Any](), set[int]()

    def _limits(self, cost: Decimal) -> Any:
        return self.types.UsageLimits(cost_limit=cost)

    def _usage(self, scope: str) -> Any:
        return self.runs.setdefault(scope, self.types.RunUsage())

    def _over(self, scope: str) -> str:
        """The run of this caller is over; its next one begins with nothing."""
        self.runs.pop(scope, None)
        return "UsageLimitExceeded"

    def before(self, step: dict[str, Any]) -> str:
        usage = self._usage(step["scope"])
        try:
            if step["is_model"]:
                self.limits.check_before_request(usage)
                if self.limits.count_tokens_before_request:
                    counted = self.types.RequestUsage(cost=Decimal(str(step["input_cost"])))
                    self.limits.check_before_request(usage + counted)
            else:
                self.limits.check_before_tool_call(usage + self.types.RunUsage(tool_calls=1))
        except self.exceeded:
            return self._over(step["scope"])
        return ""

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        if told["failure"] or step["id"] in self.seen:  # a response is committed once
            return ""
        self.seen.add(step["id"])
        usage = self._usage(step["scope"])
        if not step["is_model"]:
            usage.tool_calls += 1
            return ""
        usage.requests += 1
        if told["cost"] is None:
            usage.incr(self.types.RequestUsage(unmeasured_requests=1))
        else:
            cost = Decimal(str(told["cost"]))
            usage.incr(self.types.RequestUsage(cost=cost))
            self.spent += cost
        try:
            self.limits.check_tokens(usage)
            self.limits.check_cost(usage)
        except self.exceeded:
            return self._over(step["scope"])
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        """No response, no usage."""

    def child(self, budget: float | None) -> Any:
        return type(self)(self.budget if budget is None else budget, self.usual_calls)

    def ended(self) -> None:
        """Nothing is given back."""

    def books(self) -> tuple[float, float]:
        return float(self.spent), 0.0


class Shared(PerRun):
    """Best configured: no limit but the cost; ``usage=`` hands one RunUsage to every run, the sub-agents' too; the input is
    counted (and priced) before a request, as it can be for OpenAI's Responses and Google's models."""

    def _limits(self, cost: Decimal) -> Any:
        return self.types.UsageLimits(cost_limit=cost, request_limit=None, count_tokens_before_request=True)

    def _usage(self, scope: str) -> Any:
        return super()._usage("")

    def _over(self, scope: str) -> str:
        return "UsageLimitExceeded"

    def child(self, budget: float | None) -> Any:
        return self
