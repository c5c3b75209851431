"""Gates without an amount: features and models of the plan, and pause at each level."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.catalog.terms import EntitlementTerms
from agentbudget.errors import InvalidRequest
from tests.account.desk import PREPAID, Desk, allowed, failing, hold, reason

FEATURES = (
    EntitlementTerms("research", "boolean", True), EntitlementTerms("beta", "boolean", False),
    EntitlementTerms("seats", "config", 0), EntitlementTerms("exports", "metered"),
)  # fmt: skip


def on(**terms: object) -> Desk:
    desk = Desk(replace(PREPAID, **terms))
    desk.grant("g", 100)
    desk.send(c.PutEntity("team:eng"))
    desk.send(c.PutEntity("user:ana", "team:eng"))
    desk.open("p", entities=("user:ana",))
    desk.open("s", parent="p")
    return desk


@pytest.mark.parametrize(
    ("feature", "entitled"),
    [("research", True), ("exports", True), ("seats", True), ("beta", False), ("unheard", False), (None, True)],
)
def test_a_step_of_a_feature_needs_the_plan_to_entitle_it(feature: str | None, entitled: bool) -> None:
    desk = on(features=FEATURES)
    answer = desk.hold("h", "s", 1, feature=feature)
    assert allowed(answer) is entitled
    assert entitled or reason(answer) == "feature_not_entitled"


def test_a_plan_that_lists_no_features_entitles_all() -> None:
    assert allowed(on().hold("h", "s", 1, feature="anything"))
    assert reason(on(features=()).hold("h", "s", 1, feature="anything")) == "feature_not_entitled"


@pytest.mark.parametrize(("model", "ok"), [("gpt-5", True), ("gpt-5-mini", True), ("claude", False), ("GPT-5", False)])
def test_only_models_of_the_plan_run(model: str, ok: bool) -> None:
    desk = on(models=("gpt-*",))
    answer = desk.hold("h", "s", 1, model=model)
    assert allowed(answer) is ok
    assert ok or reason(answer) == "model_not_allowed"
    assert allowed(desk.hold("t", "s", 1, kind="tool", tool="search"))


def test_a_plan_change_is_in_force_at_the_next_step() -> None:
    desk = on()
    desk.spend("a", "s", 1)
    desk.send(c.AssignPlan(replace(PREPAID, plan="small", models=("mini",), features=())))
    assert failing(desk.hold("b", "s", 1, feature="research")) == [
        ("feature_not_entitled", "customer"), ("model_not_allowed", "customer"),
    ]  # fmt: skip
    desk.send(c.AssignPlan(PREPAID))
    assert allowed(desk.hold("c", "s", 1))


@pytest.mark.parametrize("level", ["customer", "team:eng", "user:ana", "session:p", "session:s"])
def test_a_pause_at_any_level_refuses_all_below_until_resumed(level: str) -> None:
    desk = on()
    desk.spend("warm", "s", 1)
    desk.open("elsewhere")
    desk.send(c.SetPaused(level, True, "audit"))
    refused = desk.hold("h", "s", 1)
    assert failing(refused) == [("paused", level)]
    assert "audit" in str(refused)
    assert refused.suggestions == (f"resume {level}",)  # type: ignore[union-attr]
    assert desk.session("s").state == "paused"
    assert allowed(desk.hold("other", "elsewhere", 1)) is (level != "customer")
    desk.pause(level, False)
    assert allowed(desk.hold("i", "s", 1))


def test_a_pause_lets_open_holds_settle() -> None:
    desk = on()
    desk.hold("h", "s", 5)
    desk.pause("customer")
    assert reason(desk.send(c.ExtendHold("h", 1, 1))) == "paused"
    assert desk.settle("h", 7).charged == 7


def test_every_pause_on_the_path_is_named() -> None:
    desk = on()
    for level in ("customer", "user:ana", "session:p"):
        desk.pause(level)
    assert failing(desk.hold("h", "s", 1)) == [("paused", level) for level in ("customer", "user:ana", "session:p")]
    assert desk.read("customer").paused is True


@pytest.mark.parametrize("level", ["user:no", "session:no", "user:*", ""])
def test_only_what_exists_can_be_paused(level: str) -> None:
    with pytest.raises(InvalidRequest):
        on().pause(level)


def test_pausing_what_is_paused_writes_nothing() -> None:
    desk = on()
    desk.pause("team:eng")
    assert desk.send(c.SetPaused("team:eng", True)).changed is False
    desk.pause("team:eng", False)
    assert desk.send(c.SetPaused("team:eng", False)).changed is False


def test_a_customer_nobody_created_is_refused_or_an_error() -> None:
    desk = Desk(None)
    assert reason(desk.hold("h", "s", 1)) == "unknown_customer"
    assert reason(desk.open("s")) == "unknown_customer"
    assert reason(desk.send(c.Explain(hold("h", "", 1)))) == "unknown_customer"
    for command in (c.Read("balance"), c.IssueGrant("g", 1), c.SettleHold("h", 1)):
        with pytest.raises(InvalidRequest, match="create it"):
            desk.send(command)
