"""The owner: the single writer of its customers. Synchronous and without threads; a host gives it one.

One batch, in order: load the customers (snapshot and replay), look up every key in one query, decide each command, seal
what was decided, commit everything in one transaction, answer. Nothing is answered before that commit (laws L1, L9).
After any failure the states are thrown away and read again from the journal: memory is never trusted over the store
(law L6)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from agentbudget.account.account import SNAPSHOT_FORMAT, Account
from agentbudget.account.commands import (
    Command,
    CreateCustomer,
    Hold,
    LapseLease,
    Read,
    ReleaseHold,
    Renew,
    SettleHold,
    keys_of,
)
from agentbudget.account.decision import Answer
from agentbudget.clock import SECOND_US, Clock
from agentbudget.errors import AgentBudgetError, InvariantBroken, LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger.entry import Draft, Entry, Sealed, decode, genesis, seal
from agentbudget.ledger.journal import Batch, DenialNote, Snapshot
from agentbudget.ledger.store import Store
from agentbudget.runtime import watching
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.owner.checking import malformed, unknown_customer
from agentbudget.runtime.owner.folding import fold
from agentbudget.runtime.owner.heard import Heard

SNAPSHOT_EVERY: Final = 1_000
"""Entries between snapshots of a small customer: replaying as many takes some 20 ms."""
SNAPSHOT_BYTES_PER_ENTRY: Final = 256
"""A big state is written less often: a snapshot adds at most about half of what the entries since the last one weigh."""
IDLE_SECONDS: Final = 300
"""A customer without open holds is put away after so long without a command; loading it again costs a millisecond."""
MAX_LOADED: Final = 10_000
"""Customers in memory at once; the least recently used idle ones make room (an idle customer costs about 10 KB)."""
MAX_BATCH: Final = 512
"""Commands in one transaction: far beyond what one commit's latency gathers, and nobody waits long behind it."""
MAX_OVERDUE: Final = 64
"""Overdue commands of one customer in one batch; the rest follow at the next tick."""

LAPSE_AFTER_US: Final = 24 * 3600 * SECOND_US
"""What a silent holder has not reported stays held for so long (DESIGN.md §4, crash): a machine may be down overnight."""
HOLDER_TTL_US: Final = 10 * SECOND_US
"""A holder says once a second that it lives; after so long without it is silent."""

_ENDS: Final = (SettleHold, ReleaseHold, LapseLease, Renew)
_NO_HITS: Final[Mapping[str, Entry]] = {}

Request = tuple[str, Command]
Reply = Answer | AgentBudgetError


class _Loaded(Struct):
    """A customer in memory: its account, the hash of its newest entry, and what decides about the next snapshot."""

    account: Account
    head: str
    used_us: int
    since_snapshot: int = 0
    snapshot_after: int = SNAPSHOT_EVERY


class _Work(Struct):
    """What one batch has gathered so far. ``known``: the entries by (customer, key) that the journal was found to have, and
    those that this batch writes."""

    known: dict[tuple[str, str], Sealed]
    entries: list[Sealed]
    touched: dict[str, _Loaded]
    denials: list[DenialNote]


class Owner:
    """Serialises every command of its customers. Not thread-safe: exactly one thread may call it.

    ``live`` holds the ids of steps whose holder is known to be alive: their holds do not lapse by silence. A lease whose holder
    is silent for ``holder_ttl_us`` is suspended, and after ``lapse_after_us`` of that lapses: ``on_lapse`` charges what it holds,
    or releases it.
    """

    def __init__(
        self,
        journal: Store,
        clock: Clock,
        *,
        name: str,
        live: Container[str] = frozenset(),
        lapse_after_us: int = LAPSE_AFTER_US,
        on_lapse: Literal["charge", "release"] = "charge",
        holder_ttl_us: int = HOLDER_TTL_US,
    ) -> None:
        self._journal, self._clock, self._live = journal, clock, live
        self._lapse_after_us, self._charge = lapse_after_us, on_lapse == "charge"
        self._heard = Heard(clock, holder_ttl_us)
        self._has_committed, self._has_news = False, False
        self._loaded: dict[str, _Loaded] = {}
        self.name = name
        self.epoch = journal.claim(name)

    @property
    def has_customers(self) -> bool:
        """Whether a tick could have anything to do."""
        return bool(self._loaded)

    def handle(self, requests: Sequence[Request], *, checked: Container[int] = ()) -> list[Reply]:
        """Decide a batch (at most ``MAX_BATCH`` commands) in order and make it durable; one answer or error for each.
        ``checked``: places in the batch of commands whose types are known to be right, because a decoder made them.

        Never raises: an error is the answer of the command that it belongs to, and of every command of the batch when
        the commit failed or its outcome is unknown. Sending the same commands again is then safe (law L4)."""
        try:
            replies, work = self._decide_all(requests, checked)
        except (OwnerUnavailable, LedgerCorrupt) as error:
            return self._failed(requests, error)
        except Exception as error:  # a bug, and nothing was written: only the command that shows it may suffer from it
            if len(requests) == 1:
                return self._failed(requests, error)
            self._discard()
            return [
                self.handle([request], checked=(0,) if at in checked else ())[0] for at, request in enumerate(requests)
            ]
        try:
            self._commit(work)
        except Exception as error:
            return self._failed(requests, error)
        return replies

    def beat(self, beat: Beat) -> Beaten:
        """A process that holds leases lives. Answers which of them are asked back; raises ``OwnerUnavailable`` when this owner
        cannot vouch for that."""
        self._heard.note(beat.holder)
        self._load_beating([customer for customer in beat.customers if customer not in self._loaded])
        beaten = Beaten({}, told={})
        for customer in beat.customers:
            loaded = self._loaded.get(customer)
            if loaded is not None and (leases := loaded.account.recalled(beat.holder)):
                beaten.recall[customer], beaten.told[customer] = leases, loaded.account.told
        return beaten

    def has_recalls(self) -> bool:
        """Whether leases have been asked back since the last call: a host may nudge its holders to beat at once."""
        news, self._has_news = self._has_news, False
        return news

    def _load_beating(self, customers: Sequence[str]) -> None:
        """After a start: bring in the customers that a holder has leases of. Reading is a commit too, so it shows a fence."""
        for at in range(0, len(customers), MAX_BATCH):
            for reply in self.handle([(customer, Read("customer")) for customer in customers[at : at + MAX_BATCH]]):
                if isinstance(reply, OwnerUnavailable):
                    raise reply

    def tick(self) -> None:
        """End what is overdue (silent holds and leases, old sessions), put idle customers away, and make sure that this is still
        the owner. Never raises what ``handle`` answers."""
        now_us = self._clock.now_us()
        overdue = [(customer, self._overdue(loaded, now_us)) for customer, loaded in self._loaded.items()]
        for customer, commands in overdue:
            for at in range(0, len(commands), MAX_BATCH):
                self.handle([(customer, command) for command in commands[at : at + MAX_BATCH]])
        self._put_away_idle()
        self._heard.forget_silent()
        self._check_epoch()

    def _check_epoch(self) -> None:
        """An owner that commits nothing would not notice that another took over, and go on answering beats."""
        if self._loaded and not self._has_committed:
            try:
                self._write(Batch())
            except Exception:  # whatever went wrong: what is in memory may be another's by now
                self._discard()
        self._has_committed = False

    def close(self) -> None:
        """Write snapshots of what changed and give the ledger up. Nothing lapses: holds wait for their holders."""
        try:
            snapshots = [_snapshot(name, loaded) for name, loaded in self._loaded.items() if loaded.since_snapshot]
            if snapshots:
                self._journal.commit(Batch(snapshots=snapshots))
        finally:
            self._discard()
            self._journal.close()

    # --- one batch ---------------------------------------------------------------------------------------------------

    def _decide_all(self, requests: Sequence[Request], checked: Container[int]) -> tuple[list[Reply], _Work]:
        now_us = self._clock.now_us()
        new: dict[str, list[Command]] = {}
        refused = self._load_all(requests, new, now_us)
        work = _Work(self._find(requests, new), [], {}, [])
        for customer, commands in new.items():  # first: what a dead holder left must not refuse anybody
            for command in commands:
                self._decide(work, customer, command, now_us, is_checked=True)
        replies: list[Reply] = []
        for at, (customer, command) in enumerate(requests):
            error = refused.get(customer)
            if error is not None:
                replies.append(again(error))
            else:
                replies.append(self._decide(work, customer, command, now_us, is_checked=at in checked))
        return replies, work

    def _decide(self, work: _Work, customer: str, command: Command, now_us: int, *, is_checked: bool) -> Reply:
        loaded = self._loaded.get(customer)
        if loaded is None:
            return unknown_customer(customer, command)
        if not loaded.account.exists and not isinstance(command, CreateCustomer):
            return unknown_customer(customer, command)
        fault = None if is_checked else malformed(command)
        if fault is not None:
            return fault
        if type(command) is Renew:
            self._heard.note(command.holder)
        known = {} if isinstance(command, _ENDS) and self._is_open(customer, command) else work.known
        hits = _hits(known, customer, command) if known else _NO_HITS
        outcome = loaded.account.handle(command, now_us=now_us, hits=hits)
        loaded.used_us = now_us
        work.touched[customer] = loaded
        if outcome.drafts:
            _record(work, customer, loaded, outcome.drafts)
        if outcome.error is not None:
            if isinstance(outcome.error, InvariantBroken):
                raise outcome.error
            return outcome.error
        if outcome.answer is None:
            raise InvariantBroken("L4", f"{type(command).__name__} had no answer")
        return outcome.answer

    def _commit(self, work: _Work) -> None:
        snapshots: list[Snapshot] = []
        for customer, loaded in work.touched.items():
            if not loaded.account.exists:  # a creation that was refused
                del self._loaded[customer]
                continue
            self._has_news |= loaded.account.has_news()
            work.denials.extend(loaded.account.denial_notes())
            if loaded.since_snapshot >= loaded.snapshot_after:
                snapshots.append(_snapshot(customer, loaded))
        self._write(Batch(entries=work.entries, snapshots=snapshots, denials=work.denials))

    def _write(self, batch: Batch) -> None:
        watching.commit(self._journal, batch)
        self._has_committed = True

    def _find(self, requests: Sequence[Request], new: dict[str, list[Command]]) -> dict[tuple[str, str], Sealed]:
        """One query for all keys of the batch. The end of an open hold needs none: the journal can have no end of it,
        and one that this batch brings is in the overlay."""
        wanted: dict[tuple[str, str], None] = {}
        for customer, command in _all(requests, new):
            if type(command) is Hold:
                wanted[customer, command.step] = None
                continue
            if isinstance(command, _ENDS) and self._is_open(customer, command):
                continue
            for key in keys_of(command):
                wanted[customer, key] = None
        return self._journal.find(list(wanted)) if wanted else {}

    def _is_open(self, customer: str, command: SettleHold | ReleaseHold | LapseLease | Renew) -> bool:
        loaded = self._loaded.get(customer)
        if loaded is None:
            return False
        if isinstance(command, Renew):
            return loaded.account.is_due(command)
        if isinstance(command, LapseLease):
            return loaded.account.is_open(command.lease)
        if isinstance(command, SettleHold) and command.part is not None:
            return False  # a part may have been booked before while the hold stays open
        return loaded.account.is_open(command.step)

    # --- loading and putting away ------------------------------------------------------------------------------------

    def _load_all(
        self, requests: Sequence[Request], new: dict[str, list[Command]], now_us: int
    ) -> dict[str, AgentBudgetError]:
        """Bring every customer of the batch into memory; a damaged one refuses its own commands only."""
        refused: dict[str, AgentBudgetError] = {}
        missing = [request for request in requests if request[0] not in self._loaded]
        if missing and len(self._loaded) + len({customer for customer, _ in missing}) > MAX_LOADED:
            self._make_room(keep={customer for customer, _ in requests})
        for customer, command in missing:
            if customer not in self._loaded and customer not in refused:
                try:
                    self._load(customer, command, new, now_us)
                except (LedgerCorrupt, OwnerUnavailable) as error:
                    refused[customer] = error
        return refused

    def _load(self, customer: str, command: Command, new: dict[str, list[Command]], now_us: int) -> None:
        if len(self._loaded) >= MAX_LOADED:
            raise self._unavailable(f"{MAX_LOADED} customers have open steps", "end some steps, or run more owners")
        folded = fold(self._journal, customer)
        if folded is None:
            if isinstance(command, CreateCustomer):  # ids that nobody created take no memory
                self._loaded[customer] = _Loaded(Account(customer), genesis(customer), now_us)
            return
        after = _snapshot_after(folded.snapshot_bytes)
        loaded = self._loaded[customer] = _Loaded(folded.account, folded.head, now_us, folded.replayed, after)
        overdue = self._overdue(loaded, now_us)[:MAX_OVERDUE]
        if overdue:
            new[customer] = overdue

    def _overdue(self, loaded: _Loaded, now_us: int) -> list[Command]:
        return loaded.account.overdue(
            now_us,
            self._live,
            is_silent=self._heard.is_silent,
            lapse_after_us=self._lapse_after_us,
            charge=self._charge,
        )

    def _make_room(self, *, keep: Container[str]) -> None:
        spare = sorted(
            (loaded.used_us, customer)
            for customer, loaded in self._loaded.items()
            if loaded.account.idle and customer not in keep
        )
        self._put_away([customer for _, customer in spare[: MAX_BATCH + MAX_LOADED // 10]])

    def _put_away_idle(self) -> None:
        since_us = self._clock.now_us() - IDLE_SECONDS * SECOND_US
        idle = [c for c, loaded in self._loaded.items() if loaded.used_us < since_us and loaded.account.idle]
        try:
            self._put_away(idle)
        except Exception:  # a snapshot only saves reading: whatever went wrong, the entries are there
            self._discard()

    def _put_away(self, customers: Iterable[str]) -> None:
        """Forget customers, with a snapshot where there is something to save."""
        leaving = {customer: self._loaded.pop(customer) for customer in customers}
        snapshots = [_snapshot(name, loaded) for name, loaded in leaving.items() if loaded.since_snapshot]
        if snapshots:
            self._write(Batch(snapshots=snapshots))

    def _failed(self, requests: Sequence[Request], error: Exception) -> list[Reply]:
        """Every command of the batch is told, each by an error of its own; the states are read again at the next
        use."""
        self._discard()
        if not isinstance(error, AgentBudgetError):
            error = self._unavailable(f"the owner failed ({type(error).__name__}: {error})")
        return [again(error) for _ in requests]

    def _discard(self) -> None:
        self._loaded.clear()

    def _unavailable(self, what: str, advice: str = "send it again with the same key") -> OwnerUnavailable:
        return OwnerUnavailable(what, self.name, advice)


def again(error: AgentBudgetError) -> AgentBudgetError:
    """The same error as an object of its own: each waiting thread raises one, and a raised error collects a traceback."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def _snapshot(customer: str, loaded: _Loaded) -> Snapshot:
    state = loaded.account.snapshot()
    loaded.since_snapshot, loaded.snapshot_after = 0, _snapshot_after(len(state))
    return Snapshot(customer, loaded.account.seq, loaded.head, SNAPSHOT_FORMAT, state)


def _snapshot_after(size: int) -> int:
    return max(SNAPSHOT_EVERY, size // SNAPSHOT_BYTES_PER_ENTRY)


def _hits(known: Mapping[tuple[str, str], Sealed], customer: str, command: Command) -> Mapping[str, Entry]:
    """The entries that carry the command's keys."""
    hits: dict[str, Entry] = {}
    for key in (command.step,) if type(command) is Hold else keys_of(command):
        sealed = known.get((customer, key))
        if sealed is not None:
            hits[key] = decode(sealed.record)
    return hits


def _record(work: _Work, customer: str, loaded: _Loaded, drafts: Sequence[Draft]) -> None:
    """Put what was decided in its place in the chain."""
    for draft in drafts:
        sealed = seal(draft, loaded.head)
        loaded.head = sealed.hash
        work.entries.append(sealed)
        if sealed.key is not None:
            work.known[customer, sealed.key] = sealed
    loaded.since_snapshot += len(drafts)


def _all(requests: Sequence[Request], new: dict[str, list[Command]]) -> Iterable[Request]:
    yield from ((customer, command) for customer, commands in new.items() for command in commands)
    yield from requests
