"""What the demonstration does, and the facts of it. Every figure is read from the ledger or counted at the model."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec import Struct

from agentbudget.account.decision import Decision
from agentbudget.amounts import Credits
from agentbudget.errors import InvalidRequest, find_denied
from agentbudget.runtime.views import Balance

if TYPE_CHECKING:
    from agentbudget.catalog import Catalog
    from agentbudget.cli.demo_agent import Agent
    from agentbudget.runtime.customer import Customer
    from agentbudget.runtime.runtime import Runtime
    from agentbudget.runtime.session import Session

CUSTOMER: Final = "acme"
PLAN: Final = "starter"
SESSION: Final = "demo"
RETRIES: Final = 5
"""Times the agent tries again: enough to see that nothing changes, below the plan's 20 refusals that open the circuit."""
MANY_TIMES: Final = 25
OUTPUT_CAP: Final = 2_400
"""Tokens that a reply may have at most; the middleware writes it into every call that states none."""
MOST_STEPS: Final = 200
"""Where the unguarded agent is stopped: at 25 times the budget, or at 200 steps, the plan's own most."""


class Row(Struct, frozen=True):
    """A step. ``charged`` and ``left`` are None while it runs."""

    number: int
    kind: str
    name: str
    held: Credits
    charged: Credits | None = None
    left: Credits | None = None


class Retries(Struct, frozen=True):
    """What trying again brought: calls that reached the model, and credits spent, after the first refusal."""

    attempts: int
    refused: int
    model_calls: int
    spent: Credits


class Unguarded(Struct, frozen=True):
    """The same agent without a budget, stopped by us."""

    steps: int
    model_calls: int
    cost: Credits
    times_the_budget: Decimal
    stopped_because: str


class Proof(Struct, frozen=True):
    """The ledger, checked. ``url`` is None for one that is gone when the demonstration ends."""

    url: str | None
    entries: int
    verified: bool
    differences: int
    open_holds: int


class Facts(Struct, frozen=True):
    """The whole run."""

    customer: str
    plan: str
    session: str
    model: str
    budget: Credits
    spent: Credits
    left: Credits
    steps: tuple[Row, ...]
    refusal: Decision
    retries: Retries
    unguarded: Unguarded
    wallet: Balance
    ledger: Proof


class Watcher(Protocol):
    """Is told what happens while it happens."""

    def started(self, row: Row) -> None: ...

    def finished(self, row: Row) -> None: ...


def prepare(runtime: Runtime) -> Customer:
    """The customer: a plan, a prepaid wallet, a small tree, and a limit that an administrator set."""
    acme = runtime.customers.create(CUSTOMER, plan=PLAN)
    acme.wallet.grant(10, label="pilot", key="pilot")
    acme.entities.put("team:platform")
    acme.entities.put("user:ana", parent="team:platform")
    acme.limits.set("team:platform", 3, window="month")
    return acme


def open_session(acme: Customer, budget: Credits) -> Session:
    """The run's session. It is named, so it can still be looked at afterwards; strict, so each step is an entry to look at."""
    entities = ["user:ana", "agent:scout"]
    return acme.session(id=SESSION, budget=budget, entities=entities, mode="strict", max_output_tokens=OUTPUT_CAP)


class Guarded:
    """The agent under its budget, watched."""

    def __init__(self, acme: Customer, session: Session, watcher: Watcher) -> None:
        self._acme, self._session, self._watcher = acme, session, watcher
        self._seen = _last_seq(acme, 0)
        self._open: dict[str, Row] = {}
        self.rows: list[Row] = []
        self._count = 0

    def look(self) -> None:
        """Tell the watcher what the ledger has got since the last look."""
        for entry in self._acme.ledger.entries(after=self._seen):
            self._seen = entry.seq
            body = msgspec.json.decode(entry.body)
            if entry.kind == "hold_opened":
                self._count += 1
                name = body.get("model") or body.get("tool") or "-"
                row = Row(self._count, body["kind"], name, Credits.of_nano(body["amount"]))
                self._open[body["step"]] = row
                self._watcher.started(row)
            elif entry.kind == "hold_settled":
                self._finish(self._open.pop(body["step"]), Credits.of_nano(body["amount"]))

    def run(self, agent: Agent) -> Decision:
        """Let it work until it is refused; gives the refusal."""
        denied = self._refusal_of(agent.work())
        if denied is None:
            raise InvalidRequest("the agent ended before its budget did: give a smaller one", "budget")
        return denied

    def retry(self, agent: Agent) -> Retries:
        """Let it swallow the refusal and try again, a few times."""
        calls, spent = agent.model_calls, self._session.status().spent
        refused = sum(self._refusal_of(agent.go_on()) is not None for _ in range(RETRIES))
        return Retries(RETRIES, refused, agent.model_calls - calls, self._session.status().spent - spent)

    def _refusal_of(self, work: Iterator[Any]) -> Decision | None:
        try:
            for _ in work:
                self.look()
        except Exception as error:  # whatever a framework makes of a refusal, it is inside
            denied = find_denied(error)
            if denied is None:
                raise
            return denied.decision
        return None

    def _finish(self, row: Row, charged: Credits) -> None:
        left = self._session.status().remaining
        done = msgspec.structs.replace(row, charged=charged, left=left)
        self.rows.append(done)
        self._watcher.finished(done)


def run_unguarded(agent: Agent, catalog: Catalog, model: str, budget: Credits) -> Unguarded:
    """The same agent without a budget, priced by the same catalog, until 25 times the budget or 200 steps."""
    from agentbudget.catalog import PriceRequest, Usage

    request = PriceRequest(kind="llm", model=model)
    steps, cost, why = 0, Credits(0), ""
    for messages in agent.work():
        steps += len(messages)
        replies = (message for message in messages if message.type == "ai")
        cost += Credits.of_nano(sum(catalog.charge(request, Usage.of(reply)).nano for reply in replies))
        why = _enough(steps, cost, budget)
        if why:
            break
    times = (cost.decimal / budget.decimal).quantize(Decimal("0.01"))
    return Unguarded(steps, agent.model_calls, cost, times, why)


def _enough(steps: int, cost: Credits, budget: Credits) -> str:
    if cost >= budget * MANY_TIMES:
        return f"{MANY_TIMES} times the budget"
    return f"{MOST_STEPS} steps" if steps >= MOST_STEPS else ""


def prove(runtime: Runtime, acme: Customer, url: str | None) -> Proof:
    """Verify the chain and reconcile the account with the entries."""
    report = runtime.ledger.verify()
    return Proof(url, report.entries, report.ok, len(runtime.ledger.reconcile()), len(acme.holds()))


def _last_seq(acme: Customer, after: int) -> int:
    for entry in acme.ledger.entries(after=after):
        after = entry.seq
    return after
