"""Errors carry data, pickle through Ray, say what to do; a denial is found however deep it is buried."""

from __future__ import annotations

import inspect
import pickle

import pytest

from agentbudget import errors
from agentbudget.account.decision import Constraint, Decision
from agentbudget.amounts import Credits
from agentbudget.errors import (
    AgentBudgetError,
    BudgetAbort,
    BudgetDenied,
    CatalogError,
    HoldResolved,
    InvalidAmount,
    InvalidRequest,
    InvariantBroken,
    KeyConflict,
    LedgerCorrupt,
    OutOfOrder,
    OwnerUnavailable,
    check,
    find_denied,
)

NO_ROOM = Constraint(
    "limit", "user:ana", False, "credits", Credits(5), Credits(4), Credits(0), Credits(1), Credits(2), "day"
)
DENIAL = Decision(False, "limit", (NO_ROOM,), need=Credits(2), suggestions=("wait for the next day",))

SAMPLES: list[BaseException] = [
    BudgetDenied(DENIAL), BudgetAbort(DENIAL), KeyConflict("welcome", "Grant"), HoldResolved("h1", "settled"),
    OwnerUnavailable("no answer", "pid 7", "try again"), LedgerCorrupt("hash", "acme", 7),
    CatalogError("c.toml", [(3, "plans.a", "no such model"), (None, "rates", "missing")]), InvalidAmount("-1", "negative"),
    InvalidRequest("there is no grant", "grant"), InvariantBroken("L3", "too much"), AgentBudgetError("plain"),
    OutOfOrder("lease-1", 7),
]  # fmt: skip
ALL = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
]  # fmt: skip


def test_every_error_has_a_sample_here() -> None:
    assert {type(sample) for sample in SAMPLES} == set(ALL)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_data(error: BaseException) -> None:
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_can_be_made_of_nothing_or_of_too_much(kind: type[BaseException]) -> None:
    """Frameworks mix these into their own exceptions, and Ray rebuilds them from their arguments."""
    assert pickle.loads(pickle.dumps(kind())).args == kind().args
    assert str(kind()) is not None
    assert kind("a", "b", "c", "d", "e").args[-1] == "e" or kind is CatalogError


@pytest.mark.parametrize("kind", [BudgetDenied, BudgetAbort])
def test_a_denial_can_be_a_stop_of_a_framework_too(kind: type[BaseException]) -> None:
    class Stop(Exception):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)

    mixed = type("Mixed", (kind, Stop), {})(DENIAL) if kind is BudgetDenied else kind(DENIAL)
    assert mixed.decision is DENIAL  # type: ignore[attr-defined]
    assert "user:ana" in str(mixed)


def test_only_an_abort_passes_every_except_exception() -> None:
    assert [kind.__name__ for kind in ALL if not issubclass(kind, Exception)] == ["BudgetAbort"]
    assert [kind.__name__ for kind in ALL if not issubclass(kind, AgentBudgetError)] == ["BudgetAbort"]
    assert {kind.__name__ for kind in ALL if issubclass(kind, ValueError)} == {"InvalidAmount", "InvalidRequest"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BudgetDenied(DENIAL), ["refused (limit)", "user:ana", "1 credits left per day", "wait for the next day"]),
        (BudgetDenied("no session"), ["no session"]),
        (BudgetDenied(), ["refused by the budget"]),
        (KeyConflict("welcome", "Grant"), ["'welcome'", "other inputs", "another key"]),
        (HoldResolved("h1", "lapsed"), ["h1", "already lapsed", "nothing was changed"]),
        (OwnerUnavailable("no answer", "pid 7", "try again"), ["no answer", "(owner: pid 7)", "try again"]),
        (OwnerUnavailable(), ["gave no answer"]),
        (LedgerCorrupt("hash differs", "acme", 7), ["customer 'acme' entry 7", "hash differs", "nothing was written"]),
        (CatalogError("c.toml", [(3, "plans.a", "no"), (None, "x", "y")]), ["c.toml: 2 faults", "line 3, plans.a: no"]),
        (InvalidAmount("-1", "negative"), ["-1 is negative"]),
        (InvalidAmount("x"), ["is no amount of credits"]),
        (InvalidRequest("there is no grant", "grant"), ["grant: there is no grant"]),
        (InvariantBroken("L3", "too much"), ["L3", "too much", "report"]),
    ],
)
def test_a_message_says_what_happened_and_what_to_do(error: BaseException, words: list[str]) -> None:
    assert all(word in str(error) for word in words), str(error)


def test_a_law_that_does_not_hold_is_named() -> None:
    check(True, "L3")
    with pytest.raises(InvariantBroken) as broken:
        check(False, "L3", "g1 would be negative")
    assert (broken.value.law, broken.value.what) == ("L3", "g1 would be negative")


# --- find_denied --------------------------------------------------------------------------------------------------------


def caught(raising: object) -> BaseException:
    try:
        raising()  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def deny() -> None:
    raise BudgetDenied(DENIAL)


def wrapped() -> None:
    try:
        deny()
    except BudgetDenied as denied:
        raise RuntimeError("the tool failed") from denied


def during_cleanup() -> None:
    try:
        deny()
    except BudgetDenied:
        raise KeyError("cleanup")  # noqa: B904


def hidden() -> None:
    try:
        deny()
    except BudgetDenied:
        raise ValueError("hidden") from None


class RayTaskError(Exception):
    """What Ray raises: the cause is an attribute."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


@pytest.mark.parametrize(
    "error",
    [
        BudgetDenied(DENIAL), caught(wrapped), caught(during_cleanup), caught(hidden),
        ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("inner", [caught(wrapped)])]),
        BaseExceptionGroup("tasks", [BudgetAbort(DENIAL)]), RayTaskError(caught(wrapped)),
    ],
    ids=["itself", "cause", "context", "from None", "groups", "abort in a group", "ray"],
)  # fmt: skip
def test_a_denial_is_found_wherever_it_is_buried(error: BaseException) -> None:
    found = find_denied(error)
    assert found is not None
    assert found.decision is DENIAL


def test_no_denial_is_found_where_there_is_none() -> None:
    round_trip = ValueError("a")
    round_trip.__context__ = RuntimeError("b")
    round_trip.__context__.__context__ = round_trip
    for error in (None, ValueError("x"), round_trip, RayTaskError(KeyError("k")), ExceptionGroup("g", [KeyError()])):
        assert find_denied(error) is None


def test_a_denial_shown_by_a_framework_is_its_words_and_not_the_decision() -> None:
    """LangGraph's ToolNode gives the model an error's ``repr``; the books of other levels are none of its business."""
    decision = Decision(False, "session_budget", detail="session:x has 0 credits left")
    for error in (BudgetDenied(decision), BudgetAbort(decision)):
        assert repr(error) == f"{type(error).__name__}({str(decision)!r})"
        assert "Constraint" not in repr(error)
