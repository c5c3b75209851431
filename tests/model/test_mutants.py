"""The tests are tested: each planted bug must be noticed by a short script or else by the machine (facts: T9a)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from agentbudget.account import commands as ask
from agentbudget.catalog.terms import PlanTerms
from agentbudget.errors import AgentBudgetError
from agentbudget.ledger.memory import MemoryJournal
from tests.model import test_lease_vectors, test_shortage_vectors, universe
from tests.model.lease_machine import LeaseMachine
from tests.model.lease_mutants import LEASE_MUTANTS
from tests.model.mutants import MUTANTS
from tests.model.pair import Pair

_EXAMPLES = 60
"""A fixed walk of the machine, for what the scripts miss: few, because a mutant that is rarely seen wants a script."""
_HOUR_US = 3_600 * universe.SECOND_US


class _Walk(LeaseMachine):
    new_journal = MemoryJournal


def _customer(zone: str = "UTC") -> Pair:
    pair = Pair(MemoryJournal(), "acme", start_us=universe.START_US)
    pair.send(ask.CreateCustomer(PlanTerms("team", "c1"), zone))
    pair.send(ask.PutEntity("team:eng"))
    pair.send(ask.PutEntity("user:ana", "team:eng"))
    forever = universe.FOREVER_US
    pair.send(ask.OpenSession("s", entities=("user:ana",), ttl_us=forever, max_step_us=forever))
    return pair


def _hold(step: str, amount: int) -> ask.Hold:
    return ask.Hold(step, "s", "llm", amount, stated=f"{amount}")


def _twice() -> None:
    """Everything that has a key is said twice."""
    pair = _customer()
    pair.send(ask.IssueGrant("g", 100, key="g"))
    for command in (_hold("a", 10), ask.SettleHold("a", 4), _hold("b", 10), ask.ReleaseHold("b"), _hold("c", 10)):
        pair.send(command)
        pair.send(command)
    for command in (ask.LapseHold("c"), ask.SettleHold("c", 12), ask.IssueGrant("g", 100, key="g")):
        pair.send(command)
        pair.send(command)
    pair.check()
    pair.check_ledger()


def _crash() -> None:
    pair = _customer()
    pair.send(ask.IssueGrant("g", 100))
    for number, committed in enumerate((False, True, False)):
        pair.lose_the_answer(_hold(f"h{number}", 10), committed=committed)
        pair.check()
    pair.check_ledger()


def _snapshots() -> None:
    pair = _customer()
    for number in range(3):
        pair.send(ask.IssueGrant(f"g{number}", 10))
        pair.restart(snapshot=True)
        pair.check()


def _expiry() -> None:
    pair = _customer()
    pair.send(ask.IssueGrant("short", 5, priority=0, expires_us=universe.START_US + _HOUR_US))
    pair.send(ask.IssueGrant("long", 2**53 + 1))
    pair.driver.clock.advance(3_600)
    pair.send(_hold("h", 1))
    pair.check()


def _levels() -> None:
    pair = _customer("Asia/Kathmandu")
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit("team:eng", 10, window="day"))
    pair.send(_hold("fits", 10))
    pair.send(_hold("does not", 1))
    pair.driver.clock.advance(7 * 3_600)
    pair.send(_hold("tomorrow", 1))
    pair.check()


def _debt() -> None:
    pair = _customer()
    pair.send(ask.IssueGrant("g", 10, priority=1))
    pair.send(ask.IssueGrant("h", 10, priority=2))
    pair.send(_hold("a", 15))
    pair.send(ask.SettleHold("a", 12))
    pair.check()
    pair.send(_hold("b", 5))
    pair.send(ask.SettleHold("b", 20))
    pair.send(ask.IssueGrant("top-up", 30))
    pair.check()


SCRIPTS = (_twice, _crash, _snapshots, _expiry, _levels, _debt)
LEASE_SCRIPTS = tuple(
    check
    for vectors in (test_lease_vectors, test_shortage_vectors)
    for name, check in vars(vectors).items()
    if name.startswith("test_")
)
"""The vectors of leases: each is a script as well."""


def _notices(check: Callable[[], None]) -> bool:
    try:
        check()
    except (AssertionError, AgentBudgetError):
        return True
    return False


def _walk() -> None:
    walk = settings(
        max_examples=_EXAMPLES, stateful_step_count=30, derandomize=True, database=None, deadline=None,
        phases=(Phase.generate,), suppress_health_check=tuple(HealthCheck), print_blob=False,
    )  # fmt: skip
    run_state_machine_as_test(_Walk, settings=walk)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_notices_nothing_where_nothing_is_planted(script: Callable[[], None]) -> None:
    script()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_bug_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert any(_notices(script) for script in SCRIPTS) or _notices(_walk), f"nobody noticed: {mutant.__name__}"


@pytest.mark.parametrize("mutant", LEASE_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_bug_of_leases_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert any(_notices(script) for script in LEASE_SCRIPTS) or _notices(_walk), f"nobody noticed: {mutant.__name__}"
