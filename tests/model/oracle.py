"""An account written a second time, from DESIGN.md alone, to be compared with the real one: no code shared with the core.

The oracle answers each command as the owner must: an answer of the contract, ``Refused`` with every reason that refuses,
or the contract's error. It keeps facts (oracle_facts) and sums them anew each time (oracle_world): slow and plain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentbudget.account import commands as ask
from agentbudget.account.decision import Done, Held, Opened, Settled
from agentbudget.errors import InvalidRequest, KeyConflict
from tests.model.oracle_facts import GrantFact, LimitFact, Queue, Recalled, Refused
from tests.model.oracle_leases import Leases, Renewal
from tests.model.oracle_sessions import Sessions
from tests.model.oracle_steps import Steps
from tests.model.oracle_world import World

Answer = Held | Settled | Renewal | Done | Opened | Refused | Recalled
_OWN_REPLAY: Final = (
    ask.ReleaseHold, ask.LapseHold, ask.Hold, ask.DispatchHold, ask.OpenSession, ask.FanOut, ask.Renew, ask.LapseLease,
    ask.CorrectLease,
)  # fmt: skip


@dataclass
class Oracle:
    """One customer. ``answers`` has, by idempotency key, the request hash and what was answered."""

    world: World | None = None
    answers: dict[str, tuple[str, Answer]] = field(default_factory=dict)

    def handle(self, command: ask.Command, now_us: int) -> Answer:
        """The answer due; raises the contract's KeyConflict, HoldResolved and InvalidRequest."""
        key = ask.key_of(command)
        whole = isinstance(command, ask.SettleHold) and command.part is None
        if key in self.answers and not whole and not isinstance(command, _OWN_REPLAY):
            return self._again(key, command)
        if self.world is None:
            return self._create(command, now_us)
        now = self.looked(now_us)
        answer, wrote = self._decide(command, now)
        if wrote:
            self.world.pay_debts(now)
            self.world.last_us = now
            if key is not None:
                self.answers.setdefault(key, (ask.request_hash(command), answer))
        if isinstance(command, ask.Hold):
            Steps(self.world, self.answers).note(command, now, refused=isinstance(answer, Refused), held=wrote)
        return answer

    def looked(self, now_us: int) -> int:
        """The time it is at a command, a read included: nobody waits any more who has not asked for long."""
        now = self.saw(now_us)
        if self.world.queue.tickets:
            self.world.queue.drop_forgotten(now)
        return now

    def saw(self, now_us: int) -> int:
        """The time it is for an owner: never going back, not even by what it only read. What time alone has changed is
        an entry of its own: free credits that expired, and grants that became effective and pay overdraft."""
        world, owed = self.world, self.world.overdraft()
        now = world.seen_us = max(now_us, world.seen_us)
        gone = {grant.id for grant in world.grants.values() if grant.expired(now) and world.free(grant)} - world.gone
        world.pay_debts(now)
        if gone or world.overdraft() < owed:
            world.gone |= gone
            world.last_us = now
        return now

    def restarted(self, now_us: int) -> None:
        """A new owner reads the ledger: refusals are no entries, so nobody remembers them."""
        self.world.seen_us = self.world.last_us
        for session in self.world.sessions.values():
            session.refusals = session.refusals_in_row = 0
        self.world.queue = Queue()
        self.world.ask_back(self.world.leases())
        self.saw(now_us)

    def _again(self, key: str, command: ask.Command) -> Answer:
        request, answer = self.answers[key]
        if request != ask.request_hash(command):
            raise KeyConflict(key)
        return answer

    def _decide(self, command: ask.Command, now: int) -> tuple[Answer, bool]:
        """The answer, and whether an entry was written."""
        match command:
            case ask.AssignPlan() | ask.IssueGrant() | ask.VoidGrant() | ask.AdjustGrant() | ask.ClearReceivable():
                done = self._wallet(command, now)
            case ask.PutEntity() | ask.SetLimit():
                done = self._tree(command)
            case ask.SetPaused() | ask.FundSession() | ask.CloseSession() | ask.Latch():
                done = Sessions(self.world).govern(command, now)
            case ask.OpenSession() | ask.FanOut():
                done = Sessions(self.world).open(command, now)
            case ask.Renew() | ask.SuspendLease() | ask.LapseLease() | ask.CorrectLease():
                done = Leases(self.world, Steps(self.world, self.answers)).decide(command, now)
            case ask.SettleHold(lease=str()):
                done = Leases(self.world, Steps(self.world, self.answers)).settle_unknown(command, now)
            case _:
                done = Steps(self.world, self.answers).decide(command, now)
        return done if isinstance(done, tuple) else (done, done.changed)

    def _create(self, command: ask.Command, now: int) -> Answer:
        assert isinstance(command, ask.CreateCustomer)
        anchor = now if command.anchor_us is None else command.anchor_us
        self.world = World(command.terms, command.time_zone, anchor, now, now)
        self._plan(command.terms, now, None)
        self.answers["customer"] = (ask.request_hash(command), Done())
        return Done()

    # --- the wallet ---

    def _wallet(self, command: ask.Command, now: int) -> Done:
        world = self.world
        match command:
            case ask.AssignPlan(terms=terms):
                if terms == world.terms:
                    return Done(changed=False)
                self._plan(terms, now, world.terms)
                world.policy_changes()
            case ask.IssueGrant():
                if command.grant in world.grants:
                    raise KeyConflict(command.grant)
                if command.expires_us is not None and command.expires_us <= max(now, command.effective_us or now):
                    raise InvalidRequest("expires before it is effective")
                self._issue(command, now)
                return Done(id=command.grant)
            case ask.VoidGrant(grant=grant, amount=amount):
                return self._take_out(self._grant(grant, now), amount)
            case ask.AdjustGrant(grant=grant, amount=amount):
                if amount <= 0:
                    return self._take_out(self._grant(grant, now), -amount)
                self._grant(grant, now).issued.append(amount)
                return Done(id=grant)
            case ask.ClearReceivable(amount=amount):
                if amount > world.owed():
                    raise InvalidRequest("more than is owed")
                world.payments.append(amount)
        return Done()

    def _issue(self, command: ask.IssueGrant, now: int) -> None:
        effective = now if command.effective_us is None else command.effective_us
        self.world.grants[command.grant] = GrantFact(
            command.grant, [command.amount], command.label, command.priority, effective, command.expires_us,
            command.category, command.scope, now,
        )  # fmt: skip

    def _grant(self, grant: str, now: int) -> GrantFact:
        if grant not in self.world.grants or self.world.grants[grant].expired(now):
            raise InvalidRequest("no such grant")
        return self.world.grants[grant]

    def _take_out(self, grant: GrantFact, amount: int | None) -> Done:
        free = self.world.free(grant)
        if amount is not None and amount > free:
            raise InvalidRequest("more than is free")
        taken = free if amount is None else amount
        grant.voids.append(taken)
        return Done(changed=taken > 0, id=grant.id)

    # --- the tree and its limits ---

    def _plan(self, terms: ask.PlanTerms, now: int, old: ask.PlanTerms | None) -> None:
        world = self.world
        world.terms = terms
        named = {(t.entity, t.measure, t.window, t.scope): t for t in terms.limits}
        kept = {(fact.entity, fact.measure, fact.window, fact.scope) for fact in world.limits if fact.origin == "plan"}
        for fact in world.limits:
            if (
                fact.origin == "plan"
            ):  # one that the plan no longer has ends, but goes on counting like any removed limit
                term = named.get((fact.entity, fact.measure, fact.window, fact.scope))
                fact.amount, fact.mode = (None, fact.mode) if term is None else (term.amount, term.mode)
        for name, term in named.items():
            if name not in kept:
                self._add_limit("plan", term.entity, term.measure, term.window, term.scope, term.amount, term.mode)
        for grant in terms.grants:
            if grant.id not in world.grants and f"plan:{grant.id}" not in world.grants:
                self._issue(_plan_grant(grant), now)

    def _tree(self, command: ask.PutEntity | ask.SetLimit) -> Done:
        world = self.world
        if isinstance(command, ask.SetLimit):
            done = self._set_limit(command)
            if done.changed:
                world.policy_changes()
            return done
        if command.parent not in world.entities or command.entity == ask.ROOT:
            raise InvalidRequest("no such parent")
        if command.entity in world.above(command.parent):
            raise InvalidRequest("below itself")
        changed = world.entities.get(command.entity) != command.parent
        if changed and command.entity in world.entities:
            world.policy_changes()
        world.entities[command.entity] = command.parent
        return Done(changed=changed, id=command.entity)

    def _set_limit(self, command: ask.SetLimit) -> Done:
        world = self.world
        of_type = command.entity.endswith(":*")
        session = command.entity.removeprefix("session:")
        is_open = session in world.sessions and not world.sessions[session].closed
        if not of_type and command.entity not in world.entities and not (command.entity[:8] == "session:" and is_open):
            raise InvalidRequest("no such entity")
        name = ("admin", command.entity, command.measure, command.window, command.scope)
        for fact in world.limits:
            if (fact.origin, fact.entity, fact.measure, fact.window, fact.scope) == name:
                gone = command.amount is None and fact.amount is None
                if gone:
                    return Done(changed=False)
                same = (fact.amount, fact.mode) == (command.amount, command.mode)
                fact.amount, fact.mode = command.amount, command.mode
                return Done(changed=not same)
        if command.amount is None:
            return Done(changed=False)
        self._add_limit(*name, command.amount, command.mode)
        return Done()

    def _add_limit(
        self, origin: str, entity: str, measure: str, window: str, scope: object, amount: int, mode: str
    ) -> None:
        world = self.world
        world.limits.append(LimitFact(origin, entity, measure, window, scope, amount, mode, world.order))


def _plan_grant(grant: object) -> ask.IssueGrant:
    return ask.IssueGrant(
        grant=f"plan:{grant.id}", amount=grant.amount, label=grant.label, priority=grant.priority,
        category=grant.category, scope=grant.scope,
    )  # fmt: skip


__all__ = ["Answer", "Oracle", "Refused"]
