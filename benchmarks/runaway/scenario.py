"""What a scenario is: data, and a program that acts the fault out. And what programs share: a conversation that grows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from benchmarks.runaway import traffic
from benchmarks.runaway.provider import Prompt, text
from benchmarks.runaway.steps import Call, Program, Reply, Tool
from benchmarks.runaway.world import Task

CREDIT: Final = 10**9
USUAL_STEP: Final = 500_000
"""Nanocredits of a step of healthy work: half of them model calls of some 2,500 tokens on gpt-5-mini, half of them free tools.
What an operator would find in last month's traces, and set a maximum of steps by."""

Params = Mapping[str, Any]


class Scenario(Struct, frozen=True, kw_only=True):
    """``grid``: parameters, the first of which is the default. ``budget``: of a run in nanocredits; or, with ``times`` among
    the parameters, so many times what the same run costs when nobody stops it. ``honest``: nothing goes wrong in it, so that
    whoever stops it within its cost was wrong. ``within_estimate``: no call costs more than a caller could reckon with
    beforehand. ``sessions``: other sessions of the same customer, which share ``wallet`` with it. ``headline``: 300 seeds
    instead of 30."""

    name: str
    title: str
    fault: str
    provenance: str
    grid: tuple[Params, ...]
    program: Callable[[Task], Program]
    budget: Callable[[Params], int] | None = None
    wallet: Callable[[int], int] | None = None
    sessions: Callable[[Params], int] = lambda params: 0
    honest: bool = False
    within_estimate: bool = True
    headline: bool = False
    usual_step: int = USUAL_STEP
    needs: frozenset[str] = frozenset()


def dollars(params: Params) -> int:
    """A budget that the grid states in credits, as text."""
    whole, _, part = str(params["budget"]).partition(".")
    return int(whole) * CREDIT + int((part + "0" * 9)[:9])


def budgets(*amounts: str, **more: Any) -> tuple[Params, ...]:
    """A grid of budgets."""
    return tuple({"budget": amount, **more} for amount in amounts)


class Talk:
    """A conversation with a model: it begins with a system prompt and grows by what is said and found."""

    def __init__(
        self, task: Task, model: str = "gpt-5-mini", *, cap: int = 800, prompt: traffic.Quantiles = traffic.AGENT_PROMPT,
        output: traffic.Quantiles = traffic.AGENT_OUTPUT, estimate: Literal["bound", "exact"] = "bound",
    ) -> None:  # fmt: skip
        self.rng, self.model, self.cap, self.output, self.estimate = task.rng, model, cap, output, estimate
        self.prompt = Prompt().plus(text(self.rng, traffic.draw(self.rng, prompt)))

    def call(self, **what: Any) -> Call:
        """The next model call; ``what`` replaces what traffic would give."""
        drawn: dict[str, Any] = {"cap": self.cap, "estimate": self.estimate, **what}
        if "writes" not in drawn:
            drawn["writes"] = min(traffic.draw(self.rng, self.output), drawn["cap"])
        drawn.setdefault("takes_us", traffic.reply_us(self.rng, min(drawn["writes"], drawn["cap"])))
        return Call(model=self.model, prompt=self.prompt, **drawn)

    def tool(self, name: str, arguments: str, **what: Any) -> Tool:
        """A tool call."""
        what.setdefault("takes_us", traffic.draw(self.rng, traffic.TOOL_MS) * 1_000)
        return Tool(name=name, arguments=arguments, **({"price": 0} | what))

    def hears(self, tokens: int) -> None:
        """So much more stands in the conversation: a reply, a result."""
        if tokens:
            self.prompt = self.prompt.plus(text(self.rng, tokens))

    def turn(
        self,
        arguments: str,
        *,
        useful: int = 0,
        result: int | None = None,
        name: str = "search",
        price: int = 0,
        **call: Any,
    ) -> Generator[Any, Any, Reply]:
        """A model call and the tool that it asks for; the first reply that is not in order, else the last."""
        reply: Reply = yield self.call(useful=useful, **call)
        if not reply.ok:
            return reply
        self.hears(reply.tokens)
        found: Reply = yield self.tool(name, arguments, price=price, serves=useful > 0)
        if found.ok:
            self.hears(traffic.draw(self.rng, traffic.TOOL_RESULT) if result is None else result)
        return found

    def summary(self, useful: int = 3) -> Generator[Any, Any, bool]:
        """What a well-made agent does when it is refused: one short call that saves what there is."""
        reply: Reply = yield self.call(useful=useful, cap=300, wind_down=True)
        return reply.ok
