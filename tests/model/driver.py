"""The system under test: an owner over a journal, restarted, crashed and ticked at will. One driver is one customer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentbudget.account.commands import Command, Read
from agentbudget.clock import ManualClock
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.entry import Entry, Sealed, decode
from agentbudget.ledger.journal import Batch, DenialNote, Loaded, Snapshot
from agentbudget.runtime.host import Beat
from agentbudget.runtime.owner.owner import Owner


class Store(Protocol):
    """What a journal must offer here: the writer's side and the readers' side in one."""

    def claim(self, owner: str) -> int: ...
    def commit(self, batch: Batch) -> None: ...
    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]: ...
    def load(self, customer: str) -> Loaded | None: ...
    def close(self) -> None: ...


@dataclass
class Shelf:
    """A journal that outlives its owners: passes every call on, loses answers when told to, and keeps what it has seen.

    ``snapshots`` False hides snapshots from loading (law L6: they change cost, never meaning).
    """

    journal: Store
    snapshots: bool = True
    lose: str = ""
    batches: list[Batch] = field(default_factory=list)
    snapshots_used: int = 0

    def claim(self, owner: str) -> int:
        return self.journal.claim(owner)

    def commit(self, batch: Batch) -> None:
        lose, self.lose = self.lose, ""
        if lose == "before":
            raise OwnerUnavailable("the store gave no answer", "model")
        self.journal.commit(batch)
        self.batches.append(batch)
        if lose == "after":
            raise OwnerUnavailable("the store gave no answer", "model")

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        return self.journal.find(keys)

    def load(self, customer: str) -> Loaded | None:
        found = self.journal.load(customer)
        if found is None or found.snapshot is None:
            return found
        if self.snapshots:
            self.snapshots_used += 1
            return found
        return Loaded(None, list(self.journal.entries(customer)))  # type: ignore[attr-defined]

    def close(self) -> None:
        """The journal stays open: the next owner goes on with it."""

    def denials(self, customer: str) -> list[DenialNote]:
        return [note for batch in self.batches for note in batch.denials if note.customer == customer]


class Holders:
    """Which steps' holders are alive: all but those said to be dead."""

    def __init__(self) -> None:
        self.all_dead = False

    def __contains__(self, step: object) -> bool:
        return not self.all_dead


class Driver:
    """Sends commands of one customer to an owner, and answers what it answered."""

    def __init__(
        self, journal: Store, customer: str, *, start_us: int, owner: type[Owner] = Owner, on_lapse: str = "charge"
    ) -> None:
        self.shelf, self.customer, self._type, self.on_lapse = Shelf(journal), customer, owner, on_lapse
        self.clock, self.holders = ManualClock(start_us), Holders()
        self.owner = self._new_owner()

    def _new_owner(self) -> Owner:
        return self._type(self.shelf, self.clock, name="model", live=self.holders, on_lapse=self.on_lapse)

    def send(self, command: Command) -> object:
        """The answer, or the error as a value."""
        return self.owner.handle([(self.customer, command)])[0]

    def read(self, *what: str) -> list[object]:
        answers = self.owner.handle([(self.customer, Read(view)) for view in what])
        for answer in answers:
            if isinstance(answer, AgentBudgetError):
                raise AssertionError(f"reading failed: {answer!r}") from answer
        return list(answers)

    def restart(self, *, snapshot: bool) -> None:
        """A new owner on the same journal: after an orderly end, which leaves a snapshot, or after a crash."""
        if snapshot:
            self.owner.close()
        self.shelf.snapshots = snapshot
        self.owner = self._new_owner()

    def beat(self, holder: str) -> tuple[frozenset[str], int]:
        """The holder lives; answers its leases that are asked back, and the number up to which."""
        beaten = self.owner.beat(Beat(holder, (self.customer,)))
        return frozenset(beaten.recall.get(self.customer, ())), beaten.told.get(self.customer, 0)

    def tick_with_dead_holders(self) -> None:
        self.holders.all_dead = True
        self.owner.tick()
        self.holders.all_dead = False

    def written(self) -> list[Sealed]:
        """Every entry of this customer, as the journal took it."""
        return [one for batch in self.shelf.batches for one in batch.entries if one.customer == self.customer]

    def entries(self) -> list[Entry]:
        return [decode(sealed.record) for sealed in self.written()]

    def snapshots(self) -> list[Snapshot]:
        return [one for batch in self.shelf.batches for one in batch.snapshots if one.customer == self.customer]
