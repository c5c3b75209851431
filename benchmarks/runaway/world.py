"""One run in virtual time: agents, the provider and a policy. Everything that happens is noted in ``events``, in order.

Events are ordered by time, then by when they were planned; each agent draws from chance of its own, so that a step that is
refused does not change what another agent does."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from random import Random
from time import perf_counter_ns
from typing import Any, Final

from msgspec import Struct

from agentbudget.testing import ManualClock
from benchmarks.runaway.guard import Books, Guard, Policy, Run, Setting
from benchmarks.runaway.provider import Served, serve
from benchmarks.runaway.steps import (
    Call,
    Change,
    Join,
    Pause,
    Program,
    Reply,
    Report,
    Spawn,
    Step,
    Tool,
    reckoned,
)

MOST_TIMES: Final = 25
"""Where the lab ends a run that nobody else ends: at so many times the budget."""
MOST_STEPS: Final = 2_000
CHUNK_TOKENS: Final = 16
MOST_REFUSALS: Final = 100
"""Refusals after which an agent that ignores them is let go: what it would do has been seen by then."""


class Event(Struct):
    """A step that asked to run. ``cost``: what the provider billed (ran) or would have billed (refused), in nanocredits;
    ``done``: what of ``useful`` was completed; ``waste``: nobody has use for it; ``affordable``: it was refused though its
    true cost fitted what was left."""

    id: int
    scope: str
    kind: str
    at_us: int
    estimate: int
    cost: int
    ran: bool
    useful: int
    reason: str = ""
    end_us: int = 0
    done: int = 0
    affordable: bool = False
    waste: bool = False


class Task:
    """An agent at work: its program, its guard, its chance. ``answer``: what it returned."""

    def __init__(
        self, lab: World, name: str, guard: Guard, program: Callable[[Task], Program], *, is_thread: bool = False
    ) -> None:
        self.lab, self.name, self.guard, self._is_thread = lab, name, guard, is_thread
        self.rng = Random(f"{lab.key}/{name}")
        self.is_over, self.is_dead, self.answer = False, False, None
        self.children = list[Task]()
        self.waiting: list[Callable[[], None]] = []
        self.params: Mapping[str, Any] = lab.params
        self._program = program(self)

    def go(self, sent: Any = None) -> None:
        """Let it act until it waits for something."""
        if self.is_over:
            return
        try:
            action = self._program.send(sent)
        except StopIteration as stop:
            return self._end(stop.value)
        if self.lab.is_enough:
            self._program.close()
            return self._end(None)
        self.lab.act(self, action, self.go)

    def die(self) -> None:
        """Its process is gone: what is under way is billed, and nobody hears of it."""
        for child in self.children:
            child.die()
        if not self.is_over:
            self.is_dead = True
            self._end(None)

    def _end(self, answer: Any) -> None:
        self.is_over, self.answer = True, answer
        if not (self.is_dead or self._is_thread):
            self.guard.ended()
        for waiter in self.waiting:
            waiter()


class World:
    """See the module. ``key``: what chance is drawn from; ``budget`` in nanocredits."""

    def __init__(
        self, policy: Policy, key: str, params: Mapping[str, Any], budget: int, usual_steps: int, wallet: int | None
    ) -> None:
        self.key, self.params = key, params
        self.clock = ManualClock()
        self.start_us = self.clock.now_us()
        self.events: list[Event] = []
        self.billed = self.refusals = 0
        self.in_flight: dict[int, int] = {}
        self.decision_ns: list[int] = []
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        setting = Setting(budget, usual_steps, self.clock, Random(f"{key}/policy"), wallet)
        self.run: Run = policy.open(setting)
        self.pool = budget if wallet is None else wallet
        self.allowed = self.pool

    # --- time ---

    @property
    def now_us(self) -> int:
        return self.clock.now_us()

    def at(self, when_us: int, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when_us, self._count, what))

    def later(self, delay_us: int, what: Callable[[], None]) -> None:
        self.at(self.now_us + delay_us, what)

    def play(
        self, program: Callable[[Task], Program], sessions: list[tuple[str, int, Callable[[Task], Program]]]
    ) -> tuple[Task, Books]:
        """Until every agent is over and everything under way has come back."""
        main = Task(self, "main", self.run.root(), program)
        self.later(0, main.go)
        for name, budget, other in sessions:
            task = Task(self, name, self.run.session(name, budget), other)
            self.later(0, task.go)
        while self._queue:
            when_us, _, what = heapq.heappop(self._queue)
            self.run.until(when_us)
            what()
        return main, self.run.close()

    @property
    def is_enough(self) -> bool:
        """The lab has seen what this run does."""
        spent = self.billed >= MOST_TIMES * self.pool
        return spent or len(self.events) - self.refusals >= MOST_STEPS or self.refusals >= MOST_REFUSALS

    # --- actions ---

    def act(self, task: Task, action: Any, go: Callable[[Any], None]) -> None:
        """Begin an action; ``go`` is called with what came of it."""
        match action:
            case Call() | Tool():
                self._step(task, action, go)
            case list():
                self._together(task, action, go)
            case Pause():
                self.later(action.microseconds, lambda: go(None))
            case Spawn():
                go(self._spawn(task, action))
            case Join():
                self._join(action.tasks, go)
            case Change():
                self._change(task, action)
                go(None)
            case _:
                raise TypeError(f"{action!r} is no action")

    def _together(self, task: Task, actions: list[Any], go: Callable[[Any], None]) -> None:
        answers: list[Any] = [None] * len(actions)
        left = [len(actions)]

        def one(place: int) -> Callable[[Any], None]:
            def came(answer: Any) -> None:
                answers[place] = answer
                left[0] -= 1
                if not left[0]:
                    go(answers)

            return came

        for place, action in enumerate(actions):
            self.act(task, action, one(place))

    def _spawn(self, task: Task, spawn: Spawn) -> Task | None:
        name = f"{task.name}/{len(task.children) + 1}"
        guard = None if self.is_enough else task.guard if spawn.thread else task.guard.child(name, spawn.budget)
        if guard is None:
            return None
        child = Task(self, name, guard, spawn.program, is_thread=spawn.thread)
        task.children.append(child)
        self.later(0, child.go)
        return child

    def _join(self, tasks: tuple[Any, ...], go: Callable[[Any], None]) -> None:
        waited = [task for task in tasks if task is not None]
        left = [sum(not task.is_over for task in waited)]

        def ended() -> None:
            left[0] -= 1
            if not left[0]:
                go([task.answer for task in waited])

        if not left[0]:
            return go([task.answer for task in waited])
        for task in waited:
            if not task.is_over:
                task.waiting.append(ended)

    def _change(self, task: Task, change: Change) -> None:
        if change.what == "fund":
            self.pool += change.amount
            self.allowed += change.amount
        elif change.what == "cut":  # what is spent and under way by then is nobody's fault
            self.pool = change.amount
            self.allowed = max(change.amount, self.billed + sum(self.in_flight.values()))
        elif change.what == "worker":
            for child in task.children:
                child.die()
        task.guard = self.run.change(change.what, change.amount, task.guard)

    # --- a step ---

    def _step(self, task: Task, action: Call | Tool, go: Callable[[Any], None]) -> None:
        known, estimate = reckoned(action)
        step = Step(len(self.events), task.name, action, known, estimate, self.now_us)
        begun_ns = perf_counter_ns()
        verdict = task.guard.before(step)
        self.decision_ns.append(perf_counter_ns() - begun_ns)
        cap = verdict.cap if verdict.cap is not None else (action.cap if isinstance(action, Call) else None)
        served = _served(action, cap)
        event = Event(
            step.id, task.name, "llm" if step.is_model else "tool", self.now_us - self.start_us, estimate, served.billed,
            verdict.allowed, action.useful, verdict.reason, waste=action.is_waste,
        )  # fmt: skip
        self.events.append(event)
        if not verdict.allowed:
            self.refusals += 1
            owed = self.billed + sum(self.in_flight.values())
            event.affordable = owed + served.billed <= self.pool
            return self.later(1_000, lambda: go(Reply(refused=verdict.reason)))
        self.in_flight[step.id] = served.billed
        _Work(task, step, event, served, cap, go).begin()


class _Work:
    """A step under way."""

    def __init__(
        self, task: Task, step: Step, event: Event, served: Served, cap: int | None, go: Callable[[Any], None]
    ) -> None:
        self.task, self.lab, self.guard = task, task.lab, task.guard
        self.step, self.event, self.served, self.cap, self.go = step, event, served, cap, go
        self.came = 0

    def begin(self) -> None:
        action = self.step.action
        if isinstance(action, Call) and action.stream and not action.failure:
            return self._stream(action)
        takes_us = 50_000 if action.failure == "refused" else action.takes_us
        self.lab.later(takes_us, self._whole)

    def _whole(self) -> None:
        action = self.step.action
        if action.failure == "refused":
            self._bill(0)
        else:
            self._bill(self.served.billed)
        if action.failure == "cancelled":
            if not self.task.is_dead:
                self.guard.dropped(self.step)
            return self.go(Reply(failure="cancelled"))
        if action.failure:
            self._report(Report(None, None, failure=action.failure))
            return self.go(Reply(failure=action.failure))
        self._finish(self.served)

    def _finish(self, served: Served) -> None:
        action = self.step.action
        reports = action.reports if isinstance(action, Call) else 1
        known = Report(served, served.billed, served.output) if reports else Report(None, None, served.output)
        if not isinstance(action, Call) or self.cap is None or self.cap >= action.writes or not action.states_cap:
            self.event.done = action.useful
        for _ in range(max(1, reports)):
            self._report(known)
        self.go(Reply(tokens=served.output))

    def _bill(self, cost: int) -> None:
        lab = self.lab
        lab.in_flight.pop(self.step.id)
        lab.billed += cost
        self.event.cost, self.event.end_us = cost, lab.now_us - lab.start_us

    def _report(self, report: Report) -> None:
        if not self.task.is_dead:
            self.guard.after(self.step, report)

    # --- streams ---

    def _stream(self, action: Call) -> None:
        pace_us = max(1, action.takes_us // max(1, self.served.output))
        self._next_chunk(action, pace_us)

    def _next_chunk(self, action: Call, pace_us: int) -> None:
        tokens = min(CHUNK_TOKENS, self.served.output - self.came)
        self.lab.later(pace_us * tokens, lambda: self._chunk(action, pace_us, tokens))

    def _chunk(self, action: Call, pace_us: int, tokens: int) -> None:
        self.came += tokens
        goes_on = self.task.is_dead or self.guard.chunk(self.step, self.came)
        leaves = action.leaves_after is not None and self.came >= action.leaves_after
        if self.came >= self.served.output:
            self._bill(self.served.billed)
            return self._finish(self.served)
        if goes_on and not leaves:
            return self._next_chunk(action, pace_us)
        cut = _served(action, self.came)
        self._bill(cut.billed)
        if leaves:
            self.event.done = action.useful
        else:
            self.event.reason = "cut"
        self._report(Report(None, None, self.came, "cancelled"))
        return self.go(Reply(failure="" if leaves else "cancelled", tokens=self.came))


def _served(action: Call | Tool, cap: int | None) -> Served:
    """What the provider makes of it: the cap binds it where the request states one."""
    if isinstance(action, Tool):
        return Served(0, 0, 0, 0, action.price)
    stated = cap if cap is not None and (action.states_cap or cap < action.cap) else None
    output = action.writes if stated is None else min(action.writes, stated)
    return serve(action.model, action.prompt, output, reasoning=action.reasoning, cached_prefix=action.cached_prefix)
