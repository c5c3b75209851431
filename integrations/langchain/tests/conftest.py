"""What the tests of the integration share: a customer whose prices are round, and the proof that every test leaves
clean books."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from agentbudget_langchain.runs import OPEN

from agentbudget import Catalog, Runtime
from agentbudget.runtime.customer import Customer

CATALOG = """
[credit]
price = 1
currency = "USD"

[plans.open]
wallet = "postpaid"

[[rates]]
id = "flat"
kind = "llm"
model = "flat*"
per_call = 1

[[rates]]
id = "tokens"
kind = "llm"
model = "counted"
tokens = { input = 1, output = 10 }

[[rates]]
id = "search"
kind = "tool"
tool = "search"
per_call = "0.5"

[[rates]]
id = "documents"
kind = "retrieval"
tool = "library*"
per_document = "0.1"
max_documents = 10

[[rates]]
id = "provider-price"
kind = ["llm", "embedding"]
cost_plus = "0%"

[[ceilings]]
name = "usual"
max_output_tokens = 128000
context_window = 200000
server_tools = 1
"""


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """One credit a call of ``flat``, half a credit a ``search``; ``counted`` costs 1 and 10 credits per million
    tokens."""
    return Catalog.loads(CATALOG)


@pytest.fixture
def customer(catalog: Catalog) -> Iterator[Customer]:
    """A customer of an in-memory ledger. Afterwards nothing is held, no run is open, and the ledger verifies (L2, L5,
    L7)."""
    with Runtime.open(ledger="memory://", catalog=catalog) as runtime:
        acme = runtime.customers.create("acme", plan="open")
        yield acme
        gc.collect()
        assert len(OPEN) == 0, "a run is still open"
        assert acme.wallet.balance().held == 0, "something is still held (L5)"
        assert acme.ledger.verify().ok
        assert acme.ledger.reconcile() == []
