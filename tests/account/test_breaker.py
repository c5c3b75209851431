"""The circuit breaker: each rule, whether the session stays stopped, and that resuming or funding starts it anew."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.catalog.terms import Breaker
from tests.account.desk import MINUTE, PREPAID, SECOND, Desk, allowed, hold, reason


def guarded(rules: Breaker | None, *, plan: Breaker | None = None, budget: int | None = None) -> Desk:
    desk = Desk(replace(PREPAID, breaker=plan or Breaker()))
    desk.grant("g", 10**6)
    desk.open("s", breaker=rules, budget=budget)
    return desk


def tool(desk: Desk, step: str, fingerprint: str | None) -> object:
    answer = desk.hold(step, "s", 1, kind="tool", tool="search", fingerprint=fingerprint)
    if allowed(answer):
        desk.settle(step, 1)
    return answer


def break_steps(desk: Desk) -> object:
    desk.spend("a", "s", 1)
    desk.spend("b", "s", 1)
    return desk.hold("x", "s", 1)


def break_seconds(desk: Desk) -> object:
    desk.wait(61 * SECOND)
    return desk.hold("x", "s", 1)


def break_errors(desk: Desk) -> object:
    for step in ("a", "b"):
        desk.hold(step, "s", 1)
        desk.settle(step, 1, error="Timeout")
    return desk.hold("x", "s", 1)


def break_repeat(desk: Desk) -> object:
    tool(desk, "a", "same")
    tool(desk, "b", "other")
    return tool(desk, "x", "same")


def break_rate(desk: Desk) -> object:
    desk.spend("a", "s", 6)
    desk.wait(59 * SECOND)
    return desk.hold("x", "s", 5)


def break_cost(desk: Desk) -> object:
    return desk.hold("x", "s", 6)


def break_parallel(desk: Desk) -> object:
    desk.hold("a", "s", 1)
    desk.hold("b", "s", 1)
    return desk.hold("x", "s", 1)


def break_refusals(desk: Desk) -> object:
    desk.hold("a", "s", 10**7)
    desk.hold("b", "s", 10**7)
    return desk.hold("x", "s", 1)


STICKY = {
    "max_steps": (Breaker(max_steps=2), break_steps),
    "max_seconds": (Breaker(max_seconds=60), break_seconds),
    "error_burst": (Breaker(error_burst=2), break_errors),
    "repeat": (Breaker(repeat=(2, 3)), break_repeat),
    "max_rate": (Breaker(max_rate=10), break_rate),
    "refusals_in_row": (Breaker(refusals_in_row=2), break_refusals),
}
PASSING = {
    "max_step_cost": (Breaker(max_step_cost=5), break_cost),
    "max_parallel": (Breaker(max_parallel=2), break_parallel),
}


@pytest.mark.parametrize("rule", STICKY)
def test_a_rule_that_fires_stops_the_session(rule: str) -> None:
    rules, provoke = STICKY[rule]
    desk = guarded(rules)
    refused = provoke(desk)
    assert reason(refused) == "circuit_open"
    assert rule in str(refused)
    assert desk.session("s").state == "stopped"
    assert rule in desk.session("s").stopped_because
    assert desk.entries[-1].kind == "session_stopped"
    desk.wait(5 * MINUTE)
    assert reason(desk.hold("later", "s", 0)) == "circuit_open", "it stays stopped"
    assert desk.folded().snapshot() == desk.account.snapshot(), "a stopped circuit survives a restart"


@pytest.mark.parametrize("how", ["resume", "fund"])
@pytest.mark.parametrize("rule", STICKY)
def test_resuming_or_funding_closes_the_circuit_and_counts_anew(rule: str, how: str) -> None:
    rules, provoke = STICKY[rule]
    desk = guarded(rules, budget=10**5)
    provoke(desk)
    desk.send(c.SetPaused("session:s", False) if how == "resume" else c.FundSession("s", 1))
    assert desk.session("s").state == "open"
    first = desk.hold("again", "s", 1, fingerprint="same", kind="tool", tool="search")
    assert allowed(first), str(first)


@pytest.mark.parametrize("rule", PASSING)
def test_a_rule_about_one_step_refuses_only_that_step(rule: str) -> None:
    rules, provoke = PASSING[rule]
    desk = guarded(rules)
    refused = provoke(desk)
    assert reason(refused) == "circuit_open"
    assert rule in str(refused)
    assert desk.session("s").state == "open"
    for step in desk.open_holds():
        desk.settle(step, 1)
    assert allowed(desk.hold("next", "s", 5))


def test_a_session_deeper_than_allowed_is_stopped_and_its_parent_is_not() -> None:
    desk = guarded(Breaker(max_depth=2))
    desk.open("child", parent="s")
    desk.open("grandchild", parent="child")
    assert allowed(desk.hold("a", "child", 1))
    assert reason(desk.hold("b", "grandchild", 1)) == "circuit_open"
    assert (desk.session("grandchild").state, desk.session("child").state) == ("stopped", "open")


def test_the_plans_breaker_guards_a_session_that_brings_none_and_only_that() -> None:
    for own, steps in ((None, 1), (Breaker(max_steps=3), 3)):
        desk = guarded(own, plan=Breaker(max_steps=1))
        for number in range(steps):
            desk.spend(f"h{number}", "s", 1)
        assert reason(desk.hold("x", "s", 1)) == "circuit_open"


def test_a_new_plans_breaker_guards_open_sessions_from_then_on() -> None:
    desk = guarded(None)
    desk.spend("a", "s", 1)
    desk.send(c.AssignPlan(replace(PREPAID, plan="strict", breaker=Breaker(max_steps=1))))
    assert reason(desk.hold("b", "s", 1)) == "circuit_open"


def test_other_arguments_or_enough_between_are_no_loop() -> None:
    desk = guarded(Breaker(repeat=(2, 3)))
    for step, fingerprint in enumerate(("a", "b", "c", "a", "b", None, None, "c")):
        assert allowed(tool(desk, f"h{step}", fingerprint)), step


def test_ping_pong_between_two_tools_is_found() -> None:
    """peers §6.1: an infinite tool loop, caught apart from the cap."""
    desk = guarded(Breaker(repeat=(3, 6)))
    answers = [allowed(tool(desk, f"h{n}", "ping" if n % 2 else "pong")) for n in range(5)]
    assert answers == [True, True, True, True, False]


def test_the_rate_forgets_what_was_held_a_minute_ago() -> None:
    desk = guarded(Breaker(max_rate=10))
    desk.spend("a", "s", 6)
    desk.wait(MINUTE)
    assert allowed(desk.hold("b", "s", 10))


def test_a_success_between_ends_a_burst_of_errors_and_giving_back_does_not() -> None:
    desk = guarded(Breaker(error_burst=2))
    for step, error in (("a", "Timeout"), ("b", None), ("c", "Timeout")):
        desk.hold(step, "s", 1)
        desk.settle(step, 1, error=error)
    desk.hold("d", "s", 1)
    desk.release("d")
    assert allowed(desk.hold("e", "s", 1))
    desk.lapse("e")
    assert reason(desk.hold("f", "s", 1)) == "circuit_open"


def test_a_release_with_an_error_is_a_failure_too() -> None:
    desk = guarded(Breaker(error_burst=2))
    for step in ("a", "b"):
        desk.hold(step, "s", 1)
        desk.send(c.ReleaseHold(step, "503"))
    assert reason(desk.hold("x", "s", 1)) == "circuit_open"


def test_an_allowed_step_between_ends_a_row_of_refusals() -> None:
    desk = guarded(Breaker(refusals_in_row=2))
    for number in range(5):
        assert reason(desk.hold(f"r{number}", "s", 10**7)) == "insufficient_credits"
        desk.spend(f"a{number}", "s", 1)
    assert desk.session("s").state == "open"


def test_a_rule_that_comes_into_force_stops_nobody_for_refusals_of_before() -> None:
    desk = guarded(None)
    for number in range(5):
        desk.hold(f"r{number}", "s", 10**7)
    desk.send(c.AssignPlan(replace(PREPAID, plan="strict", breaker=Breaker(refusals_in_row=2))))
    assert allowed(desk.hold("a", "s", 1))


def test_a_probe_that_is_refused_does_not_count() -> None:
    desk = guarded(Breaker(refusals_in_row=2))
    for number in range(5):
        desk.hold(f"r{number}", "s", 10**7, note_refusal=False)
    assert (desk.session("s").state, desk.session("s").denials) == ("open", 0)


def test_an_extension_is_no_step_of_its_own() -> None:
    desk = guarded(Breaker(max_steps=1, max_parallel=1))
    desk.hold("a", "s", 1)
    assert allowed(desk.send(c.ExtendHold("a", 1, 1)))
    assert desk.session("s").steps == 1


def test_explaining_opens_no_circuit() -> None:
    desk = guarded(Breaker(max_steps=1))
    desk.spend("a", "s", 1)
    assert desk.send(c.Explain(hold("x", "s", 1))).reason == "circuit_open"
    assert desk.session("s").state == "open"
