"""Export and import as JSON Lines that keep every record's bytes, hence the chain and its hashes.

A header line; per customer, in order, one line an entry, ``{"hash": ..., "record": <the record as it is>}``; a last
line with the number of entries and each customer's head. The heads are anchors: keep them elsewhere, and ``verify``
notices a removed tail.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Final

import msgspec
from msgspec import Raw, Struct

from agentbudget.errors import InvalidRequest, LedgerCorrupt
from agentbudget.ledger.chain import Anchor, Broken, Header, Walk, header_of, verify_ledger
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.journal import Archive, Batch
from agentbudget.ledger.store import Store

FORMAT: Final = "agentbudget-ledger"
VERSION: Final = 1
BATCH: Final = 1_000
"""Entries per transaction of an import: the sync is paid once for many, and a batch stays below a megabyte."""

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Longest line accepted; an entry has about 500 bytes, the last line 90 a customer."""

_SPOOL_IN_MEMORY: Final = 16 * 1024 * 1024


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    format: str
    version: int


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """An entry's line."""

    hash: str
    record: Raw


class Trailer(Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: proves that the export is whole."""

    entries: int
    heads: dict[str, Anchor]


class ImportReport(Struct, frozen=True):
    """``imported`` entries are new here, ``skipped`` ones were here already; ``heads`` are those of the export."""

    imported: int
    skipped: int
    heads: dict[str, Anchor]


def export_lines(archive: Archive, customers: Iterable[str] | None = None) -> Iterator[bytes]:
    """The lines of an export, each ending in a newline; all customers, or those named.

    Entries are verified on the way: a damaged ledger raises ``LedgerCorrupt``, and what was written so far has no last
    line.
    """
    yield _line(Head(FORMAT, VERSION))
    count, heads = 0, {}
    for customer in archive.customers() if customers is None else dict.fromkeys(customers):
        walk = Walk(customer)
        for sealed in archive.entries(customer):
            _step(walk, sealed)
            yield _line(Line(sealed.hash, Raw(sealed.record)))
        if walk.seq:
            heads[customer] = Anchor(walk.seq, walk.head)
        count += walk.seq
    yield _line(Trailer(count, heads))


def import_lines(lines: Iterable[bytes], journal: Store) -> ImportReport:
    """Import an export into a claimed journal. Nothing is written before the whole of it is proven.

    Raises ``LedgerCorrupt`` for a broken chain or a file that is cut off or altered, ``InvalidRequest`` for a file of
    another kind and for a customer that has other entries here. A repeated import skips what is there, so one that was
    interrupted is run again.
    """
    with tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY) as spool:
        trailer, skipped = _prove(lines, journal, spool)
        spool.seek(0)
        imported = 0
        fresh = _fresh(spool, skipped)
        while batch := list(islice(fresh, BATCH)):
            journal.commit(Batch(entries=batch))
            imported += len(batch)
    return ImportReport(imported, trailer.entries - imported, trailer.heads)


def move_entries(source: Archive, target: Store) -> ImportReport:
    """Copy every entry into a claimed journal, byte for byte, and prove that it holds the same chains. ``source`` must not be
    written meanwhile. Raises as :func:`import_lines` does."""
    report = import_lines(export_lines(source), target)
    faults = verify_ledger(target, report.heads).faults
    if faults:
        raise LedgerCorrupt(f"the copy does not verify: {faults[0].what}", faults[0].customer, faults[0].seq)
    return report


def _prove(lines: Iterable[bytes], archive: Archive, spool: IO[bytes]) -> tuple[Trailer, dict[str, int]]:
    """Check everything, copy the entries' lines, and say how many entries of each customer are here already."""
    remaining = _bounded(lines)
    _require_head(next(remaining, b""))
    walks: dict[str, Walk] = {}
    here: dict[str, int] = {}
    walk = Walk("")
    existing: Iterator[Sealed] = iter(())
    for line in remaining:
        sealed = _sealed(line)
        if sealed is None:
            return _require_whole(line, remaining, walks), here
        if sealed.customer != walk.customer:
            if sealed.customer in walks:
                raise LedgerCorrupt("the export has its entries in two places", sealed.customer, sealed.seq)
            walk = walks[sealed.customer] = Walk(sealed.customer)
            existing = archive.entries(sealed.customer)
        _step(walk, sealed)
        here[sealed.customer] = here.get(sealed.customer, 0) + _is_here(sealed, next(existing, None))
        spool.write(line.rstrip(b"\r\n") + b"\n")
    raise LedgerCorrupt("the export has no last line: it was cut off; export again, or copy the file again")


def _bounded(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if len(line) > MAX_LINE_BYTES:
            raise LedgerCorrupt(f"the export has a line of more than {MAX_LINE_BYTES} bytes")
        yield line


def _require_head(line: bytes) -> None:
    try:
        head = msgspec.json.decode(line, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequest("the first line is not that of a ledger export", "export") from None
    if head.format != FORMAT or head.version != VERSION:
        known = f"{FORMAT} {VERSION}"
        raise InvalidRequest(f"the export is {head.format} {head.version}, and this version reads {known}", "export")


def _require_whole(line: bytes, remaining: Iterator[bytes], walks: dict[str, Walk]) -> Trailer:
    try:
        trailer = msgspec.json.decode(line, type=Trailer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise LedgerCorrupt("the export has a line that is no entry, or its last line is cut off") from None
    if any(rest.strip() for rest in remaining):
        raise LedgerCorrupt("the export goes on after its last line")
    found = {customer: Anchor(walk.seq, walk.head) for customer, walk in walks.items()}
    if trailer.heads != found or trailer.entries != sum(walk.seq for walk in walks.values()):
        raise LedgerCorrupt("the export has other entries than its last line counts: entries are missing or were added")
    return trailer


def _sealed(line: bytes) -> Sealed | None:
    """The entry of a line, or None: then it must be the last one."""
    try:
        decoded = msgspec.json.decode(line, type=Line)
        record = bytes(decoded.record)
        header: Header = header_of(record)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return Sealed(header.customer, header.seq, header.key, record, decoded.hash)


def _is_here(sealed: Sealed, existing: Sealed | None) -> bool:
    if existing is not None and existing.hash != sealed.hash:
        what = f"customer {sealed.customer!r} has other entries here (entry {sealed.seq} differs)"
        raise InvalidRequest(f"{what}; import into a ledger without this customer", "export")
    return existing is not None


def _fresh(spool: Iterable[bytes], skipped: dict[str, int]) -> Iterator[Sealed]:
    for line in spool:
        sealed = _sealed(line)
        if sealed is not None and sealed.seq > skipped[sealed.customer]:
            yield sealed


def _step(walk: Walk, sealed: Sealed) -> None:
    try:
        walk.step(sealed)
    except Broken as broken:
        raise broken.corrupt() from None


def _line(value: Struct) -> bytes:
    return msgspec.json.encode(value) + b"\n"
