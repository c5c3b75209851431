"""Twins for tests: the ports of this package in memory, public and with the semantics of the real ones. No test need
mock them."""

from __future__ import annotations

from msgspec import Struct

from agentbudget.clock import ManualClock
from agentbudget.ledger.entry import AVAILABLE, CONSUMED, HELD, ISSUED, Draft, Posting, Sealed, genesis, seal
from agentbudget.ledger.memory import MemoryJournal, MemoryStore

__all__ = ["ManualClock", "MemoryJournal", "MemoryStore", "sample_chain"]


class SampleBody(Struct, frozen=True, tag="sample"):
    """The body of sample entries: ``note`` may hold any text."""

    note: str = ""


def sample_chain(customer: str, count: int, *, after: Sealed | None = None, note: str = "") -> list[Sealed]:
    """``count`` well-formed entries of a customer, continuing ``after``: grants, holds and settlements in turn, every
    second one with a key (``k<seq>``). For tests of what stores and reads entries; their bodies mean nothing to the
    account."""
    chain: list[Sealed] = []
    prev, start = (after.hash, after.seq) if after is not None else (genesis(customer), 0)
    for seq in range(start + 1, start + count + 1):
        sealed = seal(_draft(customer, seq, note), prev)
        prev = sealed.hash
        chain.append(sealed)
    return chain


def _draft(customer: str, seq: int, note: str) -> Draft:
    kind, postings = _STEPS[(seq - 1) % len(_STEPS)]
    return Draft(
        customer=customer,
        seq=seq,
        time_us=1_767_225_600_000_000 + seq * 1_000,
        kind=kind,
        postings=postings,
        body=SampleBody(note),
        key=f"k{seq}" if seq % 2 else None,
        request=f"{seq:064x}" if seq % 2 else None,
    )


_STEPS = (
    ("grant", (Posting(ISSUED, "welcome", -1_000), Posting(AVAILABLE, "welcome", 1_000))),
    ("hold", (Posting(AVAILABLE, "welcome", -300), Posting(HELD, "welcome", 300))),
    ("settle", (Posting(HELD, "welcome", -300), Posting(CONSUMED, "welcome", 250), Posting(AVAILABLE, "welcome", 50))),
)
