"""The owner's machine: a real ``Owner`` over a store that outlives it; it dies at any point and another takes over."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, Literal

from agentbudget.account.commands import Command
from agentbudget.clock import SECOND_US
from agentbudget.errors import LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.journal import Batch, DenialNote, Loaded
from agentbudget.ledger.memory import MemoryJournal, MemoryStore
from agentbudget.runtime.host import Beat
from agentbudget.runtime.owner.owner import Owner
from tests.sim.broken import must
from tests.sim.clockwork import Clockwork
from tests.sim.faults import Faults
from tests.sim.network import Call, Network
from tests.sim.trails import Died

CUSTOMER = "acme"
LAPSE_AFTER_US = 6 * SECOND_US
"""In place of a day, so that a run need not be one."""


class ShakyJournal:
    """A ``MemoryJournal`` whose calls fail, and whose process dies at them, by the chances of the run."""

    def __init__(self, store: MemoryStore, clockwork: Clockwork, faults: Faults) -> None:
        self._inner, self._work, self._faults = MemoryJournal(store), clockwork, faults

    def claim(self, owner: str) -> int:
        return self._inner.claim(owner)

    def commit(self, batch: Batch) -> None:
        """Every way in which a commit ends: done, lost, done but not known, and the process gone before or after it."""
        work, faults, some = self._work, self._faults, bool(batch.entries)
        if faults.owner_dies and work.happens(0.02 if some else 0.002):
            work.saw("owner died before commit")
            raise Died
        if faults.commit_lost and work.happens(0.03):
            work.saw("commit lost")
            self._inner.fail_at(1)
        elif faults.commit_unknown and some and work.happens(0.04):
            work.saw("commit unknown")
            self._inner.fail_at(1, after=True)
        self._inner.commit(batch)
        if faults.owner_dies and some and work.happens(0.02):
            work.saw("owner died after commit")
            raise Died

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        self._stutter()
        return self._inner.find(keys)

    def load(self, customer: str) -> Loaded | None:
        self._stutter()
        found = self._inner.load(customer)
        if found is not None and found.snapshot is not None:
            self._work.saw("snapshot used")
        return found

    def _stutter(self) -> None:
        if self._faults.stutter and self._work.happens(0.02):
            self._work.saw("store stuttered")
            self._inner.fail_at(1)

    def close(self) -> None:
        self._inner.close()

    def customers(self) -> Iterator[str]:
        return self._inner.customers()

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._inner.entries(customer, after=after)

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._inner.denials(customer, limit=limit)


Judge = Callable[[Call, Any], None]
"""Looks at an answer as it leaves the owner."""


class OwnerNode:
    """One owner at a time, but for a predecessor that does not know yet that it is none any more."""

    def __init__(
        self,
        clockwork: Clockwork,
        faults: Faults,
        network: Network,
        *,
        live: Container[str],
        on_lapse: Literal["charge", "release"],
        judge: Judge,
    ) -> None:
        self._work, self._faults, self._network, self._judge = clockwork, faults, network, judge
        self._live, self._on_lapse = live, on_lapse
        self.store = MemoryStore()
        self.owner: Owner | None = None
        self._zombie: Owner | None = None
        self._inbox: list[Call] = []
        self._is_due = False
        self._lives = 0

    # --- life and death ---

    def start(self) -> None:
        """A new owner on the same store."""
        if self.owner is not None:
            return
        self._lives += 1
        self._work.note("owner", "starts", self._lives)
        self.owner = self._new_owner()

    def _new_owner(self) -> Owner:
        journal = ShakyJournal(self.store, self._work, self._faults)
        return Owner(
            journal, self._work.clock, name=f"owner {self._lives}", live=self._live,
            on_lapse=self._on_lapse, lapse_after_us=LAPSE_AFTER_US,
        )  # fmt: skip

    def die(self) -> None:
        """It is gone, and everything in its memory; another comes soon, or after longer than a holder may be silent."""
        work = self._work
        work.note("owner", "dies")
        work.saw("owner died")
        if self._faults.zombie and work.happens(0.5):
            self._zombie = self.owner
        self.owner, self._inbox = None, []
        down_us = work.chance.choice((0, SECOND_US // 10, SECOND_US, 4 * SECOND_US, 13 * SECOND_US))
        if down_us > 10 * SECOND_US:
            work.saw("owner down for long")
        work.after(down_us, self.start)

    def hand_over(self) -> None:
        """An orderly end: snapshots are written, and another goes on."""
        if self.owner is None:
            return
        self._work.note("owner", "hands over")
        self._work.saw("owner handed over")
        owner, self.owner, self._inbox = self.owner, None, []
        try:
            owner.close()
        except (OwnerUnavailable, Died):
            self._work.saw("no snapshot")
        self.start()

    # --- serving ---

    def arrive(self, call: Call) -> None:
        """A message is in the mailbox; everything that waits is decided together."""
        if self.owner is None:
            if self._work.happens(0.5):
                call.end(OwnerUnavailable("nobody answers", "sim", "send it again"))
            return
        self._inbox.append(call)
        if not self._is_due:
            self._is_due = True
            self._work.after(self._work.between(50, 3_000), self._serve)

    def _serve(self) -> None:
        self._is_due = False
        if self.owner is None:
            return
        calls, self._inbox = self._inbox, []
        owner = self.owner
        if self._zombie is not None and self._work.happens(0.3):
            owner, self._zombie = self._zombie, None
            self._work.saw("zombie asked")
        try:
            answers = self._decide(owner, calls)
        except Died:
            return self.die() if owner is self.owner else None
        if self._faults.owner_dies and self._work.happens(0.01):
            self._work.saw("owner died before answering")
            return self.die()
        self._answer(calls, answers)

    def _answer(self, calls: list[Call], answers: list[Any]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            self._work.note("owner", "answers", call.sender, call.what, "->", answer)
            self._judge(call, answer)
            self._network.answer(call, answer)

    def _decide(self, owner: Owner, calls: list[Call]) -> list[Any]:
        commands = [call for call in calls if not isinstance(call.what, Beat)]
        replies = iter(owner.handle([(CUSTOMER, call.what) for call in commands]) if commands else ())
        answers = [self._beaten(owner, call.what) if isinstance(call.what, Beat) else next(replies) for call in calls]
        for answer in answers:
            self._no_bug(answer)
        return answers

    @staticmethod
    def _beaten(owner: Owner, beat: Beat) -> Any:
        try:
            return owner.beat(beat)
        except OwnerUnavailable as error:
            return error

    @staticmethod
    def _no_bug(answer: Any) -> None:
        bug = isinstance(answer, LedgerCorrupt) or (
            isinstance(answer, OwnerUnavailable) and answer.what.startswith(("the owner failed", "law "))
        )
        must(not bug and "InvariantBroken" not in type(answer).__name__, "L6", "the owner met a bug:", answer)

    def at_once(self, command: Command) -> Any:
        """Decide a command now, for who blocks until it is answered."""
        if self.owner is None:
            return OwnerUnavailable("nobody answers", "sim", "send it again")
        call = Call(command, "blocked", lambda answer: None, self._work.now_us)
        try:
            answer = self._decide(self.owner, [call])[0]
        except Died:
            self.die()
            return OwnerUnavailable("nobody answers", "sim", "send it again")
        self._judge(call, answer)
        self._work.note("owner", "answers at once", command, "->", answer)
        return answer

    def tick(self) -> None:
        """Once a second."""
        if self.owner is not None:
            try:
                self.owner.tick()
            except Died:
                self.die()
        self._work.after(SECOND_US, self.tick)
