"""A wallet's statement: what each entry moved, read from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct

from agentbudget.amounts import Credits
from agentbudget.ledger.entry import AVAILABLE, CONSUMED, EXPIRED, HELD, ISSUED, VOIDED, Posting, Sealed, decode
from agentbudget.runtime.views import at


class StatementLine(Struct, frozen=True):
    """One entry's changes over all grants, signed: available + held + consumed + expired + voided = issued."""

    seq: int
    at: datetime | None
    kind: str
    key: str | None
    grants: tuple[str, ...]
    issued: Credits
    available: Credits
    held: Credits
    consumed: Credits
    expired: Credits
    voided: Credits


def lines_of(entries: Iterable[Sealed], since_us: int | None, until_us: int | None) -> Iterator[StatementLine]:
    """Lines of the entries that moved credits, from ``since_us`` on, before ``until_us`` (microseconds)."""
    for sealed in entries:
        entry = decode(sealed.record)
        if until_us is not None and entry.time_us >= until_us:
            return
        if entry.postings and (since_us is None or entry.time_us >= since_us):
            yield _line(entry.seq, entry.time_us, entry.kind, entry.key, entry.postings)


def _line(seq: int, time_us: int, kind: str, key: str | None, postings: tuple[Posting, ...]) -> StatementLine:
    moved = dict.fromkeys((ISSUED, AVAILABLE, HELD, CONSUMED, EXPIRED, VOIDED), 0)
    for posting in postings:
        moved[posting.account] += posting.amount
    grants = tuple(dict.fromkeys(posting.grant for posting in postings))
    amounts = (Credits.of_nano(moved[name]) for name in (AVAILABLE, HELD, CONSUMED, EXPIRED, VOIDED))
    return StatementLine(seq, at(time_us), kind, key, grants, Credits.of_nano(-moved[ISSUED]), *amounts)
