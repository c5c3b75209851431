"""Where a step is counted, from the entries alone: the tree, the sessions, the limits. Arithmetic of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from agentbudget.account import events as e
from agentbudget.catalog.terms import LimitTerms
from tests.sim.broken import must
from tests.sim.clockwork import HOUR_US

Place = tuple[str, str, int]
"""A limit, the node it counts at, and the start of its window."""


@dataclass
class LimitFact:
    """``amount`` None: removed, still counting."""

    name: str
    entity: str
    measure: str
    window: str
    amount: int | None
    is_hard: bool


@dataclass
class SessionFact:
    """``own``: what its steps hold and have spent."""

    id: str
    parent: str | None
    budget: int | None
    wind_down: int
    entities: tuple[str, ...]
    own: int = 0
    closed: bool = False
    children: list[str] = field(default_factory=list)


class Places:
    """Counts used and held, in units of each limit's measure; and what sessions spend of their budgets."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self.sessions: dict[str, SessionFact] = {}
        self.limits: dict[str, LimitFact] = {}
        self.used: Counter[Place] = Counter()
        self.held: Counter[Place] = Counter()

    # --- what changes the rules ---

    def plan(self, limits: tuple[LimitTerms, ...]) -> None:
        """The plan's limits; those of an earlier one go on counting."""
        for limit in self.limits.values():
            if limit.name.startswith("plan"):
                limit.amount = None
        for terms in limits:
            self._limit("plan", terms.entity, terms.measure, terms.window, terms.amount, terms.mode)

    def limit_set(self, event: e.LimitSet) -> None:
        self._limit("admin", event.entity, event.measure, event.window, event.amount, event.mode)

    def _limit(self, origin: str, entity: str, measure: str, window: str, amount: int | None, mode: str) -> None:
        name = f"{origin}/{entity}/{measure}/{window}"
        self.limits[name] = LimitFact(name, entity, measure, window, amount, mode == "hard")

    def opened(self, event: e.SessionOpened) -> None:
        must(event.session not in self.sessions, "L4", "session", event.session, "opened twice")
        self.sessions[event.session] = SessionFact(
            event.session, event.parent, event.budget, event.wind_down, event.entities
        )
        if event.parent is not None:
            self.sessions[event.parent].children.append(event.session)
            if event.budget:
                self.within_budgets(event.parent, event.budget, f"the carve-out of {event.session}")

    # --- where ---

    def path(self, session: str) -> tuple[str, ...]:
        """From the root down the tree, then the sessions from the outermost in."""
        chain = list(self.lineage(session))[::-1]
        nodes = {"customer": None}
        for entity in (entity for one in chain for entity in one.entities):
            above = [entity]
            while (parent := self.parents.get(above[-1], "customer")) != "customer":
                above.append(parent)
            nodes.update(dict.fromkeys(reversed(above)))
        return (*nodes, *(f"session:{one.id}" for one in chain))

    def lineage(self, session: str) -> Iterator[SessionFact]:
        one: str | None = session
        while one is not None:
            yield self.sessions[one]
            one = self.sessions[one].parent

    def of(self, session: str, time_us: int) -> list[Place]:
        """Every place at which a step that begins now is counted."""
        path = self.path(session)
        return [
            (limit.name, node, time_us // HOUR_US * HOUR_US if limit.window == "hour" else 0)
            for limit in self.limits.values()
            for node in path
            if node == limit.entity or (limit.entity.endswith(":*") and node.startswith(limit.entity[:-1]))
        ]

    # --- how much ---

    def count(self, places: list[Place], amount: int, measures: dict[str, int], *, into: Counter[Place]) -> None:
        for place in places:
            measure = self.limits[place[0]].measure
            units = amount if measure == "credits" else measures.get(measure, 0)
            if units:
                into[place] += units

    def within_limits(self, places: list[Place], amount: int, measures: dict[str, int], what: str) -> None:
        """L3, L12: nothing is added that passes a hard limit at any place."""
        for place in places:
            limit = self.limits[place[0]]
            units = amount if limit.measure == "credits" else measures.get(limit.measure, 0)
            if units > 0 and limit.amount is not None and limit.is_hard:
                total = self.used[place] + self.held[place]
                must(
                    total <= limit.amount,
                    "L3",
                    what,
                    "adds",
                    units,
                    "and reaches",
                    total,
                    "of",
                    limit.amount,
                    "at",
                    place,
                )

    def consumption(self, session: str) -> int:
        one = self.sessions[session]
        below = 0
        for child in one.children:
            carve = self.sessions[child].budget
            carved = 0 if self.sessions[child].closed or carve is None else carve
            below += max(carved, self.consumption(child))
        return one.own + below

    def within_budgets(self, session: str, added: int, what: str) -> None:
        """L3, L12: nothing is added that a budget on the way has no room for; what a carve-out covers needs none above."""
        for level in self.lineage(session):
            room = None if level.budget is None else level.budget - level.wind_down
            if room is not None and (now := self.consumption(level.id)) > room:
                must(self._without(session, added, level.id) == now, "L3", what, "passes the budget of", level.id)

    def _without(self, session: str, added: int, level: str) -> int:
        self.sessions[session].own -= added
        before = self.consumption(level)
        self.sessions[session].own += added
        return before
