"""Limits on the path of a step, and what they counted. Laws L3 and L12: a hold touches every limit it meets, or none.

Counters are kept per limit, entity and window start; a hold's mark names the window in which it was opened, and settling
touches that window only, however late (DESIGN.md §5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agentbudget.account.matching import StepContext, covers
from agentbudget.account.state import Counter, LimitState, Mark, State
from agentbudget.account.windows import FOREVER_US, HOUR_US, bounds
from agentbudget.catalog.terms import LimitMode, LimitTerms, PlanTerms, Scope, Window

LONGEST_US: Final[dict[Window, int]] = {
    "hour": 2 * HOUR_US, "day": 49 * HOUR_US, "week": 193 * HOUR_US, "month": 32 * 24 * HOUR_US,
    "quarter": 93 * 24 * HOUR_US, "year": 367 * 24 * HOUR_US, "lifetime": 0,
}  # fmt: skip
"""For so long after its start a window is kept: a plan of another cycle, and back, must find what was counted in it."""
RESOLVED = 4096
"""Tuples of marks whose counters are remembered: a customer has few lanes at a time."""
Gate = tuple[LimitState, str]
"""A limit and the entity of the path at which it counts."""


class LimitBook:
    """The limits of one customer's state by entity, and the current windows."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._by_entity: dict[str, list[LimitState]] = {}
        self._windows: dict[Window, tuple[int, int]] = {}
        self._resolved: dict[tuple[Mark, ...], list[tuple[str | None, Counter]]] = {}
        self._spare: dict[Mark, Counter] = {}
        self.version = 0
        for limit in state.limits.values():
            self._by_entity.setdefault(limit.entity, []).append(limit)

    def window(self, window: Window, now_us: int) -> tuple[int, int]:
        """Start and end of the current window."""
        known = self._windows.get(window)
        if known is None or not known[0] <= now_us < known[1]:
            state = self._state
            anchored = state.terms is not None and state.terms.cycle == "anchored"
            anchor_us = state.anchor_us if anchored else None
            known = bounds(window, zone=state.time_zone, anchor_us=anchor_us, now_us=now_us)
            self._windows[window] = known
        return known

    def until_us(self, marks: Iterable[Mark], now_us: int) -> int:
        """When the first window of marks ends; 0 when one is over."""
        until_us = FOREVER_US
        for limit_id, _, start_us in marks:
            limit = self._state.limits.get(limit_id)
            if limit is None:  # of a session that is over
                continue
            current_us, end_us = self.window(limit.window, now_us)
            if current_us != start_us:
                return 0
            until_us = min(until_us, end_us)
        return until_us

    def measures(self, marks: Iterable[Mark]) -> set[str]:
        """What the limits behind marks count."""
        return {self._state.limits[limit_id].measure for limit_id, _, _ in marks}

    def gates(self, path: Iterable[str]) -> tuple[Gate, ...]:
        """Every limit that any step on this path meets, from the root down."""
        found: list[Gate] = []
        for node in path:
            found += [(limit, node) for limit in self._by_entity.get(node, ())]
            kind, colon, _ = node.partition(":")
            if colon:
                found += [(limit, node) for limit in self._by_entity.get(f"{kind}:*", ())]
        return tuple(found)

    def counter(self, limit: LimitState, entity: str, start_us: int) -> Counter:
        """The counter of a window. One that the state lacks is kept aside until an entry counts there (law L6)."""
        known = limit.counters.get(entity, {}).get(start_us)
        if known is not None:
            return known
        if len(self._spare) >= RESOLVED:
            self._spare.clear()
            self.version += 1
        return self._spare.setdefault((limit.id, entity, start_us), Counter())

    def _make(self, limit: LimitState, entity: str, start_us: int) -> Counter:
        """Put a window's counter into the state; forgets windows that are long over and hold nothing."""
        counter, windows = self.counter(limit, entity, start_us), limit.counters.setdefault(entity, {})
        self._spare.pop((limit.id, entity, start_us), None)
        # An extension is judged in the window its hold was opened in, so windows of open holds are kept; the first of
        # the open holds is the oldest.
        oldest = next(iter(self._state.holds.values()), None)
        over_us = min(start_us, start_us if oldest is None else oldest.opened_us) - LONGEST_US[limit.window]
        for old in [start for start, c in windows.items() if start <= over_us and not c.held]:
            del windows[old]
            self._resolved.clear()
        windows[start_us] = counter
        return counter

    def peek(self, limit: LimitState, entity: str, start_us: int) -> Counter:
        """The same for reading: nothing is made."""
        return limit.counters.get(entity, {}).get(start_us) or Counter()

    def hold(self, marks: tuple[Mark, ...], amount: int, measures: dict[str, int]) -> None:
        """Count a hold (or more of one)."""
        for measure, counter in self._resolved.get(marks) or self._resolve(marks, make=True):
            counter.held += amount if measure is None else measures.get(measure, 0)

    def use(
        self,
        marks: tuple[Mark, ...],
        freed: int,
        freed_measures: dict[str, int],
        used: int,
        used_measures: dict[str, int],
    ) -> None:
        """Settle: nanocredits and units no longer held, nanocredits and units used."""
        for measure, counter in self._resolved.get(marks) or self._resolve(marks, make=False):
            counter.held -= freed if measure is None else freed_measures.get(measure, 0)
            counter.used += used if measure is None else used_measures.get(measure, 0)

    def _resolve(self, marks: tuple[Mark, ...], *, make: bool) -> list[tuple[str | None, Counter]]:
        """The counters behind marks with their measures (None: credits); windows already forgotten are left out."""
        known = self._resolved.get(marks)
        if known is not None:
            return known
        found: list[tuple[str | None, Counter]] = []
        for limit_id, entity, start_us in marks:
            limit = self._state.limits.get(limit_id)
            if limit is None:  # of a session that is over
                continue
            counter = limit.counters.get(entity, {}).get(start_us)
            if counter is None and make:
                counter = self._make(limit, entity, start_us)
            if counter is not None:
                found.append((None if limit.measure == "credits" else limit.measure, counter))
        if make:
            if len(self._resolved) >= RESOLVED:
                self._resolved.clear()
            self._resolved[marks] = found
        return found

    def forget(self, entity: str) -> None:
        """A session is over: its own limits go, and what limits of its type counted there."""
        for limit, node in self.gates((entity,)):
            limit.counters.pop(node, None)
        for limit in self._by_entity.pop(entity, ()):
            del self._state.limits[limit.id]
            self.version += 1

    # -- changing limits ------------------------------------------------------------------------------------------------

    def find(self, entity: str, measure: str, window: Window, scope: Scope | None, *, origin: str) -> LimitState | None:
        """The limit of that identity, removed ones included."""
        for limit in self._by_entity.get(entity, ()):
            same = (limit.measure, limit.window, limit.scope, limit.origin) == (measure, window, scope, origin)
            if same:
                return limit
        return None

    def put(self, limit_id: int, terms: LimitTerms, amount: int | None, *, origin: str) -> None:
        """Create a limit under this id, or change the one that has it."""
        limit = self._state.limits.get(limit_id)
        if limit is None:
            limit = LimitState(
                limit_id, terms.entity, amount, terms.measure, terms.window, terms.mode,
                "plan" if origin == "plan" else "admin", terms.scope,
            )  # fmt: skip
            self._state.limits[limit_id] = limit
            self._by_entity.setdefault(terms.entity, []).append(limit)
            self._state.next_limit = max(self._state.next_limit, limit_id + 1)
        limit.amount, limit.mode = amount, _mode(terms.mode)
        self.version += 1

    def assign_plan(self, terms: PlanTerms) -> None:
        """The plan's limits become ``terms``' own; those it no longer has end, and go on counting should they come back."""
        self._windows.clear()
        wanted = [*terms.limits, *(limit for kind in terms.entity_types for limit in of_type(kind.type, kind.limits))]
        kept: set[int] = set()
        for limit in wanted:
            known = self.find(limit.entity, limit.measure, limit.window, limit.scope, origin="plan")
            limit_id = self._state.next_limit if known is None else known.id
            self.put(limit_id, limit, limit.amount, origin="plan")
            kept.add(limit_id)
        for state in self._state.limits.values():
            if state.origin == "plan" and state.id not in kept:
                state.amount = None
        self.version += 1


def added(measures: Mapping[str, int], more: Mapping[str, int], sign: int) -> dict[str, int]:
    """Units of each measure, with others added or taken away. A new dict: a hold's own is its entry's."""
    return {m: measures.get(m, 0) + sign * more.get(m, 0) for m in (*measures, *(m for m in more if m not in measures))}


def of_type(kind: str, limits: Iterable[LimitTerms]) -> list[LimitTerms]:
    """An entity type's default limits: each counts per entity of the type."""
    return [
        LimitTerms(f"{kind}:*", limit.amount, limit.measure, limit.window, limit.mode, limit.scope) for limit in limits
    ]


def applies(limit: LimitState, context: StepContext) -> bool:
    """True when the limit counts this step."""
    return limit.scope is None or covers(limit.scope, context)


def _mode(mode: str) -> LimitMode:
    return "soft" if mode == "soft" else "hard"
