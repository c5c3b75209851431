"""Which of the virtual shards a customer is in. A shard is the unit of ownership: on PostgreSQL each has an owner and an
epoch of its own, so that shards move between owners one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from zlib import crc32

from agentbudget.errors import InvalidRequest

SHARDS: Final = 64
"""Never changed: a ledger records owners by shard. Enough to spread evenly over some dozens of owners; few enough that
one owner can hold them all (each is a row and a lock)."""

ALL_SHARDS: Final = tuple(range(SHARDS))


def shard_of(customer: str) -> int:
    """The customer's shard: the same in every process and version."""
    return crc32(customer.encode()) % SHARDS


def shards_ok(shards: Iterable[int]) -> tuple[int, ...]:
    """Shards in order, each once; raises ``InvalidRequest`` when one is none of ours."""
    found = tuple(sorted(set(shards)))
    if any(type(shard) is not int or not 0 <= shard < SHARDS for shard in found):
        raise InvalidRequest(f"a shard is a number from 0 to {SHARDS - 1}", "shards")
    return found
