"""Every cell of the part on Ray in integrations/DENIALS.md: budgeted work is refused in a worker, and its caller hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from agentbudget import BudgetAbort, BudgetDenied, Credits, SessionHandle, find_denied
from agentbudget.runtime.customer import Customer
from tests.denials import OnDenied, columns, is_table_of
from tests.ray import work

ray = pytest.importorskip("ray")


def task(function: Any) -> Callable[[SessionHandle], Any]:
    return lambda handle: ray.get(ray.remote(function).options(num_cpus=0).remote(handle), timeout=60)


def method(name: str) -> Callable[[SessionHandle], Any]:
    def call(handle: SessionHandle) -> Any:
        actor = ray.remote(work.Assistant).options(num_cpus=0).remote(handle)
        return ray.get(getattr(actor, name).remote(10**12), timeout=60)

    return call


CASES: Final[dict[str, Callable[[SessionHandle], Any]]] = {
    "BR-01": task(work.greedy),
    "BR-02": method("ask"),
    "BR-03": method("think"),
}


@columns
@pytest.mark.parametrize("id", CASES)
def test_work_that_does_not_fit(acme: Customer, id: str, on_denied: OnDenied) -> None:
    with acme.session(budget=Credits.of_nano(1_000), on_denied=on_denied) as session:
        with pytest.raises(BudgetAbort if on_denied == "abort" else BudgetDenied) as refused:
            CASES[id](session.handle())
        assert find_denied(refused.value) is not None
        again = task(work.modest)
        if on_denied == "refuse":
            assert again(session.handle()) == 1
        else:
            with pytest.raises((BudgetDenied, BudgetAbort), match="circuit_open"):
                again(session.handle())


def test_the_table_has_these_rows_and_says_what_these_cases_say() -> None:
    is_table_of([*CASES], "BR", "raised by `ray.get`", "BudgetAbort, which Ray makes an Exception of")
