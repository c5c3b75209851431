"""Law L7: the chain of one customer, walked. Any edited, dropped, swapped or inserted entry is named.

The walk decodes only what it needs (the body is skipped), once, and hands the postings on, so that verifying and
folding are one pass. What no chain can show: a tail that was removed, or a chain rewritten whole. Both need an anchor
kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from agentbudget.errors import LedgerCorrupt
from agentbudget.ledger.entry import ACCOUNTS, RECORD_VERSION, Sealed, genesis
from agentbudget.ledger.journal import Archive

Postings: TypeAlias = tuple[tuple[str, str, int], ...]
"""(account, grant, nanocredits) as recorded: plain tuples, because a fold reads millions of them."""

How: TypeAlias = Literal[
    "edited", "dropped", "swapped", "inserted", "unbalanced", "time_went_back", "unknown_version", "tail_removed"
]

_ACCOUNTS: Final = frozenset(ACCOUNTS)


class Header(Struct, frozen=True, gc=False):
    """What the chain and the balances need of a record; unknown fields, the body among them, are skipped."""

    customer: str
    seq: int
    time_us: int
    postings: Postings
    prev: str
    v: int
    key: str | None = None


header_of: Final = msgspec.json.Decoder(Header).decode
"""The header of a record; raises ``msgspec.MsgspecError`` when it is none."""


class Anchor(NamedTuple):
    """Proof kept elsewhere (an export, a span) that the customer's entry ``seq`` had this hash."""

    seq: int
    hash: str


class Fault(Struct, frozen=True):
    """The first wrong entry of a customer: which, how, and in words."""

    customer: str
    seq: int
    how: How
    what: str


class VerifyReport(Struct, frozen=True):
    """``entries`` were right, up to ``head``, the hash of the last of them; ``fault`` is the first that was not."""

    customer: str
    entries: int
    head: str
    fault: Fault | None = None

    @property
    def ok(self) -> bool:
        return self.fault is None


class LedgerReport(Struct, frozen=True):
    """One report a customer."""

    reports: tuple[VerifyReport, ...]

    @property
    def ok(self) -> bool:
        return all(report.ok for report in self.reports)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(report.fault for report in self.reports if report.fault is not None)

    @property
    def entries(self) -> int:
        return sum(report.entries for report in self.reports)


class Broken(Exception):
    """The walk met a wrong entry; turned into a report or into ``LedgerCorrupt`` before it leaves this package."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault

    def corrupt(self) -> LedgerCorrupt:
        return LedgerCorrupt(f"{self.fault.how}: {self.fault.what}", self.fault.customer, self.fault.seq)


class Walk:
    """A place in one customer's chain: :meth:`step` checks the next entry and moves on, or raises :class:`Broken`."""

    __slots__ = ("_before", "customer", "head", "seq", "time_us")

    def __init__(self, customer: str, *, seq: int = 0, head: str | None = None) -> None:
        self.customer, self.seq, self.time_us = customer, seq, 0
        self.head = genesis(customer) if head is None else head
        self._before = ""  # the head before the last entry: tells an inserted entry from an edited one

    def step(self, sealed: Sealed) -> Header:
        """The header of the next entry, whose place, hash, link, columns, time and balance are right."""
        header, seq = _header_or_none(sealed.record), self.seq + 1
        if (
            header is None
            or header.prev != self.head
            or header.seq != seq
            or sealed.seq != seq
            or header.customer != self.customer
            or sealed.customer != self.customer
            or header.key != sealed.key
            or header.v != RECORD_VERSION
            or header.time_us < self.time_us
            or sha256(sealed.record).hexdigest() != sealed.hash
            or not _balanced(header.postings)
        ):
            raise Broken(_diagnose(self, sealed, header))
        self._before, self.head = self.head, sealed.hash
        self.seq, self.time_us = seq, header.time_us
        return header

    def refine(self, fault: Fault, sealed: Sealed, following: Sealed | None) -> Fault:
        """A better name for a fault, from the entry after it."""
        return _refine(self, fault, sealed, following)

    @property
    def before(self) -> str:
        return self._before


def verify(
    entries: Iterable[Sealed],
    *,
    customer: str = "",
    anchor: Anchor | tuple[int, str] | None = None,
    fold: Callable[[Postings], object] | None = None,
) -> VerifyReport:
    """Check one customer's entries from the first on; ``customer`` defaults to the first entry's.

    ``anchor`` (seq, hash) detects a removed tail and a rewritten chain. ``fold`` gets the postings of every right
    entry.
    """
    remaining = iter(entries)
    first = next(remaining, None)
    walk = Walk(customer or (first.customer if first is not None else ""))
    fault, sealed = None, first
    while sealed is not None:
        try:
            header = walk.step(sealed)
        except Broken as broken:
            fault = walk.refine(broken.fault, sealed, next(remaining, None))
            break
        if fold is not None:
            fold(header.postings)
        if anchor is not None and walk.seq == anchor[0] and walk.head != anchor[1]:
            fault = _fault(walk, walk.seq, "edited", "has another hash than its anchor: the chain was rewritten")
            break
        sealed = next(remaining, None)
    if fault is None and anchor is not None and walk.seq < anchor[0]:
        what = f"is missing, and an anchor proves that entries up to {anchor[0]} existed"
        fault = _fault(walk, walk.seq + 1, "tail_removed", what)
    return VerifyReport(walk.customer, walk.seq, walk.head, fault)


def verify_ledger(archive: Archive, anchors: Mapping[str, Anchor | tuple[int, str]] | None = None) -> LedgerReport:
    """Check every customer; a customer that an anchor names and the ledger lacks is a fault as well."""
    known = anchors or {}
    customers = list(archive.customers())
    missing = sorted(set(known) - set(customers))
    reports = [verify(archive.entries(one), customer=one, anchor=known.get(one)) for one in (*customers, *missing)]
    return LedgerReport(tuple(reports))


def checked(entries: Iterable[Sealed], walk: Walk) -> Iterator[Sealed]:
    """The same entries, each checked before it is passed on; raises ``LedgerCorrupt`` at the first wrong one."""
    for sealed in entries:
        try:
            walk.step(sealed)
        except Broken as broken:
            raise broken.corrupt() from None
        yield sealed


def _header_or_none(record: object) -> Header | None:
    try:
        return header_of(record) if type(record) is bytes else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _balanced(postings: Postings) -> bool:
    """Law L2: zero per grant (hence overall), on known accounts only."""
    sums: dict[str, int] = {}
    for account, grant, amount in postings:
        if account not in _ACCOUNTS:
            return False
        sums[grant] = sums.get(grant, 0) + amount
    return not any(sums.values())


def _fault(walk: Walk, seq: int, how: How, what: str) -> Fault:
    return Fault(walk.customer, seq, how, f"entry {seq} {what}")


def _diagnose(walk: Walk, sealed: Sealed, header: Header | None) -> Fault:
    """What is wrong with an entry, coarsest first."""
    expected = walk.seq + 1
    if sealed.customer != walk.customer:
        return _fault(walk, expected, "inserted", "belongs to another customer")
    if not isinstance(sealed.seq, int) or not isinstance(sealed.record, bytes):
        return _fault(walk, expected, "edited", "has columns of the wrong type")
    if sealed.seq > expected:
        return _fault(walk, expected, "dropped", f"is missing: entry {sealed.seq} follows entry {walk.seq}")
    if sealed.seq < expected:
        return _fault(walk, sealed.seq, "inserted", "is there more than once or out of order")
    if sha256(sealed.record).hexdigest() != sealed.hash:
        return _fault(walk, expected, "edited", "does not have the hash recorded beside it")
    if header is None:
        return _fault(walk, expected, "edited", "has a record that is no entry")
    return _diagnose_record(walk, sealed, header)


def _diagnose_record(walk: Walk, sealed: Sealed, header: Header) -> Fault:
    if header.v != RECORD_VERSION:
        return _fault(walk, sealed.seq, "unknown_version", f"has version {header.v}, which this version cannot read")
    if header.customer != sealed.customer:
        return _fault(walk, sealed.seq, "inserted", "has the record of another customer")
    if header.seq != sealed.seq:
        return _fault(walk, sealed.seq, "swapped", f"has the record of entry {header.seq}")
    if header.key != sealed.key:
        return _fault(walk, sealed.seq, "edited", "has another key in its column than in its record")
    if header.prev != walk.head:
        return _fault(walk, sealed.seq, "edited", f"does not link to entry {walk.seq} as it is now")
    if header.time_us < walk.time_us:
        return _fault(walk, sealed.seq, "time_went_back", "is earlier than the entry before it")
    return _fault(
        walk, sealed.seq, "unbalanced", "has postings that do not sum to zero per grant, or an unknown account"
    )


def _refine(walk: Walk, fault: Fault, sealed: Sealed, following: Sealed | None) -> Fault:
    header = _header_or_none(sealed.record)
    if header is None or fault.how not in ("dropped", "swapped", "edited"):
        return fault
    after = _header_or_none(following.record) if following is not None else None
    if fault.how == "dropped":
        late = following is not None and following.seq == fault.seq
        return _fault(walk, fault.seq, "swapped", f"comes after entry {sealed.seq}") if late else fault
    if fault.how == "swapped":
        return _refine_moved(walk, fault, header, after)
    if header.prev == walk.head or sha256(sealed.record).hexdigest() != sealed.hash or walk.seq == 0:
        return fault
    if header.prev == walk.before:
        return _fault(walk, walk.seq, "inserted", f"and entry {sealed.seq} both claim to follow entry {walk.seq - 1}")
    if after is not None and after.prev == sealed.hash:
        return _fault(
            walk, walk.seq, "edited", f"was changed and sealed again: entry {sealed.seq} links to what it was"
        )
    return fault


def _refine_moved(walk: Walk, fault: Fault, header: Header, after: Header | None) -> Fault:
    """A record in another's place: of a pair that was swapped, or moved up by an insertion, or down by a removal."""
    if header.seq < fault.seq and header.prev == walk.before:
        return _fault(walk, walk.seq, "inserted", f"was put before the record of entry {header.seq}")
    if header.seq > fault.seq and (after is None or after.seq == header.seq + 1):
        return _fault(walk, fault.seq, "dropped", f"is missing: the record of entry {header.seq} is in its place")
    return fault
