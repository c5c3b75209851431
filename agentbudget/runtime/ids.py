"""Ids that sort by time, so that the ledger's key index grows at its end."""

from __future__ import annotations

import os
import time

from agentbudget.account.commands import LEASE_PREFIX

_RANDOM_BITS = 74  # RFC 9562: what version 7 leaves beside 48 bits of milliseconds, the version and the variant


def new_lease_id() -> str:
    """The id of a lease: no key that a caller may choose."""
    return LEASE_PREFIX + new_id()


def new_id() -> str:
    """A UUID of version 7 (RFC 9562) as 32 hex digits."""
    chance = int.from_bytes(os.urandom(10), "big") >> (80 - _RANDOM_BITS)
    high, low = chance >> 62, chance & ((1 << 62) - 1)
    milliseconds = time.time_ns() // 1_000_000
    return f"{(milliseconds << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low:032x}"
