"""A process that holds leases: the real ``Holder`` and ``SessionLeases`` on the virtual clock, with a network in place of a host.

The keeper's thread is an event here, and its beat a message like any other, so that it can be late or lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from agentbudget.account.commands import LEASE_PREFIX, Command, Renew
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.leases import holder as holder_module
from agentbudget.runtime.leases import session_leases as leases_module
from agentbudget.runtime.leases.holder import Holder
from agentbudget.runtime.leases.session_leases import SessionLeases
from tests.sim.clockwork import Clockwork
from tests.sim.network import Call
from tests.sim.owning import CUSTOMER
from tests.sim.trails import Died, MemorySpool

if TYPE_CHECKING:
    from tests.sim.agents import Agent
    from tests.sim.world import World


def use_its_ids(work: Clockwork) -> Callable[[], None]:
    """Ids of the holder's side come from the run; call what is returned to undo it."""
    leases, holder = cast("Any", leases_module), cast("Any", holder_module)
    before = leases.new_lease_id, holder.new_id
    leases.new_lease_id, holder.new_id = lambda: LEASE_PREFIX + work.new_id(), work.new_id

    def undo() -> None:
        leases.new_lease_id, holder.new_id = before

    return undo


class Process:
    """One life of a process. What it does, it does through ``do``: not when it is dead, later when it is suspended."""

    def __init__(self, world: World) -> None:
        self.world, self.work = world, world.work
        self.live: set[str] = set()
        self.timeout_seconds = 30.0
        self.dead = False
        self.asleep_until_us = 0
        self.heard_of_us = 0
        self.agents: list[Agent] = []
        self.owns: dict[str, SessionLeases] = {}
        self.holder = Holder(self, self.work.clock, open_spool=self._open_spool)
        self.holder._keeper = threading.current_thread()  # there is one: pulse() is called from here
        self.holder._finalizer.detach()
        self.name = self.holder.id
        self.spool = MemorySpool(self.name, self._tear)

    # --- life ---

    def do(self, what: Callable[..., None], *args: Any) -> None:
        """Something happens in the process."""
        if self.dead:
            return
        if self.work.now_us < self.asleep_until_us:
            self.work.after(self.asleep_until_us - self.work.now_us, lambda: self.do(what, *args))
            return
        try:
            what(*args)
        except Died:
            self.work.saw("died while writing")
            self.die()

    def later(self, delay_us: int, what: Callable[..., None], *args: Any) -> None:
        self.work.after(delay_us, lambda: self.do(what, *args))

    def die(self) -> None:
        """kill -9: what is in memory is gone; what its spool has is found by another."""
        if self.dead:
            return
        self.dead = True
        self.live.clear()
        self.work.note(self.name, "dies")
        self.work.saw("holder died")
        self.world.died(self)

    def sleep(self, duration_us: int) -> None:
        """The machine is suspended: nothing happens in the process, and its clock goes on."""
        self.work.note(self.name, "is suspended for", duration_us)
        self.asleep_until_us = self.work.now_us + duration_us

    def _open_spool(self, holder: str) -> MemorySpool:
        return self.spool

    def _tear(self, record: str) -> bool:
        """A record is about to be written: there may be no room (not where ! says that nobody minds), or no time."""
        faults, work = self.world.faults, self.work
        if faults.torn and work.happens(0.002):
            raise Died
        if faults.full_spool and not record.endswith("!") and work.happens(0.08 if record == "dispatched" else 0.02):
            work.saw(f"no room: {record}")
            return False
        return True

    # --- the host ---

    def submit(self, customer: str, command: Command, done: Callable[[Any], None]) -> None:
        """See ``Host``; a message of a lease is also what the truth is told of."""
        sent_us = self.work.now_us
        self.work.note(self.name, "sends", command)
        if isinstance(command, Renew):
            self._skip_a_number(command)
            self.world.truth.sent(command)
            self.world.waiting.sent(command)
        if self.world.faults.drop and self.work.happens(0.01):
            self.work.saw("refused at once")
            raise OwnerUnavailable("nobody takes it", "sim", "send it again")
        call = self.world.network.send(
            command, self.name, lambda answer: self.do(self._heard, command, sent_us, done, answer, call)
        )

    def _skip_a_number(self, renew: Renew) -> None:
        """A holder that lost count sends a message ahead of its turn, under a number that cannot be due: the one before it may,
        where the network brings again what asked in vain before, and is granted now."""
        is_new = renew != self.world.truth.of(renew.lease).sent
        if self.world.faults.skip and is_new and self.work.happens(0.05):
            self.work.saw("number skipped")
            wrong = replace(renew, seq=renew.seq + 2)
            self.world.node.arrive(Call(wrong, self.name, lambda answer: None, self.work.now_us))

    def _told(self, recall: Iterable[str], call: Call) -> None:
        for lease in recall:
            self.world.waiting.told(lease, call.left_us)

    def submit_or(self, command: Command, done: Callable[[Any], None]) -> None:
        """The same, for who takes errors as answers."""
        try:
            self.submit(CUSTOMER, command, done)
        except OwnerUnavailable as error:
            done(error)

    def _heard(self, command: Command, sent_us: int, done: Callable[[Any], None], answer: Any, call: Call) -> None:
        if not isinstance(answer, OwnerUnavailable):
            self.heard_of_us = max(self.heard_of_us, sent_us)
        if isinstance(command, Renew):
            self.world.truth.heard(command, answer)
            self._told(getattr(answer, "recall", ()), call)
        self.work.note(self.name, "hears", answer)
        done(answer)

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Any:
        """One that waits: it is lost, or answered before anything else happens."""
        if self.name in self.world.network.cut_off or (self.world.faults.drop and self.work.happens(0.1)):
            raise OwnerUnavailable("no answer in time", "sim", "send it again")
        answer = self.world.node.at_once(command)
        if isinstance(answer, AgentBudgetError):
            raise answer
        return answer

    def beat(self, beat: Beat) -> Beaten:
        """The keeper's beat goes as a message: for now it is as if nobody had answered."""
        sent_us = self.work.now_us
        call = self.world.network.send(beat, self.name, lambda answer: self.do(self._beaten, sent_us, answer, call))
        raise OwnerUnavailable("the answer comes later", "sim")

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Nobody nudges here: beats are soon enough."""

    is_owner = False

    @property
    def owner(self) -> str:
        """See ``Host``."""
        return "sim"

    def late(self, seconds: float) -> OwnerUnavailable:
        """Nobody blocks here."""
        return OwnerUnavailable(f"no answer within {seconds} s", "sim")

    def publish_catalog(self, document: bytes) -> int:
        """There is one catalog here."""
        return 0

    def sweep(self) -> None:
        """Nobody asks for it here."""

    def close(self) -> None:
        """Nothing to close."""

    # --- the keeper ---

    def pulse(self) -> None:
        """Once a second: a beat, and what is due."""
        if self.world.is_closing and self.is_settled_up() and not self.world.audit.has_leases(self.name):
            self.world.truth.gone[self.name] = self.world.audit.read
            return  # it has nothing left to do, and exits
        self.later(SECOND_US + self.work.between(0, 20_000), self.pulse)
        self.holder.pulse()

    def _beaten(self, sent_us: int, answer: Any, call: Call) -> None:
        if isinstance(answer, Beaten):
            self.heard_of_us = max(self.heard_of_us, sent_us)
            self.holder.heard(sent_us)
            for customer, leases in answer.recall.items():
                self.work.saw("recalled by beat")
                self._told(leases, call)
                self.holder.recalled(customer, leases, answer.told[customer])

    # --- sessions ---

    def leases_of(self, session: str) -> SessionLeases:
        """What this process has leased of a session."""
        own = self.owns.get(session)
        if own is None:
            own = self.owns[session] = SessionLeases(self.holder, CUSTOMER, session)
            own.on_unknown = self.world.on_unknown[session]
        return own

    def is_settled_up(self) -> bool:
        """Whether the owner holds nothing for it any more."""
        return not any(own.all() for own in self.owns.values()) and not any(agent.is_busy for agent in self.agents)

    def settle_up(self) -> None:
        """Report everything, give everything back, end every lease."""
        for own in self.owns.values():
            own.drain()
            own.give_back()
