"""One customer's account: command in, answer and decided entries out. Pure: no clock, no I/O, no randomness (DESIGN.md §4).

The owner calls :meth:`Account.handle` for each command in turn, seals and commits the drafts, and only then lets the answers go.
A failed commit discards the account; it is folded again from the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account import maturity
from agentbudget.account.apply import apply, apply_paid
from agentbudget.account.books import Books
from agentbudget.account.decide import ADMINISTRATION, Call, Made, event_of
from agentbudget.account.decision import Answer, Decision, Renewed, refusal_of_customer
from agentbudget.account.ending import ENDS
from agentbudget.account.holds import STEPS
from agentbudget.account.lease_ends import LEASES
from agentbudget.account.leases import lease_of
from agentbudget.account.opening import SESSIONS
from agentbudget.account.state import NEVER_US, State
from agentbudget.account.views import read
from agentbudget.account.wallet import pay_debts
from agentbudget.errors import AgentBudgetError, InvalidRequest, InvariantBroken, LedgerCorrupt
from agentbudget.ledger.entry import ISSUED, Draft, Entry
from agentbudget.ledger.journal import DenialNote

SNAPSHOT_FORMAT: Final = 2
MAX_NOTES: Final = 1_000
"""Denial notes kept until the owner takes them; beyond it they are dropped: they are best effort, and coalesced already."""

_DECIDERS = {**ADMINISTRATION, **SESSIONS, **STEPS, **ENDS, **LEASES, c.Read: read}
_PAYERS = (e.GrantIssued, e.GrantAdjusted, e.HoldSettled, e.HoldCorrected, e.DebtPaid, e.LeaseRenewed)
_KINDS: Final[dict[type, str]] = {kind: str(kind.__struct_config__.tag) for kind in get_args(e.Event)}
_STEP_COMMANDS = (c.Hold, c.OpenSession, c.FanOut, c.Explain, c.FundSession)

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(State).decode


class Outcome(Struct, gc=False):
    """What a command came to: an answer or an error, and the entries to commit first (already applied)."""

    answer: Answer | None
    error: AgentBudgetError | None
    drafts: list[Draft]


class Account:
    """A customer's books and the one way to change them."""

    def __init__(self, customer: str, state: State | None = None) -> None:
        self.customer = customer
        self._books = Books(State(customer) if state is None else state)
        self._now_us = self._books.state.time_us
        self._turn_us = 0
        self._notes: dict[tuple[str, str, str, str, str], DenialNote] = {}

    # -- commands -------------------------------------------------------------------------------------------------------

    def handle(
        self, command: c.Command, *, now_us: int, hits: Mapping[str, Entry], request: str | None = None
    ) -> Outcome:
        """Decide one command and apply it. ``hits``: the entries that carry ``keys_of(command)``; ``request``: the command's
        ``request_hash`` if the caller has it already. Time never goes back here."""
        books, kind = self._books, type(command)
        if now_us < self._now_us:
            now_us = self._now_us
        else:
            self._now_us = now_us
        if books.state.terms is None and kind is not c.CreateCustomer:
            return self._unknown(command)
        drafts = list(self._mature(now_us)) if now_us >= self._turn_us else []
        if books.recalls.tickets:
            books.recalls.drop_forgotten(now_us)
        key = c.key_of(command)
        if key is not None and request is None:
            request = c.request_hash(command)
        try:
            answer, made = _DECIDERS[kind](Call(books, command, now_us, hits, key, request))
        except InvariantBroken:
            raise
        except AgentBudgetError as error:
            # Without its traceback: that leads back to this outcome, which the collector does not look at (gc=False).
            return Outcome(None, error.with_traceback(None), drafts)
        for one in made:
            drafts.append(self._enter(one, request, now_us))
        if kind is c.CreateCustomer or kind is c.AssignPlan:
            drafts += self._mature(now_us)
        elif kind is c.IssueGrant:  # what was just issued may turn sooner than anything before
            self._turn_us = min(self._turn_us, books.wallet.next_change_us)
        elif type(answer) is Decision and not answer.allowed:
            self._note(command, answer, now_us)
        elif type(answer) is Renewed and answer.refused is not None and isinstance(command, c.Renew):
            self._note(command.ask, answer.refused, now_us)
        return Outcome(answer, None, drafts)

    def _unknown(self, command: c.Command) -> Outcome:
        if isinstance(command, _STEP_COMMANDS):
            return Outcome(refusal_of_customer(self.customer), None, [])
        error = InvalidRequest(f"there is no customer {self.customer!r}; create it first", "customer")
        return Outcome(None, error, [])

    def _enter(self, made: Made, request: str | None, now_us: int) -> Draft:
        """Apply a decided entry; credits it freed pay overdraft in the same entry."""
        books, event, postings = self._books, made.event, made.postings
        state = books.state
        seq = state.seq + 1
        part = made if made.rest is None else made.rest
        apply(books, seq=seq, time_us=now_us, postings=part.postings, event=part.event)
        if state.debts and isinstance(event, _PAYERS):
            more, paid = pay_debts(books.wallet, state.debts)
            if paid:
                apply_paid(books, more, tuple(paid))
                event, postings = replace(event, paid=(*event.paid, *paid)), postings + more
        request = None if made.key is None else request
        return Draft(self.customer, seq, now_us, _KINDS[type(event)], tuple(postings), event, made.key, request)

    def _mature(self, now_us: int) -> Iterator[Draft]:
        """Catch up with what time alone brings, before the command that found it."""
        books = self._books
        for made in maturity.due_grants(books, now_us):
            yield self._enter(made, None, now_us)
        while (expired := maturity.due_expiry(books, now_us)) is not None:
            yield self._enter(expired, None, now_us)
        if books.wallet.mature(now_us) and books.state.debts:
            yield from self._paid_by_time(now_us)
        self._turn_us = maturity.next_turn_us(books, now_us)

    def _paid_by_time(self, now_us: int) -> Iterator[Draft]:
        postings, paid = pay_debts(self._books.wallet, self._books.state.debts)
        if paid:
            yield self._enter(Made(e.DebtPaid(tuple(paid)), postings), None, now_us)

    # -- the fold -------------------------------------------------------------------------------------------------------

    def replay(self, entry: Entry) -> None:
        """Fold one recorded entry; LedgerCorrupt when it does not fit what came before."""
        try:
            event = event_of(entry)
            apply(self._books, seq=entry.seq, time_us=entry.time_us, postings=entry.postings, event=event)
        except (InvariantBroken, msgspec.DecodeError, KeyError, ValueError) as error:
            raise LedgerCorrupt(f"the entry does not fold: {error}", self.customer, entry.seq) from error
        self._turn_us, self._now_us = 0, max(self._now_us, entry.time_us)

    def snapshot(self) -> bytes:
        """The state encoded; ``restore`` gives an equal account (but for what only this process remembers)."""
        return _pack(self._books.state)

    @classmethod
    def restore(cls, customer: str, state: bytes) -> Account:
        """The account of a snapshot; raises LedgerCorrupt when it is none of this customer's."""
        try:
            decoded = _unpack(state)
        except msgspec.DecodeError as error:
            raise LedgerCorrupt(f"the snapshot cannot be read: {error}", customer) from error
        if decoded.customer != customer:
            raise LedgerCorrupt(f"the snapshot is of {decoded.customer!r}", customer)
        return cls(customer, decoded)

    # -- for the owner --------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return self._books.state.terms is not None

    @property
    def seq(self) -> int:
        return self._books.state.seq

    @property
    def time_us(self) -> int:
        return self._books.state.time_us

    @property
    def idle(self) -> bool:
        """True when no hold is open: the account can be put away."""
        return not self._books.state.holds

    @property
    def size(self) -> int:
        """How many things a snapshot would hold."""
        state = self._books.state
        return len(state.grants) + len(state.holds) + len(state.sessions) + len(state.parents) + len(state.limits)

    @property
    def plan(self) -> tuple[str, str] | None:
        """Plan and catalog version in force."""
        terms = self._books.state.terms
        return None if terms is None else (terms.plan, terms.catalog)

    def is_open(self, step: str) -> bool:
        """True when the step's hold is open: its end cannot be in the journal, so nobody need look."""
        return step in self._books.state.holds

    def overdue(
        self,
        now_us: int,
        live: Container[str],
        *,
        is_silent: Callable[[str], bool] = lambda holder: False,
        lapse_after_us: int = NEVER_US,
        charge: bool = True,
    ) -> list[c.Command]:
        """What the owner should end: holds of silent holders past their ttl, of live ones past the longest step; leases of
        silent holders (suspended, and after ``lapse_after_us`` of that lapsed); sessions past their time to live.

        ``live``: steps whose holder is known to be alive; ``is_silent``: whether a process that holds leases was not heard of
        for too long; ``charge``: what a lapse does."""
        found = self._overdue_holds(now_us, live)
        for holder in self._books.leases.holders:
            if is_silent(holder):
                for hold in self._books.leases.of_holder(holder):
                    since_us = lease_of(hold).suspended_us
                    if since_us is None:
                        found.append(c.SuspendLease(hold.step))
                    elif now_us >= since_us + lapse_after_us:
                        found.append(c.LapseLease(hold.step, charge))
        if now_us >= self._books.next_close_us:
            found += self._overdue_sessions(now_us)
        return found

    def _overdue_holds(self, now_us: int, live: Container[str]) -> list[c.Command]:
        state = self._books.state
        found: list[c.Command] = []
        if len(state.holds) == self._books.leases.count:
            return found
        for hold in state.holds.values():
            if hold.lease is not None:
                continue
            session = state.sessions[hold.session]
            if now_us >= hold.opened_us + session.max_step_us:
                found.append(c.LapseHold(hold.step, "max_seconds"))
            elif hold.step not in live and now_us >= hold.opened_us + hold.ttl_us:
                found.append(c.LapseHold(hold.step, "silent"))
        return found

    def _overdue_sessions(self, now_us: int) -> list[c.Command]:
        """Looks at every session, so it also finds out when it need not look again."""
        found: list[c.Command] = []
        next_us = NEVER_US
        for session in self._books.state.sessions.values():
            if session.closed:
                continue
            ends_us = session.touched_us + session.ttl_us
            if now_us >= ends_us and not session.open_holds and not session.children:
                found.append(c.CloseSession(session.id, "ttl"))
            next_us = min(next_us, ends_us)
        self._books.next_close_us = next_us
        return found

    def recalled(self, holder: str) -> tuple[str, ...]:
        """The holder's leases that are asked back and have not answered: by recalls up to the number ``told``. A renewal that
        says it has heard of that number is the answer."""
        return self._books.recalls.tell(holder)

    @property
    def told(self) -> int:
        """The number of the last recall."""
        return self._books.recalls.made

    def has_news(self) -> bool:
        """Whether any lease has been asked back since the last call."""
        news, self._books.recalls.is_news = self._books.recalls.is_news, False
        return news

    def is_due(self, renew: c.Renew) -> bool:
        """True when the message is the next one of an open lease: the journal can have none of its keys."""
        hold = self._books.state.holds.get(renew.lease)
        return hold is not None and hold.lease is not None and renew.seq == hold.lease.seq + 1

    def balances(self) -> dict[str, dict[str, int]]:
        """Grant -> account -> nanocredits as this fold has them, to be compared with the postings' own sums."""
        return {
            grant.id: {
                ISSUED: -grant.issued, "available": grant.available, "held": grant.held, "consumed": grant.consumed,
                "expired": grant.expired, "voided": grant.voided,
            }
            for grant in self._books.state.grants.values()
        }  # fmt: skip

    def denial_notes(self) -> list[DenialNote]:
        """Take the refusals noted since the last call."""
        notes, self._notes = list(self._notes.values()), {}
        return notes

    def _note(self, command: Any, decision: Decision, now_us: int) -> None:
        hold = command.hold if isinstance(command, c.Explain) else command
        if isinstance(command, c.Explain) or not getattr(hold, "note_refusal", True):
            return
        binding = decision.binding
        entity = "" if binding is None else binding.entity
        kind, name = getattr(hold, "kind", "session"), getattr(hold, "model", None) or getattr(hold, "tool", None) or ""
        key = (decision.session, entity, str(decision.reason), kind, name)
        known = self._notes.get(key)
        if known is None and len(self._notes) >= MAX_NOTES:
            return
        count = 1 if known is None else known.count + 1
        self._notes[key] = DenialNote(self.customer, now_us, *key, count=count)
