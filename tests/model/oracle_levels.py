"""Every amount on the way of a step, as levels: what remains there, what the step needs, who shares it, which leases hold of it.

The tranche of a lease and the shortage that recalls leases are both judged on these (DESIGN.md §4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agentbudget.account.commands import Hold
from tests.model.oracle_facts import Context, LimitFact, StepFact, covers
from tests.model.oracle_gates import context_of, limits_touched
from tests.model.oracle_world import RECEIVABLE, SessionFact, World

TRANCHE = 16
"""A lease takes at most this part of what remains where others live on it."""


@dataclass(frozen=True)
class Asker:
    """Who asks: a session, the process (``holder``) that a lease is for, and the lease it is to be added to."""

    session: str
    holder: str = ""
    lease: str = ""


@dataclass(frozen=True)
class Level:
    """One amount that may run short. ``needs``: by multiple of the step (1 first), what it would take here. ``leases``: those
    that hold something of it."""

    where: tuple[object, ...]
    reason: str
    remaining: int
    needs: tuple[int, ...]
    shared: bool
    leases: frozenset[str]

    @property
    def need(self) -> int:
        return self.needs[0]

    @property
    def short(self) -> bool:
        return self.need > max(0, self.remaining)

    def tranche(self) -> int:
        return max(self.need, self.remaining // TRANCHE) if self.shared else self.remaining


def largest(levels: list[Level], times: int) -> int:
    """The most multiples of a step, up to ``times``, that no level has less than a tranche for; at least one."""
    fits = (k for k in range(times, 1, -1) if all(one.needs[k - 1] <= max(0, one.tranche()) for one in levels))
    return next(fits, 1)


@dataclass
class Levels:
    """Finds the levels of what one asker wants."""

    world: World
    asker: Asker
    now: int
    open: list[StepFact] = field(init=False)

    def __post_init__(self) -> None:
        self.open = [s for s in self.world.steps.values() if s.lease is not None and s.end is None]

    def of_step(self, hold: Hold, times: int, *, opened: int) -> list[Level]:
        """Levels of a step, with its needs up to ``times`` as many."""
        context = context_of(self.world, hold)
        found = [
            *self.of_budgets(hold.session, hold.amount, times, wind_down=hold.wind_down),
            *self._limits(hold, context, times, opened),
            *self._wallet(hold, context, times),
            *self._steps(hold, times),
        ]
        return [level for level in found if level.need > 0]

    def of_budgets(self, session: str, amount: int, times: int, *, wind_down: bool) -> Iterator[Level]:
        """The budgets of a session and of those above it that must have the room."""
        chains = [budgets_needed(self.world, session, amount * k) for k in range(1, times + 1)]
        for place, fact in enumerate(self.world.lineage(session)):
            needs = tuple(chain[place] for chain in chains)
            if fact.budget is not None and needs[-1] > 0:
                kept = 0 if wind_down else (fact.opened.wind_down or 0)
                remaining = fact.budget - kept - self.world.consumption(fact.id)
                yield Level(
                    ("budget", fact.id), "session_budget", remaining, needs, self._shared(f"session:{fact.id}"),
                    self._in_budget(fact),
                )  # fmt: skip

    def _limits(self, hold: Hold, context: Context, times: int, opened: int) -> Iterator[Level]:
        for limit, entity, remaining, need in limits_touched(self.world, hold, context, opened):
            if limit.mode == "hard":
                where = ("limit", limit.origin, limit.entity, limit.measure, limit.window, limit.scope, entity)
                yield Level(
                    where, "limit", remaining, _multiples(need, times), self._shared(entity),
                    self._counted(limit, entity, opened),
                )  # fmt: skip

    def _wallet(self, hold: Hold, context: Context, times: int) -> Iterator[Level]:
        world = self.world
        free = sum(world.free(grant) for grant in world.eligible(context, self.now))
        if world.terms.wallet == "postpaid":
            if world.terms.credit_line is None:
                return
            free += max(0, world.terms.credit_line - world.owed() - world.total(RECEIVABLE, "held"))
        yield Level(
            ("wallet",), "insufficient_credits", free, _multiples(hold.amount, times), self._shared("customer"),
            self._spendable(context),
        )  # fmt: skip

    def _steps(self, hold: Hold, times: int) -> Iterator[Level]:
        rules = self.world.breaker(hold.session)
        if rules.max_steps is not None:
            mine = frozenset(
                s.id for s in self._others() if s.session == hold.session and s.held_measures.get("steps", 0)
            )
            remaining = rules.max_steps - self.world.steps_since_rest(hold.session)
            remaining -= self.world.leased_steps(hold.session)
            others = any(s.lease.holder != self.asker.holder for s in self.open if s.session == hold.session)
            yield Level(
                ("steps", hold.session), "circuit_open", remaining, _multiples(_steps_of(hold), times), others, mine
            )

    # --- who else is there ---

    def _others(self) -> list[StepFact]:
        return [step for step in self.open if step.id != self.asker.lease]

    def _shared(self, entity: str) -> bool:
        """Whether another open session, or a lease of another holder, lives on this entity."""
        world = self.world
        sessions = (s for s in world.sessions.values() if not s.closed and s.id != self.asker.session)
        return any(entity in world.path(session.id) for session in sessions) or any(
            entity in world.path(step.session) and step.lease.holder != self.asker.holder for step in self.open
        )

    def _in_budget(self, top: SessionFact) -> frozenset[str]:
        """Leases below that keep room from this budget: what they hold is in no carve-out that would keep it."""
        below = [step for step in self._others() if step.held and f"session:{top.id}" in step.context.path]
        return frozenset(step.id for step in below if self._passes_up(step.session, top))

    def _passes_up(self, session: str, top: SessionFact) -> bool:
        world, lineage = self.world, self.world.lineage(session)
        below = lineage[: [fact.id for fact in lineage].index(top.id)]
        carves = [0 if fact.closed else fact.budget or 0 for fact in below]
        return all(world.consumption(fact.id) > carve for fact, carve in zip(below, carves, strict=True))

    def _spendable(self, context: Context) -> frozenset[str]:
        """Leases that hold credits which the step could use, given back."""
        return frozenset(
            step.id
            for step in self._others()
            if any(piece.where == "held" and self._usable(piece.grant, context) for piece in step.pieces)
        )

    def _usable(self, grant: str, context: Context) -> bool:
        fact = self.world.grants.get(grant)
        return fact is None or (not fact.expired(self.now) and covers(fact.scope, context))

    def _counted(self, limit: LimitFact, entity: str, opened: int) -> frozenset[str]:
        counted = {id(step) for step in self.world.counted(limit, entity, opened)}
        return frozenset(s.id for s in self._others() if id(s) in counted and s.still_held(limit.measure))


def budgets_needed(world: World, session: str, units: int) -> list[int]:
    """What the session and each above it must have room for: above a carve-out, only what passes it."""
    needs: list[int] = []
    for fact in world.lineage(session):
        needs.append(max(0, units))
        units = 0 if units <= 0 else _beyond(world, fact, units)
    return needs


def _beyond(world: World, fact: SessionFact, units: int) -> int:
    return world.contribution(fact, units) - world.contribution(fact)


def _multiples(need: int, times: int) -> tuple[int, ...]:
    return tuple(need * k for k in range(1, times + 1))


def _steps_of(hold: Hold) -> int:
    return max(1, hold.measures.get("steps", 1))
