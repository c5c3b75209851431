"""What several tests of the runtime say the same way."""

from __future__ import annotations

from typing import Any

from agentbudget import Catalog, Runtime
from agentbudget.runtime.customer import Customer

HELLO = [{"role": "user", "content": "hello"}]

PREPAID = Catalog.loads(
    """
    [plans.prepaid]
    wallet = "prepaid"
    [[rates]]
    id = "model"
    model = "m-*"
    tokens = { input = 1000, output = 2000 }
    [[rates]]
    id = "search"
    tool = "search"
    per_call = 2
    """,
    source="prepaid",
)
"""A model at 0.001 credits an input token and 0.002 an output token, and a tool at 2 credits a call."""


def nothing_is_open(customer: Customer) -> bool:
    """No hold is left (law L5)."""
    return customer.link.read("holds") == () and customer.wallet.balance().held == 0


def is_sound(runtime: Runtime) -> bool:
    """The chain verifies (L7), and folds and postings agree (L2, L6)."""
    return runtime.ledger.verify().ok and runtime.ledger.reconcile() == []


class StatusError(Exception):
    """As a provider's SDK raises it."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


def kinds(customer: Customer) -> list[str]:
    """The kinds of the customer's entries, in order."""
    return [entry.kind for entry in customer.ledger.entries()]


def body_of(entry: Any) -> Any:
    """An entry's body as data."""
    import msgspec

    return msgspec.json.decode(entry.body)
