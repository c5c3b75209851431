"""What the sessions and steps of one customer share: the way to its owner, the catalog in force, the clock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from agentbudget.account.commands import (
    AssignPlan,
    CloseSession,
    Command,
    CreateCustomer,
    PutEntity,
    Read,
    SetLimit,
    SetPaused,
)
from agentbudget.account.decision import Answer, CustomerView, Recalling
from agentbudget.amounts import USD, Amount, to_nano
from agentbudget.catalog import Catalog
from agentbudget.clock import SECOND_US, Clock
from agentbudget.errors import InvalidRequest, KeyConflict
from agentbudget.runtime.host import Host, Pause, Plan, run
from agentbudget.runtime.steps.remembered import Remembered

if TYPE_CHECKING:
    from agentbudget.runtime.leases.holder import Holder

Where: TypeAlias = Literal["customer", "balance", "grants", "entities", "limits", "sessions", "session", "holds"]


_remembered = lru_cache(maxsize=1_024, typed=True)(to_nano)
"""Fixed prices are the same few texts at every step, and reading one takes as long as the rest of a leased step."""
_POLICY: Final = (SetLimit, SetPaused, AssignPlan, PutEntity, CloseSession)
"""Commands after which no step may start on what was leased before."""


class Link:
    """One customer as this process reaches it."""

    __slots__ = (
        "_catalog",
        "_known_version",
        "_remembered",
        "clock",
        "create",
        "customer",
        "hold_ttl_us",
        "holder",
        "host",
        "ledger",
    )

    def __init__(
        self, host: Host, customer: str, catalog: Callable[[], Catalog], clock: Clock, *, hold_ttl_seconds: int = 60,
        create: CreateCustomer | None = None, holder: Holder | None = None, ledger: str = "memory://",
    ) -> None:  # fmt: skip
        self.holder, self.ledger = holder, ledger
        self.host, self.customer, self.clock = host, customer, clock
        self.hold_ttl_us = hold_ttl_seconds * SECOND_US
        self._catalog, self._known_version, self.create = catalog, "", create
        self._remembered: Remembered | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalog in force now; keep the one that quoted a step to charge it."""
        return self._catalog()

    def ask(self, command: Command) -> Answer:
        """The owner's final answer; blocks. It is asked after everything this process did before; and what it did on leases
        that a changed policy makes untrue ends with it."""
        answer: Answer = run(self.host, self.customer, self._administering(command))
        return answer

    def _administering(self, command: Command) -> Plan[Any]:
        holder = self.holder
        if holder is not None:
            yield from holder.settling_up(self.customer)
        answer = yield from self.asked(command)
        if holder is not None and isinstance(command, _POLICY):
            yield from holder.settling_up(self.customer)
        return answer

    def read(self, what: Where, id: str = "") -> Any:
        """A view of the account: see ``commands.Read`` for which is which type. It has everything this process has done."""
        return run(self.host, self.customer, self.reading(Read(what, id)))

    def reading(self, command: Command) -> Plan[Any]:
        """A command that reads, after what this process has leased was reported and given back."""
        if self.holder is not None:
            yield from self.holder.settling_up(self.customer)
        return (yield command)

    def settle_up(self) -> None:
        """Have everything this process did for the customer in the ledger before returning."""
        if self.holder is not None and self.holder.holds(self.customer):
            run(self.host, self.customer, self.reading(Read("customer")))

    def asked(self, command: Command) -> Plan[Any]:
        """A command's final answer. While what it needs is idle in leases, theirs are asked back (and ours given back at
        once), and it is asked again: the owner never waits, so its callers do, at most some 1.5 s."""
        delay_seconds = 0.0
        while isinstance(answer := (yield command), Recalling):
            delay_seconds = yield from self.gave_back(answer, delay_seconds)
        return answer

    def gave_back(self, recalling: Recalling, delay_seconds: float) -> Plan[float]:
        """Give back what is asked of this process, and wait for the others; the next delay."""
        if self.holder is not None:
            self.holder.recalled(self.customer, recalling.leases)
        if delay_seconds:
            yield Pause(delay_seconds)
        return min(0.1, delay_seconds * 2 or 0.01)

    def nano(self, amount: Amount | USD) -> int:
        """Nanocredits of an amount at the public edge; dollars by the catalog's price of a credit."""
        if isinstance(amount, USD):
            return self.catalog.usd(amount)
        try:
            return _remembered(amount)
        except TypeError:  # nothing that could be remembered: to_nano says what is wrong with it
            return to_nano(amount)

    @property
    def remembered(self) -> Remembered:
        """What steps that come again hold, by the catalog in force."""
        catalog, known = self._catalog(), self._remembered
        if known is None or known.catalog is not catalog:
            known = self._remembered = Remembered(catalog, self.customer, self.nano)
        return known

    def keep_plan(self) -> Plan[None]:
        """Put the customer on its plan as the catalog in force has it: once for each catalog version in this process.

        The customer is created first where this link was told to. A plan that this catalog does not have is left as it
        is: the customer's terms are in its ledger."""
        catalog = self.catalog
        if self._known_version == catalog.version:
            return
        if self.create is not None:
            with contextlib.suppress(KeyConflict):  # it exists, under a plan that somebody chose: that one counts
                yield self.create
        try:
            view = yield Read("customer")
        except InvalidRequest:  # there is no such customer, which what comes next will say better
            return
        if isinstance(view, CustomerView) and view.catalog != catalog.version and view.plan in catalog.plan_ids:
            yield AssignPlan(catalog.terms(view.plan))
        self._known_version = catalog.version


def customer_id(value: object) -> str:
    """An id that may name a customer; raises :class:`InvalidRequest` otherwise."""
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        raise InvalidRequest("must be 1 to 200 printable characters", "customer")
    return value
