"""What processes do that share a wallet, what they say of it, and what the ledger must say to that."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from agentbudget import BudgetDenied, Catalog, Credits, Runtime, Session
from agentbudget.account.commands import OnUnknown
from agentbudget.account.decision import BalanceView
from agentbudget.account.expand import StepLine
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.steps.step import Step
from tests.leases.processes import Life

CUSTOMER: Final = "acme"
CREDIT: Final = 10**9
SPENDING_THREADS: Final = 4
CATALOG: Final = Catalog.loads(
    """
    [plans.prepaid]
    wallet = "prepaid"
    [plans.postpaid]
    wallet = "postpaid"
    """,
    source="leases",
)
"""Steps state their amounts themselves."""


def url_of(path: Path) -> str:
    return f"sqlite:///{path}/budget.db"


def open_ledger(path: Path, **what: Any) -> Runtime:
    return Runtime.open(url_of(path), catalog=CATALOG, **what)


def found(path: Path, granted: int, *, limits: dict[str, int] | None = None) -> None:
    """A ledger with a prepaid customer, and nobody who has it open."""
    with open_ledger(path) as runtime:
        acme = runtime.customers.create(CUSTOMER, plan="prepaid")
        acme.wallet.grant(Credits.of_nano(granted), key="all")
        for entity, nano in (limits or {}).items():
            acme.entities.put(entity)
            acme.limits.set(entity, Credits.of_nano(nano))


def step_of(session: Session, nano: int, *, dispatched: bool = True) -> Step:
    return session.reserve("tool", name="search", amount=Credits.of_nano(nano), dispatched=dispatched)


def books(customer: Customer) -> BalanceView:
    """The wallet in nanocredits, with what is leased and suspended of what is held."""
    view: BalanceView = customer.link.read("balance")
    return view


def books_beside(path: Path) -> BalanceView:
    """The same from the entries alone, whoever owns the ledger: it opens nothing for writing, and replays nothing."""
    with open_ledger(path, read_only=True) as beside:
        return books(beside.customer(CUSTOMER))


def lines_of(customer: Customer) -> dict[str, list[StepLine]]:
    """Every line of the ledger about a step, by step."""
    lines: dict[str, list[StepLine]] = {}
    for line in customer.ledger.steps():
        lines.setdefault(line.step, []).append(line)
    return lines


def reason_of(denied: BudgetDenied) -> str:
    """Why a step was refused."""
    assert denied.decision is not None
    return denied.decision.reason or ""


def is_owner(runtime: Runtime) -> bool:
    """Whether this process owns the ledger."""
    assert isinstance(runtime.host, MachineHost)
    return runtime.host.is_owner


class Spender:
    """One thread: steps of random sizes until nothing can be spent any more, or for ever. It says ``begun`` when a step may run,
    and ``settled`` or ``released`` when it was told so."""

    def __init__(self, life: Life, chance: random.Random, policy: OnUnknown) -> None:
        self._life, self._chance, self._policy = life, chance, policy
        self._kept: list[Step] = []  # a forgotten step would be ended by the collector; dead processes end none

    def one(self, session: Session, nano: int) -> None:
        """One step; raises ``BudgetDenied`` when it may not run."""
        chance, life = self._chance, self._life
        is_dispatched = chance.random() < 0.9
        step = step_of(session, nano, dispatched=is_dispatched)
        life.say("begun", step.id, nano, is_dispatched, self._policy)
        if chance.random() < 0.1:
            step.release()
            life.say("released", step.id, 0)
        else:
            cost = nano if chance.random() < 0.5 else chance.randint(0, nano)
            step.settle(amount=Credits.of_nano(cost))
            life.say("settled", step.id, cost)

    def leave_open(self, session: Session, nano: int) -> None:
        """A step that this process never ends."""
        is_dispatched = self._chance.random() < 0.7
        step = step_of(session, nano, dispatched=is_dispatched)
        self._kept.append(step)
        self._life.say("begun", step.id, nano, is_dispatched, self._policy)

    def drain(self, session: Session, most: int) -> str:
        """Spend until not even a nanocredit may be spent, and why not."""
        size = most
        while True:
            nano = max(1, int(size ** self._chance.random())) if size > 1 else 1
            try:
                self.one(session, nano)
                size = max(size, 1)
            except BudgetDenied as denied:
                if nano == 1:
                    return reason_of(denied)
                size = nano // 1_000 or 1


def spend_until_killed(path: Path, seed: int, life: Life) -> None:
    """A worker that ends many steps, and leaves some open; its threads share two sessions of different policies."""
    runtime = open_ledger(path)
    acme = runtime.customer(CUSTOMER)
    life.say("opened")

    def work(n: int) -> None:
        chance = random.Random(f"{seed}.{n}")
        policy: OnUnknown = "charge" if n % 2 else "release"
        spender = Spender(life, chance, policy)
        session = acme.session(id=f"run-{seed}-{policy}", budget=1_000_000, on_unknown=policy)
        while True:
            act = spender.leave_open if chance.random() < 0.1 else spender.one
            act(session, chance.randint(1, CREDIT))

    in_threads(SPENDING_THREADS, work)


class Heard:
    """What processes said of their steps."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[int, bool, str]] = {}
        self.ended: dict[str, tuple[str, int]] = {}
        self.others: list[Any] = []

    def take(self, said: Iterable[Any]) -> Heard:
        for what in said:
            match what:
                case ["begun", step, nano, is_dispatched, policy]:
                    assert step not in self.begun, f"two steps have the id {step}"
                    self.begun[step] = (nano, is_dispatched, policy)
                case ["settled" | "released" as how, step, nano]:
                    self.ended[step] = (how, nano)
                case _:
                    self.others.append(what)
        return self

    def check(self, lines: dict[str, list[StepLine]], *, unheard: int) -> Counter[str]:
        """L1, L4, L5: what the ledger says of every step. ``unheard``: threads that were killed, each of which may have been in
        the middle of saying something."""
        figures: Counter[str] = Counter()
        for step, (nano, is_dispatched, policy) in self.begun.items():
            booked = [(line.state, line.amount) for line in lines.get(step, ())]
            figures[self._check_one(step, booked, nano, is_dispatched and policy == "charge")] += 1
        costly = {step for step, some in lines.items() if sum(line.amount for line in some)}
        strangers = costly - self.begun.keys()  # what a lapse booked, and a correction took back, is nothing
        assert len(strangers) <= unheard, f"nobody was told of these steps: {sorted(strangers)}"
        assert figures["unheard"] <= unheard
        return figures

    def _check_one(self, step: str, booked: Sequence[tuple[str, int]], nano: int, is_charged: bool) -> str:
        how, cost = self.ended.get(step, ("open", 0))
        if how == "settled":
            assert booked == [("settled", cost)], f"{step} was settled at {cost}, and the ledger says {booked}"
            return "settled"
        if how == "released":
            assert booked == [], f"{step} was released, and the ledger says {booked}"
            return "released"
        if how == "open" and not is_charged and not booked:
            return "given back"
        if is_charged and booked in (
            [("unknown", nano)],
            [("settled", nano)],
        ):  # the latter in a lapsed lease's correction
            return "unknown"
        assert len(booked) <= 1, f"{step} was booked twice: {booked}"
        assert all(state == "settled" and 0 <= amount <= nano for state, amount in booked), f"{step}: {booked}"
        return "unheard"  # it was ended, and killed before it could say so


def in_threads(count: int, work: Any) -> None:
    """Run ``work(n)`` in so many threads; what one of them raises is raised here."""
    errors: list[BaseException] = []

    def guarded(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def is_sound(runtime: Runtime) -> bool:
    """L2, L6, L7: the chain verifies; folds and postings agree."""
    return runtime.ledger.verify().ok and runtime.ledger.reconcile() == []
