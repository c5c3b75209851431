"""The owner and the holders of leases: who was heard of, what silence does, what is asked back, and an owner that is none any
more. Driven without a host and without threads."""

from __future__ import annotations

import pytest

from agentbudget import InvalidRequest, OwnerUnavailable
from agentbudget.account.commands import (
    Command,
    CorrectLease,
    CreateCustomer,
    Hold,
    IssueGrant,
    LapseLease,
    OpenSession,
    Read,
    Renew,
    SetLimit,
    StepReport,
)
from agentbudget.account.decision import BalanceView, Recalling, Renewed, Settled
from agentbudget.errors import OutOfOrder
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.owner import owner as owner_module
from agentbudget.runtime.owner.owner import Owner
from agentbudget.testing import ManualClock, MemoryJournal, MemoryStore
from tests.runtime.support import PREPAID

DAY = 24 * 3600


def renew(
    lease: str, seq: int, *, amount: int | None = None, holder: str = "p1", back: int = 0, **what: object
) -> Renew:
    ask = None if amount is None else Hold("next", "run", "tool", amount, {"steps": 1}, tool="search")
    return Renew(lease, seq, "run", holder, "tool", None, "search", ask=ask, back=back, **what)  # type: ignore[arg-type]


def ask(owner: Owner, *commands: Command) -> list[object]:
    return list(owner.handle([("acme", command) for command in commands]))


def balance(owner: Owner) -> BalanceView:
    answer = ask(owner, Read("balance"))[0]
    assert isinstance(answer, BalanceView)
    return answer


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def owner(store: MemoryStore, clock: ManualClock) -> Owner:
    """A wallet of 100, of which a lease of p1 holds 60."""
    made = Owner(MemoryJournal(store), clock, name="test")
    ask(
        made,
        CreateCustomer(PREPAID.terms("prepaid")),
        IssueGrant("g", 100),
        OpenSession("run"),
        renew("lease:L", 1, amount=60),
    )
    return made


def another(store: MemoryStore, clock: ManualClock) -> Owner:
    return Owner(MemoryJournal(store), clock, name="another")


def seconds(owner: Owner, clock: ManualClock, count: int, *holders: str) -> None:
    """Time passes, second by second; some holders beat."""
    for _ in range(count):
        clock.advance(1)
        for holder in holders:
            owner.beat(Beat(holder, ("acme",)))
        owner.tick()


# --- silence -----------------------------------------------------------------------------------------------------------------


def test_a_holder_that_beats_keeps_its_lease_however_long_its_step_takes(owner: Owner, clock: ManualClock) -> None:
    seconds(owner, clock, 600, "p1")
    assert (balance(owner).leased, balance(owner).suspended) == (60, 0)


def test_a_renewal_is_a_sign_of_life_too(owner: Owner, clock: ManualClock) -> None:
    for _ in range(3):
        seconds(owner, clock, 8)
        ask(owner, renew("lease:L", 2))
    assert balance(owner).suspended == 0


def test_silence_for_longer_than_its_time_to_live_suspends_what_a_holder_has(owner: Owner, clock: ManualClock) -> None:
    """L1: it stays held."""
    ask(owner, renew("lease:K", 1, amount=5, holder="p2"))
    seconds(owner, clock, 10, "p2")
    assert balance(owner).suspended == 0
    seconds(owner, clock, 1, "p2")
    assert (balance(owner).held, balance(owner).suspended) == (65, 60)


def test_a_suspended_holder_that_beats_again_is_asked_to_renew_and_then_goes_on(
    owner: Owner, clock: ManualClock
) -> None:
    seconds(owner, clock, 11)
    assert asked_back(owner) == ("lease:L",)
    (answer,) = ask(owner, renew("lease:L", 2))
    assert isinstance(answer, Renewed)
    assert answer.seq == 2
    assert balance(owner).suspended == 0
    assert owner.beat(Beat("p1", ("acme",))) == Beaten()


@pytest.mark.parametrize(("on_lapse", "consumed"), [("charge", 60), ("release", 0)])
def test_after_a_day_of_silence_a_lease_lapses_by_the_stated_policy(
    store: MemoryStore, owner: Owner, clock: ManualClock, on_lapse: str, consumed: int
) -> None:
    """L5."""
    later = Owner(MemoryJournal(store), clock, name="later", on_lapse=on_lapse)  # type: ignore[arg-type]
    balance(later)
    clock.advance(11)
    later.tick()
    clock.advance(DAY - 1)
    later.tick()
    assert balance(later).leased == 60
    clock.advance(1)
    later.tick()
    assert (balance(later).held, balance(later).consumed) == (0, consumed)


def test_how_long_is_the_operators_choice(store: MemoryStore, owner: Owner, clock: ManualClock) -> None:
    quick = Owner(MemoryJournal(store), clock, name="quick", holder_ttl_us=2_000_000, lapse_after_us=5_000_000)
    balance(quick)
    seconds(quick, clock, 3)
    assert balance(quick).suspended == 60
    seconds(quick, clock, 5)
    assert balance(quick).held == 0


def test_to_a_new_owner_everybody_was_just_heard_of(store: MemoryStore, owner: Owner, clock: ManualClock) -> None:
    clock.advance(DAY)
    later = another(store, clock)
    assert balance(later).suspended == 0
    seconds(later, clock, 10)
    assert balance(later).suspended == 0
    seconds(later, clock, 1)
    assert balance(later).suspended == 60


def test_holders_that_are_gone_are_forgotten(owner: Owner, clock: ManualClock) -> None:
    for n in range(50):
        owner.beat(Beat(f"worker {n}"))
        seconds(owner, clock, 1)
    assert len(owner._heard._at_us) <= 12


def test_a_customer_with_a_lease_is_not_put_away(owner: Owner, clock: ManualClock) -> None:
    for _ in range(3):
        clock.advance(owner_module.IDLE_SECONDS)
        owner.beat(Beat("p1", ("acme",)))
        owner.tick()
    assert set(owner._loaded) == {"acme"}


def asked_back(owner: Owner, *others: str) -> tuple[str, ...]:
    """What a beat of p1 brings; the number comes with it."""
    beaten = owner.beat(Beat("p1", ("acme", *others)))
    assert beaten.recall.keys() == beaten.told.keys() <= {"acme"}
    return beaten.recall.get("acme", ())


# --- beats -------------------------------------------------------------------------------------------------------------------


def test_a_beat_brings_what_is_asked_back_until_it_was_answered(owner: Owner) -> None:
    assert owner.beat(Beat("p1", ("acme",))) == Beaten()
    ask(owner, SetLimit("customer", 90))
    for _ in range(2):
        assert asked_back(owner, "nobody") == ("lease:L",)
    assert owner.beat(Beat("p2", ("acme",))) == Beaten()
    ask(owner, renew("lease:L", 2, back=20))  # it may not have heard of it
    told = owner.beat(Beat("p1", ("acme",))).told["acme"]
    ask(owner, renew("lease:L", 3, back=40, heard=told))
    assert owner.beat(Beat("p1", ("acme",))) == Beaten()


def test_a_shortage_reaches_the_holder_by_its_next_beat(owner: Owner) -> None:
    (waiting,) = ask(owner, renew("lease:K", 1, amount=70, holder="p2"))
    assert isinstance(waiting, Renewed)
    assert isinstance(waiting.recalling, Recalling)
    assert owner.has_recalls()
    assert not owner.has_recalls()
    assert asked_back(owner) == ("lease:L",)
    ask(owner, renew("lease:L", 2, back=60))
    (granted,) = ask(owner, renew("lease:K", 1, amount=70, holder="p2"))
    assert isinstance(granted, Renewed)
    assert granted.amount == 70


def test_a_beat_after_a_restart_finds_what_is_still_asked_back(
    store: MemoryStore, owner: Owner, clock: ManualClock
) -> None:
    ask(owner, SetLimit("customer", 90))
    later = another(store, clock)
    assert asked_back(later) == ("lease:L",)


def test_a_beat_that_nobody_can_vouch_for_is_no_answer(store: MemoryStore, owner: Owner, clock: ManualClock) -> None:
    """L8. Another owner has taken over; this one finds out at its next tick, though it has nothing to commit."""
    seconds(owner, clock, 1, "p1")
    another(store, clock)
    seconds(owner, clock, 1)
    with pytest.raises(OwnerUnavailable):
        owner.beat(Beat("p1", ("acme",)))
    assert owner._loaded == {}


def test_a_tick_asks_the_journal_only_when_nothing_else_did(store: MemoryStore, clock: ManualClock) -> None:
    journal = MemoryJournal(store)
    owner = Owner(journal, clock, name="test")
    owner.tick()
    before = journal.calls
    owner.tick()
    assert journal.calls == before  # nobody is loaded
    ask(owner, CreateCustomer(PREPAID.terms("prepaid")))
    before = journal.calls
    owner.tick()
    assert journal.calls == before
    owner.tick()
    assert journal.calls == before + 1


# --- messages ----------------------------------------------------------------------------------------------------------------


def test_the_next_message_of_an_open_lease_looks_up_no_keys(store: MemoryStore, clock: ManualClock) -> None:
    journal = MemoryJournal(store)
    owner = Owner(journal, clock, name="test")
    ask(owner, CreateCustomer(PREPAID.terms("prepaid")), IssueGrant("g", 100), OpenSession("run"))
    ask(owner, renew("lease:L", 1, amount=60))
    before = journal.calls
    ask(owner, renew("lease:L", 2, back=5))
    assert journal.calls == before + 1


def test_messages_of_one_lease_in_one_batch_have_one_effect_each(owner: Owner) -> None:
    """L4: also before anything is committed."""
    second = renew("lease:L", 2, measures=("steps",), steps=(StepReport("lease:L.1", 7, (1,)),))
    third = renew("lease:L", 3, back=10)
    answers = ask(owner, second, second, third, second, renew("lease:L", 3, back=11), renew("lease:L", 5))
    assert [getattr(answer, "seq", None) for answer in answers[:4]] == [2, 2, 3, 3]
    for answer in answers[4:]:
        assert isinstance(answer, OutOfOrder)
        assert answer.expected == 4
    assert (balance(owner).consumed, balance(owner).held) == (7, 43)


def test_a_lost_answer_is_healed_by_the_same_message(store: MemoryStore, clock: ManualClock, owner: Owner) -> None:
    """L1, L4: the commit happened, the answer did not come; also at the next owner."""
    journal = MemoryJournal(store)
    failing = Owner(journal, clock, name="failing")
    balance(failing)
    journal.fail_at(1, after=True)
    second = renew("lease:L", 2, amount=3, measures=("steps",), steps=(StepReport("lease:L.1", 7, (1,)),))
    assert isinstance(ask(failing, second)[0], OwnerUnavailable)
    for later in (lambda: failing, lambda: another(store, clock)):
        healed = later()
        (answer,) = ask(healed, second)
        assert isinstance(answer, Renewed)
        assert (answer.seq, answer.amount) == (2, 3)
        assert (balance(healed).consumed, balance(healed).held) == (7, 56)


def test_what_a_decoder_has_checked_is_not_checked_again(owner: Owner) -> None:
    """The flag is per place in the batch: what others put there is still looked at."""
    good, bad = renew("lease:L", 2, back=5), renew("lease:L", 3, back="5")  # type: ignore[arg-type]
    answers = owner.handle([("acme", good), ("acme", bad)], checked={0})
    assert isinstance(answers[0], Renewed)
    assert isinstance(answers[1], InvalidRequest)


def test_a_lapse_may_be_in_the_batch_of_what_comes_late(owner: Owner) -> None:
    answers = ask(
        owner,
        LapseLease("lease:L", True),
        CorrectLease("lease:L", (), (StepReport("lease:L.1", 7),)),
        LapseLease("lease:L", True),
    )
    assert answers == [
        Settled("lease:L", "unknown", 60),
        Settled("lease:L", "corrected", 7),
        Settled("lease:L", "unknown", 60),
    ]
