"""Tells a person when the budget is spent, who looks after five minutes (the median of a page that is answered well) and stops
the agent. What is under way goes on until then."""

from __future__ import annotations

from typing import Final

from benchmarks.runaway.guard import Plain, Run, Setting
from benchmarks.runaway.steps import RUN, Step, Verdict

ANSWER_US: Final = 5 * 60 * 1_000_000


class SoftAlert(Plain):
    each_agent = False
    alarm_us: int | None = None

    def book(self, step: Step, cost: int) -> None:
        super().book(step, cost)
        if self.spent >= self.budget and self.alarm_us is None:
            self.alarm_us = self.setting.clock.now_us()

    def before(self, step: Step) -> Verdict:
        if self.alarm_us is not None and self.setting.clock.now_us() >= self.alarm_us + ANSWER_US:
            return Verdict(False, "stopped_by_hand")
        return RUN


class SoftAlertPolicy:
    name, title, family = "soft_alert", "soft alert", "baseline"
    cannot: frozenset[str] = frozenset()

    def open(self, setting: Setting) -> Run:
        return SoftAlert(setting)


POLICY = SoftAlertPolicy()
