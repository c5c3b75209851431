"""What cost tracking with a hard limit does: it adds what each call did cost, and refuses once the sum has reached the budget.
An agent's sum is its own."""

from __future__ import annotations

from benchmarks.runaway.guard import Plain, Run, Setting
from benchmarks.runaway.steps import RUN, Step, Verdict


class PostHoc(Plain):
    def before(self, step: Step) -> Verdict:
        return Verdict(False, "spent") if self.spent >= self.budget else RUN


class PostHocPolicy:
    name, title, family = "post_hoc", "post-hoc check", "baseline"
    cannot: frozenset[str] = frozenset()

    def open(self, setting: Setting) -> Run:
        return PostHoc(setting)


POLICY = PostHocPolicy()
