"""A limit on everything: what can never be right is refused by name, and leaves the state as it was (the desk compares)."""

from __future__ import annotations

import pytest

from agentbudget.account import commands as c
from agentbudget.account.account import Account
from agentbudget.account.decide import MAX_NAME, MAX_TIME_US
from agentbudget.account.holds import MAX_MEASURES
from agentbudget.account.opening import MAX_ENTITIES
from agentbudget.account.sessions import MAX_DEPTH
from agentbudget.amounts import MAX_NANO
from agentbudget.catalog.terms import EntitlementTerms, PlanTerms
from agentbudget.errors import InvalidRequest
from tests.account.desk import POSTPAID, START, Desk, allowed, hold

LONG = "x" * (MAX_NAME + 1)
HUGE = 10**30


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.grant("g", 100)
    desk.send(c.PutEntity("user:ana"))
    desk.open("s", budget=50)
    desk.hold("h", "s", 5)
    return desk


@pytest.mark.parametrize(
    "command",
    [
        c.IssueGrant("x", 0), c.IssueGrant("x", -1), c.IssueGrant("x", HUGE), c.VoidGrant("g", -1), c.AdjustGrant("g", HUGE),
        c.AdjustGrant("g", -HUGE), c.ClearReceivable(0), c.ClearReceivable(-5), c.SetLimit("customer", -1),
        c.SetLimit("customer", HUGE), c.OpenSession("t", budget=-1), c.OpenSession("t", budget=HUGE),
        c.OpenSession("t", budget=5, wind_down=-1), c.FundSession("s", 0), c.FundSession("s", MAX_NANO), hold("i", "s", -1),
        hold("i", "s", HUGE), hold("i", "s", 1, measures={"tokens": -1}), hold("i", "s", 1, measures={"tokens": HUGE}),
        c.ExtendHold("h", 1, -1), c.SettleHold("h", -1), c.SettleHold("h", HUGE), c.SettleHold("h", -1, part=1),
    ],
    ids=repr,
)  # fmt: skip
def test_an_amount_out_of_bounds_is_refused(desk: Desk, command: c.Command) -> None:
    with pytest.raises(InvalidRequest):
        desk.send(command)


@pytest.mark.parametrize(
    "name", ["", LONG, "new\nline", "null\0", "bell\a"], ids=["empty", "long", "newline", "null", "bell"]
)
def test_a_name_that_cannot_be_stored_and_shown_is_refused(desk: Desk, name: str) -> None:
    kind = f"user:{name}"
    for command in (c.IssueGrant(name, 1), c.OpenSession(name), hold(name, "s", 1), c.ReleaseHold(name), c.PutEntity(kind),
                    c.SetLimit(f"{name}:*", 1), c.SetLimit("customer", 1, name)):  # fmt: skip
        with pytest.raises(InvalidRequest):
            desk.send(command)


def test_the_longest_name_is_taken(desk: Desk) -> None:
    name = "x" * MAX_NAME
    assert allowed(desk.hold(name, "s", 1))
    desk.settle(name, 1)
    assert desk.open(name).sessions == (name,)  # type: ignore[union-attr]


@pytest.mark.parametrize("entity", ["ana", ":ana", "user:", "user:*", "user:a*", "session:s", "customer", ":"])
def test_an_entity_is_a_type_and_a_name(desk: Desk, entity: str) -> None:
    with pytest.raises(InvalidRequest):
        desk.send(c.PutEntity(entity))


def test_an_entity_needs_a_parent_that_exists_and_not_itself(desk: Desk) -> None:
    for parent in ("team:no", "user:ana", "session:s"):
        with pytest.raises(InvalidRequest):
            desk.send(c.PutEntity("user:ana", parent))


def test_no_circle_can_be_made_by_moving(desk: Desk) -> None:
    desk.send(c.PutEntity("a:1"))
    desk.send(c.PutEntity("a:2", "a:1"))
    desk.send(c.PutEntity("a:3", "a:2"))
    for below in ("a:2", "a:3"):
        with pytest.raises(InvalidRequest, match="below itself"):
            desk.send(c.PutEntity("a:1", below))


def test_the_tree_is_only_so_deep_also_after_a_move(desk: Desk) -> None:
    parent = c.ROOT
    for depth in range(1, MAX_DEPTH + 1):
        desk.send(c.PutEntity(f"d:{depth}", parent))
        parent = f"d:{depth}"
    with pytest.raises(InvalidRequest, match="deep"):
        desk.send(c.PutEntity("d:deeper", parent))
    desk.send(c.PutEntity("m:1"))
    desk.send(c.PutEntity("m:2", "m:1"))
    with pytest.raises(InvalidRequest, match="deep"):
        desk.send(c.PutEntity("m:1", f"d:{MAX_DEPTH - 1}"))
    assert desk.send(c.PutEntity("m:1", f"d:{MAX_DEPTH - 2}")).changed


def test_a_team_of_thousands_moves(desk: Desk) -> None:
    for number in range(3_000):
        desk.account.handle(c.PutEntity(f"user:{number}", "user:ana"), now_us=START, hits={})
    outcome = desk.account.handle(c.PutEntity("team:new"), now_us=START, hits={})
    outcome = desk.account.handle(c.PutEntity("user:ana", "team:new"), now_us=START, hits={})
    assert outcome.error is None


def test_all_grants_together_stay_within_64_bits(desk: Desk) -> None:
    desk.grant("most", MAX_NANO - 100)
    for command in (c.IssueGrant("more", 1), c.AdjustGrant("g", 1)):
        with pytest.raises(InvalidRequest, match="64 bits"):
            desk.send(command)
    assert desk.balance.issued == MAX_NANO


@pytest.mark.parametrize("field", ["effective_us", "expires_us"])
@pytest.mark.parametrize("time_us", [HUGE, -1, MAX_TIME_US + 1])
def test_a_time_that_no_calendar_knows_is_refused(desk: Desk, field: str, time_us: int) -> None:
    with pytest.raises(InvalidRequest):
        desk.grant("x", 1, **{field: time_us})


@pytest.mark.parametrize("anchor_us", [HUGE, 2**62, -1])
def test_so_is_an_anchor(anchor_us: int) -> None:
    with pytest.raises(InvalidRequest, match="anchor"):
        Desk(anchor_us=anchor_us)


def test_a_cycle_anchored_at_the_end_of_time_still_has_windows() -> None:
    desk = Desk(PlanTerms("team", "v1", cycle="anchored"), anchor_us=MAX_TIME_US)
    desk.grant("g", 10)
    desk.open("s")
    for window in ("hour", "day", "week", "month", "quarter", "year"):
        desk.limit("customer", 5, window=window)
    assert allowed(desk.hold("h", "s", 5))


@pytest.mark.parametrize(("effective_us", "expires_us"), [(None, START), (None, START - 1), (START + 5, START + 5)])
def test_a_grant_must_expire_after_it_becomes_effective_and_in_the_future(
    desk: Desk, effective_us: int | None, expires_us: int
) -> None:
    with pytest.raises(InvalidRequest, match="expire"):
        desk.grant("x", 1, effective_us=effective_us, expires_us=expires_us)


@pytest.mark.parametrize("priority", [-1, 256])
def test_a_priority_is_a_byte(desk: Desk, priority: int) -> None:
    with pytest.raises(InvalidRequest, match="priority"):
        desk.grant("x", 1, priority=priority)


def test_a_step_counts_only_so_many_measures(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match="measures"):
        desk.hold("i", "s", 1, measures={f"m{n}": 1 for n in range(MAX_MEASURES + 1)})
    assert allowed(desk.hold("i", "s", 1, measures={f"m{n}": 1 for n in range(MAX_MEASURES)}))


def test_a_session_names_only_so_many_entities(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match="entities"):
        desk.open("t", entities=("user:ana",) * (MAX_ENTITIES + 1))


@pytest.mark.parametrize(
    "command",
    [
        c.SetLimit("user:no", 1), c.SetLimit("customer", 1, window="minute"), c.SetLimit("customer", 1, mode="firm"),  # type: ignore[arg-type]
        c.SetLimit("*", 1), c.SetLimit("session:no", 1), c.SetLimit("user:a*", 1),
    ],
    ids=["entity", "window", "mode", "star", "session", "glob"],
)  # fmt: skip
def test_a_limit_that_could_never_bind_is_refused(desk: Desk, command: c.Command) -> None:
    with pytest.raises(InvalidRequest):
        desk.send(command)


def test_a_measure_is_a_usual_one_or_a_feature_of_the_plan() -> None:
    desk = Desk(PlanTerms("team", "v1", features=(EntitlementTerms("exports", "metered"),)))
    desk.limit("customer", 1, measure="exports")
    with pytest.raises(InvalidRequest, match="exports"):
        desk.limit("customer", 1, measure="export")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe/Berlin\n"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="time_zone"):
        Desk(zone=zone)


def test_credits_never_drawn_past_64_bits_so_that_a_snapshot_can_always_be_written() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    desk.hold("a", "s", 0)
    desk.settle("a", MAX_NANO)
    desk.hold("b", "s", 0)
    with pytest.raises(InvalidRequest, match="64 bits"):
        desk.settle("b", 1)
    assert not allowed(desk.hold("c", "s", 1))
    assert Account.restore("acme", desk.account.snapshot()).balances() == desk.account.balances()
