"""The oracle's sessions: opening and joining, children and fan-out, funding, pausing, latching, closing."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import asdict

from agentbudget.account import commands as ask
from agentbudget.account.decision import Done, Opened
from agentbudget.errors import InvalidRequest, KeyConflict
from tests.model.oracle_facts import Recalled, Refused
from tests.model.oracle_levels import Asker, Levels
from tests.model.oracle_tickets import AMOUNTS, Shortage
from tests.model.oracle_world import SessionFact, World

_SESSION = "session:"
_DEFAULTS = {"wind_down": 0, "entities": (), "on_unknown": "charge", "on_denied": "refuse"}
"""What a session is opened with when nothing is stated; a join may state it."""


@dataclass
class Sessions:
    """The commands about sessions, over a world."""

    world: World

    # --- opening ---

    def open(self, command: ask.OpenSession | ask.FanOut, now: int) -> tuple[object, bool]:
        return self._fan_out(command, now) if isinstance(command, ask.FanOut) else self._open(command, now)

    def _open(self, command: ask.OpenSession, now: int, *, fan_out: str | None = None) -> tuple[object, bool]:
        present = self.world.sessions.get(command.session)
        if present is not None:
            return self._join(present, command)
        if (command.wind_down or 0) > (command.budget or 0):
            raise InvalidRequest("keeps more than the budget")
        if refused := self._refused(command, now, fan_out):
            return refused, False
        self.world.sessions[command.session] = SessionFact(command, now, rest_us=now)
        return Opened((command.session,)), True

    def _join(self, present: SessionFact, command: ask.OpenSession) -> tuple[object, bool]:
        if present.closed:
            return Refused(frozenset({"session_closed"})), False
        created = asdict(present.opened)
        for name, stated in asdict(command).items():
            effective = _DEFAULTS.get(name) if created[name] is None else created[name]
            if name in ("on_unknown", "on_denied", "feature", "workflow", "breaker"):
                effective = self.world.effective(present.id, name, _DEFAULTS.get(name))
            if stated is not None and stated != effective:
                raise KeyConflict(f"session:{command.session}", name)
        return Opened((command.session,), joined=True), False

    def _refused(self, command: ask.OpenSession, now: int, fan_out: str | None) -> Refused | Recalled | None:
        parent, who = command.parent, fan_out or f"session:{command.session}"
        if parent is not None and parent not in self.world.sessions:
            raise InvalidRequest("no such parent")
        reasons = set()
        if any(entity not in self.world.entities for entity in command.entities or ()):
            reasons.add("unknown_entity")
        if parent is not None:
            if self.world.sessions[parent].closed:
                reasons.add("session_closed")
            elif not self.world.fits(parent, command.budget or 0, wind_down=False):
                reasons.add("session_budget")
        return self._room(who, parent, command.budget or 0, frozenset(reasons), now, recalls=fan_out is None)

    def _room(
        self, who: str, parent: str | None, units: int, reasons: frozenset[str], now: int, *, recalls: bool = True
    ) -> Refused | Recalled | None:
        """None: what is carved fits, or nothing is."""
        if not reasons <= AMOUNTS:
            return Refused(reasons)
        shortage = Shortage(self.world, who, now)
        find = Levels(self.world, Asker(parent or ""), now)
        levels = [] if parent is None or units <= 0 else list(find.of_budgets(parent, units, 1, wind_down=False))
        return shortage.judge(reasons, levels) if recalls else shortage.refuses(reasons, levels)

    def _fan_out(self, command: ask.FanOut, now: int) -> tuple[object, bool]:
        present = tuple(child.session for child in command.children if child.session in self.world.sessions)
        if present:  # it was answered before: what it opened then is all it ever opens (law L4)
            return Opened(present, joined=True), False
        opened: list[str] = []
        refused, who = None, f"session:{command.children[0].session}"
        for child in command.children:
            answer, _ = self._open(child, now, fan_out=who)
            if isinstance(answer, Refused):
                refused = answer
                break
            opened.append(child.session)
        if len(opened) < command.at_least:
            for session in opened:
                del self.world.sessions[session]
            units = sum(child.budget or 0 for child in command.children[: len(opened) + 1])
            return self._room(who, command.parent, units, refused.reasons, now), False
        Shortage(self.world, who, now).served()
        return Opened(tuple(opened), refused=refused), True

    # --- governing ---

    def govern(self, command: ask.Command, now: int) -> object:
        match command:
            case ask.SetPaused():
                return self._pause(command, now)
            case ask.FundSession():
                return self._fund(command, now)
            case ask.CloseSession(session=session):
                return Done(changed=self._close(self._open_one(session, closed=True)), id=session)
            case ask.Latch(session=session):
                fact = self._open_one(session, closed=True)
                changed = not fact.latched and not fact.closed
                fact.latched = fact.latched or changed
                if changed:
                    self.world.ask_back(self.world.leases(fact.id))
                return Done(changed=changed, id=session)

    def _open_one(self, session: str, *, closed: bool = False) -> SessionFact:
        fact = self.world.sessions.get(session)
        if fact is None or (fact.closed and not closed):
            raise InvalidRequest("no such open session")
        return fact

    def _pause(self, command: ask.SetPaused, now: int) -> Done:
        entity, paused = command.entity, self.world.paused
        session = self._open_one(entity[len(_SESSION) :]) if entity.startswith(_SESSION) else None
        if session is None and entity not in self.world.entities:
            raise InvalidRequest("no such entity")
        changed = command.paused != (entity in paused)
        (paused.add if command.paused else paused.discard)(entity)
        if session is not None and not command.paused:
            changed = changed or session.latched
            if changed:
                self._rest(session, now)
        if changed and session is None:
            self.world.policy_changes()
        if changed and session is not None:
            self.world.ask_back(self.world.leases(session.id))
        return Done(changed=changed, id=entity)

    def _rest(self, session: SessionFact, now: int) -> None:
        """It goes on, and its breaker counts anew."""
        session.latched = False
        session.refusals_in_row = session.errors_in_row = 0
        session.rest_us, session.rest_steps = now, self.world.ran(session.id)
        session.rest_order = self.world.order

    def _fund(self, command: ask.FundSession, now: int) -> object:
        session = self._open_one(command.session, closed=True)
        if session.closed:
            return Refused(frozenset({"session_closed"})), False
        if session.budget is None:
            raise InvalidRequest("a session without a budget needs no funds")
        if session.parent is not None:
            used = self.world.consumption(session.id)
            more = max(session.budget + command.amount, used) - max(session.budget, used)
            fits = self.world.fits(session.parent, more, wind_down=False)
            reasons = frozenset() if fits else frozenset({"session_budget"})
            if refused := self._room(f"fund:{session.id}", session.parent, more, reasons, now):
                return refused, False
        session.funds.append(command.amount)
        self._rest(session, now)
        self.world.ask_back(self.world.leases(session.id))
        return Done(id=command.session)

    def _close(self, session: SessionFact) -> bool:
        changed = not session.closed
        session.closed = True
        for child in self.world.children(session.id):
            self._close(child)
        if changed:
            self.world.ask_back([lease for lease in self.world.leases() if lease.session == session.id])
        return changed
