"""What the sessions and steps of one customer share: the way to its owner, the catalog in force, the clock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from agentbudget.account.commands import AssignPlan, Command, CreateCustomer, Read
from agentbudget.account.decision import Answer, CustomerView
from agentbudget.amounts import USD, Amount, to_nano
from agentbudget.catalog import Catalog
from agentbudget.clock import SECOND_US, Clock
from agentbudget.errors import InvalidRequest, KeyConflict
from agentbudget.runtime.host import Host, Plan

Where: TypeAlias = Literal["customer", "balance", "grants", "entities", "limits", "sessions", "session", "holds"]


class Link:
    """One customer as this process reaches it."""

    __slots__ = ("_catalog", "_known_version", "clock", "create", "customer", "hold_ttl_us", "host")

    def __init__(
        self, host: Host, customer: str, catalog: Callable[[], Catalog], clock: Clock, *, hold_ttl_seconds: int = 60,
        create: CreateCustomer | None = None,
    ) -> None:  # fmt: skip
        self.host, self.customer, self.clock = host, customer, clock
        self.hold_ttl_us = hold_ttl_seconds * SECOND_US
        self._catalog, self._known_version, self.create = catalog, "", create

    @property
    def catalog(self) -> Catalog:
        """The catalog in force now; keep the one that quoted a step to charge it."""
        return self._catalog()

    def ask(self, command: Command) -> Answer:
        """The owner's answer; blocks."""
        return self.host.ask(self.customer, command)

    def read(self, what: Where, id: str = "") -> Any:
        """A view of the account: see ``commands.Read`` for which is which type."""
        return self.host.ask(self.customer, Read(what, id))

    def nano(self, amount: Amount | USD) -> int:
        """Nanocredits of an amount at the public edge; dollars by the catalog's price of a credit."""
        return self.catalog.usd(amount) if isinstance(amount, USD) else to_nano(amount)

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
