"""LiteLLM proxy's admission of a virtual key: the functions that its auth and its cost callback call, on its own counters.

``reserve_budget_for_request`` before a call; then ``reconcile_budget_reservation`` with the cost, or with what the proxy counts
itself where no usage came; ``release_or_invalidate_budget_reservation`` after an error; ``release_budget_reservation_on_cancel``
when the caller goes away. Counters in memory: no Redis, no database, no HTTP. It works the amount out of the request, so each
step is a request of a model that is registered at such prices that it comes to the estimate. A paid tool is a request too, as
its search and image routes are; a free one is none."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from itertools import count
from typing import Any

KEYS = count()
TOKEN = 1e-9
"""Dollars an output token: a nanodollar, so that a cap can be any amount."""


class Proxy:
    """As documented: a key with ``max_budget``. A call that does not fit is admitted on what is left. Sub-agents use the key of
    their agent; sessions of one wallet are keys of one team with ``max_budget``."""

    is_strict = False

    def __init__(self, budget: float, usual_calls: int, loop: Any = None) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its own switch: prices out of the package
        self.litellm: Any = import_module("litellm")
        self.proxy: Any = import_module("litellm.proxy.proxy_server")
        self.admission: Any = import_module("litellm.proxy.spend_tracking.budget_reservation")
        self.types: Any = import_module("litellm.proxy._types")
        self.loop = asyncio.new_event_loop() if loop is None else loop
        self.key = self.types.UserAPIKeyAuth(api_key=f"sk-lab-{next(KEYS)}", max_budget=budget, spend=0.0)
        self.team: Any = None
        self.keys = [self]
        self.held = dict[int, Any]()
        self.messages = [{"role": "user", "content": "x"}]
        self.tokens = self.litellm.token_counter(model="lab", messages=self.messages)

    def before(self, step: dict[str, Any]) -> str:
        if not step["estimate"]:
            return ""
        try:
            self.held[step["id"]] = self.loop.run_until_complete(self._reserve(step["estimate"], step["input_cost"]))
        except self.litellm.BudgetExceededError:
            return "BudgetExceededError"
        return ""

    async def _reserve(self, estimate: float, input_cost: float) -> Any:
        price = {"mode": "chat", "litellm_provider": "openai", "max_input_tokens": 10**9, "max_output_tokens": 10**15}
        per_token = {"input_cost_per_token": input_cost / self.tokens, "output_cost_per_token": TOKEN}
        self.litellm.register_model({"lab": price | per_token})
        body = {"model": "lab", "messages": self.messages, "max_tokens": round((estimate - input_cost) / TOKEN)}
        return await self.admission.reserve_budget_for_request(
            request_body=body, route="/v1/chat/completions", llm_router=None, valid_token=self.key, team_object=self.team,
            user_object=None, prisma_client=None, user_api_key_cache=self.proxy.user_api_key_cache,
            proxy_logging_obj=self.proxy.proxy_logging_obj, fail_closed_budget_enforcement=self.is_strict,
        )  # fmt: skip

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        held = self.held.pop(step["id"], None)
        if held is None:
            return ""
        left = told["failure"] == "cancelled"
        if told["failure"] and not left:
            self.loop.run_until_complete(self.admission.release_or_invalidate_budget_reservation(held))
        elif told["counted"] is None:
            self.loop.run_until_complete(self.admission.release_budget_reservation_on_cancel(held))
        else:  # what was reported; else it prices what it counts, of a stream that was left too
            self.loop.run_until_complete(self.admission.reconcile_budget_reservation(held, told["counted"]))
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        self.after(step, {"failure": "cancelled", "counted": None})

    def child(self, budget: float | None) -> Any:
        return self

    def share(self, wallet: float) -> None:
        """The customer's other sessions spend from this too."""
        self.team = self.types.LiteLLM_TeamTable(team_id=f"team-{next(KEYS)}", max_budget=wallet, spend=0.0)

    def session(self, budget: float) -> Any:
        other = type(self)(budget, 0, self.loop)
        other.team, other.keys = self.team, self.keys
        self.keys.append(other)
        return other

    def change(self, what: str, amount: float) -> None:
        """An administrator updates the key."""
        self.key.max_budget = self.key.max_budget + amount if what == "fund" else amount

    def ended(self) -> None:
        """The key stays."""

    def books(self) -> tuple[float, float]:
        held = sum(one["reserved_cost"] for key in self.keys for one in key.held.values() if one is not None)
        spent = sum(self.loop.run_until_complete(key.spend()) for key in self.keys)
        self.loop.close()
        return spent - held, held

    async def spend(self) -> float:
        counter = f"spend:key:{self.key.token}"
        return float(await self.proxy.get_current_spend(counter_key=counter, fallback_spend=0.0))


class FailClosed(Proxy):
    """Best configured: ``fail_closed_budget_enforcement``, with which a call that does not fit is refused."""

    is_strict = True
