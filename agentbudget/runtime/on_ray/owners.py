"""The owners of a ledger on Ray, for the people who run them: who has what, and moving it.

A move first has the owner put its customers away, then the other takes the shards: what is asked in between is answered by one
of them, and the epoch in the ledger says by which. Whoever still asks the former owner is told where to go.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.ledger.shards import SHARDS
from agentbudget.runtime.on_ray.shards import name_in

if TYPE_CHECKING:
    from agentbudget.runtime.on_ray.cluster import Post, Seat
    from agentbudget.runtime.settings import Settings


class Owners:
    """Every method raises ``OwnerUnavailable`` when an owner that it needs gives no answer."""

    def __init__(self, post: Post) -> None:
        from agentbudget.runtime.on_ray import cluster as ray_cluster

        self._post, self._cluster = post, ray_cluster

    @classmethod
    def of(cls, settings: Settings) -> Owners:
        """Of a ledger, on the cluster that this process is on, or that RAY_ADDRESS names."""
        from agentbudget.runtime.on_ray import opening as ray_open

        return cls(ray_open.post_for(settings))

    def names(self) -> list[str]:
        """The owners that are there."""
        return self._cluster.names(self._post.ledger)

    def status(self) -> list[dict[str, Any]]:
        """How each of them is: see ``RayOwner.status``; ``shards``: how many it has by the ledger."""
        names = self.names()
        shards = Counter(self._by_shard(names).values()) if names else Counter[str]()
        return [{**self._seat(name).ask("status"), "shards": shards[name]} for name in names]

    def look(self, name: str, seconds: float) -> dict[str, Any] | None:
        """``RayOwner.status`` of one, or None when it does not answer so soon: it may be starting."""
        try:
            found: dict[str, Any] = self._seat(name).ask("status", seconds=seconds)
        except OwnerUnavailable:
            return None
        return found

    def owner_of(self, shard: int) -> str:
        """The name of the owner that has a shard by the ledger; empty where nobody has."""
        return self._by_shard(self.names()).get(shard, "")

    def move(self, shards: Collection[int], to: str) -> None:
        """Have ``to`` own these shards; it is started where it is not there. Raises ``InvalidRequest`` for a ledger that has one
        owner, and for shards that there are not."""
        unknown = sorted(shard for shard in shards if not 0 <= shard < SHARDS)
        if unknown:
            raise InvalidRequest(f"there are shards 0 to {SHARDS - 1}", f"shard {unknown[0]}")
        by_shard = self._by_shard(self.names())
        for name in sorted({by_shard.get(shard, "") for shard in shards} - {"", to}):
            with contextlib.suppress(OwnerUnavailable):  # one that is gone has nothing to put away
                self._seat(name).ask("let_go", [shard for shard in shards if by_shard.get(shard) == name])
        self._seat(to).ask("take", sorted(shards))

    def drain(self, name: str) -> None:
        """Have the other owners take its shards, where there are others, and end it. Raises ``InvalidRequest`` for one that is
        not there."""
        names = self.names()
        if name not in names:
            raise InvalidRequest(f"there is no such owner; there are {', '.join(names) or 'none'}", "owner")
        others = [other for other in names if other != name]
        if others:
            its = [shard for shard, owner in sorted(self._by_shard(names).items()) if owner == name]
            for n, other in enumerate(others):
                if part := its[n :: len(others)]:
                    self.move(part, other)
        self.end(name)

    def end(self, name: str) -> None:
        """End an owner, as if its node had gone, after it has put everything away. It is started again when the ledger says that
        a shard somebody asks for is its."""
        seat = self._seat(name)
        with contextlib.suppress(OwnerUnavailable):
            seat.ask("leave")
        seat.kill()

    def crash(self, name: str) -> None:
        """Have an owner's process end without a word, as when it is out of memory, to see what happens; Ray starts it again."""
        from agentbudget.runtime.on_ray.cluster import Gone

        try:
            self._seat(name).crash()
        except Gone as gone:
            raise gone.why from None

    def _by_shard(self, names: list[str]) -> dict[int, str]:
        """By shard, the name of its owner, as whoever answers first reads it in the ledger."""
        why: OwnerUnavailable | None = None
        for name in names:
            try:
                found: dict[int, str] = self._seat(name).ask("owners")
            except OwnerUnavailable as error:
                why = error
            else:
                return {shard: name_in(owner) for shard, owner in found.items()}
        raise why or OwnerUnavailable("no owner of this ledger is on the cluster", "", "open the ledger there first")

    def _seat(self, name: str) -> Seat:
        return self._cluster.Seat(name, self._post)
