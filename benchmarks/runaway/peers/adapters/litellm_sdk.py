"""LiteLLM's SDK: ``litellm.max_budget``, and its BudgetManager.

Costs are those of its own ``completion_cost``: an output token costs a nanodollar. Of a stream without usage what it counts is
told, since it builds a usage of such chunks itself. Tools are no completions, so that neither sees them."""

from __future__ import annotations

import os
import tempfile
from contextvars import ContextVar
from importlib import import_module
from typing import Any

NANO = 10**9
MODEL, ESTIMATE = "openai/lab", "openai/lab-estimate"
PROVIDER: ContextVar[Any] = ContextVar("provider")


def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its own switch: prices out of the package
    litellm: Any = import_module("litellm")
    litellm.suppress_debug_info = True
    return litellm


def _response(litellm: Any, cost: float) -> Any:
    tokens = round(cost * NANO)
    usage = litellm.Usage(prompt_tokens=0, completion_tokens=tokens, total_tokens=tokens)
    message = litellm.Message(content="x", role="assistant")
    return litellm.ModelResponse(model=MODEL, choices=[litellm.Choices(message=message)], usage=usage)


class _Sdk:
    """What both share."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        self.litellm, self.budget = _litellm(), budget
        price = {
            "input_cost_per_token": 0.0,
            "output_cost_per_token": 1 / NANO,
            "litellm_provider": "openai",
            "mode": "chat",
        }
        self.litellm.register_model({MODEL: price})

    def child(self, budget: float | None) -> Any:
        return self

    def ended(self) -> None:
        """It goes on."""


class MaxBudget(_Sdk):
    """As documented: ``litellm.max_budget``, and ``acompletion`` of a custom provider whose answer is the lab's."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        super().__init__(budget, usual_calls)
        self.helper: Any = import_module("peer_calls")
        litellm: Any = self.litellm

        class Lab(litellm.CustomLLM):  # type: ignore[misc]
            async def acompletion(self, *_: Any, **__: Any) -> Any:
                return _response(litellm, await PROVIDER.get()())

        litellm.custom_provider_map = [{"provider": "lab", "custom_handler": Lab()}]
        litellm.max_budget, litellm._current_cost = budget, 0.0
        self.calls = self.helper.Calls()

    def before(self, step: dict[str, Any]) -> str:
        if not step["is_model"]:
            return ""

        async def call(provider: Any) -> None:
            PROVIDER.set(provider)
            messages = [{"role": "user", "content": "x"}]
            await self.litellm.acompletion(model="lab/lab", messages=messages, max_retries=0)

        raised = self.calls.begin(step["id"], call)
        if raised is None or isinstance(raised, self.litellm.BudgetExceededError):
            return "" if raised is None else "BudgetExceededError"
        raise raised

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        if not step["is_model"]:
            return ""
        is_failure = bool(told["failure"]) or told["counted"] is None
        self.calls.end(step["id"], self.helper.Failed(told["failure"]) if is_failure else told["counted"])
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        if step["is_model"]:
            self.calls.cancel(step["id"])

    def books(self) -> tuple[float, float]:
        self.calls.close()
        return float(self.litellm._current_cost), 0.0


class Manager(_Sdk):
    """As documented: ``if get_current_cost(user) <= get_total_budget(user)`` before a completion, ``update_cost`` after it."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        super().__init__(budget, usual_calls)
        self.folder = tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True)
        os.chdir(self.folder.name)  # it writes its users into the working folder
        self.manager = self.litellm.BudgetManager(project_name="lab")
        self.manager.create_budget(total_budget=budget, user="lab")

    def _cost(self, step: dict[str, Any]) -> float:
        return float(self.manager.get_current_cost(user="lab"))

    def before(self, step: dict[str, Any]) -> str:
        if not step["is_model"] or self._cost(step) <= self.manager.get_total_budget("lab"):
            return ""
        return "over the total budget"

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        if step["is_model"] and not told["failure"] and told["counted"] is not None:
            self.manager.update_cost(user="lab", completion_obj=_response(self.litellm, told["counted"]))
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        """Nothing was begun, so nothing is told."""

    def books(self) -> tuple[float, float]:
        return float(self.manager.get_current_cost(user="lab")), 0.0


class Projecting(Manager):
    """Best configured: ``projected_cost(model, messages, user)`` before a completion, of a model whose one token of input is
    registered at the estimate."""

    def _cost(self, step: dict[str, Any]) -> float:
        price = {"input_cost_per_token": step["estimate"], "output_cost_per_token": 0.0, "litellm_provider": "openai"}
        self.litellm.register_model({ESTIMATE: price | {"mode": "chat"}})
        messages = [{"role": "user", "content": "x"}]
        return float(self.manager.projected_cost(model=ESTIMATE, messages=messages, user="lab"))
