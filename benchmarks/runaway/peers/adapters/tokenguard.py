"""cendor-tokenguard: a call of an instrumented client under its ``budget``.

The client is a fake one whose ``chat.completions.create`` waits for the lab; every call is a task, since budgets are context
variables, which tasks inherit. A token costs a nanodollar: the cap of a request is its estimate, and the usage its cost. Of a
stream without usage, or one that was left, it counts the text itself, by a counter that is registered for it. A sub-agent's
budget is nested in its parent's. Tools are no model calls, so that it does not see them."""

from __future__ import annotations

import os
from contextvars import Context, copy_context
from importlib import import_module
from types import SimpleNamespace
from typing import Any

NANO = 10**9


class Raising:
    """As documented: ``budget(usd=...)``, which raises after the call that passed it."""

    mode = "raise"

    def __init__(self, budget: float, usual_calls: int, parent: Raising | None = None) -> None:
        os.environ.setdefault("CENDOR_TELEMETRY", "off")  # its own switch: no spans and no counters
        self.helper: Any = import_module("peer_calls")
        core: Any = import_module("cendor.core")
        self.guard: Any = import_module("cendor.tokenguard")
        core.tokens.register("default", _tokens)  # its own hook
        core.prices.register("lab", {"input": 0, "output": "0.000000001"})
        self.guard.configure(on_stale_prices="ignore")
        self.calls: Any = self.helper.Calls() if parent is None else parent.calls
        self.context: Context = copy_context() if parent is None else parent.context.copy()
        self.client = core.instrument(SimpleNamespace(chat=SimpleNamespace(completions=_Completions())))
        self.budget = self.guard.budget(usd=budget, on_exceed=self.mode)
        self.context.run(self.budget.__enter__)

    def before(self, step: dict[str, Any]) -> str:
        if not step["is_model"]:
            return ""

        async def call(provider: Any) -> None:
            answer = await self.client.chat.completions.create(
                model="lab",
                messages=[],
                max_tokens=round(step["estimate"] * NANO),
                stream=step["is_stream"],
                lab=provider,
            )
            if step["is_stream"]:
                async for chunk in answer:
                    if chunk.is_last_read:
                        await answer.aclose()
                        return

        return self._named(self.calls.begin(step["id"], call, self.context.copy()))

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        if told["failure"] and told["failure"] != "cancelled":
            self.calls.end(step["id"], self.helper.Failed(told["failure"]))
            return ""
        return self._named(self.calls.end(step["id"], told))

    def _named(self, raised: BaseException | None) -> str:
        if raised is None or isinstance(raised, self.guard.BudgetExceeded):
            return "" if raised is None else "BudgetExceeded"
        raise raised

    def dropped(self, step: dict[str, Any]) -> None:
        if step["is_model"]:
            self.calls.cancel(step["id"])

    def child(self, budget: float | None) -> Any:
        return self if budget is None else type(self)(budget, 0, self)

    def ended(self) -> None:
        """The frame goes with its context."""

    def books(self) -> tuple[float, float]:
        self.calls.close()
        return float(self.budget.spent.amount), 0.0


class Blocking(Raising):
    """Best configured: ``on_exceed="block"``, which compares the estimate before the call."""

    mode = "block"


class _Completions:
    """A client's model."""

    async def create(self, *, lab: Any, stream: bool, **request: Any) -> Any:
        if stream:
            return _chunks(lab)
        told = await lab()
        return _piece("", None if told["cost"] is None else told["cost"])


async def _chunks(lab: Any) -> Any:
    """A stream: its text, and its usage at the end where it brings one."""
    told = await lab()
    is_left = told["failure"] == "cancelled"
    text = "" if told["counted"] is None else str(round(told["counted"] * NANO))
    yield _piece(text, None, is_last_read=is_left)
    if told["cost"] is not None:
        yield _piece("", told["cost"])


def _piece(text: str, cost: float | None, *, is_last_read: bool = False) -> Any:
    tokens = None if cost is None else round(cost * NANO)
    usage = None if tokens is None else SimpleNamespace(prompt_tokens=0, completion_tokens=tokens, total_tokens=tokens)
    choice = SimpleNamespace(delta=SimpleNamespace(content=text), message=SimpleNamespace(content=text))
    return SimpleNamespace(id="x", model="lab", choices=[choice], usage=usage, is_last_read=is_last_read)


def _tokens(text: Any, model: str) -> int:
    """What a text is worth in the lab: it says so itself."""
    return int(text) if isinstance(text, str) and text.isdigit() else 0
