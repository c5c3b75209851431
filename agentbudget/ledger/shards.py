"""Virtual shards: how the customers of one ledger are spread over several owners, and what a store offers for that.

A shard is the unit that an owner takes and gives up; which owner has it is said by the ledger alone, so that a restart, a
move and two owners that both believe themselves alive all end the same way: the newest epoch of the shard counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Final, Protocol, runtime_checkable

from agentbudget.ledger.store import Store

SHARDS: Final = 64
"""Fixed for ever, so that a customer stays in its shard: enough for some 60 owners, few enough to be listed on a screen."""


@lru_cache(maxsize=10_000)
def shard_of(customer: str) -> int:
    """The customer's shard, 0 to ``SHARDS`` - 1: the same in every process, version and database."""
    return int.from_bytes(sha256(customer.encode()).digest()[:8], "big") % SHARDS


@runtime_checkable
class ShardedStore(Store, Protocol):
    """A store whose shards may each have another owner. Its ``claim`` takes all of them at once; an owner of some calls
    :meth:`take` instead. ``commit`` checks, in its transaction, the epoch of every shard that the batch touches (an empty
    batch: of every shard that was taken), and refuses it whole with ``fenced`` when one of them is another's."""

    def take(self, owner: str, shards: Collection[int], seen: Mapping[int, str] | None = None) -> Collection[int]:
        """Become the owner of these as well: each gets a new epoch, which fences whoever had it. Where ``seen`` is given, a shard
        is left alone when its owner is not any more who it was there (absent: nobody), in one step with looking, so that of two
        who saw the same only one takes it. The shards that were taken. Raises ``OwnerUnavailable``."""
        ...

    def give_up(self, shards: Collection[int]) -> None:
        """Forget that these were taken; nothing of them is written through this store any more."""
        ...

    def owners(self) -> dict[int, str]:
        """By shard, the name under which it was taken last; shards that nobody ever took are left out."""
        ...
