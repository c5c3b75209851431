"""No policy: what the fault costs, until the lab ends it."""

from __future__ import annotations

from benchmarks.runaway.guard import Plain, Run, Setting


class NoPolicy:
    name, title, family = "none", "none", "baseline"
    cannot: frozenset[str] = frozenset()

    def open(self, setting: Setting) -> Run:
        return Plain(setting)


POLICY = NoPolicy()
