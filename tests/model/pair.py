"""The owner and the oracle side by side: whatever happens, happens to both, and they must agree after each of it."""

from __future__ import annotations

from collections import Counter

from agentbudget.account import commands as ask
from agentbudget.account.decision import Decision, Held, Renewed
from agentbudget.errors import HoldResolved, InvalidRequest, KeyConflict, OutOfOrder, OwnerUnavailable
from agentbudget.ledger.chain import verify
from agentbudget.runtime.owner.owner import Owner
from tests.model import comparing
from tests.model.driver import Driver, Store
from tests.model.oracle import Answer, Oracle
from tests.model.oracle_leases import Renewal
from tests.model.oracle_world import World
from tests.model.reached import note_answer, note_state

_EXPECTED = (KeyConflict, HoldResolved, InvalidRequest, OutOfOrder)
TTL_US = 60_000_000
"""The time to live of a hold that states none."""
SILENCE_US = 10_000_000
"""A holder of leases that was not heard of for longer is silent."""
LAPSE_AFTER_US = 24 * 3_600 * 1_000_000
"""Leases that are suspended for so long lapse."""


class Pair:
    """One customer of both. ``reached`` counts what was seen."""

    def __init__(
        self,
        journal: Store,
        customer: str,
        *,
        start_us: int,
        owner: type[Owner] = Owner,
        reached: Counter[str] | None = None,
        on_lapse: str = "charge",
    ) -> None:
        self.driver = Driver(journal, customer, start_us=start_us, owner=owner, on_lapse=on_lapse)
        self.oracle, self.log = Oracle(), list[ask.Command]()
        self.reached = Counter[str]() if reached is None else reached
        self.heard: dict[str, int] = {}
        self.started_us = self.driver.clock.monotonic_us()
        self.policies: dict[int, int] = {}
        self.told: dict[str, int] = {}

    @property
    def world(self) -> World:
        assert self.oracle.world is not None, "create the customer first"
        return self.oracle.world

    @property
    def now(self) -> int:
        return self.oracle.saw(self.driver.clock.now_us())

    def send(self, command: ask.Command) -> object:
        """Both answer; the answers must agree. Answers the owner's."""
        opened = len(self.oracle.world.steps) if self.oracle.world is not None else 0
        self._hear(command)
        answer = self.driver.send(command)
        due = self._due(command)
        self.log.append(command)
        if not isinstance(command, ask.CreateCustomer):  # again, it says that nothing changed
            comparing.same_answer(answer, due)
        note_answer(self.reached, command, due, self.world, self.world.seen_us)
        if isinstance(command, ask.Hold) and len(self.world.steps) > opened:
            self._within_bounds(command.step, {"credits": command.amount, **command.measures})
        if isinstance(answer, Renewed) and isinstance(due, Renewal) and not due.again:
            self._renewed(answer, due)
        if isinstance(answer, Renewed) and isinstance(command, ask.Renew) and answer.recall:
            self._told(command.holder, answer.told)
        return answer

    def _told(self, holder: str, number: int) -> None:
        """The holder was told of recalls up to a number: what that stands for is what the oracle had asked back by then."""
        self.told[holder] = number
        self.world.queue.meanings.setdefault(number, self.world.queue.told)

    def _within_bounds(self, step: str, need: dict[str, int]) -> None:
        comparing.within_bounds(self.driver.read("limits")[0], need, self.world.steps[step].context.path)

    def _renewed(self, answer: Renewed, due: Renewal) -> None:
        if answer.amount or any(answer.measures.values()):
            self._within_bounds(answer.lease, {"credits": answer.amount, **answer.measures})
        if answer.is_open and not answer.strict and answer.seq:
            comparing.same_policy(self.policies, due.shown.policy, answer.policy)

    def _hear(self, command: ask.Command) -> None:
        if isinstance(command, ask.Renew):
            self.heard[command.holder] = self.driver.clock.monotonic_us()

    def _due(self, command: ask.Command) -> Answer | KeyConflict | HoldResolved | InvalidRequest | OutOfOrder:
        try:
            return self.oracle.handle(command, self.driver.clock.now_us())
        except _EXPECTED as error:
            return error

    def explained(self, hold: ask.Hold) -> object:
        """Explaining holds nothing, and says what the hold then gets."""
        explained = self.driver.send(ask.Explain(hold))
        answer = self.send(hold)
        assert isinstance(explained, Decision), explained
        queued = explained.allowed and bool(self.world.queue.tickets)  # others may wait for longer
        assert queued or explained.allowed == isinstance(answer, Held), f"explained as {explained}, answered {answer}"
        return answer

    # --- what goes wrong ---

    def restart(self, *, snapshot: bool) -> None:
        """The owner ends, orderly (which leaves a snapshot) or not, and another takes over."""
        self.driver.restart(snapshot=snapshot)
        self.heard, self.started_us = {}, self.driver.clock.monotonic_us()
        self._reloaded()

    def _reloaded(self) -> None:
        """Another fold of the same entries; what is overdue ends before its first answer."""
        self.told = {}  # the numbers of an owner that is gone mean nothing to the next
        self.oracle.restarted(self.driver.clock.now_us())
        self._end_leases()

    def lose_the_answer(self, command: ask.Command, *, committed: bool) -> object:
        """The commit fails, or only its answer is lost; the same key again has one effect (laws L1 and L4)."""
        self._hear(command)
        self.driver.shelf.lose = "after" if committed else "before"
        lost = self.driver.send(command)
        assert isinstance(lost, OwnerUnavailable), f"answered {lost!r} though nobody knows whether it is durable"
        if committed:
            self._due(command)
        self._reloaded()
        self.reached["lost after" if committed else "lost before"] += 1
        self.reached["lost a renewal"] += isinstance(command, ask.Renew)
        return self.send(command)

    def holders_die(self) -> None:
        """The owner ends, oldest first, what nobody held on to for longer than its time to live."""
        now = self.driver.clock.now_us()  # not the latest time it saw: a clock set back only makes the owner patient
        silent = [s for s in self.world.steps.values() if s.end is None and s.opened_us + TTL_US <= now]
        self.driver.tick_with_dead_holders()
        for step in silent:
            if step.lease is None:
                self._due(ask.LapseHold(step.id))
                self.reached["silent holder"] += 1
        self._end_leases()

    # --- holders of leases ---

    def beat(self, holder: str) -> frozenset[str]:
        """The holder lives; both say which of its leases are asked back."""
        self.heard[holder] = self.driver.clock.monotonic_us()
        recalled, told = self.driver.beat(holder)
        due = self.world.tell(holder)
        assert recalled == due, f"{holder} is asked for {set(recalled)}, due {set(due)}"
        if recalled:
            self._told(holder, told)
        return recalled

    def tick(self) -> None:
        """The owner looks at what is overdue; holders of steps live."""
        self.driver.owner.tick()
        self._end_leases()

    def _end_leases(self) -> None:
        """Silence suspends a lease, and long after that ends it."""
        clock = self.driver.clock
        for lease in self.world.leases():
            suspended = lease.lease.suspended_us
            if clock.monotonic_us() - self.heard.get(lease.lease.holder, self.started_us) <= SILENCE_US:
                continue
            if suspended is None:
                self._due(ask.SuspendLease(lease.id))
                self.reached["suspended"] += 1
            elif suspended + LAPSE_AFTER_US <= clock.now_us():
                self._due(ask.LapseLease(lease.id, self.driver.on_lapse == "charge"))
                self.reached[f"lease lapsed: {self.driver.on_lapse}"] += 1

    # --- what must hold ---

    def check(self) -> None:
        """Every view says what the oracle's sums say."""
        balance, limits, sessions, holds = self.driver.read("balance", "limits", "sessions", "holds")
        world, now = self.world, self.oracle.looked(self.driver.clock.now_us())
        comparing.same_balance(balance, world, now)
        comparing.same_limits(limits, world, now)
        comparing.same_sessions(sessions, world)
        comparing.same_holds(holds, world)
        note_state(self.reached, world, now)

    def check_ledger(self) -> None:
        """The chain verifies, entries balance, and replay from nothing gives the same views (laws L2, L6, L7)."""
        report = verify(self.driver.written(), customer=self.driver.customer)
        assert report.ok, report
        for entry in self.driver.entries():
            sums: Counter[str] = Counter()
            for posting in entry.postings:
                sums[posting.grant] += posting.amount
            assert not any(sums.values()), f"L2: {entry}"
        self.driver.clock.set_us(self.now)  # a new owner has not seen the times at which the old one was only read
        before = self._counted_views()
        self.driver.restart(snapshot=False)
        after = self._counted_views()
        assert after == before, f"L6: replay from zero gives {after}, not {before}"
        self.reached["snapshot used"] += self.driver.shelf.snapshots_used

    def _counted_views(self) -> tuple[object, ...]:
        # A limit by type shows the entities at which it counted something, so rows without a count may differ.
        balance, limits, holds, entities = self.driver.read("balance", "limits", "holds", "entities")
        return balance, [limit for limit in limits if limit.used or limit.held], holds, entities
