"""The contract of a host (``agentbudget/runtime/host.py``), the same sentences for every host there is."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentbudget.account.commands import (
    Command,
    CreateCustomer,
    DispatchHold,
    ExtendHold,
    FundSession,
    Hold,
    IssueGrant,
    LapseLease,
    OpenSession,
    Read,
    ReleaseHold,
    Renew,
    SetLimit,
    SetPaused,
    SettleHold,
    StepReport,
)
from agentbudget.account.decision import Answer, BalanceView, Decision, Done, Held, Opened, Renewed, Settled
from agentbudget.clock import SystemClock
from agentbudget.errors import AgentBudgetError, HoldResolved, InvalidRequest, KeyConflict, OutOfOrder, OwnerUnavailable
from agentbudget.runtime.host import Beat, Beaten, Host, Pause, Plan, arun, run
from agentbudget.runtime.owner import mailbox
from agentbudget.runtime.owner.owner import Owner
from agentbudget.testing import MemoryJournal
from tests.crash.linear import Wallet, is_linearizable
from tests.crash.linear_clients import FREE, race
from tests.hosts.levers import PATIENCE, When
from tests.hosts.places import Place
from tests.sockets.support import BALANCE, GRANTED, START, hold

SOON = 0.05
"""Seconds that a caller waits in tests of waiting in vain."""


class Answers:
    """Takes the answers of so many commands that were submitted."""

    def __init__(self, count: int) -> None:
        self.found: list[Any] = []
        self._all, self._count = threading.Event(), count

    def take(self, answer: Answer | AgentBudgetError) -> None:
        self.found.append(answer)
        if len(self.found) == self._count:
            self._all.set()

    def wait(self) -> list[Any]:
        assert self._all.wait(PATIENCE), f"{len(self.found)} of {self._count} answers came"
        return self.found


def submit(host: Host, *commands: Command) -> Answers:
    answers = Answers(len(commands))
    for command in commands:
        host.submit("acme", command, answers.take)
    return answers


def submit_behind_a_commit(place: Place, *commands: Command) -> tuple[Answers, Answers]:
    """The gate is shut, a first command stands at it, and the others wait behind."""
    place.levers.shut()
    first = submit(place.host, hold("first"))
    place.levers.wait_for_a_commit()
    return first, submit(place.host, *commands)


def ask(host: Host, command: Command) -> Answer | AgentBudgetError:
    try:
        return host.ask("acme", command)
    except AgentBudgetError as error:
        return error


def balance(host: Host) -> BalanceView:
    view = host.ask("acme", BALANCE)
    assert isinstance(view, BalanceView)
    return view


def renew(seq: int, *, amount: int | None = None, **what: Any) -> Renew:
    asked = None if amount is None else Hold("next", "run", "tool", amount, {"steps": 1}, tool="search")
    return Renew("lease:L", seq, "run", "p1", "tool", None, "search", ask=asked, **what)


# --- durable, once, in order -------------------------------------------------------------------------------------------------


def test_an_answer_comes_only_after_its_commit(begun: Place) -> None:
    """L1: whoever hears the answer finds the entry in the ledger; a read that saw it waits for the same commit."""
    first, second = submit_behind_a_commit(begun, hold("a"), BALANCE)
    assert first.found == second.found == []
    archive, found = begun.open_archive(), threading.Event()

    def look(answer: object) -> None:
        if isinstance(answer, Settled) and ("acme", "b#end") in archive.find([("acme", "b#end")]):
            found.set()

    begun.host.submit("acme", hold("b"), lambda answer: None)
    begun.host.submit("acme", SettleHold("b", 3), look)
    begun.levers.open()
    assert [type(answer) for answer in first.wait() + second.wait()] == [Held, Held, BalanceView]
    assert found.wait(PATIENCE)


def test_everything_that_waits_shares_one_commit(begun: Place) -> None:
    before = len(begun.levers.commits())
    first, others = submit_behind_a_commit(begun, *(hold(f"s-{n}") for n in range(100)))
    begun.levers.open()
    assert all(isinstance(answer, Held) for answer in first.wait() + others.wait())
    assert begun.levers.commits()[before:] == [1, 100]


@pytest.mark.parametrize(
    "command",
    [*START, hold("a"), SettleHold("b", 7), ReleaseHold("c"), FundSession("run", 5, key="more")],
    ids=lambda command: type(command).__name__,
)
def test_the_same_command_again_gets_the_same_answer_and_changes_nothing(begun: Place, command: Command) -> None:
    """L4, from whichever host it comes the second time."""
    for step in ("b", "c"):
        begun.host.ask("acme", hold(step))
    first = begun.host.ask("acme", command)
    seen = balance(begun.host)
    again = begun.another().ask("acme", command)
    if isinstance(again, Done | Opened):  # it says that it was there already
        assert type(again) is type(first)
    else:
        assert again == first
    assert balance(begun.host) == seen


@pytest.mark.parametrize(
    ("command", "other"),
    [
        (IssueGrant("g", 5, key="g"), IssueGrant("g", 6, key="g")),
        (OpenSession("s", budget=5), OpenSession("s", budget=6)),
        (hold("a"), Hold("a", "run", "tool", 10, {"steps": 1}, tool="another")),
        (FundSession("run", 5, key="more"), FundSession("run", 6, key="more")),
    ],
    ids=lambda command: type(command).__name__,
)
def test_another_request_under_the_same_key_is_refused(begun: Place, command: Command, other: Command) -> None:
    """L4."""
    first = begun.host.ask("acme", command)
    seen = balance(begun.host)
    with pytest.raises(KeyConflict) as conflict:
        begun.another().ask("acme", other)
    assert conflict.value.key
    assert balance(begun.host) == seen
    assert type(begun.host.ask("acme", command)) is type(first)


@pytest.mark.parametrize("seed", range(3))
def test_one_owner_decides_in_an_order_that_explains_every_answer(place: Place, seed: int) -> None:
    """L9: four clients on two hosts race; some serial order that respects real time gives each of them what it saw."""
    other = place.another()
    history, lost = race([place.host, other, place.host, other], 120, random.Random(seed))
    assert lost == 0
    assert is_linearizable(history, Wallet(free=FREE))


def test_what_one_caller_was_answered_the_next_one_sees(begun: Place) -> None:
    """L9."""
    hosts = [begun.host, begun.another(), begun.another()]
    for n in range(12):
        hosts[n % 3].ask("acme", hold(f"s-{n}"))
        assert balance(hosts[(n + 1) % 3]).held == 10 * (n + 1)


def test_commands_of_one_caller_are_carried_out_in_the_order_they_were_said(begun: Place) -> None:
    answers = submit(
        begun.host, hold("a"), SettleHold("a", 3), hold("b"), ReleaseHold("b"), SettleHold("b", 1), BALANCE
    )
    kinds = [type(answer) for answer in answers.wait()]
    assert kinds == [Held, Settled, Held, Settled, HoldResolved, BalanceView]


# --- errors ------------------------------------------------------------------------------------------------------------------

FAULTS: tuple[Command, ...] = (
    SettleHold("nobody's", 5),
    ExtendHold("nobody's", 1, 5),
    DispatchHold("nobody's"),
    ReleaseHold("settled"),
    SettleHold("settled", 8),
    hold("too-much", 10 * GRANTED),
    OpenSession("run", budget=1),
    OpenSession("under-nobody", parent="nobody", budget=1),
    IssueGrant("welcome", 1, key="welcome"),
    IssueGrant("g", -5),
    CreateCustomer(START[0].terms, time_zone="Mars/Olympus"),  # type: ignore[union-attr]
    Renew("lease:L", 3, "run", "p1", "tool", None, "search", back=1),
    LapseLease("nobody's", True),
    Read("session", "nobody's"),
)


@pytest.mark.parametrize("command", FAULTS, ids=lambda command: type(command).__name__)
def test_refusals_and_errors_cross_as_themselves_with_their_fields(begun: Place, command: Command) -> None:
    """What an owner without a host says, in every field."""
    plain = Owner(MemoryJournal(), SystemClock(), name="plain")
    before: tuple[Command, ...] = (hold("settled"), SettleHold("settled", 7))
    plain.handle([("acme", one) for one in (*START, *before)])
    for one in before:
        begun.host.ask("acme", one)
    expected, found = plain.handle([("acme", command)])[0], ask(begun.host, command)
    assert isinstance(expected, AgentBudgetError | Decision | Opened)
    assert type(found) is type(expected)
    if isinstance(expected, AgentBudgetError):
        assert isinstance(found, AgentBudgetError)
        assert (found.args, str(found), found.__dict__) == (expected.args, str(expected), expected.__dict__)
    else:
        assert found == expected
    assert submit(begun.host, command).wait()[0].__class__ is type(expected)


def test_a_customer_that_nobody_created_is_told_so(place: Place) -> None:
    refused = place.host.ask("nobody", OpenSession("run"))
    assert isinstance(refused, Decision)
    assert refused.reason == "unknown_customer"
    with pytest.raises(InvalidRequest) as unknown:
        place.host.ask("nobody", BALANCE)
    assert unknown.value.field == "customer"


@pytest.mark.parametrize("command", [hold("x", 1.5), Hold("x", "run", "dance", 1), IssueGrant("g", "5")])  # type: ignore[arg-type]
def test_a_value_of_the_wrong_type_is_refused_alone(begun: Place, command: Command) -> None:
    """What was written can always be read again; the commands beside it are decided."""
    with pytest.raises(InvalidRequest):
        begun.host.ask("acme", command)
    assert isinstance(begun.host.ask("acme", hold("x")), Held)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failed_commit_fails_all_that_shared_it_and_the_next_use_heals(begun: Place, when: When) -> None:
    """L1, L4: whether or not it took effect, nobody is told that it did, and the same keys again have one effect."""
    before = balance(begun.host)
    commands = [*(hold(f"s-{n}") for n in range(10)), BALANCE]
    first, others = submit_behind_a_commit(begun, *commands)
    begun.levers.fail_next(when)
    begun.levers.open()
    assert isinstance(first.wait()[0], Held)
    assert [type(answer) for answer in others.wait()] == [OwnerUnavailable] * 11
    assert all("key" in answer.advice for answer in others.found)
    assert balance(begun.host).held == (10 if when == "before" else 110)
    for command in commands[:-1]:
        assert isinstance(begun.host.ask("acme", command), Held)
    assert balance(begun.host).available == before.available - 110


# --- waiting -----------------------------------------------------------------------------------------------------------------


def test_who_waits_too_long_is_told_who_owns_the_ledger_and_what_to_do(begun: Place) -> None:
    """L8; and the same command again finds what became of it (L4)."""
    begun.levers.shut()
    submit(begun.host, hold("first"))
    begun.levers.wait_for_a_commit()
    start = time.monotonic()
    with pytest.raises(OwnerUnavailable) as late:
        begun.host.ask("acme", hold("a"), timeout_seconds=SOON)
    assert time.monotonic() - start >= SOON
    assert late.value.owner == begun.host.owner != ""
    assert "same key" in late.value.advice
    begun.levers.open()
    assert isinstance(begun.host.ask("acme", hold("a")), Held)
    assert balance(begun.host).held == 20


def test_the_hosts_own_patience_bounds_every_way_of_asking(begun: Place) -> None:
    """L8: blocking, awaiting, beating, sweeping, publishing."""
    begun.levers.shut()
    submit(begun.host, hold("first"))
    begun.levers.wait_for_a_commit()
    begun.host.timeout_seconds = SOON
    ways: list[Callable[[], object]] = [
        lambda: begun.host.ask("acme", BALANCE),
        lambda: run(begun.host, "acme", asking(BALANCE)),
        lambda: asyncio.run(arun(begun.host, "acme", asking(BALANCE))),
        lambda: begun.host.beat(Beat("p1", ("acme",))),
        begun.host.sweep,
        lambda: begun.host.publish_catalog(b"new"),
    ]
    for way in ways:
        with pytest.raises(OwnerUnavailable) as late:
            way()
        assert late.value.owner == begun.host.owner
    begun.host.timeout_seconds = PATIENCE
    begun.levers.open()
    assert balance(begun.host).held == 10


def asking(*commands: Command) -> Plan[list[object]]:
    """A plan: every command, and what each was answered."""
    found: list[object] = []
    for command in commands:
        try:
            found.append((yield command))
        except AgentBudgetError as error:
            if isinstance(error, OwnerUnavailable):
                raise
            found.append((type(error), error.args))
        yield Pause(0.0)
    return found


def test_awaiting_is_answered_as_blocking_is(begun: Place) -> None:
    commands = (hold("a"), SettleHold("a", 4), hold("a"), SettleHold("b", 1), hold("c", 10 * GRANTED), BALANCE)
    awaited = asyncio.run(arun(begun.host, "acme", asking(*commands)))
    assert run(begun.host, "acme", asking(*commands)) == awaited


def test_an_event_loop_goes_on_while_its_tasks_wait(begun: Place) -> None:
    async def both() -> list[list[object]]:
        begun.levers.shut()
        tasks = [asyncio.create_task(arun(begun.host, "acme", asking(hold(f"s-{n}")))) for n in range(20)]
        await asyncio.to_thread(begun.levers.wait_for_a_commit)
        begun.levers.open()
        return await asyncio.gather(*tasks)

    assert [[type(answer) for answer in found] for found in asyncio.run(both())] == [[Held]] * 20


def test_too_much_that_waits_is_refused_and_told_to_slow_down(begun: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """L8: a quick refusal, of which nothing was carried out."""
    monkeypatch.setattr(mailbox, "MAX_MAILBOX", 5)
    first, others = submit_behind_a_commit(begun, *(hold(f"s-{n}") for n in range(5)))
    with pytest.raises(OwnerUnavailable, match="waiting") as full:
        begun.host.submit("acme", hold("refused"), lambda answer: None)
    assert "slow down" in full.value.advice
    begun.levers.open()
    first.wait()
    others.wait()
    assert balance(begun.host).held == 60


# --- heartbeats --------------------------------------------------------------------------------------------------------------

CHANGES: tuple[Command, ...] = (
    SetLimit("customer", GRANTED),
    SetPaused("customer", True),
    SetPaused("session:run", True),
)


@pytest.mark.parametrize("change", CHANGES, ids=["limit", "pause", "pause of the session"])
def test_a_beat_asks_back_what_a_change_made_untrue_until_it_was_given_back(begun: Place, change: Command) -> None:
    begun.host.ask("acme", renew(1, amount=10))
    assert begun.host.beat(Beat("p1", ("acme",))) == Beaten()
    begun.another().ask("acme", change)
    for _ in range(2):
        beaten = begun.host.beat(Beat("p1", ("acme", "nobody")))
        assert beaten.recall == {"acme": ("lease:L",)}
    assert begun.another().beat(Beat("p2", ("acme",))) == Beaten()
    begun.host.ask("acme", renew(2, back=10, heard=beaten.told["acme"]))
    assert begun.host.beat(Beat("p1", ("acme",))) == Beaten()


def test_a_beat_asks_back_what_another_needs(begun: Place) -> None:
    granted = begun.host.ask("acme", renew(1, amount=GRANTED // 1_000, times=1_000))
    assert isinstance(granted, Renewed)
    assert granted.amount == GRANTED
    short = begun.another().ask("acme", hold("a"))
    assert not isinstance(short, Held)
    beaten = begun.host.beat(Beat("p1", ("acme",)))
    assert beaten.recall == {"acme": ("lease:L",)}
    begun.host.ask("acme", renew(2, back=10, heard=beaten.told["acme"]))
    assert isinstance(begun.another().ask("acme", hold("a")), Held)


def test_a_catalog_reaches_every_process_once_by_its_beat(begun: Place) -> None:
    hosts = [begun.host, begun.another(), begun.another()]
    assert hosts[0].publish_catalog(b"new") == 1
    for host in hosts:
        assert host.beat(Beat("h", catalog=0)) == Beaten({}, 1, b"new")
        assert host.beat(Beat("h", catalog=1)) == Beaten({}, 1, b"")
    assert hosts[1].publish_catalog(b"newer") == 2
    assert hosts[2].beat(Beat("h", catalog=1)) == Beaten({}, 2, b"newer")


def test_what_changes_the_rules_asks_for_a_beat_at_once_and_a_step_does_not(begun: Place) -> None:
    nudged = threading.Event()
    begun.host.on_nudge(nudged.set)
    begun.host.ask("acme", hold("a"))
    begun.host.ask("acme", SettleHold("a", 1))
    balance(begun.host)
    assert not nudged.is_set()
    for change in (lambda: begun.another().ask("acme", CHANGES[1]), lambda: begun.another().publish_catalog(b"new")):
        change()
        assert nudged.wait(PATIENCE)
        nudged.clear()


def test_a_step_that_is_worked_on_keeps_its_hold_and_a_forgotten_one_does_not(begun: Place) -> None:
    """L5: by ``live``, whatever process the step is in."""
    ttl_us = 600_000
    begun.host.live.update({"kept"})
    for step in ("kept", "forgotten"):
        begun.host.ask(
            "acme", Hold(step, "run", "tool", 10, {"steps": 1}, tool="search", dispatched=False, ttl_us=ttl_us)
        )
    until(begun.host, lambda: balance(begun.host).held == 10)
    for _ in range(3):
        begun.host.sweep()
    assert isinstance(begun.host.ask("acme", SettleHold("kept", 5)), Settled)
    assert balance(begun.host).consumed == 5


def until(host: Host, is_so: Callable[[], bool]) -> None:
    """Time passes, and the owner sweeps."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        host.sweep()


# --- leases ------------------------------------------------------------------------------------------------------------------


def test_the_messages_of_a_lease_are_taken_in_order_and_once_each(begun: Place) -> None:
    """L4: a repeated number gets its recorded answer, a gap and another request are refused with the number that is due."""
    first = renew(1, amount=10, times=3)
    second = renew(2, measures=("steps",), steps=(StepReport("lease:L.1", 7, (1,)),))
    opened = begun.host.ask("acme", first)
    assert isinstance(opened, Renewed)
    assert (opened.seq, opened.amount) == (1, 30)
    assert ask(begun.another(), first) == opened
    for command, expected in ((renew(3, back=1), 2), (renew(1, amount=11), 2)):
        refused = ask(begun.another(), command)
        assert isinstance(refused, OutOfOrder)
        assert (refused.lease, refused.expected) == ("lease:L", expected)
    for host in (begun.host, begun.another()):
        answer = host.ask("acme", second)
        assert isinstance(answer, Renewed)
        assert answer.seq == 2
    assert (balance(begun.host).consumed, balance(begun.host).leased) == (7, 23)
    begun.host.ask("acme", renew(3, close=True))
    assert (balance(begun.host).consumed, balance(begun.host).held) == (7, 0)


def test_messages_of_a_lease_that_travel_together_have_one_effect_each(begun: Place) -> None:
    """L4."""
    report = renew(2, measures=("steps",), steps=(StepReport("lease:L.1", 7, (1,)),))
    first, others = submit_behind_a_commit(
        begun, renew(1, amount=10, times=3), report, report, renew(3, back=5), renew(5, back=5), renew(3, back=5)
    )
    begun.levers.open()
    first.wait()
    seqs = [getattr(answer, "seq", type(answer)) for answer in others.wait()]
    assert seqs == [1, 2, 2, 3, OutOfOrder, 3]
    assert (balance(begun.host).consumed, balance(begun.host).leased) == (7, 18)


# --- closing -----------------------------------------------------------------------------------------------------------------


def test_closing_answers_what_waits_and_then_refuses(begun: Place) -> None:
    waiting = submit(begun.host, *(hold(f"s-{n}") for n in range(700)))  # more than one batch
    begun.host.close()
    assert len(waiting.found) == 700
    assert all(isinstance(answer, Held) for answer in waiting.found)
    is_told_that_it_is_closed(begun.host)


def test_closing_while_a_commit_hangs_leaves_nobody_waiting(begun: Place) -> None:
    """L8: each waiter is answered once, with what became of its command or that nobody knows."""
    first, others = submit_behind_a_commit(begun, *(hold(f"s-{n}") for n in range(30)))
    closing = threading.Thread(target=begun.host.close)
    closing.start()
    begun.levers.open()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert len(first.found + others.found) == 31
    assert all(isinstance(answer, Held | OwnerUnavailable) for answer in first.found + others.found)


def test_closing_again_does_nothing(begun: Place) -> None:
    begun.host.close()
    begun.host.close()
    is_told_that_it_is_closed(begun.host)


def is_told_that_it_is_closed(host: Host) -> None:
    ways: list[Callable[[], object]] = [
        lambda: host.ask("acme", BALANCE),
        lambda: host.submit("acme", BALANCE, lambda answer: None),
        lambda: host.beat(Beat("p1", ("acme",))),
        lambda: asyncio.run(arun(host, "acme", asking(BALANCE))),
    ]
    for way in ways:
        with pytest.raises(OwnerUnavailable, match="closed") as closed:
            way()
        assert "open" in closed.value.advice


def test_what_was_held_is_still_held_after_closing(begun: Place) -> None:
    """L5: closing ends no hold; it waits for its holder."""
    begun.host.ask("acme", hold("a"))
    begun.host.close()
    archive = begun.open_archive()
    assert ("acme", "a") in archive.find([("acme", "a"), ("acme", "a#end")])
    assert ("acme", "a#end") not in archive.find([("acme", "a"), ("acme", "a#end")])
