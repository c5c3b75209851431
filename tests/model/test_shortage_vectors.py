"""Fixed vectors of shortage: who waits, who is asked to give back, who is served first."""

from __future__ import annotations

from agentbudget.account import commands as ask
from agentbudget.account.decision import Decision, Held, Recalling, Renewed
from agentbudget.catalog.terms import Breaker
from tests.model.pair import SILENCE_US
from tests.model.test_lease_vectors import FOREVER, another_session, lease, tell
from tests.model.test_vectors import hold, opened


def test_what_idle_leases_hold_is_asked_back_before_anybody_is_refused() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 20))
    pair.send(lease("lease:a", 5, 4))
    waiting = pair.send(hold("h", 8))
    assert isinstance(waiting, Recalling)
    assert waiting.leases == ("lease:a",)
    assert pair.beat("p1") == {"lease:a"}
    pair.send(tell("lease:a", 2, back=15, heard=pair.told["p1"]))
    assert pair.beat("p1") == frozenset()
    assert isinstance(pair.send(hold("h", 8)), Held)
    pair.check()


def test_what_holders_do_not_give_back_is_refused_when_all_have_answered() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 20))
    pair.send(lease("lease:a", 5, 4))
    assert isinstance(pair.send(hold("h", 8)), Recalling)
    pair.send(tell("lease:a", 2))  # sent before its holder could know: no answer
    assert isinstance(pair.send(hold("h", 8)), Recalling)
    pair.beat("p1")
    pair.send(tell("lease:a", 2))  # nor if what told it was lost
    assert isinstance(pair.send(hold("h", 8)), Recalling)
    pair.send(tell("lease:a", 2, heard=pair.told["p1"]))
    refused = pair.send(hold("h", 8))
    assert isinstance(refused, Decision)
    assert refused.reason == "insufficient_credits"


def test_an_answer_to_one_recall_is_none_to_a_later_one() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 20))
    pair.send(lease("lease:a", 5, 4))
    assert isinstance(pair.send(hold("first", 8)), Recalling)
    pair.beat("p1")
    assert isinstance(pair.send(hold("second", 8)), Recalling)
    pair.send(tell("lease:a", 2, heard=pair.told["p1"]))  # it had heard of the first only
    assert isinstance(pair.send(hold("first", 8)), Decision)
    assert isinstance(pair.send(hold("second", 8)), Recalling)


def test_a_silent_lease_is_waited_for_for_a_second_and_a_half() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 20))
    pair.send(lease("lease:a", 5, 4))
    for _ in range(3):  # at 0, 0.7 and 1.4 s
        assert isinstance(pair.send(hold("h", 8)), Recalling)
        pair.driver.clock.advance(microseconds=700_000)
    refused = pair.send(hold("h", 8))
    assert isinstance(refused, Decision)
    assert "lease:a" in refused.detail


def test_who_waited_first_is_served_first() -> None:
    """8 come back: the first ticket's 8, so the second waits on, though 8 are free and it needs 2 only."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 20))
    pair.send(lease("lease:a", 5, 4))
    assert isinstance(pair.send(hold("first", 8)), Recalling)
    assert isinstance(pair.send(hold("second", 2)), Recalling)
    pair.send(tell("lease:a", 2, back=8))
    assert isinstance(pair.send(hold("third", 1)), Recalling)
    assert isinstance(pair.send(hold("first", 8)), Held)
    pair.check()


def test_a_parent_gives_back_what_a_child_needs() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 1_000))
    pair.send(ask.CloseSession("s"))
    another_session(pair, "p", budget=50)
    assert pair.send(lease("lease:a", 5, 10, session="p")).amount == 50
    child = ask.OpenSession("p.c", "p", 20, ttl_us=FOREVER, max_step_us=FOREVER)
    assert isinstance(pair.send(child), Recalling)
    pair.send(tell("lease:a", 2, session="p", back=20))
    assert pair.send(child).sessions == ("p.c",)
    pair.check()


def test_a_refusal_that_no_lease_can_help_is_final() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    pair.send(ask.SetLimit("session:s", 3, "tool_calls"))
    pair.send(lease("lease:a", 5, 4))
    assert isinstance(pair.send(hold("h", 1, measures={"tool_calls": 4})), Decision)
    answer = pair.send(lease("lease:b", 500, 1))
    assert isinstance(answer, Renewed)
    assert answer.recalling is not None


def test_a_lease_whose_entity_moved_still_holds_where_it_was_opened() -> None:
    """The lease's path was fixed when it opened, so what it holds is still counted at team:eng, and comes back there."""
    pair = opened()
    pair.send(ask.IssueGrant("g", 1_000))
    for entity, parent in (
        ("team:eng", ask.ROOT),
        ("team:ops", ask.ROOT),
        ("user:ana", "team:eng"),
        ("user:bob", "team:eng"),
    ):
        pair.send(ask.PutEntity(entity, parent))
    another_session(pair, "a", entities=("user:ana",))
    another_session(pair, "b", entities=("user:bob",))
    pair.send(ask.SetLimit("team:eng", 20))
    pair.send(lease("lease:l", 18, 1, session="a"))
    pair.send(ask.PutEntity("user:ana", "team:ops"))
    waiting = pair.send(hold("h", 5, session="b"))
    assert isinstance(waiting, Recalling)
    assert waiting.leases == ("lease:l",)


def test_what_giving_back_cannot_help_is_refused_at_once() -> None:
    """All four steps are leased; but the session is too old, which no lease can change, and it is stopped."""
    pair = opened()
    another_session(pair, breaker=Breaker(max_steps=4, max_seconds=60))
    pair.send(ask.IssueGrant("g", 1_000))
    pair.send(lease("lease:a", 1, 64, session="t"))
    pair.driver.clock.advance(61)
    assert isinstance(pair.send(hold("late", 1, session="t")), Decision)
    assert {view.id: view.state for view in pair.driver.read("sessions")[0]}["t"] == "stopped"


def test_a_holder_that_wakes_has_answered_what_it_was_told() -> None:
    pair = opened()
    pair.send(ask.IssueGrant("g", 100))
    pair.send(lease("lease:a", 5, 4))
    pair.driver.clock.advance(microseconds=SILENCE_US + 1)
    pair.tick()
    pair.send(ask.SetLimit(ask.ROOT, 50))
    assert pair.beat("p1") == {"lease:a"}
    assert pair.send(tell("lease:a", 2, back=20, heard=pair.told["p1"])).recall == ()
    assert pair.beat("p1") == frozenset()
