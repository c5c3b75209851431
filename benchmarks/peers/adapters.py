"""One task for all: 0.001 held, 0.0007 settled, from a budget that never runs out; one process, one thread.

Each adapter drives its library's own functions and implements nothing of it. It runs in an interpreter of its own that may have
nothing but that library, so this file needs only the standard library (Python 3.10).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any, Final

NANO: Final = 1_000_000_000
HELD: Final = 1_000_000
ACTUAL: Final = 700_000
ENOUGH: Final = 10**17
"""Nanocredits. A peer that counts dollars gets them as 0.001, 0.0007 and 10**8."""


@dataclass(frozen=True)
class Opened:
    """block: microseconds of each of so many pairs. finish: closes it, and the nanocredits that it booked in all. note: in
    which of its modes it runs, where it has several."""

    block: Callable[[int], list[float]]
    finish: Callable[[], float]
    note: str = ""


def pairs(reserve: Callable[[Any], Any], settle: Callable[[Any, Any], object], held: Any, actual: Any) -> Any:
    """A block of ``settle(reserve(held), actual)``, the amounts in the library's own unit."""

    def block(count: int) -> list[float]:
        found = []
        for _ in range(count):
            start = perf_counter_ns()
            settle(reserve(held), actual)
            found.append((perf_counter_ns() - start) / 1e3)
        return found

    return block


# --- the floor, and ours ---------------------------------------------------------------------------------------------


def floor() -> Opened:
    """The least that it can be: a lock and two integers. No holder, level, window, record or law."""
    lock, free, used = threading.Lock(), ENOUGH, 0

    def reserve(held: int) -> int:
        nonlocal free
        with lock:
            if free < held:
                raise RuntimeError("the benchmark is wrong: the budget ran out")
            free -= held
        return held

    def settle(held: int, actual: int) -> None:
        nonlocal free, used
        with lock:
            free += held - actual
            used += actual

    return Opened(pairs(reserve, settle, HELD, ACTUAL), lambda: used)


def ours() -> Opened:
    """``session.reserve`` and ``step.settle`` as a developer calls them, on a SQLite ledger, in the default mode."""
    agentbudget = import_module("agentbudget")
    folder = tempfile.TemporaryDirectory(prefix="agentbudget-", ignore_cleanup_errors=True)
    catalog = agentbudget.Catalog.loads('[plans.prepaid]\nwallet = "prepaid"', source="benchmark")
    runtime = agentbudget.Runtime.open(f"sqlite:///{folder.name}/ledger.db", catalog)
    customer = runtime.customers.create("acme", plan="prepaid")
    customer.wallet.grant(10**8)
    session = customer.session(budget=10**8).open()

    def reserve(amount: str) -> Any:
        return session.reserve("tool", name="search", amount=amount, dispatched=True)

    def settle(step: Any, amount: str) -> None:
        step.settle(amount=amount)

    def finish() -> float:
        session.close()
        booked: int = customer.wallet.balance().consumed.nano
        runtime.close()
        folder.cleanup()
        return booked

    return Opened(pairs(reserve, settle, "0.001", "0.0007"), finish, f"mode {session.mode}")


# --- peers -----------------------------------------------------------------------------------------------------------


def token_budget() -> Opened:
    """``BudgetPool.try_reserve`` and ``Reservation.commit``: a lock, an integer of tokens and a float of dollars."""
    pool = import_module("token_budget").BudgetPool(usd_cap=1e8)

    def settle(reservation: Any, usd: float) -> None:
        reservation.commit(usd=usd)

    block = pairs(lambda usd: pool.try_reserve(usd=usd), settle, HELD / NANO, ACTUAL / NANO)
    return Opened(block, lambda: pool.snapshot().usd_used * NANO)


def litellm_fixed_price() -> Opened:
    """A virtual key's reservation for a request with one fixed price (an image), the least that LiteLLM has to work out."""
    price = {"mode": "image_generation", "output_cost_per_image": HELD / NANO, "litellm_provider": "openai"}
    return _litellm(price, {"prompt": "x", "n": 1}, "/v1/images/generations")


def litellm_chat() -> Opened:
    """The same for a chat request: its tokens are counted and priced first, as on every call through the proxy."""
    price = {"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 1e-6, "litellm_provider": "openai"}
    asked = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1_000}
    return _litellm({**price, "max_input_tokens": 10**5, "max_output_tokens": 10**5}, asked, "/v1/chat/completions")


def _litellm(price: dict[str, Any], request: dict[str, Any], route: str) -> Opened:
    """``reserve_budget_for_request`` as the proxy's auth calls it, and ``reconcile_budget_reservation`` as its cost callback
    does; no Redis and no database, so its counters are in memory. On the event loop that the proxy runs on."""
    os.environ.setdefault(
        "LITELLM_LOCAL_MODEL_COST_MAP", "True"
    )  # its own switch: prices out of the package, no network
    litellm, proxy = import_module("litellm"), import_module("litellm.proxy.proxy_server")
    reservation = import_module("litellm.proxy.spend_tracking.budget_reservation")
    litellm.register_model({"benchmark-model": price})
    key = import_module("litellm.proxy._types").UserAPIKeyAuth(api_key="sk-benchmark", max_budget=1e8, spend=0.0)

    async def reserve(body: dict[str, Any]) -> Any:
        held = await reservation.reserve_budget_for_request(
            request_body=body,
            route=route,
            llm_router=None,
            valid_token=key,
            team_object=None,
            user_object=None,
            prisma_client=None,
            user_api_key_cache=proxy.user_api_key_cache,
            proxy_logging_obj=proxy.proxy_logging_obj,
        )
        if held is None or round(held["reserved_cost"] * NANO) != HELD:
            raise RuntimeError(f"the benchmark is wrong: LiteLLM reserved {held}")
        return held

    async def booked() -> float:
        spend: float = await proxy.get_current_spend(counter_key=f"spend:key:{key.token}", fallback_spend=0.0)
        return spend * NANO

    body = {"model": "benchmark-model", **request}
    return _on_a_loop(reserve, reservation.reconcile_budget_reservation, body, booked)


def _on_a_loop(
    reserve: Callable[[Any], Awaitable[Any]],
    settle: Callable[[Any, float], Awaitable[object]],
    held: Any,
    booked: Callable[[], Awaitable[float]],
) -> Opened:
    loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()

    async def block(count: int) -> list[float]:
        found = []
        for _ in range(count):
            start = perf_counter_ns()
            await settle(await reserve(held), ACTUAL / NANO)
            found.append((perf_counter_ns() - start) / 1e3)
        return found

    async def finish() -> float:
        return await booked()

    return Opened(lambda count: loop.run_until_complete(block(count)), lambda: loop.run_until_complete(finish()))


class _Completions:
    """A model that answers at once: 700 tokens of the 1,000 that it was allowed."""

    def __init__(self) -> None:
        usage = SimpleNamespace(prompt_tokens=0, completion_tokens=700, total_tokens=700)
        self._answer = SimpleNamespace(id="x", model="benchmark-model", choices=[], usage=usage)

    def create(self, **request: Any) -> Any:
        return self._answer


def tokenguard() -> Opened:
    """A call through an instrumented client under ``budget(on_exceed="block")``: what it would cost is compared with what is left
    before, what it did cost is added after. Nothing is held in between, so there is no reserve to call: the pair is the call."""
    os.environ.setdefault("CENDOR_TELEMETRY", "off")  # its own switch: no spans and no counters
    core, guard = import_module("cendor.core"), import_module("cendor.tokenguard")
    core.tokens.register(
        "default", lambda text, model: 0
    )  # its own hook; the default counter would fetch its vocabulary
    core.prices.register("benchmark-model", {"input": 0, "output": "0.000001"})
    guard.configure(on_stale_prices="ignore")
    client = core.instrument(SimpleNamespace(chat=SimpleNamespace(completions=_Completions())))
    budget = guard.budget(usd=10**8, on_exceed="block")
    budget.__enter__()

    def call(most_tokens: int) -> Any:
        return client.chat.completions.create(model="benchmark-model", messages=[], max_tokens=most_tokens)

    return Opened(pairs(call, lambda answer, _: None, 1_000, None), lambda: float(budget.spent.amount) * NANO)


def pydantic_ai() -> Opened:
    """``UsageLimits.check_before_request``, and after the response what the agent graph does: the usage is added, then come
    ``check_tokens`` and ``check_cost``. Nothing is held in between."""
    module = import_module("pydantic_ai.usage")
    limits, usage = module.UsageLimits(cost_limit=Decimal(10**8), request_limit=None), module.RunUsage()

    def settle(_: None, cost: Decimal) -> None:
        usage.requests += 1
        usage.incr(module.RequestUsage(cost=cost))
        limits.check_tokens(usage)
        limits.check_cost(usage)

    block = pairs(lambda _: limits.check_before_request(usage), settle, Decimal("0.001"), Decimal("0.0007"))
    return Opened(block, lambda: float(usage.cost) * NANO)
