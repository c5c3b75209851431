"""Compares what was spent, and the estimate of the next call, with the budget before the call, and adds the cost after it. All
agents share one sum, which is more than most do; nothing is held in between."""

from __future__ import annotations

from benchmarks.runaway.guard import Plain, Run, Setting
from benchmarks.runaway.steps import RUN, Step, Verdict


class CheckThenAct(Plain):
    each_agent = False

    def before(self, step: Step) -> Verdict:
        return Verdict(False, "would_exceed") if self.spent + step.estimate > self.budget else RUN


class CheckThenActPolicy:
    name, title, family = "check_then_act", "check-then-act", "baseline"
    cannot: frozenset[str] = frozenset()

    def open(self, setting: Setting) -> Run:
        return CheckThenAct(setting)


POLICY = CheckThenActPolicy()
