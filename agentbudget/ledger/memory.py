"""The journal in memory: ``memory://``, and the public twin for tests. Same semantics as SQL, and faults on demand."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.chain import checked
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.journal import Batch, DenialNote, Loaded, Snapshot
from agentbudget.ledger.loading import COLLISION, fenced, start_after

DENIALS_KEPT: Final = 10_000
"""Denial notes kept in memory: they are for looking at, and an endless loop of refusals must not fill it."""

_Answer = TypeVar("_Answer")


class MemoryStore:
    """What outlives a journal: give the same store to a new :class:`MemoryJournal` to simulate a restart."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Sealed]] = {}
        self.keys: dict[tuple[str, str], Sealed] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.denials: deque[DenialNote] = deque(maxlen=DENIALS_KEPT)
        self.epoch = 0
        self.owner = ""


class MemoryJournal:
    """``Journal`` and ``Archive`` over a :class:`MemoryStore`. ``calls`` counts the calls of the journal's methods."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store if store is not None else MemoryStore()
        self.calls = 0
        self._epoch = 0
        self._closed = False
        self._faults: dict[int, bool] = {}

    def fail_at(self, n: int, *, after: bool = False) -> None:
        """Make the ``n``-th call from now (1 is the next one) raise ``OwnerUnavailable``: before it takes effect, or
        ``after`` it did, which is the commit whose outcome the caller does not know."""
        self._faults[self.calls + n] = after

    def claim(self, owner: str) -> int:
        return self._call(lambda: self._claim(owner))

    def commit(self, batch: Batch) -> None:
        self._call(lambda: self._commit(batch))

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        known = self.store.keys
        return self._call(lambda: {key: known[key] for key in keys if key in known})

    def load(self, customer: str) -> Loaded | None:
        return self._call(lambda: self._load(customer))

    def close(self) -> None:
        self._closed = True

    def customers(self) -> Iterator[str]:
        return iter(self._call(lambda: sorted(self.store.entries)))

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return iter(self._call(lambda: self._after(customer, after)))

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._call(lambda: [note for note in reversed(self.store.denials) if note.customer == customer][:limit])

    def _call(self, answer: Callable[[], _Answer]) -> _Answer:
        self.calls += 1
        planted = self._faults.pop(self.calls, None)
        if planted is False:
            raise OwnerUnavailable("a planted failure, before the call took effect", "", "retry with the same key")
        if self._closed:
            raise OwnerUnavailable("the ledger is closed", "", "open it again")
        given = answer()
        if planted:
            raise OwnerUnavailable("a planted failure, after the call took effect", "", "retry with the same key")
        return given

    def _claim(self, owner: str) -> int:
        self.store.epoch += 1
        self._epoch, self.store.owner = self.store.epoch, owner
        return self._epoch

    def _commit(self, batch: Batch) -> None:
        if self._epoch != self.store.epoch or not self._epoch:
            raise fenced(self._epoch, self.store.owner)
        self._refuse_taken(batch.entries)
        for entry in batch.entries:
            insort(self.store.entries.setdefault(entry.customer, []), entry, key=_seq)
            if entry.key is not None:
                self.store.keys[entry.customer, entry.key] = entry
        self.store.snapshots.update({one.customer: one for one in batch.snapshots})
        self.store.denials.extend(batch.denials)

    def _refuse_taken(self, entries: Iterable[Sealed]) -> None:
        taken: set[tuple[str, int | str]] = set()
        for entry in entries:
            places: set[tuple[str, int | str]] = {(entry.customer, entry.seq)}
            if entry.key is not None:
                places.add((entry.customer, entry.key))
            if taken & places or self._has(entry):
                raise OwnerUnavailable(*COLLISION)
            taken |= places

    def _has(self, entry: Sealed) -> bool:
        there = self.store.entries.get(entry.customer, [])
        place = bisect_left(there, entry.seq, key=_seq)
        same_seq = place < len(there) and there[place].seq == entry.seq
        return same_seq or (entry.key is not None and (entry.customer, entry.key) in self.store.keys)

    def _load(self, customer: str) -> Loaded | None:
        if not self.store.entries.get(customer):
            return None
        snapshot, walk = start_after(
            customer, self.store.snapshots.get(customer), lambda seq: self._hash_at(customer, seq)
        )
        return Loaded(snapshot, checked(self._after(customer, walk.seq), walk))

    def _after(self, customer: str, seq: int) -> list[Sealed]:
        entries = self.store.entries.get(customer, [])
        return entries[bisect_right(entries, seq, key=_seq) :]

    def _hash_at(self, customer: str, seq: int) -> str | None:
        here = self._after(customer, seq - 1)[:1]
        return here[0].hash if here and here[0].seq == seq else None


def _seq(entry: Sealed) -> int:
    return entry.seq
