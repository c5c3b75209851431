"""Every cell of the part on ``session.guard`` in integrations/DENIALS.md: what is refused does not run, and is raised."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

from agentbudget import Catalog, Runtime, Session, current_session
from agentbudget.runtime.customer import Customer
from tests.denials import OnDenied, columns, is_as_the_column_says, is_table_of

CATALOG = """
[credit]
price = 1
currency = "USD"
[plans.open]
wallet = "postpaid"
"""


@pytest.fixture
def customer() -> Iterator[Customer]:
    with Runtime.open("memory://", catalog=Catalog.loads(CATALOG)) as runtime:
        yield runtime.customers.create("acme", plan="open")


def ran(*args: Any) -> None:
    pytest.fail("it ran")


async def ran_later() -> None:
    pytest.fail("it ran")


def ran_on() -> Iterator[int]:
    pytest.fail("it ran")
    yield 1


async def ran_on_later() -> AsyncIterator[int]:
    pytest.fail("it ran")
    yield 1


class Work:
    def method(self) -> None:
        pytest.fail("it ran")

    def __call__(self) -> None:
        pytest.fail("it ran")


async def read(items: AsyncIterator[int]) -> None:
    async for _ in items:
        pass


CASES: Final[dict[str, tuple[Callable[[Session], Any], ...]]] = {
    "SG-01": (
        lambda s: s.guard(ran, price=1)(),
        lambda s: s.guard(Work().method, price=1)(),
        lambda s: s.guard(Work(), price=1)(),
        lambda s: s.guard(functools.partial(ran, 1), price=1)(),
    ),
    "SG-02": (lambda s: asyncio.run(s.guard(ran_later, price=1)()),),
    "SG-03": (lambda s: next(s.guard(ran_on, price=1)()),),
    "SG-04": (lambda s: asyncio.run(read(s.guard(ran_on_later, price=1)())),),
}


def here() -> Session:
    session = current_session()
    assert session is not None
    return session


@columns
@pytest.mark.parametrize("id", CASES)
def test_a_call_that_does_not_fit(customer: Customer, id: str, on_denied: OnDenied) -> None:
    is_as_the_column_says(customer, on_denied, "0.5", [lambda run=run: run(here()) for run in CASES[id]])  # type: ignore[misc]


def test_the_table_has_these_rows_and_says_what_these_cases_say() -> None:
    is_table_of([*CASES], "SG")
