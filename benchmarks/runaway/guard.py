"""What a policy is to the lab: one adapter protocol, whoever's library stands behind it."""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

from msgspec import Struct

from agentbudget.testing import ManualClock
from benchmarks.runaway.steps import RUN, Report, Step, Verdict


class Setting(Struct, frozen=True):
    """What an operator knows when the run starts. ``budget``: nanocredits. ``usual_steps``: how many steps of healthy work that
    budget pays, from which counts are set. ``wallet``: what the whole customer has, where it is less than its sessions' budgets
    together."""

    budget: int
    usual_steps: int
    clock: ManualClock
    rng: Random
    wallet: int | None = None


class Books(Struct, frozen=True):
    """What the policy itself says at the end, in nanocredits: spent; of that ``unknown``, booked because nobody knew better;
    and still held for steps that are over."""

    booked: int
    unknown: int = 0
    held: int = 0


class Guard(Protocol):
    """A policy at work on one agent. Nothing here takes (virtual) time."""

    def before(self, step: Step) -> Verdict: ...
    def chunk(self, step: Step, tokens: int) -> bool:
        """A stream has come to so many tokens; False cuts it."""
        ...

    def after(self, step: Step, report: Report) -> None:
        """The step is over. Called again when its usage is reported again."""
        ...

    def dropped(self, step: Step) -> None:
        """The caller was cancelled: its frames are gone, and no callback fires."""
        ...

    def child(self, name: str, budget: int | None) -> Guard | None:
        """The guard of a sub-agent; None refuses it."""
        ...

    def ended(self) -> None:
        """The agent is over."""
        ...


class Run(Protocol):
    """A policy at work on a whole run."""

    def root(self) -> Guard: ...
    def session(self, name: str, budget: int) -> Guard:
        """Another session of the same customer."""
        ...

    def until(self, now_us: int) -> None:
        """Time passes."""
        ...

    def change(self, what: str, amount: int, guard: Guard) -> Guard:
        """See ``steps.Change``; answers the guard that goes on."""
        ...

    def close(self) -> Books: ...


class Policy(Protocol):
    """A file of ``policies/`` has one, called POLICY. ``family``: baseline, agentbudget or peer. ``cannot``: what it has no
    way to express (``Scenario.needs``); such cells are left out."""

    name: str
    title: str
    family: str
    cannot: frozenset[str]

    def open(self, setting: Setting) -> Run: ...


class Plain:
    """A guard and a run in one, for policies that keep a count or a sum in memory: what all of them do alike. Each agent has a
    sum of its own (``each_agent`` False: they share the root's), as counters that live in an agent's state do."""

    each_agent = True

    def __init__(self, setting: Setting, top: Any = None) -> None:
        self.setting, self.budget = setting, setting.budget
        self.top = self if top is None else top
        self.all: list[Plain] = [self] if top is None else top.all
        if top is not None:
            self.all.append(self)
        self.spent = self.total = 0

    # --- for the policy ---

    def before(self, step: Step) -> Verdict:
        return RUN

    def book(self, step: Step, cost: int) -> None:
        """A cost became known."""
        self.spent += cost
        self.top.total += cost

    # --- the guard ---

    def chunk(self, step: Step, tokens: int) -> bool:
        return True

    def after(self, step: Step, report: Report) -> None:
        if report.cost is not None:
            self.book(step, report.cost)

    def dropped(self, step: Step) -> None:
        """Nothing was noted, so nothing is left."""

    def child(self, name: str, budget: int | None) -> Guard | None:
        if not self.each_agent:
            return self
        child = type(self)(self.setting, self.top)
        child.budget = self.setting.budget if budget is None else budget
        return child

    def ended(self) -> None:
        """Nothing to give back."""

    # --- the run ---

    def root(self) -> Guard:
        return self

    def session(self, name: str, budget: int) -> Guard:
        child = type(self)(self.setting, self.top)
        child.budget = budget
        return child

    def until(self, now_us: int) -> None:
        left_us = now_us - self.setting.clock.now_us()
        if left_us > 0:
            self.setting.clock.advance(microseconds=left_us)

    def change(self, what: str, amount: int, guard: Any) -> Guard:
        match what:
            case "fund":
                guard.budget += amount
            case "cut":
                guard.budget = amount
            case "owner":  # what is in memory is gone with its keeper
                for one in self.all:
                    one.spent = one.total = 0
            case _:  # and with its process
                fresh = type(self)(self.setting, self.top)
                fresh.budget = guard.budget
                return fresh
        return guard  # type: ignore[no-any-return]

    def close(self) -> Books:
        return Books(self.top.total)
