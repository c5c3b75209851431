"""The process that dies. ``python -m tests.crash.worker`` is a fork server: it imports everything once, then forks one
child for each job (a line of JSON) that it reads, so that a cycle costs milliseconds.

It has no thread of its own when it forks, and a child opens its own runtime after the fork. Its standard output carries,
a line each: ``pid <n>``, ``ready``, then one fact as soon as its answer came, and ``gone <status>`` when the child is
dead. A line is shorter than PIPE_BUF, so a kill never cuts one.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from agentbudget import AgentBudgetError, BudgetDenied, Runtime, Session
from agentbudget.account.commands import SettleHold
from agentbudget.clock import SystemClock
from agentbudget.ledger.sql import SqlJournal
from agentbudget.runtime.customer import Customer
from agentbudget.testing import ManualClock
from tests.crash.doomed import Doomed
from tests.crash.script import CUSTOMER, SCRIPT, same
from tests.crash.setting import CATALOG, CUSTOMERS, POLICIES, THREADS, TTL_SECONDS

Say = Callable[[object], None]


class AheadClock:
    """The machine's clock, so many microseconds ahead: each cycle is later than what the one before let lapse."""

    def __init__(self, ahead_us: int) -> None:
        self._clock, self._ahead_us = SystemClock(), ahead_us

    def now_us(self) -> int:
        return self._clock.now_us() + self._ahead_us

    def monotonic_us(self) -> int:
        return self._clock.monotonic_us()


def say(what: object) -> None:
    """One line, in one write."""
    os.write(1, (what if isinstance(what, str) else json.dumps(what)).encode() + b"\n")


def work(job: dict[str, Any]) -> None:
    """Threads that spend until somebody kills this process; every answer is said as [customer, key of its entry, nano]."""
    clock = AheadClock(job["ahead_us"])
    runtime = Runtime.open(job["url"], catalog=CATALOG, clock=clock, hold_ttl_seconds=TTL_SECONDS)
    customers = [runtime.customers.create(name, plan=plan) for name, plan in CUSTOMERS.items()]
    say("ready")
    for n in range(THREADS):
        agent = _Agent(customers[n % len(customers)], f"{job['cycle']}.{n}", random.Random(f"{job['seed']}-{n}"))
        threading.Thread(target=agent.run).start()


class _Agent:
    """One thread: opens a session, holds and ends steps in every way, adds grants, makes children."""

    def __init__(self, customer: Customer, name: str, chance: random.Random) -> None:
        self._customer, self._name, self._chance = customer, name, chance
        self._count = 0
        self._kept: list[
            object
        ] = []  # a step that is forgotten would be ended by the collector, which dead holders are not

    def run(self) -> None:
        try:
            self._grant()
            session = self._open(self._customer.session, 1_000)
            while True:
                self._one(session)
        except AgentBudgetError as error:  # nothing here may fail: the parent shows what it was
            say({"failed": f"{type(error).__name__}: {error}"})

    def _one(self, session: Session) -> None:
        what = self._chance.random()
        if what < 0.06:
            self._grant()
        elif what < 0.10:
            key = self._new()
            session.fund(1, key=key)
            self._said(f"fund:{key}", 10**9)
        elif what < 0.16:
            child = self._open(session.child, 2)
            self._step(child)
            child.close()
        else:
            self._step(session)

    def _step(self, session: Session) -> None:
        chance, key = self._chance, self._new()
        try:
            step = session.reserve("tool", name="search", amount="0.1", key=key, dispatched=chance.random() < 0.5)
        except BudgetDenied:
            return self._grant()
        self._kept.append(step)
        self._said(key, step.hold.nano)
        if chance.random() < 0.2:
            answer = self._customer.link.ask(SettleHold(key, 10_000_000, part=1))
            self._said(f"{key}#1", answer.charged)  # type: ignore[union-attr]
        end = chance.random()
        if end < 0.6:
            self._said(f"{key}#end", step.settle(amount=chance.choice(("0.03", "0.05", "0.25"))).charged.nano)
        elif end < 0.8:
            self._said(f"{key}#end", step.release().charged.nano)

    def _open(self, make: Callable[..., Session], budget: int) -> Session:
        name = self._new()
        session = make(budget=budget, id=name, on_unknown=self._chance.choice(POLICIES)).open()
        self._said(f"session:{name}", budget * 10**9)
        return session

    def _grant(self) -> None:
        key = self._new()
        self._customer.wallet.grant(5, key=key)
        self._said(f"grant:{key}", 5 * 10**9)

    def _new(self) -> str:
        self._count += 1
        return f"{self._name}.{self._count}"

    def _said(self, key: str, nano: int) -> None:
        say([self._customer.id, key, nano])


def redeliver(job: dict[str, Any]) -> None:
    """Send the script's commands from ``job["first"]`` on, one after the other, and die at the first commit that writes."""
    journal = Doomed(SqlJournal.open(job["url"]), after=job["after"])
    runtime = Runtime.open(journal, catalog=CATALOG, clock=ManualClock())  # type: ignore[arg-type]
    say("ready")
    for n in range(job["first"], len(SCRIPT)):
        say([n, same(runtime.host.ask(CUSTOMER, SCRIPT[n]))])
    runtime.close()


def keep(job: dict[str, Any]) -> None:
    """Own the ledger, hold one step, and stay."""
    runtime = Runtime.open(job["url"], catalog=CATALOG, hold_ttl_seconds=TTL_SECONDS)
    session = runtime.customers.create(CUSTOMER, plan="postpaid").session(budget=1, id="kept").open()
    step = session.reserve("tool", name="search", amount=1, key="kept-step")
    say([CUSTOMER, step.id, step.hold.nano])
    say("ready")
    threading.Event().wait()


JOBS: dict[str, Callable[[dict[str, Any]], None]] = {"work": work, "redeliver": redeliver, "keep": keep}


def warm_up() -> None:
    """Import and compile all that a first step needs (the schema's migration takes a second), and stop every thread again."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Runtime.open(f"sqlite:///{folder}/warm.db", catalog=CATALOG) as runtime,
        runtime.customers.create("warm", plan="postpaid").session(budget=1) as session,
        session.step("tool", name="search", amount=1),
    ):
        pass
    assert threading.active_count() == 1


def main() -> None:
    warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            return JOBS[job["do"]](job)
        say(f"pid {child}")
        say(f"gone {os.waitpid(child, 0)[1]}")


if __name__ == "__main__":
    main()
