"""decide(books, command) -> answer, drafts: what each command of the account's administration does. Steps are in ``holds.py``.

Nothing is changed here; a decision is a list of decided entries that ``apply`` then folds in. Commands that can never be right
raise (KeyConflict, InvalidRequest); refusals by balance are values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.books import Books
from agentbudget.account.decision import Answer, Done
from agentbudget.account.sessions import MAX_DEPTH
from agentbudget.account.state import GrantState
from agentbudget.amounts import MAX_NANO, format_nano
from agentbudget.catalog.terms import MEASURES, WINDOWS
from agentbudget.clock import SECOND_US
from agentbudget.errors import InvalidRequest, KeyConflict
from agentbudget.ledger.entry import AVAILABLE, CONSUMED, ISSUED, PAYMENTS, RECEIVABLE, VOIDED, Entry, Posting

MAX_NAME = 200
"""Longest id of anything: ids are in every entry, index and span."""
KEY_PREFIXES = ("grant:", "void:", "adjust:", "payment:", "session:", "fund:", c.LEASE_PREFIX)
MAX_TIME_US = 200_000_000_000 * SECOND_US
"""The year 8307: later than any contract, and calendar sums with it stay within what dates can say."""
MAX_TOTAL = MAX_NANO
"""A customer's issued credits may not pass 64 bits in sum, so that no total overflows a column."""


class Made(Struct, gc=False):
    """One decided entry: an event with its postings, and the key it is written under. ``rest``: what of it is not folded yet,
    where its decision needed the state after the first part of it."""

    event: e.Event
    postings: list[Posting] = []
    key: str | None = None
    rest: Made | None = None


class Call(Struct, gc=False):
    """A command with what it is decided on."""

    books: Books
    command: Any
    now_us: int
    hits: Mapping[str, Entry]
    key: str | None
    request: str | None


Decided = tuple[Answer, list[Made]]

_event_decoder = msgspec.json.Decoder(e.Event)


def event_of(entry: Entry) -> e.Event:
    """The event in an entry's body."""
    event: e.Event = _event_decoder.decode(entry.body)
    return event


def replayed(call: Call) -> e.Event | None:
    """The event that this key already has, for a command equal to the first; another one is KeyConflict (law L4)."""
    if call.key is not None and len(call.key) > 2 * MAX_NAME:
        raise InvalidRequest(f"a key may have at most {MAX_NAME} characters", "key")
    entry = None if call.key is None else call.hits.get(call.key)
    if entry is None:
        return None
    if entry.request != call.request:
        raise KeyConflict(call.key or "", type(call.command).__name__)
    return event_of(entry)


def name_ok(value: str, field: str) -> str:
    """An id that may be stored and shown: not empty, not too long, printable."""
    if not value or len(value) > MAX_NAME or not value.isprintable():
        raise InvalidRequest(f"must be 1 to {MAX_NAME} printable characters", field)
    return value


def step_ok(step: str) -> str:
    """A step's id is a key as it is, so it may look like no other key (see ``commands``)."""
    if "#" in step or step == c.ROOT or (":" in step and step.startswith(KEY_PREFIXES)):
        raise InvalidRequest(f"a step id may not contain # nor begin like another key, as {step[:20]!r} does", "step")
    return name_ok(step, "step")


def lease_ok(lease: str) -> str:
    """A lease's id, and with it those of its steps, is beside what a step's key may be: nobody's key can be taken for it."""
    name = lease.removeprefix(c.LEASE_PREFIX)
    if name in ("", lease) or "#" in name or "." in name:
        raise InvalidRequest(f"a lease id is {c.LEASE_PREFIX} and a name with neither # nor a full stop", "lease")
    return name_ok(lease, "lease")


def amount_ok(value: int, field: str, *, least: int = 0) -> int:
    """Nanocredits within bounds."""
    if not least <= value <= MAX_NANO:
        raise InvalidRequest(f"must be {least} to {MAX_NANO} nanocredits, not {value}", field)
    return value


def time_ok(value: int | None, field: str) -> None:
    """A time that calendars can count with; None states none."""
    if value is not None and not 0 <= value <= MAX_TIME_US:
        raise InvalidRequest(f"must be 0 to {MAX_TIME_US} microseconds since 1970, not {value}", field)


def create_customer(call: Call) -> Decided:
    command: c.CreateCustomer = call.command
    state = call.books.state
    if state.terms is not None:
        if (state.terms.plan, state.time_zone) != (command.terms.plan, command.time_zone):
            raise KeyConflict(state.customer, f"it is on plan {state.terms.plan!r} in zone {state.time_zone}")
        return Done(False, state.customer), []
    name_ok(state.customer, "customer")
    try:
        ZoneInfo(command.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(f"{command.time_zone!r} is no IANA time zone", "time_zone") from None
    time_ok(command.anchor_us, "anchor")
    anchor_us = call.now_us if command.anchor_us is None else command.anchor_us
    event = e.CustomerCreated(command.terms, command.time_zone, anchor_us)
    return Done(True, state.customer), [Made(event, key=call.key)]


def assign_plan(call: Call) -> Decided:
    if call.books.state.terms == call.command.terms:
        return Done(False), []
    return Done(), [Made(e.PlanAssigned(call.command.terms))]


def issue_grant(call: Call) -> Decided:
    command: c.IssueGrant = call.command
    before = replayed(call)
    if isinstance(before, e.GrantIssued):
        return Done(True, before.grant), []
    state = call.books.state
    name_ok(command.grant, "grant")
    amount_ok(command.amount, "amount", least=1)
    if (command.key or "").startswith("plan:"):
        raise InvalidRequest("a key may not begin with plan: (the plan's own grants have such keys)", "key")
    time_ok(command.effective_us, "effective_at")
    time_ok(command.expires_us, "expires_at")
    if command.grant.startswith(("@", "plan:", "refund:")) or command.grant in state.grants:
        raise KeyConflict(command.grant, "a grant of that id exists")
    if command.expires_us is not None and command.expires_us <= max(call.now_us, command.effective_us or 0):
        raise InvalidRequest("a grant must expire after it becomes effective, and in the future", "expires_at")
    if not 0 <= command.priority <= 255:
        raise InvalidRequest("must be 0 (burnt first) to 255", "priority")
    total_ok(call.books, command.amount)
    effective_us = call.now_us if command.effective_us is None else command.effective_us
    event = e.GrantIssued(
        command.grant, command.amount, command.label, command.category, command.priority, effective_us,
        command.expires_us, command.scope,
    )  # fmt: skip
    return Done(True, command.grant), [Made(event, issue_postings(command.grant, command.amount), call.key)]


def issue_postings(grant: str, amount: int) -> list[Posting]:
    """Credits come into being: out of the issued side, into what is available."""
    return [Posting(ISSUED, grant, -amount), Posting(AVAILABLE, grant, amount)]


def total_ok(books: Books, amount: int) -> None:
    """Refuse what would let all credits ever issued or drawn pass 64 bits: no balance can then, so none overflows."""
    if books.wallet.issued + amount > MAX_TOTAL:
        raise InvalidRequest("all credits together would pass 64 bits of nanocredits", "amount")


def _grant(call: Call, grant_id: str) -> GrantState:
    grant = call.books.state.grants.get(grant_id)
    if grant is None or grant_id.startswith("@"):
        raise InvalidRequest(f"there is no grant {grant_id!r}", "grant")
    if grant.is_expired(call.now_us):
        raise InvalidRequest(f"grant {grant_id!r} has expired", "grant")
    return grant


def void_grant(call: Call) -> Decided:
    command: c.VoidGrant = call.command
    before = replayed(call)
    if isinstance(before, e.GrantVoided):
        return Done(True, before.grant), []
    grant = _grant(call, command.grant)
    amount = grant.available if command.amount is None else amount_ok(command.amount, "amount")
    return _void(call, grant, amount, e.GrantVoided(grant.id, amount, command.reason))


def _void(call: Call, grant: GrantState, amount: int, event: e.GrantVoided | e.GrantAdjusted) -> Decided:
    if amount > grant.available:
        free = f"{format_nano(grant.available)} credits are free, {format_nano(grant.held)} are held"
        raise InvalidRequest(f"grant {grant.id!r}: {free}; only free credits can be taken back", "amount")
    if amount == 0:
        return Done(False, grant.id), []
    postings = [Posting(AVAILABLE, grant.id, -amount), Posting(VOIDED, grant.id, amount)]
    return Done(True, grant.id), [Made(event, postings, call.key)]


def adjust_grant(call: Call) -> Decided:
    command: c.AdjustGrant = call.command
    before = replayed(call)
    if isinstance(before, e.GrantAdjusted):
        return Done(True, before.grant), []
    grant = _grant(call, command.grant)
    event = e.GrantAdjusted(grant.id, command.amount, command.reason)
    if command.amount <= 0:
        return _void(call, grant, amount_ok(-command.amount, "amount"), event)
    amount_ok(command.amount, "amount")
    total_ok(call.books, command.amount)
    return Done(True, grant.id), [Made(event, issue_postings(grant.id, command.amount), call.key)]


def clear_receivable(call: Call) -> Decided:
    command: c.ClearReceivable = call.command
    if replayed(call) is not None:
        return Done(), []
    amount_ok(command.amount, "amount", least=1)
    owed = call.books.wallet.drawn(RECEIVABLE)
    if command.amount > owed:
        raise InvalidRequest(f"only {format_nano(owed)} credits are owed", "amount")
    amount = command.amount
    postings = [
        Posting(CONSUMED, RECEIVABLE, -amount), Posting(ISSUED, RECEIVABLE, amount),
        Posting(ISSUED, PAYMENTS, -amount), Posting(CONSUMED, PAYMENTS, amount),
    ]  # fmt: skip
    return Done(), [Made(e.ReceivableCleared(amount, command.reference), postings, call.key)]


def put_entity(call: Call) -> Decided:
    command: c.PutEntity = call.command
    state = call.books.state
    name_ok(command.entity, "entity")
    kind, colon, name = command.entity.partition(":")
    if not (colon and kind and name) or kind == "session" or "*" in command.entity:
        raise InvalidRequest(f"{command.entity!r} must be type:name, of a type other than session, without *", "entity")
    if command.parent != c.ROOT and command.parent not in state.parents:
        raise InvalidRequest(f"there is no entity {command.parent!r}", "parent")
    if state.parents.get(command.entity) == command.parent:
        return Done(False, command.entity), []
    depth_ok(call, command.entity, command.parent)
    return Done(True, command.entity), [Made(e.EntityPut(command.entity, command.parent))]


def depth_ok(call: Call, entity: str, parent: str) -> None:
    """Refuse a circle, or a tree deeper than it may be (with what hangs below an entity that moves)."""
    state = call.books.state
    above = 1
    while parent != c.ROOT:
        if parent == entity:
            raise InvalidRequest(f"{entity!r} cannot be below itself", "parent")
        parent, above = state.parents[parent], above + 1
    if above + (_height(state.parents, entity) if entity in state.parents else 0) > MAX_DEPTH:
        raise InvalidRequest(f"the tree may be at most {MAX_DEPTH} deep", "parent")


def _height(parents: Mapping[str, str], entity: str) -> int:
    level, height = {entity}, 0
    while level := {child for child, parent in parents.items() if parent in level}:
        height += 1
    return height


def known_node(books: Books, entity: str) -> bool:
    """True for the root, an entity of the tree, or a session that is open."""
    if entity == c.ROOT or entity in books.state.parents:
        return True
    session = books.rooms.get(entity.removeprefix("session:")) if entity.startswith("session:") else None
    return session is not None and not session.closed


def set_limit(call: Call) -> Decided:
    command: c.SetLimit = call.command
    books = call.books
    _limit_ok(call, command)
    known = books.limits.find(command.entity, command.measure, command.window, command.scope, origin="admin")
    if command.amount is None and (known is None or known.amount is None):
        return Done(False), []
    if known is not None and (known.amount, known.mode) == (command.amount, command.mode):
        return Done(False, str(known.id)), []
    limit_id = books.state.next_limit if known is None else known.id
    event = e.LimitSet(
        limit_id, command.entity, command.amount, command.measure, command.window, command.mode, command.scope
    )
    return Done(True, str(limit_id)), [Made(event)]


def _limit_ok(call: Call, command: c.SetLimit) -> None:
    name_ok(command.entity, "entity")
    name_ok(command.measure, "measure")
    kind, colon, rest = command.entity.partition(":")
    pattern = bool(kind) and colon == ":" and rest == "*"
    if not pattern and not known_node(call.books, command.entity):
        raise InvalidRequest(f"there is no entity {command.entity!r}; create it first", "entity")
    terms = call.books.state.terms
    features = () if terms is None or terms.features is None else tuple(f.feature for f in terms.features)
    if (
        command.measure not in MEASURES
        and command.measure not in features
        and terms is not None
        and terms.features is not None
    ):
        raise InvalidRequest(f"{command.measure!r} is none of {', '.join((*MEASURES, *features))}", "measure")
    if command.window not in WINDOWS:
        raise InvalidRequest(f"{command.window!r} is none of {', '.join(WINDOWS)}", "window")
    if command.mode not in ("hard", "soft"):
        raise InvalidRequest(f"{command.mode!r} is neither hard nor soft", "mode")
    if command.amount is not None:
        amount_ok(command.amount, "amount")


def set_paused(call: Call) -> Decided:
    command: c.SetPaused = call.command
    books = call.books
    if not known_node(books, command.entity):
        raise InvalidRequest(f"there is no entity or open session {command.entity!r}", "entity")
    paused = command.entity in books.state.paused
    session = (
        books.rooms.get(command.entity.removeprefix("session:")) if command.entity.startswith("session:") else None
    )
    stopped = session is not None and bool(session.stopped)
    if paused == command.paused and not (stopped and not command.paused):
        return Done(False), []
    return Done(), [Made(e.PauseSet(command.entity, command.paused, command.reason[:MAX_NAME]))]


ADMINISTRATION: dict[type, Callable[[Call], Decided]] = {
    c.CreateCustomer: create_customer,
    c.AssignPlan: assign_plan,
    c.IssueGrant: issue_grant,
    c.VoidGrant: void_grant,
    c.AdjustGrant: adjust_grant,
    c.ClearReceivable: clear_receivable,
    c.PutEntity: put_entity,
    c.SetLimit: set_limit,
    c.SetPaused: set_paused,
}
