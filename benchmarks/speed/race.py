"""Row ``race``: 64 agents at once, budget for exactly 20 calls; and an agent that ignores 200 refusals. Counts, not times."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, ScriptedChatModel
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler

from agentbudget import BudgetDenied, Catalog, Runtime, Session
from benchmarks.speed.measure import Effort, Row, count

AGENTS: Final = 64
FIT: Final = 20
REFUSALS: Final = 200
MODEL_SECONDS: Final = 0.2
CATALOG: Final = Catalog.loads(
    """
    [plans.open]
    wallet = "postpaid"
    [[rates]]
    id = "flat"
    model = "flat"
    per_call = 1
    """,
    source="race",
)
ASK: Final[Any] = {"messages": [("user", "hi")]}


class OverBudget(Exception):
    """The baseline's refusal."""


class CheckThenRecord(BaseCallbackHandler):
    """The baseline: what counting callbacks and limiters between calls do. It compares what was spent before the call, and
    records the cost after it; each of the two is exact."""

    raise_error = True
    run_inline = True

    def __init__(self, budget: int) -> None:
        self._budget, self._spent, self._lock = budget, 0, threading.Lock()

    def on_chat_model_start(self, *arguments: Any, **more: Any) -> None:
        with self._lock:
            if self._spent + 1 > self._budget:
                raise OverBudget

    def on_llm_end(self, *arguments: Any, **more: Any) -> None:
        with self._lock:
            self._spent += 1


def steps_past_the_budget(effort: Effort) -> Row:
    """How many of the 64 calls reached the model; 20 fit."""
    found = []
    with Runtime.open("memory://", CATALOG) as runtime, quiet():
        acme = runtime.customers.create("acme", plan="open")
        for name, route in (("handler", _by_handler), ("middleware", _by_middleware)):
            for how, race in (("threads", _threads), ("tasks", _tasks)):
                with acme.session(budget=FIT) as session:
                    found.append(count(f"calls made, {name}, {AGENTS} {how}", race(*route(session)), "calls"))
        stubborn = _stubborn(acme.session(budget=3).open())
    exact = all(figure.median == FIT for figure in found)
    found += [
        count(f"calls made, check then record, {AGENTS} threads", _baseline(_threads), "calls"),
        count(f"calls made, check then record, {AGENTS} tasks", _baseline(_tasks), "calls"),
        count(f"calls past the budget after {REFUSALS} refusals that are ignored", stubborn, "calls"),
    ]
    what = f"{AGENTS} slow calls at once, budget for {FIT}"
    return Row("race", what, found, f"exactly {FIT}, and 0 past the budget", exact and stubborn == 0)


@contextmanager
def quiet() -> Iterator[None]:
    """LangChain logs each refusal of a handler; here there are hundreds, and they are meant."""
    logger = logging.getLogger("langchain_core.callbacks.manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


Call = Callable[[], Any]
ACall = Callable[[], Awaitable[Any]]
Route = tuple[ScriptedChatModel, Call, ACall]


def _by_handler(session: Session) -> Route:
    return _with_handler(BudgetCallbackHandler(session))


def _with_handler(handler: BaseCallbackHandler) -> Route:
    model = ScriptedChatModel(model="flat", max_tokens=5, latency=MODEL_SECONDS)
    config: Any = {"callbacks": [handler]}
    return model, lambda: model.invoke("hi", config), lambda: model.ainvoke("hi", config)


def _by_middleware(session: Session) -> Route:
    model = ScriptedChatModel(model="flat", max_tokens=5, latency=MODEL_SECONDS)
    agent = create_agent(model, [], middleware=[BudgetMiddleware(session)])
    return model, lambda: agent.invoke(ASK), lambda: agent.ainvoke(ASK)


def _baseline(race: Callable[[ScriptedChatModel, Call, ACall], int]) -> int:
    return race(*_with_handler(CheckThenRecord(FIT)))


def _threads(model: ScriptedChatModel, call: Call, acall: ACall) -> int:
    barrier = threading.Barrier(AGENTS)

    def agent() -> None:
        barrier.wait()
        try:
            call()
        except (BudgetDenied, OverBudget):
            return

    threads = [threading.Thread(target=agent) for _ in range(AGENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(model.received)


def _tasks(model: ScriptedChatModel, call: Call, acall: ACall) -> int:
    async def all_of_them() -> None:
        ends = await asyncio.gather(*(acall() for _ in range(AGENTS)), return_exceptions=True)
        unexpected = [
            end for end in ends if isinstance(end, BaseException) and not isinstance(end, BudgetDenied | OverBudget)
        ]
        if unexpected:
            raise unexpected[0]

    asyncio.run(all_of_them())
    return len(model.received)


def _stubborn(session: Session) -> int:
    """Calls that reached the model beyond the three that the budget pays."""
    model = ScriptedChatModel(model="flat", max_tokens=5)
    config: Any = {"callbacks": [BudgetCallbackHandler(session)]}
    for _ in range(3 + REFUSALS):
        try:
            model.invoke("hi", config)
        except BudgetDenied:
            time.sleep(0)  # ignored, and tried again
    return len(model.received) - 3
