"""A budget in one line, then a customer with a wallet: steps run while they fit, and the one that does not is refused.

pip install agentbudget-runtime
"""

from __future__ import annotations

import tempfile
import warnings

import agentbudget
from agentbudget import BudgetDenied, Runtime, Usage

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


def call_the_model(max_tokens: int | None) -> Usage:
    """Stands for a provider's SDK: give the reply itself to ``settle``, or its usage as here."""
    return Usage(input_tokens=12, output_tokens=max_tokens or 0)


def one_line() -> None:
    """No customer, no wallet, no catalog: a credit is a US dollar, and the price is the provider's."""
    with agentbudget.session(budget="0.02") as session:
        with session.step("llm", model="gpt-5-mini", request=QUESTION, max_output_tokens=800) as step:
            step.settle(call_the_model(step.max_output_tokens))
        print(f"one line: spent {session.status().spent}, left {session.status().remaining} of 0.02")


def with_a_wallet(ledger: str) -> None:
    """Credits that were granted burn step by step; the ledger keeps every one of them."""
    with Runtime.open(ledger) as runtime:
        acme = runtime.customers.create(
            "acme", plan="starter"
        )  # a prepaid plan of the bundled catalog: 5 credits on trial
        acme.wallet.grant(20, label="welcome", key="welcome")  # with a key it happens once, however often it is sent
        with acme.session(id="search", budget=5) as session:
            for number in range(1, 10):
                try:
                    with session.step("tool", name="search", amount=2, arguments=number):  # a fixed price
                        print(
                            f"search {number} ran, left {session.status().remaining}"
                        )  # ends without settle: 2 booked
                except BudgetDenied as denied:  # raised before the body
                    print(f"search {number} {denied}")
                    break
        balance = acme.wallet.balance()
        print(f"wallet: {balance.available} available, {balance.consumed} consumed, {balance.held} held")
        report = acme.ledger.verify()
        print(f"ledger: {report.entries} entries, {'verified' if report.ok else report.fault}")
        assert balance.consumed == 4
        assert report.ok


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that the one-liner keeps its ledger in memory is meant here
    one_line()
    with tempfile.TemporaryDirectory() as folder:
        with_a_wallet(f"sqlite:///{folder}/budget.db")
