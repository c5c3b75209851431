"""Clients of a host whose calls race, and write down what they saw for the checker of histories (``linear.py``)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

from agentbudget import HoldResolved, InvalidRequest, OwnerUnavailable
from agentbudget.account.commands import (
    Command,
    CreateCustomer,
    Hold,
    IssueGrant,
    OpenSession,
    Read,
    ReleaseHold,
    SettleHold,
)
from agentbudget.account.decision import BalanceView, Decision, Done, Held, Settled
from agentbudget.runtime.host import Host
from tests.crash.linear import Answer, Call
from tests.crash.setting import CATALOG

AMOUNTS = (1, 2, 3, 5)
FREE = 20
"""Credits at the start, in units of the smallest: few, so that some holds are refused."""


class Client:
    """Sends random calls, each again with the same key until it is answered, and writes down what it saw. ``reach``: how many
    steps of each client the others race to end."""

    def __init__(self, host: Host, name: int, chance: random.Random, reach: int) -> None:
        self._host, self._name, self._chance, self._reach = host, name, chance, reach
        self.seen: list[Call] = []
        self.lost = 0

    def run(self, barrier: threading.Barrier, count: int) -> None:
        barrier.wait()
        for n in range(count):
            self._call(n)

    def _call(self, n: int) -> None:
        what = self._chance.choices(("hold", "settle", "release", "grant", "read"), (40, 30, 10, 8, 12))[0]
        step, amount = f"s{self._name}.{n}", self._chance.choice(AMOUNTS)
        if what in ("settle", "release"):
            step, amount = self._known(), 1 if what == "settle" else 0
        sent = time.monotonic_ns()
        answer = self._answered(self._command(what, step, amount, f"{self._name}.{n}"))
        self.seen.append(Call(sent, time.monotonic_ns(), what, step, amount, answer))

    def _known(self) -> str:
        """A step that some client may have held: clients race for the ends of each other's steps."""
        name = self._chance.randrange(4)
        return f"s{name}.{self._chance.randrange(self._reach)}"

    @staticmethod
    def _command(what: str, step: str, amount: int, key: str) -> Command:
        match what:
            case "hold":
                return Hold(step, "run", "tool", amount, tool="search")
            case "settle":
                return SettleHold(step, amount)
            case "release":
                return ReleaseHold(step)
            case "grant":
                return IssueGrant(f"g{key}", amount, key=key)
        return Read("balance")

    def _answered(self, command: Command) -> Answer:
        try:
            answer, lost = insist(self._host, command)
        except HoldResolved as error:
            return ("resolved", error.state)
        except InvalidRequest:
            return ("unknown",)
        self.lost += lost
        return told(answer)


def insist(host: Host, command: Command) -> tuple[object, int]:
    """Send a command until it is answered; the answer, and how many were lost before it."""
    lost = 0
    while True:
        try:
            return host.ask("acme", command), lost
        except OwnerUnavailable:
            lost += 1


def told(answer: object) -> Answer:
    """An answer in the checker's words."""
    match answer:
        case Held(amount=amount):
            return ("held", amount)
        case Settled(state=state, charged=charged):
            return (state, charged)
        case Decision(binding=binding) if binding is not None and binding.kind == "insufficient_credits":
            return ("refused", binding.remaining.nano)  # type: ignore[union-attr]
        case BalanceView(available=free, held=held, consumed=used):
            return ("balance", free, held, used)
        case Done():
            return ("granted",)
    raise AssertionError(f"no such answer was expected: {answer}")


def race(hosts: Sequence[Host], calls: int, chance: random.Random) -> tuple[list[Call], int]:
    """One history of about so many calls, by a client for each of the hosts (the same one may be given several times), on a
    ledger without customers; and how many answers were lost on the way."""
    commands = (CreateCustomer(CATALOG.terms("prepaid")), IssueGrant("first", FREE, key="first"), OpenSession("run"))
    for command in commands:
        insist(hosts[0], command)
    reach = max(1, calls // 4)
    agents = [Client(host, n, random.Random(chance.random()), reach) for n, host in enumerate(hosts)]
    barrier = threading.Barrier(len(agents))
    threads = [threading.Thread(target=agent.run, args=(barrier, calls // len(agents))) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [call for agent in agents for call in agent.seen], sum(agent.lost for agent in agents)
