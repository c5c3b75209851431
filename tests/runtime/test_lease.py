"""The holder's side of a lease, figure by figure: what is free, what is said, what an answer brings."""

from __future__ import annotations

from agentbudget.account.commands import Hold
from agentbudget.account.decision import Decision, Renewed
from agentbudget.runtime.leases.lease import FEWEST, Key, Lease

SECOND = 1_000_000
KEY = Key("tool", None, "search", None, False)


def ask(amount: int, **measures: int) -> Hold:
    return Hold("L", "run", "tool", amount, measures, tool="search")


def lease_with(amount: int, *, lasts_us: int = 60 * SECOND, **measures: int) -> Lease:
    lease = Lease("L", "run", KEY)
    lease.message("me", 0, ask=ask(10, **dict.fromkeys(measures, 1)))
    answer = Renewed("L", 1, amount, measures, counted=tuple(measures), lasts_us=lasts_us, policy=3)
    assert lease.answered(answer, 1_000)
    return lease


def settle(lease: Lease, n: int, amount: int, **used: int) -> bool:
    return lease.settle(n, f"L.{n}", amount, used, 0, usage={}, model=None, now_us=2_000, wall_us=0)


def take(lease: Lease, amount: int, now_us: int = 2_000, **measures: int) -> int:
    return lease.take(amount, measures, now_us, 0, dispatched=True)


def test_steps_take_what_is_free_and_no_more() -> None:
    lease = lease_with(100)
    assert (take(lease, 60), take(lease, 60), take(lease, 40)) == (1, 0, 2)
    assert lease.free == 0


def test_a_counted_measure_binds_like_credits_and_others_do_not() -> None:
    lease = lease_with(100, steps=2)
    assert take(lease, 1, steps=1, tokens=9_999) == 1
    assert take(lease, 1, steps=1) == 2
    assert take(lease, 1, steps=1) == 0


def test_a_released_step_counts_as_a_step_and_is_reported() -> None:
    """As it does without leases: what it held of steps serves no other; its credits do, and what else it held."""
    lease = lease_with(100, steps=2, tokens=5)
    take(lease, 60, steps=1, tokens=5)
    lease.release(1, 2_000)
    assert take(lease, 100, steps=1, tokens=5) == 2
    lease.release(2, 2_000)
    assert take(lease, 1, steps=1) == 0
    message = lease.message("me", 3_000)
    assert (message.released, message.back, message.back_measures) == (2, 0, {"steps": 2})
    lease.answered(Renewed("L", 2, counted=("steps", "tokens"), lasts_us=60 * SECOND), 4_000)
    message = lease.message("me", 5_000, back=True)
    assert (message.released, message.back, message.back_measures) == (0, 100, {"tokens": 5})


def test_released_steps_of_a_message_that_a_lapse_overtook_are_not_lost() -> None:
    lease = lease_with(100)
    for amount in (1, 2):
        lease.release(take(lease, amount), 2_000)
    lease.message("me", 3_000)
    lease.release(take(lease, 3), 4_000)
    lease.lost()
    assert lease.released == 3


def test_what_gives_back_answers_the_recalls_that_were_heard_of_and_nothing_else_does() -> None:
    lease = lease_with(100)
    lease.heard = 7
    assert lease.message("me", 3_000).heard == 0
    lease.answered(Renewed("L", 1), 4_000)
    assert lease.message("me", 5_000, back=True).heard == 7
    lease.answered(Renewed("L", 2), 6_000)
    assert lease.message("me", 7_000, back=True).heard == 0


def test_no_step_starts_at_or_after_the_end_of_the_lease() -> None:
    lease = lease_with(100, lasts_us=5 * SECOND)
    assert take(lease, 1, now_us=5 * SECOND - 1) == 1
    assert take(lease, 1, now_us=5 * SECOND) == 0


def test_the_end_counts_from_when_the_message_left_not_from_when_the_answer_came() -> None:
    lease = Lease("L", "run", KEY)
    lease.message("me", 1_000, ask=ask(10))
    lease.answered(Renewed("L", 1, 100, lasts_us=SECOND), 900_000)
    assert lease.until_us == 1_000 + SECOND


def test_a_step_settles_once_and_what_it_did_not_need_is_free_again() -> None:
    lease = lease_with(100)
    n = take(lease, 60)
    assert settle(lease, n, 20, seconds=1)
    assert not settle(lease, n, 20, seconds=1)
    assert not lease.release(n, 2_000)
    assert lease.free == 80
    (report,) = lease.message("me", 3_000).steps
    assert (report.step, report.amount, report.used) == ("L.1", 20, (1,))


def test_what_passed_the_lease_is_said_to_be_overrun_and_open_steps_keep_theirs() -> None:
    lease = lease_with(100, tokens=10)
    first, second = take(lease, 40, tokens=4), take(lease, 60, tokens=6)
    settle(lease, first, 70, tokens=9)
    message = lease.message("me", 3_000)
    assert (message.overrun, message.over) == (30, {"tokens": 5})
    assert (lease.free, lease.frees, lease.open[second].amount) == (0, {"tokens": 0}, 60)


def test_giving_back_stops_even_steps_that_cost_nothing_until_the_owner_has_answered() -> None:
    lease = lease_with(100)
    n = take(lease, 30)
    message = lease.message("me", 3_000, back=True)
    assert message.back == 70
    assert take(lease, 0) == 0
    lease.answered(Renewed("L", 2, lasts_us=60 * SECOND), 4_000)
    assert take(lease, 0) == 0
    assert n in lease.open


def test_a_message_that_got_no_answer_goes_again_unchanged() -> None:
    lease = lease_with(100)
    settle(lease, take(lease, 30), 30)
    message = lease.message("me", 3_000)
    lease.is_unheard = True
    settle(lease, take(lease, 30), 30)
    assert lease.resent() is message
    assert len(lease.reports) == 1


def test_a_refused_ask_uses_no_number_and_another_number_is_taken_as_told() -> None:
    lease = lease_with(100)
    lease.message("me", 3_000, ask=ask(500))
    assert not lease.answered(Renewed("L", 1, refused=Decision(False, "limit")), 4_000)
    assert lease.message("me", 5_000, ask=ask(1)).seq == 2
    assert lease.renumber(7).seq == 7


def test_an_answer_given_again_to_a_free_ask_grants_nothing() -> None:
    lease = Lease("L", "run", KEY)
    lease.message("me", 0, ask=ask(0))
    lease.is_unheard = True
    lease.resent()
    assert not lease.answered(Renewed("L", 1, lasts_us=60 * SECOND), 1_000)
    lease.message("me", 2_000, ask=ask(0))
    assert lease.answered(Renewed("L", 1, lasts_us=60 * SECOND), 3_000)


def test_a_busy_lease_asks_for_more_each_time_and_a_slow_one_for_less() -> None:
    lease = lease_with(100)
    asked = []
    for at in (100_000, 200_000, 300_000, 20 * SECOND):
        asked.append(lease.message("me", at, ask=ask(10)).times)
        lease.answered(Renewed("L", lease.seq + 1, 10, lasts_us=60 * SECOND), at + 1)
    assert asked == [FEWEST, 2 * FEWEST, 4 * FEWEST, 2 * FEWEST]


def test_a_guess_leaves_the_lease_with_what_the_owner_booked() -> None:
    lease = lease_with(100)
    n = take(lease, 60)
    lease.guessed(n, 45, {}, 3_000)
    assert lease.free == 55
    assert not lease.open


def test_names_and_tariffs_only_grow_so_that_earlier_reports_stay_readable() -> None:
    lease = lease_with(100)
    settle(lease, take(lease, 1), 1, seconds=1)
    settle(lease, take(lease, 1), 1, tokens=5)
    assert lease.tariff("a", "v1") == 0
    assert lease.tariff("b", "v1") == 1
    assert lease.tariff("a", "v1") == 0
    message = lease.message("me", 3_000)
    assert message.measures == ("seconds", "tokens")
    assert [report.used for report in message.steps] == [(1,), (0, 5)]


class Full:
    """A trail without room."""

    def dispatched(self, n: int) -> bool:
        return False

    released = dispatched


def test_a_step_whose_sending_could_not_be_written_is_not_sent_by_trying_twice() -> None:
    """L5: else its replay would give back what may have been spent."""
    lease = lease_with(100)
    n = lease.take(60, {}, 2_000, 0, dispatched=False)
    lease.trail = Full()  # type: ignore[assignment]
    assert not lease.dispatch(n)
    assert not lease.dispatch(n)
    lease.trail = None
    assert lease.dispatch(n)


def test_a_release_that_could_not_be_written_makes_a_message_due() -> None:
    """L5: its answer says what is open, so that a replay does not charge what was given back."""
    lease = lease_with(100)
    n = take(lease, 60)
    lease.trail = Full()  # type: ignore[assignment]
    assert lease.release(n, 2_000)
    assert lease.unwritten
