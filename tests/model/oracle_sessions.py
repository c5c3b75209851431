"""The oracle's sessions: opening and joining, children and fan-out, funding, pausing, latching, closing."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import asdict

from agentbudget.account import commands as ask
from agentbudget.account.decision import Done, Opened
from agentbudget.errors import InvalidRequest, KeyConflict
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

    def _open(self, command: ask.OpenSession, now: int) -> tuple[object, bool]:
        present = self.world.sessions.get(command.session)
        if present is not None:
            return self._join(present, command)
        if (command.wind_down or 0) > (command.budget or 0):
            raise InvalidRequest("keeps more than the budget")
        if refused := self._refused(command):
            return refused, False
        self.world.sessions[command.session] = SessionFact(command, now)
        return Opened((command.session,)), True

    def _join(self, present: SessionFact, command: ask.OpenSession) -> tuple[object, bool]:
        if present.closed:
            return frozenset({"session_closed"}), False
        created = asdict(present.opened)
        for name, stated in asdict(command).items():
            effective = _DEFAULTS.get(name) if created[name] is None else created[name]
            if name in ("on_unknown", "on_denied", "feature", "workflow", "breaker"):
                effective = self.world.effective(present.id, name, _DEFAULTS.get(name))
            if stated is not None and stated != effective:
                raise KeyConflict(f"session:{command.session}", name)
        return Opened((command.session,), joined=True), False

    def _refused(self, command: ask.OpenSession) -> frozenset[str]:
        parent = command.parent
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
        return frozenset(reasons)

    def _fan_out(self, command: ask.FanOut, now: int) -> tuple[object, bool]:
        present = tuple(child.session for child in command.children if child.session in self.world.sessions)
        if present:  # it was answered before: what it opened then is all it ever opens (law L4)
            return Opened(present, joined=True), False
        opened: list[str] = []
        refused = None
        for child in command.children:
            answer, _ = self._open(child, now)
            if isinstance(answer, frozenset):
                refused = answer
                break
            opened.append(child.session)
        if len(opened) < command.at_least:
            for session in opened:
                del self.world.sessions[session]
            return refused, False
        return Opened(tuple(opened), refused=refused), True

    # --- governing ---

    def govern(self, command: ask.Command) -> object:
        match command:
            case ask.SetPaused():
                return self._pause(command)
            case ask.FundSession():
                return self._fund(command)
            case ask.CloseSession(session=session):
                return Done(changed=self._close(self._open_one(session, closed=True)), id=session)
            case ask.Latch(session=session):
                fact = self._open_one(session, closed=True)
                changed = not fact.latched and not fact.closed
                fact.latched = fact.latched or changed
                return Done(changed=changed, id=session)

    def _open_one(self, session: str, *, closed: bool = False) -> SessionFact:
        fact = self.world.sessions.get(session)
        if fact is None or (fact.closed and not closed):
            raise InvalidRequest("no such open session")
        return fact

    def _pause(self, command: ask.SetPaused) -> Done:
        entity, paused = command.entity, self.world.paused
        session = self._open_one(entity[len(_SESSION) :]) if entity.startswith(_SESSION) else None
        if session is None and entity not in self.world.entities:
            raise InvalidRequest("no such entity")
        changed = command.paused != (entity in paused)
        (paused.add if command.paused else paused.discard)(entity)
        if session is not None and not command.paused:
            changed = changed or session.latched
            if changed:
                self._unlatch(session)
        return Done(changed=changed, id=entity)

    def _unlatch(self, session: SessionFact) -> None:
        session.latched = False
        session.refusals_in_row = session.errors_in_row = 0

    def _fund(self, command: ask.FundSession) -> object:
        session = self._open_one(command.session, closed=True)
        if session.closed:
            return frozenset({"session_closed"}), False
        if session.budget is None:
            raise InvalidRequest("a session without a budget needs no funds")
        if session.parent is not None:
            used = self.world.consumption(session.id)
            more = max(session.budget + command.amount, used) - max(session.budget, used)
            if not self.world.fits(session.parent, more, wind_down=False):
                return frozenset({"session_budget"}), False
        session.funds.append(command.amount)
        self._unlatch(session)
        return Done(id=command.session)

    def _close(self, session: SessionFact) -> bool:
        changed = not session.closed
        session.closed = True
        for child in self.world.children(session.id):
            self._close(child)
        return changed
