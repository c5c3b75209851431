"""The shards that one owner on Ray has, and the :class:`Owner` of their customers. Synchronous; one thread at a time.

Who has a shard is read from the ledger, never from memory: an owner that is asked for a shard it does not have looks there,
and either takes it or says who has it. A store without shards of its own (SQLite) has one owner for all of them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from agentbudget.clock import Clock
from agentbudget.errors import AgentBudgetError, InvalidRequest, OwnerUnavailable
from agentbudget.ledger.loading import fenced
from agentbudget.ledger.shards import SHARDS, ShardedStore, shard_of
from agentbudget.ledger.store import Store
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.ids import new_id
from agentbudget.runtime.owner.owner import Owner, Reply, Request, again

_FENCED: Final = fenced(1, "").what
TRIES: Final = 3
"""How often a batch that found a shard taken away is looked at again: a move takes one away once."""


class Replaced(Exception):
    """A newer incarnation of this owner has taken its shards: this one is over, for good. ``cluster``: the other Ray cluster on
    which that runs, or empty."""

    def __init__(self, cluster: str = "") -> None:
        super().__init__(cluster)
        self.cluster = cluster


def name_in(owner: str) -> str:
    """The owner's name in what the ledger has recorded of it; what else is recorded there names no owner on Ray."""
    name, _, rest = owner.partition(" (")
    return name if rest else ""


def cluster_in(owner: str) -> str:
    """The Ray cluster of an owner in what the ledger has recorded of it; empty where it does not say."""
    _, said, rest = owner.partition(", cluster ")
    return rest.partition(",")[0] if said else ""


class Unclosed:
    """A sharded store as an :class:`Owner` sees it: its shards are taken one by one, and it outlives the owner."""

    def __init__(self, store: ShardedStore) -> None:
        self._store = store

    def claim(self, owner: str) -> int:
        """Nothing yet."""
        return 0

    def close(self) -> None:
        """The store is closed by whoever opened it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Shards:
    """``name``: of this owner among those of the ledger; ``full_name`` says which incarnation of it, and on which ``cluster``.
    ``new_owner`` makes the owner of a store: ``partial(Owner, live=...)``."""

    def __init__(
        self, name: str, cluster: str, open_store: Callable[[], Store], clock: Clock, new_owner: Callable[..., Owner]
    ) -> None:
        self.name, self._cluster = name, cluster
        self._open_store, self._clock, self._new_owner = open_store, clock, new_owner
        where = f"on {socket.gethostname()}" + (f", cluster {cluster}" if cluster else "")
        self.full_name = f"{name} (process {os.getpid()} {where}, {new_id()[-8:]})"
        self.held: frozenset[int] = frozenset()
        self.owner: Owner | None = None
        self._store: Store | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether the store may have several owners; False while it is not open."""
        return isinstance(self._store, ShardedStore)

    def open(self) -> Owner:
        """The owner, with its store open. Raises what opening and claiming raise."""
        if self.owner is None:
            store = self._open_store()
            try:
                self.owner = self._owner_of(store)
            except BaseException:
                store.close()
                raise
            self._store = store
            if not isinstance(store, ShardedStore):
                self.held = frozenset(range(SHARDS))
        return self.owner

    def _owner_of(self, store: Store) -> Owner:
        seen: Any = Unclosed(store) if isinstance(store, ShardedStore) else store
        return self._new_owner(seen, self._clock, name=self.full_name)

    def close(self) -> None:
        """Write snapshots and give the ledger up; the next use opens it again."""
        owner, store, self.owner, self._store, self.held = self.owner, self._store, None, None, frozenset()
        try:
            if owner is not None:
                owner.close()
        finally:
            if isinstance(store, ShardedStore):
                store.close()

    # --- commands -------------------------------------------------------------------------------------------------------------

    def handle(self, requests: Sequence[Request], moved: dict[int, str]) -> list[Reply | None]:
        """An answer to each, or None where another owner has the shard, which is then in ``moved``. Raises ``Replaced``."""
        replies: list[Reply | None] = [None] * len(requests)
        waiting = list(range(len(requests)))
        for _ in range(TRIES):
            owner = self.open()
            here = self._place([shard_of(requests[n][0]) for n in waiting], moved)
            waiting = [n for n in waiting if shard_of(requests[n][0]) in here]
            if not waiting:
                break
            found = owner.handle([requests[n] for n in waiting], checked=range(len(waiting)))
            first = found[0]
            if not (isinstance(first, OwnerUnavailable) and first.what == _FENCED):
                for n, reply in zip(waiting, found, strict=True):
                    replies[n] = reply
                break
            self._look_again(first)
        for n, (customer, _) in enumerate(requests):
            if (
                replies[n] is None
            ):  # nothing was done: whoever asks comes again, here where the ledger does not say where
                moved.setdefault(shard_of(customer), self.name)
        return replies

    def beat(self, beat: Beat, moved: dict[int, str]) -> Beaten | AgentBudgetError:
        """A process that holds leases lives. Where customers of it have moved, their shards are put in ``moved``."""
        owner = self.open()
        if not self._place([shard_of(customer) for customer in beat.customers], moved).issuperset(
            map(shard_of, beat.customers)
        ):
            return OwnerUnavailable("customers are being moved to another owner", self.full_name, "beat again")
        try:
            return owner.beat(beat)
        except OwnerUnavailable as error:
            if error.what == _FENCED:
                self._look_again(error)
            return again(error)

    def _place(self, shards: Collection[int], moved: dict[int, str]) -> frozenset[int]:
        """The shards that are here, after taking those that are this owner's by the ledger or nobody's."""
        unknown = set(shards) - self.held
        for _ in range(TRIES if unknown else 0):
            owners = self.owners()
            theirs = {shard: name_in(owners.get(shard, "")) for shard in unknown}
            moved.update((shard, name) for shard, name in theirs.items() if name not in ("", self.name))
            mine = [shard for shard, name in theirs.items() if name in ("", self.name)]
            if mine:
                self.held |= frozenset(self._require_shards().take(self.full_name, sorted(mine), owners))
            unknown -= self.held | moved.keys()
            if not unknown:
                break
        return self.held

    def _look_again(self, refusal: OwnerUnavailable) -> None:
        """The store has said that something is another's now: what, and is there anything left to be?"""
        store = self._store
        if not isinstance(store, ShardedStore):
            self.close()
            raise refusal
        owners = store.owners()
        lost = frozenset(shard for shard in self.held if owners.get(shard) != self.full_name)
        other = next((found for shard in lost if (found := self._other_cluster(owners.get(shard, "")))), "")
        if other or any(name_in(owners.get(shard, "")) == self.name for shard in lost):
            raise Replaced(other)
        self._lose(store, lost)

    def _other_cluster(self, owner: str) -> str:
        found = cluster_in(owner)
        return found if found != self._cluster else ""

    def _lose(self, store: ShardedStore, lost: frozenset[int]) -> None:
        store.give_up(lost)
        self.held -= lost

    # --- moving -----------------------------------------------------------------------------------------------------------------

    def owners(self) -> dict[int, str]:
        """By shard, who has it as the ledger says."""
        self.open()
        store = self._store
        if isinstance(store, ShardedStore):
            return store.owners()
        return dict.fromkeys(range(SHARDS), self.full_name)

    def take(self, shards: Collection[int]) -> None:
        """Take shards, from whoever has them: their next commit is refused."""
        wanted = frozenset(shards) - self.held
        if not wanted:
            return
        self.open()
        self.held |= frozenset(self._require_shards().take(self.full_name, sorted(wanted)))

    def let_go(self, shards: Collection[int]) -> None:
        """Put the customers of shards away, with snapshots, so that another owner need not read long; it may take them at any
        time."""
        leaving = frozenset(shards) & self.held
        if leaving:
            store = self._require_shards()
            owner, self.owner = self.owner, None
            try:
                if owner is not None:
                    owner.close()
            finally:
                self.owner = self._owner_of(store)
                self._lose(store, leaving)

    def _require_shards(self) -> ShardedStore:
        if not isinstance(self._store, ShardedStore):
            raise InvalidRequest(
                f"a ledger in one file has one owner for all {SHARDS} shards, {self.full_name}: to spread them over owners, "
                "move it to PostgreSQL",
                "shards",
            )
        return self._store
