"""What tests of integrations/DENIALS.md share where a refusal comes out as itself: guarded clients, functions, work on Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NoReturn

import pytest

from agentbudget import BudgetAbort, BudgetDenied
from agentbudget.runtime.customer import Customer
from agentbudget.testing.integration_suite.world import drained
from tests.tidy.rules import ROOT

OnDenied = Literal["refuse", "stop", "abort"]
columns = pytest.mark.parametrize("on_denied", ["refuse", "stop", "abort"])
Run = Callable[[], Any]
"""What is refused in the session that is current."""

SMALLER: Final = "0.000001"
"""Credits of a step that fits when the others do not."""


def rows(prefix: str) -> list[list[str]]:
    """The rows of the table whose ids begin so."""
    table = (ROOT / "integrations" / "DENIALS.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith(f"| {prefix}-")]


def is_table_of(cases: list[str], prefix: str, raised: str = "raised", aborts: str = "BudgetAbort") -> None:
    """Whether the table has a row for each case, and says that a refusal comes out as itself."""
    found = rows(prefix)
    assert [row[0] for row in found] == cases
    for id, _, refuse, stop, abort in found:
        assert refuse.startswith(raised), id
        assert (stop, abort) == (f"{refuse}; latched", aborts), id


def is_as_the_column_says(
    customer: Customer, on_denied: OnDenied, budget: str, runs: Sequence[Run]
) -> list[BaseException]:
    """Runs what does not fit, in a session with this budget, and looks at what becomes of its refusals, which it gives back."""
    refused: list[BaseException] = []
    with customer.session(budget=budget, on_denied=on_denied) as session:
        for run in runs:
            with pytest.raises(BudgetAbort if on_denied == "abort" else BudgetDenied) as raised:
                _swallowing(run) if on_denied == "abort" else run()
            refused.append(raised.value)
        drained(customer)
        spent = session.status().spent
        if on_denied == "refuse":
            with session.step("tool", amount=SMALLER):
                pass  # a smaller step may run
            assert session.status().spent > spent
        else:
            with pytest.raises((BudgetDenied, BudgetAbort), match="circuit_open"):
                session.reserve("tool", amount=SMALLER)
        with pytest.raises((BudgetDenied, BudgetAbort)):
            session.raise_if_denied()
    return refused


def _swallowing(run: Run) -> NoReturn:
    try:
        run()
    except Exception as error:
        pytest.fail(f"could be swallowed: {error!r}")
    pytest.fail("was not refused")
