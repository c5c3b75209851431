"""``session.guard``: any callable is held before each call, whatever it is, and settled by what its result states."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agentbudget import BudgetDenied, Catalog, InvalidRequest, Runtime, Session, Usage
from agentbudget.runtime.customer import Customer

CATALOG = """
[credit]
price = 1
currency = "USD"
[plans.open]
wallet = "postpaid"
[[rates]]
id = "counted"
kind = ["llm", "embedding"]
model = "counted"
tokens = { input = 1, output = 10 }
"""


@pytest.fixture
def customer() -> Iterator[Customer]:
    """Afterwards nothing is held (L5), and the ledger is sound."""
    with Runtime.open("memory://", catalog=Catalog.loads(CATALOG)) as runtime:
        acme = runtime.customers.create("acme", plan="open")
        yield acme
        assert acme.wallet.balance().held == 0
        assert acme.ledger.verify().ok


@pytest.fixture
def session(customer: Customer) -> Iterator[Session]:
    with customer.session(budget=100) as opened:
        yield opened


class Count:
    """A callable that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, n: int = 1) -> int:
        self.calls += 1
        return n


def spent(session: Session) -> int:
    return session.status().spent.nano


def test_a_call_is_held_before_and_charged_after(customer: Customer) -> None:
    """L3: the third does not fit, and does not run."""
    work = Count()
    with customer.session(budget=2) as small:
        paid = small.guard(work, price=1)
        assert [paid(1), paid(2)] == [1, 2]
        with pytest.raises(BudgetDenied):
            paid(3)
        assert spent(small) == 2_000_000_000
    assert work.calls == 2


def test_a_price_may_be_a_function_of_the_arguments(session: Session) -> None:
    paid = session.guard(Count(), price=lambda n=1: n)
    paid(3)
    paid(n=4)
    assert spent(session) == 7_000_000_000


def test_a_coroutine_function_is_awaited(session: Session) -> None:
    @functools.partial(session.guard, price=1)
    async def work(word: str) -> str:
        return word

    async def both() -> list[str]:
        return await asyncio.gather(work("a"), work("b"))

    assert asyncio.iscoroutinefunction(work)
    assert asyncio.run(both()) == ["a", "b"]
    assert spent(session) == 2_000_000_000


def test_a_generator_is_held_when_it_is_begun_and_settled_at_its_end(session: Session) -> None:
    def words(n: int) -> Iterator[str]:
        yield from ["word"] * n

    paid = session.guard(words, price=1)
    unused = paid(2)
    assert session.status().steps == 0
    assert list(paid(2)) == ["word", "word"]
    assert spent(session) == 1_000_000_000
    del unused


def test_an_asynchronous_generator_too(session: Session) -> None:
    async def words(n: int) -> AsyncIterator[str]:
        for _ in range(n):
            yield "word"

    paid = session.guard(words, price=1)

    async def read() -> list[str]:
        return [word async for word in paid(2)]

    assert asyncio.run(read()) == ["word", "word"]
    assert spent(session) == 1_000_000_000


def test_a_generator_that_is_left_is_settled_once(session: Session) -> None:
    """L5."""

    def words() -> Iterator[str]:
        yield from ["word"] * 5

    stream: Any = session.guard(words, price=1)()
    next(stream)
    stream.close()
    assert session.status().held == 0
    assert spent(session) == 1_000_000_000


def test_work_that_fails_is_charged_by_the_policy(customer: Customer) -> None:
    """L11: nobody knows what it cost, so by default what it held; "release" gives it back."""

    def fails() -> None:
        raise RuntimeError("no")

    for policy, cost in (("charge", 1_000_000_000), ("release", 0)):
        with customer.session(budget=5, on_unknown=policy) as one:
            with pytest.raises(RuntimeError):
                one.guard(fails, price=1)()
            assert (spent(one), one.status().held) == (cost, 0)


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda: len, "len"), (Count, "Count"), (lambda: functools.partial(int, base=2), "partial"), (lambda: "a".join, "join")],
)  # fmt: skip
def test_any_callable_can_be_guarded_and_is_named_for_the_catalog(
    session: Session, make: Callable[[], Any], name: str
) -> None:
    argument: Any = ["1", "0"] if name == "join" else 3 if name == "Count" else "10"
    work = make()
    assert session.guard(work, price=1)(argument) == work(argument)
    assert session.status().steps == 1


def test_a_model_call_is_priced_by_what_its_reply_states(session: Session) -> None:
    def embed(texts: list[str]) -> dict[str, Any]:
        return {"model": "counted", "usage": {"prompt_tokens": 5, "total_tokens": 5}}

    session.guard(embed, kind="embedding", model="counted")(["some words"])
    assert spent(session) == 5_000


def test_a_model_call_that_states_nothing_is_charged_as_it_was_held(session: Session) -> None:
    """L11: by its arguments, in bytes: never 0."""
    session.guard(lambda texts: [[0.1]], kind="embedding", model="counted")(["some words"])
    assert spent(session) >= 10_000


def test_the_usage_may_be_read_out_of_the_result(session: Session) -> None:
    paid = session.guard(
        lambda words: len(words), kind="embedding", model="counted", usage_of=lambda n: Usage(input_tokens=n)
    )
    assert paid("three") == 5
    assert spent(session) == 5_000


def test_a_child_that_is_current_pays(session: Session) -> None:
    """L12."""
    paid = session.guard(Count(), price=1)
    with session.child(budget="0.5"), pytest.raises(BudgetDenied):
        paid()
    paid()
    assert spent(session) == 1_000_000_000


def test_what_cannot_be_called_is_refused(session: Session) -> None:
    with pytest.raises(InvalidRequest, match="cannot be called"):
        session.guard(3)  # type: ignore[type-var]


def test_a_function_that_returns_an_awaitable_is_refused_by_name(session: Session) -> None:
    async def later() -> int:
        return 1

    with pytest.raises(InvalidRequest, match="awaits it"):
        session.guard(lambda: later(), price=1)()
    assert spent(session) == 0
