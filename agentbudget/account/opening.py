"""Opening, funding and ending sessions: the commands about a run's own budget and its children's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.admission import Row, budget_row, constraint, refusal, suggest
from agentbudget.account.decide import Call, Decided, Made, amount_ok, depth_ok, event_of, name_ok, replayed
from agentbudget.account.decision import Affordable, Decision, Done, Opened, failing_first
from agentbudget.account.queueing import recalling_or_final
from agentbudget.account.recall import Ask
from agentbudget.account.sessions import MAX_DEPTH
from agentbudget.account.state import SessionState
from agentbudget.amounts import Credits
from agentbudget.clock import SECOND_US
from agentbudget.errors import InvalidRequest, KeyConflict

SESSION_TTL_US = 24 * 3600 * SECOND_US
"""A session that nobody touched for a day is over: long enough for a person to come back, short enough to give credits back."""
MAX_STEP_US = 3600 * SECOND_US
"""A step open for an hour has been forgotten by its process: the longest model and tool calls end within minutes."""
MAX_ENTITIES = 16
MAX_CHILDREN = 10_000


def open_session(call: Call) -> Decided:
    command: c.OpenSession = call.command
    if f"session:{command.session}" in call.hits:
        return _join(call, command)
    refused = _new_ok(call, command)
    if refused is not None:
        return refused, []
    who = f"session:{command.session}"
    lack = _room(call, command.parent, command.budget or 0, who)
    if lack is not None:
        return recalling_or_final(call, lack.wanted, lack.refused), []
    call.books.recalls.leave(who)
    return Opened((command.session,)), _opening(call, command)


def _join(call: Call, command: c.OpenSession) -> Decided:
    session = call.books.rooms.get(command.session)
    if session is None or session.closed:
        return _closed(command.session), []
    created = event_of(call.hits[f"session:{session.id}"])
    for field in (
        "parent",
        "budget",
        "wind_down",
        "entities",
        "feature",
        "workflow",
        "breaker",
        "on_unknown",
        "on_denied",
    ):
        stated = getattr(command, field)
        if stated is not None and stated != getattr(created, field):
            raise KeyConflict(command.session, f"the open session has another {field}")
    return Opened((session.id,), joined=True), []


def _closed(session_id: str) -> Decision:
    detail = f"session {session_id!r} is closed"
    entity, other = f"session:{session_id}", ("open one under another id",)
    return refusal("session_closed", detail, entity=entity, session=session_id, suggestions=other)


def _new_ok(call: Call, command: c.OpenSession) -> Decision | None:
    """Check what does not depend on room; returns a refusal by unknown entity or closed parent."""
    name_ok(command.session, "session")
    budget = None if command.budget is None else amount_ok(command.budget, "budget")
    if amount_ok(command.wind_down or 0, "wind_down") > (budget or 0):
        raise InvalidRequest("may not be more than the budget", "wind_down")
    if len(command.entities or ()) > MAX_ENTITIES:
        raise InvalidRequest(f"a session may name at most {MAX_ENTITIES} entities", "entities")
    if command.parent is not None:
        parent = call.books.rooms.get(command.parent)
        if parent is None or parent.closed:
            return _closed(command.parent)
        if parent.depth >= MAX_DEPTH or len(parent.children) >= MAX_CHILDREN:
            raise InvalidRequest(f"sessions nest at most {MAX_DEPTH} deep with {MAX_CHILDREN} children each", "parent")
    for entity in command.entities or ():
        if entity not in call.books.state.parents and entity != c.ROOT and auto_parent(call, entity) is None:
            known = "create it first, or let the catalog's entity type create it (auto = true)"
            return refusal("unknown_entity", f"there is no entity {entity!r}", entity=entity, suggestions=(known,))
    return None


def auto_parent(call: Call, entity: str) -> str | None:
    """Where an entity that does not exist would be created, when its type is ``auto``; else None."""
    kind, colon, name = entity.partition(":")
    terms = call.books.state.terms
    types = () if terms is None or not (colon and name) or "*" in name else terms.entity_types
    for entity_type in types:
        if entity_type.type == kind and entity_type.auto:
            known = entity_type.parent == c.ROOT or entity_type.parent in call.books.state.parents
            return entity_type.parent if known else c.ROOT
    return None


class Lack(NamedTuple):
    """The sessions above have no room: the refusal, and what was wanted as the queue sees it."""

    refused: Decision
    wanted: Ask


def _room(call: Call, parent_id: str | None, units: int, who: str) -> Lack | None:
    """None when the sessions above can set ``units`` aside, behind those who asked before."""
    parent = None if parent_id is None else call.books.rooms.get(parent_id)
    if parent is None:
        return None
    rows: list[Row] = [
        budget_row(level, need, keep_wind_down=True)
        for level, need in call.books.rooms.needs(parent, units)
        if level.budget is not None
    ]
    wanted = Ask(who, rows, parent)
    if call.books.recalls.tickets:
        call.books.recalls.put_behind(wanted, call.now_us)
    if all(row[0] for row in rows):
        return None
    constraints = tuple(constraint(row) for row in rows)
    fits = Credits.of_nano(max(0, min((row[4] or 0) - row[5] - row[6] for row in rows)))
    binding = failing_first(constraints)[0]
    refused = Decision(
        False, binding.kind, constraints, Affordable(fits), Credits.of_nano(units),
        suggestions=suggest(binding, fits), session=parent.id,
    )  # fmt: skip
    return Lack(refused, wanted)


def _opening(call: Call, command: c.OpenSession) -> list[Made]:
    made = [Made(event) for event in _auto_entities(call, command.entities or ())]
    parent = None if command.parent is None else call.books.rooms.get(command.parent)
    return [*made, Made(_opened(command, parent), key=f"session:{command.session}")]


def _auto_entities(call: Call, entities: Iterable[str]) -> list[e.EntityPut]:
    made = []
    for entity in dict.fromkeys(entities):
        if entity != c.ROOT and entity not in call.books.state.parents:
            parent = auto_parent(call, entity) or c.ROOT
            name_ok(entity, "entities")
            depth_ok(call, entity, parent)
            made.append(e.EntityPut(entity, parent))
    return made


def _opened(command: c.OpenSession, parent: SessionState | None) -> e.SessionOpened:
    """What is not stated takes the parent's choice, else the default."""
    return e.SessionOpened(
        session=command.session,
        parent=command.parent,
        budget=command.budget,
        wind_down=command.wind_down or 0,
        entities=command.entities or (),
        feature=command.feature or (None if parent is None else parent.feature),
        workflow=command.workflow or (None if parent is None else parent.workflow),
        breaker=command.breaker or (None if parent is None else parent.breaker),
        on_unknown=command.on_unknown or ("charge" if parent is None else parent.on_unknown),
        on_denied=command.on_denied or ("refuse" if parent is None else parent.on_denied),
        ttl_us=SESSION_TTL_US if command.ttl_us is None else command.ttl_us,
        max_step_us=command.max_step_us or (MAX_STEP_US if parent is None else parent.max_step_us),
    )


def fan_out(call: Call) -> Decided:
    command: c.FanOut = call.command
    if not 1 <= command.at_least <= len(command.children) <= MAX_CHILDREN:
        raise InvalidRequest(f"at_least must be 1 to the number of children (at most {MAX_CHILDREN})", "at_least")
    parent = call.books.rooms.get(command.parent)
    if parent is not None and len(parent.children) + len(command.children) > MAX_CHILDREN:
        raise InvalidRequest(f"a session may have at most {MAX_CHILDREN} children", "children")
    if len({child.session for child in command.children}) < len(command.children):
        raise InvalidRequest("every child has an id of its own", "children")
    already = tuple(child.session for child in command.children if f"session:{child.session}" in call.hits)
    if already:
        return Opened(already, joined=True), []
    who = f"session:{command.children[0].session}"
    opened: list[str] = []
    made: list[Made] = []
    taken, refused, lack = 0, None, None
    for child in command.children:
        if child.parent != command.parent or child.budget is None:
            raise InvalidRequest("every child names the same parent and states a budget", "children")
        denial = _new_ok(call, child)
        full = None if denial is not None else _room(call, command.parent, taken + child.budget, who)
        lack = lack or full
        refused = refused or denial or (None if full is None else full.refused)
        if denial is None and full is None:
            taken += child.budget
            opened.append(child.session)
            made += _opening(call, child)
    if len(opened) >= command.at_least or refused is None:
        call.books.recalls.leave(who)
        return Opened(tuple(opened), refused=refused), _once(made)
    if lack is None or lack.refused is not refused:
        return refused, []
    return recalling_or_final(call, lack.wanted, refused), []


def _once(made: list[Made]) -> list[Made]:
    """Siblings that name the same new entity create it once."""
    seen: set[str] = set()
    kept = []
    for one in made:
        if isinstance(one.event, e.EntityPut):
            if one.event.entity in seen:
                continue
            seen.add(one.event.entity)
        kept.append(one)
    return kept


def fund_session(call: Call) -> Decided:
    command: c.FundSession = call.command
    if isinstance(before := replayed(call), e.SessionFunded):
        return Done(True, before.session), []
    amount_ok(command.amount, "amount", least=1)
    session = call.books.rooms.get(command.session)
    if session is None or session.closed:
        return _closed(command.session), []
    if session.budget is None:
        raise InvalidRequest(f"session {session.id!r} has no budget of its own to raise; resume it instead", "session")
    amount_ok(session.budget + command.amount, "budget")
    before_units = max(session.carve, session.consumption)
    more = max(session.carve + command.amount, session.consumption) - before_units
    lack = _room(call, session.parent, more, f"fund:{session.id}")
    if lack is not None:
        return recalling_or_final(call, lack.wanted, lack.refused), []
    call.books.recalls.leave(f"fund:{session.id}")
    return Done(True, session.id), [Made(e.SessionFunded(session.id, command.amount), key=call.key)]


def close_session(call: Call) -> Decided:
    command: c.CloseSession = call.command
    session = call.books.rooms.get(command.session)
    if session is None or session.closed:
        return Done(False, command.session), []
    event = e.SessionClosed(tuple(call.books.rooms.descendants(session)), command.reason)
    return Done(True, session.id), [Made(event)]


def latch(call: Call) -> Decided:
    command: c.Latch = call.command
    session = call.books.rooms.get(command.session)
    if session is None or session.closed or session.stopped:
        return Done(False, command.session), []
    return Done(True, session.id), [Made(e.SessionStopped(session.id, command.reason))]


SESSIONS: dict[type, Callable[[Call], Decided]] = {
    c.OpenSession: open_session,
    c.FanOut: fan_out,
    c.FundSession: fund_session,
    c.CloseSession: close_session,
    c.Latch: latch,
}
