"""How much a lease is given: all that remains where its session lives alone, a share where others do (DESIGN.md §4). Law L3."""

from __future__ import annotations

import pytest

from agentbudget.account import commands as c
from agentbudget.catalog.terms import Breaker, PlanTerms
from tests.account.desk import POSTPAID, Desk
from tests.account.holder import opened, renew, step

MANY = 1_000


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.grant("g", 1600)
    desk.open("s")
    return desk


def test_a_session_alone_takes_all_that_remains(desk: Desk) -> None:
    assert opened(desk, "lease:L", 10, MANY).amount == 1600


def test_what_remains_below_a_multiple_stays(desk: Desk) -> None:
    assert opened(desk, "lease:L", 300, MANY).amount == 1500


def test_no_more_than_asked_for(desk: Desk) -> None:
    assert opened(desk, "lease:L", 10, 7).amount == 70


def test_where_another_session_lives_a_sixteenth(desk: Desk) -> None:
    desk.open("t")
    assert opened(desk, "lease:L", 10, MANY).amount == 100
    assert opened(desk, "lease:K", 10, MANY, session="t").amount == 90  # 1500 // 16 = 93


def test_the_step_itself_however_large(desk: Desk) -> None:
    desk.open("t")
    assert opened(desk, "lease:L", 1500, MANY).amount == 1500


def test_a_closed_session_shares_nothing(desk: Desk) -> None:
    desk.open("t")
    desk.send(c.CloseSession("t"))
    assert opened(desk, "lease:L", 10, MANY).amount == 1600


def test_a_closed_session_whose_lease_another_process_still_holds_does(desk: Desk) -> None:
    desk.open("t")
    opened(desk, "lease:K", 1, session="t", holder="p2")
    desk.send(c.CloseSession("t"))
    assert opened(desk, "lease:L", 10, MANY).amount == 90  # 1599 // 16 = 99
    desk.send(renew("lease:K", 2, "t", "p2", close=True))
    assert desk.send(renew("lease:L", 2, ask=step(10), times=MANY)).amount == 1510


def test_another_process_in_the_same_session_shares_it_and_another_lease_of_ones_own_does_not(desk: Desk) -> None:
    opened(desk, "lease:K", 10, session="s", holder="p1")
    assert opened(desk, "lease:L", 10, 10).amount == 100
    assert opened(desk, "lease:M", 10, MANY, holder="p2").amount == 90  # 1490 // 16 = 93


def test_each_level_has_its_own_company(desk: Desk) -> None:
    """Two sessions in one team: the team's limit is shared, the user's is not, and the wallet is."""
    desk.send(c.PutEntity("team:eng"))
    desk.send(c.PutEntity("user:ana", "team:eng"))
    desk.send(c.PutEntity("user:bob", "team:eng"))
    desk.send(c.CloseSession("s"))
    desk.limit("team:eng", 800)
    desk.limit("user:ana", 40)
    desk.open("a", entities=("user:ana",))
    desk.open("b", entities=("user:bob",))
    assert opened(desk, "lease:L", 5, MANY, session="a").amount == 40  # the user's own; 800 // 16 = 50 of the team
    assert opened(desk, "lease:M", 5, MANY, session="b").amount == 45  # 760 // 16 = 47


def test_every_measure_bounds_it(desk: Desk) -> None:
    desk.limit("customer", 10, measure="steps")
    desk.limit("session:s", 55, measure="tokens")
    answer = opened(desk, "lease:L", 1, MANY, measures={"steps": 1, "tokens": 20})
    assert answer.measures == {"steps": 2, "tokens": 40}


def test_a_soft_limit_bounds_nothing(desk: Desk) -> None:
    desk.limit("customer", 10, measure="steps", mode="soft")
    assert opened(desk, "lease:L", 1, 50, measures={"steps": 1}).measures == {"steps": 50}


def test_a_budget_less_what_it_keeps_for_winding_down(desk: Desk) -> None:
    desk.open("w", budget=100, wind_down=30)
    desk.send(c.CloseSession("s"))
    assert opened(desk, "lease:L", 10, MANY, session="w").amount == 70
    assert opened(desk, "lease:K", 10, MANY, session="w", wind_down=True).amount == 30


def test_a_moved_user_takes_its_company_along(desk: Desk) -> None:
    desk.send(c.PutEntity("team:a"))
    desk.send(c.PutEntity("team:b"))
    desk.send(c.PutEntity("user:ana", "team:a"))
    desk.send(c.CloseSession("s"))
    desk.limit("team:b", 160)
    desk.open("one", entities=("user:ana",))
    desk.open("two", entities=("team:b",))
    assert opened(desk, "lease:L", 1, MANY, session="two").amount == 100  # 1600 // 16 of the wallet; team:b is its own
    desk.send(c.PutEntity("user:ana", "team:b"))
    assert opened(desk, "lease:M", 1, MANY, session="two").amount == 3  # (160 - 100) // 16


# --- carve-outs --------------------------------------------------------------------------------------------------------------


def test_a_childs_own_carve_out_is_not_shared(desk: Desk) -> None:
    desk.send(c.CloseSession("s"))
    desk.open("p", budget=1600)
    desk.open("k", parent="p", budget=90)
    assert opened(desk, "lease:L", 10, MANY, session="k").amount == 90


def test_beyond_its_carve_out_a_child_shares_its_parents_budget() -> None:
    """A child without a budget of its own draws on the parent, who lives there too: 1600 // 16."""
    desk = Desk()
    desk.grant("g", 100_000)
    desk.open("p", budget=1600)
    desk.open("k", parent="p")
    assert opened(desk, "lease:L", 10, MANY, session="k").amount == 100


def test_what_is_left_of_a_carve_out_comes_first_and_a_share_of_the_parents_budget_on_top() -> None:
    """k has carved 50 of p, and draws 20 beyond for its child q, which has no budget: q may take 50 and (1000 - 50) // 16."""
    desk = Desk()
    desk.grant("g", 100_000)
    desk.open("p", budget=1000)
    desk.open("k", parent="p", budget=50)
    desk.open("q", parent="k")
    assert opened(desk, "lease:L", 1, MANY, session="q").amount == 50 // 16
    assert opened(desk, "lease:M", 1, MANY, session="k").amount == (50 - 3) // 16


def test_room_that_an_overrun_took_is_not_there() -> None:
    desk = Desk()
    desk.grant("g", 100_000)
    desk.open("p", budget=1600)
    desk.open("k", parent="p", budget=100)
    desk.hold("h", "k", 10)
    desk.settle("h", 130)
    assert desk.session("k").remaining == -30
    assert desk.session("p").remaining == 1470
    assert desk.send(renew("lease:L", 1, "k", ask=step(1, "k"))).refused is not None


# --- wallets and breakers ------------------------------------------------------------------------------------------------------


def test_a_credit_line_is_part_of_what_remains() -> None:
    desk = Desk(PlanTerms("team", "v1", wallet="postpaid", credit_line=70))
    desk.grant("g", 30)
    desk.open("s")
    assert opened(desk, "lease:L", 10, MANY).amount == 100
    assert desk.balance.held == 100


def test_postpaid_without_a_line_takes_what_it_asks_for_up_to_64_bits() -> None:
    desk = Desk(POSTPAID)
    desk.open("s")
    desk.open("t")
    assert opened(desk, "lease:L", 10, MANY).amount == 10 * MANY
    most = opened(desk, "lease:K", 2**60, MANY)
    assert most.amount == 7 * 2**60
    assert desk.balance.issued < 2**63


def test_the_breakers_steps_are_shared_by_processes_only(desk: Desk) -> None:
    desk.open("m", breaker=Breaker(max_steps=40))
    desk.open("child", parent="m")
    assert opened(desk, "lease:L", 1, 8, session="m").measures == {"steps": 8}
    assert opened(desk, "lease:M", 1, MANY, session="m", holder="p2").measures == {"steps": 2}  # 32 // 16
    assert opened(desk, "lease:N", 1, MANY, session="m").measures == {"steps": 1}  # 30 // 16


def test_times_are_bounded(desk: Desk) -> None:
    desk.open("free")
    answer = opened(desk, "lease:L", 0, 1_000_000, session="free", measures={"steps": 5})
    assert (answer.amount, answer.measures) == (0, {})
