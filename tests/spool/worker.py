"""A process with leases, played in this one: real leases and a real spool, and an owner that is asked directly. It dies by
forgetting its file without a word, as the kernel would close it; the bytes are where the kernel has them."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from agentbudget.account.commands import (
    Command,
    CreateCustomer,
    Hold,
    IssueGrant,
    OpenSession,
    Read,
    Renew,
    SetLimit,
    SettleHold,
)
from agentbudget.account.decision import Answer, BalanceView, Renewed, SessionView
from agentbudget.catalog.terms import PlanTerms
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError
from agentbudget.ledger import Store
from agentbudget.runtime.leases.lease import Key, Lease
from agentbudget.runtime.owner.owner import Owner
from agentbudget.runtime.spool.writing import Spool
from agentbudget.testing import ManualClock

KEY = Key("llm", "gpt-5", None, None, False)
GRANT = 10_000_000
DAY = 24 * 3_600


class Truth(NamedTuple):
    """What must be booked in the end: nanocredits and steps."""

    consumed: int
    steps: int


class Office:
    """An owner on a journal, its clock, and one customer with a session in it."""

    def __init__(self, journal: Store, clock: ManualClock, **policy: Any) -> None:
        self.clock, self.owner = clock, Owner(journal, clock, name="test", **policy)

    def set_up(self, *, tokens: int | None = 10**9, on_unknown: Any = "charge") -> Office:
        self.ask("acme", CreateCustomer(PlanTerms("team", "v1")))
        self.ask("acme", IssueGrant("g", GRANT))
        if tokens is not None:
            self.ask("acme", SetLimit("customer", tokens, "tokens"))
        self.ask("acme", OpenSession("run", on_unknown=on_unknown, ttl_us=300 * DAY * SECOND_US))
        return self

    def ask(self, customer: str, command: Command) -> Answer:
        (answer,) = self.owner.handle([(customer, command)])
        if isinstance(answer, AgentBudgetError):
            raise answer
        return answer

    @property
    def balance(self) -> BalanceView:
        answer = self.ask("acme", Read("balance"))
        assert isinstance(answer, BalanceView)
        return answer

    @property
    def booked(self) -> Truth:
        session = self.ask("acme", Read("session", "run"))
        assert isinstance(session, SessionView)
        return Truth(self.balance.consumed, session.steps)

    def lapse(self) -> None:
        """Let the dead be silent for as long as it takes: suspended, and a day later lapsed."""
        for seconds in (11, DAY + 1):
            self.clock.advance(seconds)
            self.owner.tick()


class Worker:
    """Leases of one process. ``truth`` follows from what its steps did, whoever books it."""

    def __init__(self, office: Office, folder: str, holder: str = "h1", seed: int = 0, **spool: int) -> None:
        self.office, self.holder = office, holder
        self.spool = Spool.open(folder, holder, segment_bytes=1 << 16, **spool)
        self.chance = random.Random(seed)
        self.leases: list[Lease] = []
        self.settled = self.count = self.guessed = 0
        self.on_unknown = "charge"

    @property
    def now_us(self) -> int:
        return self.office.clock.monotonic_us()

    def lease(self) -> Lease:
        name = f"lease:{self.holder}-{len(self.leases)}"
        lease = Lease(name, "run", KEY, self.spool.trail("acme", name, "run", KEY, self.on_unknown))
        self.leases.append(lease)
        return lease

    def ask(self, lease: Lease, amount: int = 100, *, heard: bool = True, **what: Any) -> None:
        """Say a message; not ``heard``: the owner applies it, and its answer is lost."""
        hold = Hold("next", "run", "llm", amount, {"tokens": amount}, model="gpt-5")
        message = lease.message(self.holder, self.now_us, ask=None if what.get("close") else hold, **what)
        answer = self.tell(message)
        if heard:
            lease.answered(answer, self.now_us)

    def tell(self, message: Renew) -> Renewed:
        answer = self.office.ask("acme", message)
        assert isinstance(answer, Renewed)
        return answer

    def begin(self, lease: Lease, amount: int = 100, *, dispatched: bool = True) -> int:
        """A step's number; 0 when the lease does not cover it."""
        wall_us = self.office.clock.now_us()
        return lease.take(amount, {"tokens": amount}, self.now_us, wall_us, dispatched=dispatched)

    def settle(self, lease: Lease, n: int, cost: int) -> None:
        index = lease.tariff("per-token", "v1")
        lease.settle(
            n, f"{lease.id}.{n}", cost, {"tokens": cost}, index, usage={"input_tokens": cost}, model=None,
            now_us=self.now_us, wall_us=self.office.clock.now_us(),
        )  # fmt: skip
        self.settled, self.count = self.settled + cost, self.count + 1

    def guess(self, lease: Lease, n: int, *, heard: bool = True) -> None:
        """A step's outcome is not known: the owner books what it held."""
        step = lease.open[n]
        lease.dispatch(n)
        step.guessed = True
        name = f"{lease.id}.{n}"
        self.office.ask(
            "acme",
            SettleHold(name, step.amount, dict(step.measures), outcome="unknown", error="timeout", lease=lease.id),
        )
        if heard:
            lease.guessed(n, step.amount, step.measures, self.now_us)
            self.guessed += step.amount
            self.count += 1

    def truth(self) -> Truth:
        """What was settled, and by policy what was sent and never ended. Whatever had begun was a step."""
        open_steps = [step for lease in self.leases for step in lease.open.values()]
        charged = [step.amount for step in open_steps if step.dispatched and self.on_unknown == "charge"]
        return Truth(self.settled + self.guessed + sum(charged), self.count + len(open_steps))

    def live(self, moves: int) -> None:
        """Do something, so many times."""
        for _ in range(moves):
            self._move()

    def _move(self) -> None:
        chance, draw = self.chance, self.chance.random()
        if len(self.leases) < 3 and (draw < 0.05 or not self.leases):
            return self.ask(self.lease(), times_amount(chance), heard=chance.random() < 0.8)
        lease = chance.choice(self.leases)
        if lease.ended:
            return None
        if lease.sent is not None:
            if draw < 0.3:
                lease.answered(self.tell(lease.resent()), self.now_us)
        elif draw < 0.12:
            return self.ask(lease, times_amount(chance), heard=chance.random() < 0.7, back=chance.random() < 0.5)
        elif draw < 0.14 and not lease.open:
            return self.ask(lease, heard=chance.random() < 0.5, close=True)
        if lease.open and draw < 0.5:
            return self._end(lease, chance.choice(list(lease.open)))
        if lease.open and draw < 0.6:
            return self._extend(lease, chance.choice(list(lease.open)))
        self.begin(lease, chance.randrange(0, 120), dispatched=chance.random() < 0.7)
        return None

    def _extend(self, lease: Lease, n: int) -> None:
        more = self.chance.randrange(0, 60)
        if not lease.open[n].guessed:
            lease.extend(n, more, {"tokens": more}, self.now_us)

    def _end(self, lease: Lease, n: int) -> None:
        chance, step = self.chance, lease.open[n]
        draw = chance.random()
        if step.guessed:
            return  # its answer never came
        if draw < 0.1:
            lease.release(n, self.now_us)
            self.count += 1
        elif draw < 0.2:
            lease.dispatch(n)
        elif draw < 0.28 and lease.sent is None and lease.free >= 0 and step.amount:
            self.guess(lease, n, heard=chance.random() < 0.6)
        else:
            most = 30_000 if chance.random() < 0.05 else step.amount * 3 // 2
            self.settle(lease, n, chance.randrange(0, most + 2))

    def die(self) -> None:
        """kill -9, as far as the file can tell."""
        self.spool._pages.forget()


def times_amount(chance: random.Random) -> int:
    return chance.randrange(1, 200)


SILENT_US = 11 * SECOND_US
