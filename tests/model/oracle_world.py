"""The oracle's world: all facts of one customer, and sums over them. No counter is kept where a sum will do."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from agentbudget.account.commands import ROOT, OpenSession
from agentbudget.catalog.terms import Breaker, PlanTerms
from tests.model.oracle_facts import Context, Debt, GrantFact, LimitFact, Piece, Queue, StepFact, covers
from tests.model.oracle_windows import window_of

OVERDRAFT, RECEIVABLE = "@overdraft", "@receivable"
window = lru_cache(maxsize=200_000)(window_of)


@dataclass(slots=True)
class SessionFact:
    """A session as opened, what funded it, and whether it is latched (by a command, or by its circuit's opening)."""

    opened: OpenSession
    opened_us: int
    funds: list[int] = field(default_factory=list)
    closed: bool = False
    latched: bool = False
    refusals: int = 0
    refusals_in_row: int = 0
    errors_in_row: int = 0
    late: int = 0
    rest_us: int = 0
    rest_steps: int = 0
    rest_order: int = 0

    @property
    def id(self) -> str:
        return self.opened.session

    @property
    def parent(self) -> str | None:
        return self.opened.parent

    @property
    def budget(self) -> int | None:
        return None if self.opened.budget is None else self.opened.budget + sum(self.funds)


@dataclass(slots=True)
class World:
    """Every fact of one customer."""

    terms: PlanTerms
    zone: str
    anchor_us: int
    last_us: int
    seen_us: int
    order: int = 0
    entities: dict[str, str | None] = field(default_factory=lambda: {ROOT: None})
    paused: set[str] = field(default_factory=set)
    grants: dict[str, GrantFact] = field(default_factory=dict)
    sessions: dict[str, SessionFact] = field(default_factory=dict)
    steps: dict[str, StepFact] = field(default_factory=dict)
    limits: list[LimitFact] = field(default_factory=list)
    debts: list[Debt] = field(default_factory=list)
    payments: list[int] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    epoch: int = 0
    queue: Queue = field(default_factory=Queue)
    sights: list[str] = field(default_factory=list)

    # --- credits ---

    def pieces(self, grant: str) -> list[Piece]:
        return [piece for step in self.steps.values() for piece in step.pieces if piece.grant == grant]

    def total(self, grant: str, where: str) -> int:
        return sum(piece.amount for piece in self.pieces(grant) if piece.where == where)

    def free(self, grant: GrantFact) -> int:
        """Credits of the grant that nobody took."""
        return sum(grant.issued) - sum(grant.voids) - sum(piece.amount for piece in self.pieces(grant.id))

    def eligible(self, context: Context, now: int) -> list[GrantFact]:
        """Grants that may pay for such a step now, in burn order."""
        fitting = [g for g in self.grants.values() if g.active(now) and covers(g.scope, context) and self.free(g) > 0]
        return sorted(fitting, key=GrantFact.burns_before)

    def burn(self, step: StepFact, amount: int, where: str, now: int) -> int:
        """Take credits in burn order; answers what no grant could give."""
        for grant in self.eligible(step.context, now):
            take = min(amount, self.free(grant))
            if take:
                step.pieces.append(Piece(grant.id, take, where))
                amount -= take
        return amount

    def overdraft(self) -> int:
        return sum(debt.piece.amount for debt in self.debts)

    def owed(self) -> int:
        return self.total(RECEIVABLE, "consumed") - sum(self.payments)

    def pay_debts(self, now: int) -> None:
        """Free credits pay overdraft, the oldest debt first, each from grants that cover what caused it."""
        if not self.debts:
            return
        for debt in self.debts:
            while debt.piece.amount and (grants := self.eligible(debt.step.context, now)):
                paid = min(debt.piece.amount, self.free(grants[0]))
                debt.piece.amount -= paid
                debt.step.pieces.append(Piece(grants[0].id, paid, "consumed"))
        self.debts = [debt for debt in self.debts if debt.piece.amount]
        for step in self.steps.values():
            step.pieces = [piece for piece in step.pieces if piece.amount]

    # --- the tree ---

    def path(self, session: str) -> list[str]:
        """Every entity above and of a session, the customer first."""
        fact = self.sessions[session]
        path = [ROOT] if fact.parent is None else self.path(fact.parent)
        for entity in fact.opened.entities or ():
            path += [above for above in self.above(entity) if above not in path]
        return [*path, f"session:{session}"]

    def above(self, entity: str) -> list[str]:
        """The entity and what is above it, the customer first."""
        parent = self.entities[entity]
        return [*(self.above(parent) if parent is not None else []), entity]

    def depth(self, session: str) -> int:
        return len(self.lineage(session))

    def lineage(self, session: str) -> list[SessionFact]:
        """The session and those above it."""
        fact = self.sessions[session]
        return [fact, *([] if fact.parent is None else self.lineage(fact.parent))]

    def effective(self, session: str, name: str, default: object = None) -> object:
        """What a session was opened with: what was stated for it, or else for the nearest session above that stated it."""
        stated = [getattr(fact.opened, name) for fact in self.lineage(session)]
        return next((value for value in stated if value is not None), default)

    def children(self, session: str) -> list[SessionFact]:
        return [child for child in self.sessions.values() if child.parent == session]

    # --- sessions ---

    def steps_of(self, session: str) -> list[StepFact]:
        return [step for step in self.steps.values() if step.session == session]

    def ran(self, session: str) -> int:
        """How many steps of the session have begun."""
        return sum(step.ran for step in self.steps_of(session))

    def steps_since_rest(self, session: str) -> int:
        """A session that was resumed or funded counts anew for its breaker."""
        return self.ran(session) - self.sessions[session].rest_steps

    def leased_steps(self, session: str) -> int:
        return sum(s.held_measures.get("steps", 0) for s in self.steps_of(session) if s.lease and s.end is None)

    def policy_changes(self) -> None:
        """What leases were granted under is no longer so: all are asked back."""
        self.epoch += 1
        self.ask_back(self.leases())

    def ask_back(self, leases: list[StepFact]) -> None:
        """Something happened that these leases may have to be given back for, or need not any more."""
        moment = self.queue.next()
        for step in leases:
            step.lease.due = moment if self._is_due(step) else 0

    def _is_due(self, step: StepFact) -> bool:
        return self.is_untrue(step) or step.lease.suspended_us is not None

    def is_untrue(self, step: StepFact) -> bool:
        """Whether it was granted under another policy, or is of a session that may not go on."""
        lineage = self.lineage(step.session)
        stopped = any(s.closed or s.latched or f"session:{s.id}" in self.paused for s in lineage)
        return stopped or step.lease.epoch != self.epoch

    def awake(self, step: StepFact) -> None:
        """Its silence is no reason any more to ask it back."""
        if not self._is_due(step):
            step.lease.due = 0

    def answered(self, step: StepFact, heard: int) -> None:
        """A renewal came, whatever it brought, from a holder that had heard what an answer with that number told it."""
        moment = self.queue.meanings.get(heard, 0)
        self.queue.answered(step.id, moment)
        if step.lease.due <= moment:
            step.lease.due = 0
        if step.lease.due or self.queue.waits_for(step.id):
            self.sights.append("no answer to a recall" if not heard else "answer to an earlier recall")

    def over(self, step: StepFact) -> None:
        """The lease has ended: nobody waits for it any more, and nobody asks for its own ticket."""
        self.queue.tickets.pop(step.id, None)
        self.queue.answered(step.id, self.queue.moment)
        step.lease.due = 0

    def tell(self, holder: str) -> frozenset[str]:
        """What the holder is asked for, as of now."""
        self.queue.told = self.queue.moment
        mine = [step for step in self.leases() if step.lease.holder == holder]
        return frozenset(step.id for step in mine if step.lease.due or self.queue.waits_for(step.id))

    def single_steps(self) -> list[StepFact]:
        """Steps that are facts of their own: neither leases nor what was reported on one."""
        pasts = {id(step.lease.past) for step in self.steps.values() if step.lease is not None}
        return [step for step in self.steps.values() if step.lease is None and id(step) not in pasts]

    def leases(self, session: str | None = None) -> list[StepFact]:
        """Open leases: all, or those of a session and of those below it."""
        mine = None if session is None else f"session:{session}"
        found = [step for step in self.steps.values() if step.lease is not None and step.end is None]
        return [step for step in found if mine is None or mine in step.context.path]

    def spent(self, session: str) -> int:
        """Charged to the session, its children included."""
        own = sum(step.charged - step.not_in_session for step in self.steps_of(session)) + self.sessions[session].late
        return own + sum(self.spent(child.id) for child in self.children(session))

    def held(self, session: str) -> int:
        own = sum(step.held for step in self.steps_of(session))
        return own + sum(self.held(child.id) for child in self.children(session))

    def consumption(self, session: str) -> int:
        """Charged, held, and what open children have carved and not used."""
        own = sum(step.charged - step.not_in_session + step.held for step in self.steps_of(session))
        own += self.sessions[session].late
        return own + sum(self.contribution(child) for child in self.children(session))

    def contribution(self, child: SessionFact, more: int = 0) -> int:
        used = self.consumption(child.id) + more
        return used if child.closed else max(child.budget or 0, used)

    def fits(self, session: str, more: int, *, wind_down: bool) -> bool:
        """Whether the session, and every one above it, has room for so much more."""
        fact = self.sessions[session]
        if more <= 0:
            return True
        kept = 0 if wind_down else (fact.opened.wind_down or 0)
        if fact.budget is not None and self.consumption(session) + more > fact.budget - kept:
            return False
        if fact.parent is None:
            return True
        return self.fits(fact.parent, self.contribution(fact, more) - self.contribution(fact), wind_down=wind_down)

    def known(self, session: str) -> bool:
        """Whether the session still counts: it is open, or it or a session below has an open hold."""
        fact = self.sessions.get(session)
        return fact is not None and (not fact.closed or self.busy(session))

    def busy(self, session: str) -> bool:
        return any(step.end is None for step in self.steps_of(session)) or any(
            self.busy(child.id) for child in self.children(session)
        )

    def breaker(self, session: str) -> Breaker:
        return self.effective(session, "breaker", self.terms.breaker)

    # --- limits ---

    def window(self, name: str, us: int) -> tuple[int | None, int | None]:
        return window(name, us, zone=self.zone, anchor_us=self.anchor_us if self.terms.cycle == "anchored" else None)

    def counted(self, limit: LimitFact, entity: str, now: int) -> list[StepFact]:
        """The steps that count on a limit at one entity in the window of ``now``."""
        start, _ = self.window(limit.window, now)
        return [
            step
            for step in self.steps.values()
            if step.order > limit.since
            and entity in step.context.path
            and covers(limit.scope, step.context)
            and self.window(limit.window, step.opened_us)[0] == start
        ]

    def used(self, limit: LimitFact, entity: str, now: int) -> int:
        return sum(step.used(limit.measure) for step in self.counted(limit, entity, now))

    def held_on(self, limit: LimitFact, entity: str, now: int) -> int:
        return sum(step.still_held(limit.measure) for step in self.counted(limit, entity, now))
