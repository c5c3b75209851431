"""A maximum of steps for each agent, as frameworks have it (``max_turns``, ``recursion_limit``, ``max_iter``): one and a half
times as many as healthy work of that budget takes. A sub-agent counts for itself."""

from __future__ import annotations

from benchmarks.runaway.guard import Plain, Run, Setting
from benchmarks.runaway.steps import RUN, Step, Verdict


class StepCount(Plain):
    steps = 0

    def before(self, step: Step) -> Verdict:
        if self.steps >= self.setting.usual_steps * 3 // 2:
            return Verdict(False, "max_steps")
        self.steps += 1
        return RUN


class StepCountPolicy:
    name, title, family = "step_count", "step count", "baseline"
    cannot: frozenset[str] = frozenset()

    def open(self, setting: Setting) -> Run:
        return StepCount(setting)


POLICY = StepCountPolicy()
