"""The ledger's unit: one immutable entry, its postings, and its canonical bytes.

An entry's *record* is canonical JSON (sorted keys, integers only, times in UTC microseconds, a version tag). The record holds
everything that is true of the entry, the hash of the entry before it included; the entry's hash is SHA-256 of the record.
What is stored, exported, verified and hashed is the same byte string, so nothing is ever re-encoded to be checked.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from msgspec import Struct

RECORD_VERSION: Final = 1

# The accounts of a grant. Within one entry the postings of every grant sum to zero, hence
# issued = available + held + consumed + expired + voided at all times (law L2); ``issued`` is the negative side.
ISSUED: Final = "issued"
AVAILABLE: Final = "available"
HELD: Final = "held"
CONSUMED: Final = "consumed"
EXPIRED: Final = "expired"
VOIDED: Final = "voided"
ACCOUNTS: Final = (ISSUED, AVAILABLE, HELD, CONSUMED, EXPIRED, VOIDED)

# Grants that nobody issued: what was consumed beyond all grants, and the payments that cleared it.
OVERDRAFT: Final = "@overdraft"
RECEIVABLE: Final = "@receivable"
PAYMENTS: Final = "@payments"


class Posting(Struct, frozen=True, array_like=True, gc=False):
    """``amount`` nanocredits (negative: out) on one account of one grant."""

    account: str
    grant: str
    amount: int


class Draft(Struct, frozen=True, gc=False):
    """An entry as decided: everything but its place in the chain. ``body`` is a tagged msgspec Struct of the account."""

    customer: str
    seq: int
    time_us: int
    kind: str
    postings: tuple[Posting, ...]
    body: Struct
    key: str | None = None
    request: str | None = None


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """An entry as recorded. ``key`` is the idempotency key, ``request`` the hash of the command's raw inputs, ``prev`` the
    hash (hex) of the customer's entry before this one. ``body`` stays encoded: who reads it knows its type.
    """

    customer: str
    seq: int
    time_us: int
    kind: str
    postings: tuple[Posting, ...]
    body: msgspec.Raw
    prev: str
    key: str | None = None
    request: str | None = None
    v: int = RECORD_VERSION


class _Record(Struct, frozen=True, gc=False):
    """An :class:`Entry` as it is written, with its body as it was decided: one pass over both."""

    customer: str
    seq: int
    time_us: int
    kind: str
    postings: tuple[Posting, ...]
    body: Struct
    prev: str
    key: str | None
    request: str | None
    v: int


class Sealed(Struct, frozen=True, gc=False):
    """An entry in its place: the columns that the store indexes, the record and its hash (hex)."""

    customer: str
    seq: int
    key: str | None
    record: bytes
    hash: str


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Entry)


def genesis(customer: str) -> str:
    """What the first entry of a customer names as its predecessor."""
    return hashlib.sha256(f"agentbudget/{RECORD_VERSION}/{customer}".encode()).hexdigest()


def seal(draft: Draft, prev: str) -> Sealed:
    """Put a draft in its place after the entry whose hash is ``prev``."""
    record = _encoder.encode(
        _Record(
            draft.customer, draft.seq, draft.time_us, draft.kind, draft.postings, draft.body, prev, draft.key,
            draft.request, RECORD_VERSION,
        )
    )  # fmt: skip
    return Sealed(draft.customer, draft.seq, draft.key, record, hash_of(record))


def hash_of(record: bytes) -> str:
    """The hash (hex) of an entry's record."""
    return hashlib.sha256(record).hexdigest()


def decode(record: bytes) -> Entry:
    """The entry of a record; raises ``msgspec.DecodeError`` when it is none."""
    return _decoder.decode(record)
