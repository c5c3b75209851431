"""An owner as an actor runs it, driven without Ray: what it says to each message, and what it does by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.account.commands import Hold, IssueGrant, Read, SetPaused, SettleHold
from agentbudget.account.decision import BalanceView, Done, Held, Settled
from agentbudget.errors import InvalidRequest, LedgerCorrupt, OwnerUnavailable
from agentbudget.ledger.shards import SHARDS, shard_of
from agentbudget.ledger.store import open_journal
from agentbudget.runtime.host import Beat
from agentbudget.runtime.on_ray import actor as ray_owner
from agentbudget.runtime.on_ray import wire as ray_wire
from agentbudget.runtime.on_ray.actor import RayOwner
from agentbudget.runtime.on_ray.shards import name_in
from agentbudget.testing import ManualClock
from tests.ray.folder_store import FolderStore
from tests.ray.seats import answers, in_background, owner_of, refusal, say
from tests.sockets.support import BALANCE, START, hold

SHARDS_OF = {"acme": 32, "bolt": 35, "customer-1": 7, "\u00fc": 36}


@pytest.fixture
def owner(tmp_path: Path) -> RayOwner:
    made = owner_of(tmp_path)
    say(made, *START)
    return made


def balance(owner: RayOwner, customer: str = "acme") -> BalanceView:
    (view,) = answers(say(owner, BALANCE, customer=customer))
    assert isinstance(view, BalanceView)
    return view


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_message_is_answered_in_its_order_and_says_who_answers(owner: RayOwner) -> None:
    reply = say(owner, hold("a"), SettleHold("a", 4), hold("b"), BALANCE)
    assert [type(answer) for answer in answers(reply)] == [Held, Settled, Held, BalanceView]
    assert isinstance(reply, ray_wire.Served)
    assert name_in(reply.owner) == "owner-0"
    assert str(os.getpid()) in reply.owner
    assert reply.moved == []


def test_a_message_that_ray_carries_out_twice_has_one_effect(owner: RayOwner) -> None:
    """L4: a grant that was given no key has one by the time it is sent."""
    grant = ray_wire.keyed(IssueGrant("more", 7))
    first = say(owner, grant, hold("a"), SettleHold("a", 4))
    assert answers(say(owner, grant, hold("a"), SettleHold("a", 4))) == answers(first)
    assert balance(owner).consumed == 4
    assert balance(owner).issued == 10**12 + 7


def test_only_what_adds_is_given_a_key() -> None:
    from tests.sockets.samples import COMMANDS

    changed = {type(command).__name__ for command in COMMANDS if ray_wire.keyed(command) != command}
    assert changed == {"IssueGrant", "VoidGrant", "AdjustGrant", "ClearReceivable", "FundSession"}
    assert ray_wire.keyed(IssueGrant("g", 5, key="mine")) == IssueGrant("g", 5, key="mine")


def test_what_is_wrong_with_the_ledger_is_said_as_itself_to_whoever_asks(tmp_path: Path) -> None:
    (tmp_path / "budget.db").write_bytes(b"this is no database" * 1_000)
    for _ in range(2):
        assert isinstance(refusal(say(owner_of(tmp_path), BALANCE)), LedgerCorrupt)


def test_a_ledger_that_a_program_has_is_refused_by_its_name_until_it_is_given_up(tmp_path: Path) -> None:
    """L8, L9."""
    other = open_journal(f"sqlite:///{tmp_path}/budget.db")
    owner = owner_of(tmp_path)
    refused = refusal(say(owner, *START))
    assert isinstance(refused, OwnerUnavailable)
    assert str(os.getpid()) in refused.owner
    other.close()
    assert len(answers(say(owner, *START))) == len(START)


def test_another_version_and_garbage_are_told_so(owner: RayOwner) -> None:
    other = refusal(say(owner, BALANCE, version=ray_wire.VERSION + 1))
    assert isinstance(other, OwnerUnavailable)
    assert "same version" in other.advice
    future = ray_wire.encode(("said", ray_wire.VERSION + 1, {"of": "another shape"}))
    assert isinstance(ray_wire.why(ray_wire.read_reply(owner.serve(future))), OwnerUnavailable)  # type: ignore[arg-type]
    for garbage in (b"", b"\xc1", b"\x93\xa4said", os.urandom(200)):
        reply = ray_wire.read_reply(owner.serve(garbage))
        assert isinstance(reply, ray_wire.Refused)
        assert isinstance(ray_wire.why(reply), InvalidRequest | OwnerUnavailable)
    assert balance(owner).held == 0


# --- processes ---------------------------------------------------------------------------------------------------------------


def test_the_steps_of_a_process_that_is_silent_are_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L5: a killed worker leaves nothing open after its holds' time to live."""
    monkeypatch.setattr(ray_owner, "GRACE_SECONDS", 0.0)
    clock = ManualClock()
    owner = owner_of(tmp_path, clock=clock)
    say(owner, *START)
    say(owner, hold("a"), process="dead", living=["a"])
    say(owner, hold("b"), process="alive", living=["b"])
    for _ in range(13):
        clock.advance(5)
        say(owner, process="alive", living=["b"])
    until(lambda: balance(owner).held < 20)
    assert (balance(owner).held, balance(owner).consumed) == (10, 10)  # it was dispatched, so what it cost is not known
    assert owner.status()["processes"] == 2  # and the one that only asked for balances


def test_the_steps_of_a_process_that_leaves_are_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_owner, "GRACE_SECONDS", 0.0)
    clock = ManualClock()
    owner = owner_of(tmp_path, clock=clock)
    say(owner, *START)
    say(owner, Hold("a", "run", "tool", 10, {"steps": 1}, tool="search", dispatched=False), process="one", living=["a"])
    say(owner, process="one", leaving=True)
    clock.advance(61)
    say(owner, sweep=True)
    assert balance(owner).held == 0


def test_after_a_restart_every_step_counts_as_worked_on_until_its_process_has_spoken(tmp_path: Path) -> None:
    """L5."""
    clock = ManualClock()
    first = owner_of(tmp_path, clock=clock)
    say(first, *START)
    say(first, hold("a"), living=["a"])
    first.leave()
    clock.advance(61)
    second = owner_of(tmp_path, clock=clock)
    say(second, sweep=True)
    assert balance(second).held == 10


def test_an_owner_that_serves_nobody_gives_the_ledger_up_and_takes_it_again(tmp_path: Path) -> None:
    """A program without Ray may open the file meanwhile."""
    clock = ManualClock()
    owner = owner_of(tmp_path, clock=clock)
    say(owner, *START)
    say(owner, hold("a"), living=["a"])
    say(owner, leaving=True)
    clock.advance(31)
    until(lambda: not owner.status().get("open", True))
    open_journal(f"sqlite:///{tmp_path}/budget.db").close()
    assert balance(owner).held == 10


def test_who_waits_for_news_is_told_when_something_is_asked_back(owner: RayOwner) -> None:
    reply = say(owner, hold("a"))
    assert isinstance(reply, ray_wire.Served)
    waiting = in_background(lambda: owner.listen(reply.owner, reply.news))
    say(owner, SetPaused("customer", True))
    assert waiting() == (reply.owner, reply.news + 1)
    assert owner.listen(reply.owner, reply.news) == (reply.owner, reply.news + 1)  # who comes late waits for nothing
    assert owner.listen("owner-0 (before)", 99) == (reply.owner, reply.news + 1)  # nor who knows another incarnation


def test_a_busy_owner_still_says_how_it_is(owner: RayOwner) -> None:
    assert owner.status() | {"processes": 1} == owner.status()
    with owner._lock:
        assert in_background(owner.status)()["busy"] is True
    assert owner.status()["held"] == list(range(SHARDS))


# --- shards ------------------------------------------------------------------------------------------------------------------


def sharded(folder: Path, name: str, cluster: str = "here") -> RayOwner:
    return owner_of(folder, name, lambda: FolderStore(str(folder)), cluster=cluster)


def test_a_shard_that_nobody_has_is_taken_by_whoever_is_asked(tmp_path: Path) -> None:
    one, two = sharded(tmp_path, "owner-0"), sharded(tmp_path, "owner-1")
    say(one, *START)
    say(two, *START, customer="bolt")
    assert shard_of("acme") != shard_of("bolt")
    assert one.status()["held"] == [shard_of("acme")]
    assert two.status()["held"] == [shard_of("bolt")]


def test_who_is_asked_for_anothers_shard_says_whose_it_is_and_does_nothing(tmp_path: Path) -> None:
    """L9."""
    one, two = sharded(tmp_path, "owner-0"), sharded(tmp_path, "owner-1")
    say(one, *START)
    reply = say(two, hold("a"))
    assert isinstance(reply, ray_wire.Served)
    assert reply.moved == [(shard_of("acme"), "owner-0")]
    assert balance(one).held == 0
    beat = say(two, beat=Beat("h", ("acme",)))
    assert isinstance(beat, ray_wire.Served)
    assert beat.answers.unheard is not None


def test_a_shard_that_was_moved_is_served_by_its_new_owner_and_the_old_one_says_so(tmp_path: Path) -> None:
    """L1, L9: what was answered before the move stands after it."""
    one, two = sharded(tmp_path, "owner-0"), sharded(tmp_path, "owner-1")
    say(one, *START, hold("a"))
    shard = shard_of("acme")
    assert one.let_go([shard]) == []
    assert two.take([shard]) == [shard]
    reply = say(one, hold("b"))
    assert isinstance(reply, ray_wire.Served)
    assert reply.moved == [(shard, "owner-1")]
    assert balance(two).held == 10


def test_an_owner_whose_shard_was_taken_behind_its_back_writes_nothing_more_of_it(tmp_path: Path) -> None:
    """L9: two owners that both believe they have a shard; the epoch says which does."""
    one, two = sharded(tmp_path, "owner-0"), sharded(tmp_path, "owner-1")
    say(one, *START)
    say(one, *START, customer="bolt")
    two.take([shard_of("acme")])
    assert len(answers(say(two, hold("a")))) == 1
    reply = say(one, hold("b"))
    assert isinstance(reply, ray_wire.Served)
    assert reply.moved == [(shard_of("acme"), "owner-1")]
    assert isinstance(answers(say(one, hold("c"), customer="bolt"))[0], Held)
    assert (balance(two).held, balance(one, "bolt").held) == (10, 10)


def test_an_incarnation_that_was_replaced_gives_up_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L9: split brain. The old process goes on while its successor has its shards; it must not take them back."""
    ends: list[int] = []
    monkeypatch.setattr(ray_owner.os, "_exit", ends.append)
    old, new = sharded(tmp_path, "owner-0"), sharded(tmp_path, "owner-0")
    say(old, *START)
    assert isinstance(answers(say(new, hold("a")))[0], Held)
    for _ in range(2):
        refused = refusal(say(old, hold("b")))
        assert isinstance(refused, OwnerUnavailable)
        assert "newer incarnation" in refused.what
    assert isinstance(answers(say(new, hold("c")))[0], Held)
    assert balance(new).held == 20
    until(lambda: ray_owner.REPLACED_STATUS in ends)


@pytest.mark.parametrize("name", ["owner-0", "owner-7"])
def test_an_owner_whose_ledger_another_cluster_has_taken_says_so_and_does_not_take_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """L8, L9: its process stays, since the one that Ray would start in its place would know of nothing, and begin a fight that
    never ends. It serves again when an operator has it made anew."""
    ends: list[int] = []
    monkeypatch.setattr(ray_owner.os, "_exit", ends.append)
    here, there = sharded(tmp_path, "owner-0"), sharded(tmp_path, name, "there")
    say(here, *START)
    there.take([shard_of("acme")])
    for _ in range(2):
        refused = refusal(say(here, hold("b")))
        assert isinstance(refused, OwnerUnavailable)
        assert "another Ray cluster (there)" in refused.what
        assert "owners drain" in refused.advice
        assert isinstance(answers(say(there, hold("a")))[0], Held)
    here.leave()
    assert isinstance(answers(say(here, hold("a")))[0], Held) or name != "owner-0"
    assert ends == []


def test_a_cluster_that_begins_after_another_has_ended_takes_its_ledger_over(tmp_path: Path) -> None:
    """L1: whoever starts last has it, for clusters come and go."""
    before, after = sharded(tmp_path, "owner-0", "before"), sharded(tmp_path, "owner-0", "after")
    say(before, *START, hold("a"))
    assert balance(after).held == 10


def test_a_ledger_in_one_file_says_that_it_has_one_owner(owner: RayOwner) -> None:
    assert owner.take([3]) == list(range(SHARDS))
    with pytest.raises(InvalidRequest, match="one owner for all"):
        owner.let_go([3])
    assert set(owner.owners().values()) == {owner.status()["owner"]}


def test_a_customer_stays_in_its_shard() -> None:
    """In every version, or its next owner is another one than its last."""
    assert {name: shard_of(name) for name in ("acme", "bolt", "customer-1", "\u00fc")} == SHARDS_OF
    assert {shard_of(f"customer-{n}") for n in range(1_000)} == set(range(SHARDS))


def test_unknown_reads_are_answered_too(owner: RayOwner) -> None:
    (error,) = answers(say(owner, Read("session", "nobody")))
    assert isinstance(error, InvalidRequest)
    assert answers(say(owner, IssueGrant("g", 5, key="g"))) == [Done(True, "g")]
