"""The fixtures of the suite: a provider, a customer at round prices, and the proof that every test leaves true books."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from agentbudget import Catalog, Runtime, Session
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite.adapter import Adapter, Ask
from agentbudget.testing.provider import FakeProvider, fake_provider

CATALOG = """
[credit]
price = 1
currency = "USD"

[plans.suite]
wallet = "postpaid"

[[rates]]
id = "flat"
kind = "llm"
model = "flat*"
per_call = 1

[[rates]]
id = "counted"
kind = ["llm", "embedding"]
model = "counted*"
tokens = { input = 1, cache_read = "0.1", output = 10 }

[[ceilings]]
name = "suite"
max_output_tokens = 128000
context_window = 200000
server_tools = 1
"""
"""The fake's own price list (``provider/words.py``), written for our catalog: ``flat`` costs a credit a call, ``counted`` a
credit per million tokens of input, ten of output. Tools cost nothing."""

DRAIN_SECONDS = 10.0
"""The longest that a hold may stay open after the last client has gone: what a task's end or the collector finds is ended
within a second, on a busy machine within a few."""


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """The OpenAI and Anthropic APIs, on the loopback."""
    with fake_provider() as running:
        yield running


@pytest.fixture
def customer(provider: FakeProvider) -> Iterator[Customer]:
    """A customer in memory. Afterwards nothing is held (L5), billed <= booked <= billed + what policies charged for unknown
    outcomes (L11), and the ledger is sound (L2, L6, L7)."""
    with Runtime.open("memory://", catalog=Catalog.loads(CATALOG)) as runtime:
        acme = runtime.customers.create("acme", plan="suite")
        yield acme
        drained(acme)
        compare_bills(provider, acme)
        assert acme.ledger.verify().ok, "the chain of entries does not verify (L7)"
        assert acme.ledger.reconcile() == [], "balances and entries differ (L2, L6)"


def drained(customer: Customer) -> None:
    """Wait until nothing is held. What is found by the collector, or by a task's end, comes a moment later."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while customer.wallet.balance().held:
        gc.collect()
        assert time.monotonic() < deadline, f"still held after {DRAIN_SECONDS} s (L5): {customer.holds()}"
        time.sleep(0.01)


def compare_bills(provider: FakeProvider, customer: Customer) -> None:
    """What was booked covers what was billed, and is beyond it by no more than was charged for what nobody knows."""
    if not all(call.end for call in provider.calls):
        gc.collect()  # a stream that was dropped in a circle keeps its connection until the circle is found
    try:
        provider.wait_for(lambda fake: all(call.end for call in fake.calls))
    except TimeoutError as error:
        raise AssertionError(f"a client that has left its request keeps the connection open: {error}") from None
    billed, booked, unknown = provider.billed, customer.wallet.balance().consumed.nano, charged_unknown(customer)
    bills = [(call.asked.model, call.asked.input_tokens, call.output_tokens, call.end) for call in provider.calls]
    assert billed <= booked, f"billed {billed}, booked only {booked} (L11): {bills}"
    assert booked <= billed + unknown, f"booked {booked}, billed {billed}, of unknown outcome {unknown} (L11): {bills}"


def charged_unknown(customer: Customer) -> int:
    """Nanocredits that were charged for steps whose cost nobody stated: by a policy, or at what they held."""
    return sum(sum(_guessed(entry.kind, msgspec.json.decode(entry.body))) for entry in customer.ledger.entries())


def _guessed(kind: str, body: dict[str, Any]) -> Iterator[int]:
    if kind == "hold_settled" and (body["state"] in ("unknown", "lapsed") or body.get("rate") == "hold"):
        yield body["amount"]
    if kind == "lease_renewed":
        at_hold = {index for index, (rate, _) in enumerate(body.get("tariffs", ())) if rate == "hold"}
        for step in body.get("steps", ()):
            if (step[3] if len(step) > 3 else 0) in at_hold:
                yield step[1]


@pytest.fixture
def session(customer: Customer) -> Iterator[Session]:
    """With a budget of 100 credits."""
    with customer.session(budget=100) as opened:
        yield opened


@pytest.fixture
def ask(session: Session, provider: FakeProvider) -> Ask:
    """One call of the model that is priced by its tokens."""
    return Ask(session=session, url=provider.url)


@pytest.fixture(autouse=True)
def _applies(request: pytest.FixtureRequest) -> None:
    """Skip what an adapter says it cannot; a name that no test of the suite has would be a silent one."""
    if "adapter" not in request.fixturenames:
        return
    from agentbudget.testing.integration_suite import __all__ as names  # this file is a part of it

    adapter: Adapter = request.getfixturevalue("adapter")
    unknown = [name for name in adapter.cannot if f"test_{name}" not in names]
    assert not unknown, f"{adapter.name} says it cannot {unknown}: the suite has no such tests"
    name = request.function.__name__.removeprefix("test_")
    if name in adapter.cannot:
        pytest.skip(f"{adapter.name}: {adapter.cannot[name]}")
