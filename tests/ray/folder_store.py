"""A store whose shards may have an owner each, for tests: a file a shard, each with its epoch. It has the semantics of a database
that many nodes share, except that a batch over several shards is as many transactions."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.journal import Batch, DenialNote, Loaded
from agentbudget.ledger.loading import fenced
from agentbudget.ledger.shards import SHARDS, shard_of
from agentbudget.ledger.sql import SqlArchive, SqlJournal


class FolderStore:
    """See ``agentbudget.ledger.shards.ShardedStore``."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._taken: dict[int, SqlJournal] = {}

    def claim(self, owner: str) -> int:
        self.take(owner, range(SHARDS))
        return 1

    def take(self, owner: str, shards: Collection[int], seen: Mapping[int, str] | None = None) -> Collection[int]:
        with open(self._folder / "taking", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            now = self.owners()
            free = [shard for shard in shards if seen is None or now.get(shard) == seen.get(shard)]
            for shard in free:
                if shard not in self._taken:
                    with contextlib.suppress(
                        FileNotFoundError
                    ):  # the lock of a file is stricter than what this stands for
                        os.unlink(f"{self._path(shard)}.owner")
                    self._taken[shard] = SqlJournal.open(f"sqlite:///{self._path(shard)}")
                self._taken[shard].claim(owner)
                (self._folder / f"{shard}.name").write_text(owner)
        return free

    def give_up(self, shards: Collection[int]) -> None:
        for shard in shards:
            self._taken.pop(shard).close()

    def owners(self) -> dict[int, str]:
        return {int(path.stem): path.read_text() for path in self._folder.glob("*.name")}

    def commit(self, batch: Batch) -> None:
        parts: dict[int, Batch] = {} if batch.entries or batch.snapshots else {shard: Batch() for shard in self._taken}
        for name in ("entries", "snapshots", "denials"):
            for one in getattr(batch, name):
                part = parts.setdefault(shard_of(one.customer), Batch([], [], []))
                getattr(part, name).append(one)
        for shard, part in parts.items():
            if shard not in self._taken:
                raise fenced(1, self.owners().get(shard, ""))
            self._taken[shard].commit(part)

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        found: dict[tuple[str, str], Sealed] = {}
        for shard in {shard_of(customer) for customer, _ in keys}:
            found |= self._archive(shard).find([key for key in keys if shard_of(key[0]) == shard])
        return found

    def load(self, customer: str) -> Loaded | None:
        return self._archive(shard_of(customer)).load(customer)

    def customers(self) -> Iterator[str]:
        return iter(sorted(name for shard in self.owners() for name in self._archive(shard).customers()))

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._archive(shard_of(customer)).entries(customer, after=after)

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._archive(shard_of(customer)).denials(customer, limit=limit)

    def close(self) -> None:
        self.give_up(list(self._taken))

    def _archive(self, shard: int) -> SqlJournal | SqlArchive:
        return self._taken.get(shard) or SqlArchive.open(f"sqlite:///{self._path(shard)}")

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard}.db"
