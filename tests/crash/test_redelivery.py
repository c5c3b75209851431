"""The answer that never came: a crash between the commit and the answer, and the same command sent again (law L4).

The entries after any number of such crashes are compared, byte for byte, with those of a run without one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agentbudget import HoldResolved, KeyConflict, OwnerUnavailable, Runtime
from agentbudget.account.commands import Command, IssueGrant, SettleHold
from agentbudget.ledger.journal import Batch
from agentbudget.runtime.auditing import reconcile_ledger
from agentbudget.runtime.owner.owner import Owner, Reply
from agentbudget.testing import ManualClock, MemoryJournal, MemoryStore
from tests.crash.script import CUSTOMER, SCRIPT, many_commands, same
from tests.crash.server import ForkServer
from tests.crash.setting import CATALOG
from tests.scale import Scale
from tests.summary import Record, publish

COMMANDS = 50
"""Of one customer: after each planted crash all of its entries are folded again, so a long life would cost a square."""
CRASHED = "planted failure, after the call took effect"


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


def undisturbed(commands: Sequence[Command]) -> tuple[list[Reply], list[bytes]]:
    """The answers, and the records that a run without a crash leaves."""
    journal = MemoryJournal()
    owner = Owner(journal, ManualClock(), name="undisturbed")
    replies = [owner.handle([(CUSTOMER, command)])[0] for command in commands]
    assert not [reply for reply in replies if isinstance(reply, Exception)]
    return replies, [sealed.record for sealed in journal.entries(CUSTOMER)]


def test_L1_L4_a_process_killed_after_every_commit_leaves_each_effect_once(server: ForkServer, tmp_path: Path) -> None:
    """SIGKILL, in a process of its own, after the commit of each command in turn and before its answer."""
    replies, records = undisturbed(SCRIPT)
    url, heard, kills = f"sqlite:///{tmp_path}/budget.db", dict[int, str](), 0
    while len(heard) < len(SCRIPT) and kills <= len(SCRIPT):
        life = server.start({"do": "redeliver", "url": url, "first": len(heard), "after": True})
        life.hear_until("gone")
        heard.update(life.heard)
        kills += life.status == 9
    with Runtime.open(url, catalog=CATALOG, read_only=True) as runtime:
        assert runtime.ledger.verify().ok
        assert [sealed.record for sealed in runtime.archive.entries(CUSTOMER)] == records
    assert heard == {n: same(reply) for n, reply in enumerate(replies)}
    assert kills == len(SCRIPT)


def test_L1_a_process_killed_before_its_commit_has_done_nothing(server: ForkServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/budget.db"
    for _ in range(3):
        life = server.start({"do": "redeliver", "url": url, "first": 0, "after": False})
        life.hear_until("gone")
        assert (life.heard, life.status) == ([], 9)
    with Runtime.open(url, catalog=CATALOG, read_only=True) as runtime:
        assert list(runtime.archive.customers()) == []


class Crashing(MemoryJournal):
    """Its owner crashes after every commit that wrote something: nobody hears of what was done."""

    crashes = 0

    def commit(self, batch: Batch) -> None:
        if batch.entries:
            self.crashes += 1
            self.fail_at(1, after=True)
        super().commit(batch)


@pytest.mark.timeout(3_600)
def test_L4_every_command_redelivered_after_a_crash_and_again_later_has_one_effect(
    scale: Scale, record_property: Record
) -> None:
    """10,000 redeliveries in CI and 200,000 at night, each to an owner that has just read its state again."""
    enough, seed = scale.pick(ci=10_000, night=200_000), random.randrange(2**32)
    figures: Counter[str] = Counter()
    while figures["redeliveries"] < enough:
        figures += one_life(list(many_commands(COMMANDS, random.Random(seed + figures["lives"]))))
    publish(record_property, "redeliveries", {**figures, "doubled": 0, "seed": seed})
    assert figures["crashes"] * 3 == figures["redeliveries"]  # each command wrote, crashed once, and never wrote again


def one_life(commands: Sequence[Command]) -> Counter[str]:
    """Each command crashes its owner, is sent again, and is sent twice more when everything is over."""
    replies, records = undisturbed(commands)
    journal, figures = Crashing(), Counter(lives=1)
    owner = Owner(journal, ManualClock(), name="crashing")
    for command, reply in zip(commands, replies, strict=True):
        first, again = (owner.handle([(CUSTOMER, command)])[0] for _ in range(2))
        assert isinstance(first, OwnerUnavailable)
        assert CRASHED in str(first)
        assert same(again) == same(reply)
    later = Owner(MemoryJournal(journal.store), ManualClock(), name="later")
    for _ in range(2):
        answers = later.handle([(CUSTOMER, command) for command in commands])
        assert [same(answer) for answer in answers] == [same(reply) for reply in replies]
    figures.update(crashes=journal.crashes, redeliveries=3 * len(commands))
    assert [sealed.record for sealed in journal.entries(CUSTOMER)] == records
    assert reconcile_ledger(MemoryJournal(journal.store)) == []
    return figures


def test_L4_a_key_with_other_inputs_after_a_crash_is_a_conflict() -> None:
    """What was done is not done again with other numbers, and not silently taken for it either."""
    store = MemoryStore()
    crashing = Owner(Crashing(store), ManualClock(), name="crashing")
    for command in SCRIPT[:7]:
        crashing.handle([(CUSTOMER, command)])
    later = Owner(MemoryJournal(store), ManualClock(), name="later")
    other: Sequence[Command] = (IssueGrant("other", 999, key="welcome"), SettleHold("a", 71))
    conflict, resolved = later.handle([(CUSTOMER, command) for command in other])
    assert isinstance(conflict, KeyConflict)
    assert isinstance(resolved, HoldResolved)
