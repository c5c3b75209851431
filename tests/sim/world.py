"""One run: processes, an owner, administrators; what goes wrong; and then everything heals, ends, and must add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

from agentbudget.account import commands as ask
from agentbudget.account.decision import BalanceView, Held, Opened, Renewed, Settled
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError, OutOfOrder
from agentbudget.ledger.chain import verify
from agentbudget.runtime.owner.folding import account_of
from tests.sim.administration import Administrator
from tests.sim.agents import KEYS, Agent
from tests.sim.audit import Audit
from tests.sim.broken import must
from tests.sim.clockwork import Clockwork
from tests.sim.faults import swarm
from tests.sim.holding import Process, use_its_ids
from tests.sim.network import Call, Network, named
from tests.sim.owning import CUSTOMER, LAPSE_AFTER_US, OwnerNode
from tests.sim.replay import Replays
from tests.sim.truth import Truth
from tests.sim.waiting import Waiting

FOLD_EVERY = 150
"""Entries between two folds of the whole store (law L6)."""
CLOSING_US = 240 * SECOND_US
"""After so long with nothing going wrong everything must have ended."""


class Living:
    """Strict steps that a process works on: their holds do not lapse by silence."""

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes

    def __contains__(self, step: object) -> bool:
        return any(step in process.live for process in self._processes if not process.dead)


class World:
    """See the module. ``run`` is all there is to do with it; ``Broken`` says which law did not hold."""

    def __init__(self, seed: int) -> None:
        self.work = work = Clockwork(seed)
        self.faults, self.setting = swarm(work.chance)
        self.is_calm = not any(vars(self.faults).values())
        self.is_closing = False
        self.on_unknown: dict[str, str] = {}
        self.processes: list[Process] = []
        on_lapse: Literal["charge", "release"] = "charge" if self.setting.lapse_charges else "release"
        self.network = Network(work, self.faults, lambda: self.node, lambda: len(self.node.store.entries[CUSTOMER]))
        self.node = OwnerNode(
            work, self.faults, self.network, live=Living(self.processes), on_lapse=on_lapse, judge=self._judge
        )
        entries = self.node.store.entries.setdefault(CUSTOMER, [])
        self.audit = Audit(entries, on_lapse_charges=self.setting.lapse_charges)
        self.truth = Truth(self.audit)
        self.waiting = Waiting(self.audit, work, lambda name: all(p.dead for p in self.processes if p.name == name))
        self.admin, self.replays = Administrator(self), Replays(self)
        self._folded = 0

    @property
    def figures(self) -> Counter[str]:
        work = self.work
        sums = {
            "events": work.events,
            "messages": self.network.sent,
            "entries": self.audit.read,
            "steps": len(self.truth.steps),
        }
        return work.reached + self.audit.seen + Counter(sums)

    # --- a run ---

    def run(self) -> World:
        """Play the seed."""
        undo = use_its_ids(self.work)
        try:
            self.node.start()
            self._found()
            self._go_wrong()
            self.work.run(self.work.between(5, 14) * SECOND_US, self.check)
            self._heal()
            self._close()
        finally:
            undo()
        self._add_up()
        return self

    def _found(self) -> None:
        """The customer exists before anything goes wrong."""
        faults, was = self.faults, vars(self.faults).copy()
        faults.heal()
        for command in self.admin.found():
            answer = self.node.at_once(command)
            must(not isinstance(answer, AgentBudgetError), "L4", "the start was answered", repr(answer))
        vars(faults).update(was)
        self.node.tick()
        for _ in range(self.work.between(1, 3)):
            self._start_process()
        self.admin.busy()

    def _start_process(self) -> None:
        process = Process(self)
        self.processes.append(process)
        process.do(process.pulse)
        for session in list(self.on_unknown):
            if self.work.happens(0.7):
                self._start_agents(process, session)

    def _start_agents(self, process: Process, session: str) -> None:
        for _ in range(self.work.between(1, 2)):
            agent = Agent(process, session, self.work.chance.choice(KEYS))
            process.agents.append(agent)
            agent.rest()

    def join(self, session: str) -> None:
        """Agents of a new session, in some process that lives."""
        alive = [process for process in self.processes if not process.dead]
        if alive and not self.is_closing:
            process = self.work.chance.choice(alive)
            process.do(self._start_agents, process, session)

    # --- what goes wrong besides messages and commits ---

    def _go_wrong(self) -> None:
        """Every now and then something does."""
        if self.is_closing:
            return
        work, faults = self.work, self.faults
        work.after(work.between(SECOND_US, 5 * SECOND_US), self._go_wrong)
        alive = [process for process in self.processes if not process.dead]
        process = work.chance.choice(alive) if alive else None
        if process is not None and faults.holders_die and work.happens(0.25):
            process.die()
        elif process is not None and faults.suspend and work.happens(0.3):
            work.saw("holder suspended")
            process.sleep(work.between(2, 30) * SECOND_US)
        elif process is not None and faults.cut_off and work.happens(0.3):
            self._cut_off(process)
        elif faults.owner_dies and self.node.owner is not None and work.happens(0.3):
            self.node.die() if work.happens(0.6) else self.node.hand_over()
        elif len(alive) < 3 and work.happens(0.4):
            self._start_process()

    def _cut_off(self, process: Process) -> None:
        self.work.saw("holder cut off")
        self.work.note(process.name, "is cut off")
        self.network.cut_off.add(process.name)
        self.work.after(self.work.between(2, 30) * SECOND_US, lambda: self.network.cut_off.discard(process.name))

    def died(self, process: Process) -> None:
        """Its spool is found: soon, or after its leases were suspended, or after they lapsed."""
        self.truth.gone[process.name] = 0
        seconds = [0, 2, 12]
        if self.faults.long_dead:
            seconds += [13 + LAPSE_AFTER_US // SECOND_US] * 3
        for trail in list(process.spool.trails.values()):
            left = trail.left
            self.replays.waiting.append(left)
            self.truth.left_behind(process, left.lease, left.open, charges=left.on_unknown == "charge")
        late_us = self.work.chance.choice(seconds) * SECOND_US
        self.work.after(late_us, lambda: self.replays.found(process.name))

    # --- what must hold ---

    def check(self) -> None:
        """After every event: each new entry; every so many entries the fold of them all."""
        if self.audit.is_behind and self.audit.catch_up() and self.audit.read - self._folded >= FOLD_EVERY:
            self._fold()
        self.waiting.judge()

    def _fold(self) -> None:
        """L6: a fold of the store from nothing equals the owner's state."""
        self._folded = self.audit.read
        self.audit.check_slices()
        loaded = None if self.node.owner is None else self.node.owner._loaded.get(CUSTOMER)
        if loaded is not None and loaded.account.seq == self.audit.read:
            folded = account_of(Unsnapped(self.node), CUSTOMER)  # type: ignore[arg-type]
            must(
                _state(folded) == _state(loaded.account),
                "L6",
                "the fold is not the owner's state at entry",
                self._folded,
            )

    def _judge(self, call: Call, answer: Any) -> None:
        """L1, L9: what an answer says is in the ledger when it leaves, and after everything that was answered before it was
        asked for."""
        if isinstance(answer, OutOfOrder):
            self.work.saw("out of order")
        self.waiting.decided(call.what, answer)
        key = _proof(call.what, answer)
        if key is None:
            return
        keys = self.node.store.keys
        sealed = keys.get((CUSTOMER, key))
        if sealed is None and isinstance(answer, Settled) and answer.state == "released":
            sealed = keys.get((CUSTOMER, answer.step))  # a tombstone
        must(sealed is not None, "L1", "answered, and not in the ledger:", key, answer)
        assert sealed is not None
        asked_at = self.network.asked_at.get(named(call.what), 0)
        ended = isinstance(answer, Settled)  # perhaps by another command, before
        must(ended or sealed.seq > asked_at, "L9", f"{key} is entry {sealed.seq}, and was asked for after {asked_at}")

    # --- the end ---

    def _heal(self) -> None:
        """Nothing goes wrong any more."""
        self.work.note("world", "heals")
        self.faults.heal()
        self.network.cut_off.clear()
        self.is_closing = True
        for process in self.processes:
            process.asleep_until_us = 0
        self.node.start()
        while self.admin.paused:
            self.admin.resume()

    def _close(self) -> None:
        """Everything ends: steps, leases, replays; then the sessions, and what nobody knew of."""
        self._wait_for(self._unfinished)
        for session in self.on_unknown:
            self.admin.say(ask.CloseSession(session), lambda answer: None)
        self._wait_for(self._open)

    def _wait_for(self, stuck: Callable[[], Iterator[str]]) -> None:
        end_us = self.work.now_us + CLOSING_US
        while next(stuck(), None) is not None and self.work.now_us < end_us:
            for process in self.processes:
                process.do(process.settle_up)
            self.work.run(self.work.now_us + 2 * SECOND_US, self.check)
        left = list(stuck())
        must(not left, "L5", "after everything healed there is still", *left)

    def _unfinished(self) -> Iterator[str]:
        for process in self.processes:
            if not process.dead and not process.is_settled_up():
                yield f"process {process.name} at work"
        yield from (f"spool of {left.lease}" for left in self.replays.waiting)

    def _open(self) -> Iterator[str]:
        yield from (f"{hold.id} open" for hold in self.audit.holds.values() if not hold.end)
        yield from (f"session {one.id} open" for one in self.audit.places.sessions.values() if not one.closed)

    def _add_up(self) -> None:
        """L1, L2, L4, L5, L7, L10, L11: the ledger against what really happened."""
        report = verify(self.node.store.entries[CUSTOMER], customer=CUSTOMER)
        must(report.ok, "L7", report)
        self._fold()
        balance = self.node.at_once(ask.Read("balance"))
        assert isinstance(balance, BalanceView), balance
        left = (balance.held, balance.leased, balance.suspended)
        must(left == (0, 0, 0), "L5", "held, leased, suspended at the end:", left)
        self.audit.check_slices()
        self.truth.check()


class Unsnapped:
    """The store as it is read without its snapshots."""

    def __init__(self, node: OwnerNode) -> None:
        self._node = node

    def load(self, customer: str) -> Any:
        from agentbudget.ledger.journal import Loaded

        return Loaded(None, list(self._node.store.entries[customer]))


def _proof(command: Any, answer: Any) -> str | None:
    """The key of the entry that an answer speaks of; None where nothing need be written."""
    match answer:
        case Held():
            return str(command.step)
        case Settled():
            return f"{answer.step}#end"
        case Renewed() if answer.amount or (answer.seq and (answer.seq >= command.seq or not answer.is_open)):
            return f"{command.lease}#{command.seq}"
        case Opened() if isinstance(command, ask.OpenSession) and not answer.joined:
            return f"session:{command.session}"
    return None


def _state(account: Any) -> bytes:
    state: bytes = account.snapshot()
    return state
