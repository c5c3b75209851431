"""What a dead process left is booked: once, in full, whoever replays it, however often, and whatever the owner did meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agentbudget.account.commands import Command, Hold, Read, Renew, StepReport
from agentbudget.account.decision import Answer
from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.store import open_journal
from agentbudget.runtime.spool.recovery import recover
from agentbudget.testing import ManualClock, MemoryJournal
from tests.scale import SCALE
from tests.spool.worker import Office, Truth, Worker


class Killed(BaseException):
    """The process that replays dies here."""


def dying(office: Office, calls: int, *, after: bool, lapse_at: int = -1) -> Callable[[str, Command], Answer]:
    """Asks so many times, then the process is gone: before the owner heard the last of them, or after. ``lapse_at``: before that
    call the machine sleeps for long, and the owner ends the leases."""
    count = 0

    def ask(customer: str, command: Command) -> Answer:
        nonlocal count
        if count == lapse_at:
            office.lapse()
        count += 1
        if count > calls and not after:
            raise Killed
        answer = office.ask(customer, command)
        if count > calls:
            raise Killed
        return answer

    return ask


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "spool")


@pytest.fixture
def office() -> Office:
    return Office(MemoryJournal(), ManualClock()).set_up()


@pytest.fixture
def worker(office: Office, folder: str) -> Worker:
    return Worker(office, folder)


def is_done(office: Office, truth: Truth) -> None:
    """All of it is booked, nothing twice, and nothing is held (laws L1, L4, L5)."""
    assert office.booked == truth
    balance = office.balance
    assert (balance.held, balance.suspended) == (0, 0)


def test_settled_steps_that_were_never_reported_are_booked(office: Office, worker: Worker, folder: str) -> None:
    """L1"""
    lease = worker.lease()
    worker.ask(lease)
    for cost in (70, 30):
        worker.settle(lease, worker.begin(lease), cost)
    worker.die()
    done = recover(folder, office.ask)
    assert (done.spools, done.leases, done.reported, done.unknown, done.words) == (1, 1, 2, 0, ())
    is_done(office, Truth(100, 2))
    assert os.listdir(folder) == []


def test_a_step_that_was_sent_and_never_ended_is_charged_what_it_held(
    office: Office, worker: Worker, folder: str
) -> None:
    """L5, L11: and one that was not sent cost nothing."""
    lease = worker.lease()
    worker.ask(lease)
    assert worker.begin(lease, 60)
    assert worker.begin(lease, 50, dispatched=False)
    worker.die()
    assert recover(folder, office.ask).unknown == 1
    is_done(office, Truth(60, 2))
    holds: Any = office.ask("acme", Read("holds"))
    assert holds == ()


def test_a_session_that_releases_what_it_does_not_know_is_charged_nothing(folder: str) -> None:
    office = Office(MemoryJournal(), ManualClock()).set_up(on_unknown="release")
    worker = Worker(office, folder)
    worker.on_unknown = "release"
    lease = worker.lease()
    worker.ask(lease)
    assert worker.begin(lease, 60)
    worker.die()
    assert recover(folder, office.ask).unknown == 0
    is_done(office, Truth(0, 1))


@pytest.mark.parametrize("has_lapsed", [True, False])
@pytest.mark.parametrize("was_sent", [True, False])
def test_steps_that_were_given_back_count_once_whoever_tells_of_them(
    office: Office, worker: Worker, folder: str, was_sent: bool, has_lapsed: bool
) -> None:
    """L4: as they do without leases; also when the replay dies behind its last message."""
    lease = worker.lease()
    worker.ask(lease)
    for _ in range(3):
        lease.release(worker.begin(lease), worker.now_us)
    if was_sent:
        worker.ask(lease, heard=False)
    lease.release(worker.begin(lease, 0) or worker.begin(lease), worker.now_us)
    worker.die()
    with contextlib.suppress(Killed):
        recover(folder, dying(office, 2 if was_sent else 0, after=True))
    if has_lapsed:
        office.lapse()
    recover(folder, office.ask)
    is_done(office, Truth(0, 4))


def test_an_idle_lease_of_a_dead_process_is_given_back(office: Office, worker: Worker, folder: str) -> None:
    worker.ask(worker.lease())
    assert office.balance.held > 0
    worker.die()
    recover(folder, office.ask)
    is_done(office, Truth(0, 0))


def test_a_lease_that_never_opened_is_no_matter(office: Office, worker: Worker, folder: str) -> None:
    worker.lease()
    worker.die()
    assert recover(folder, office.ask).words == ()
    is_done(office, Truth(0, 0))


@pytest.mark.parametrize("was_heard", [True, False])
def test_a_message_without_an_answer_is_booked_once(
    office: Office, worker: Worker, folder: str, was_heard: bool
) -> None:
    """L4: whether the owner had applied it or not."""
    lease = worker.lease()
    worker.ask(lease)
    worker.settle(lease, worker.begin(lease), 70)
    if was_heard:
        worker.ask(lease, heard=False)
    else:
        lease.message(worker.holder, worker.now_us)
    lease.trail = None  # it is killed here: what it would have written next is not
    worker.die()
    recover(folder, office.ask)
    is_done(office, Truth(70, 1))


@pytest.mark.parametrize("calls", range(5))
@pytest.mark.parametrize("after", [True, False])
def test_a_message_whose_number_an_older_ask_took_is_booked_once(
    office: Office, worker: Worker, folder: str, calls: int, after: bool
) -> None:
    """L1, L4: an ask that was refused arrives again when its holder is dead, and is granted; also when replays die on the way."""
    lease = worker.lease()
    worker.ask(lease)
    worker.settle(lease, worker.begin(lease), 70)
    first = lease.message(worker.holder, worker.now_us)
    lease.trail = None
    hold = Hold("next", "run", "llm", 100, {"tokens": 100}, model="gpt-5")
    worker.tell(replace(first, steps=(), measures=(), tariffs=(), ask=hold))
    worker.die()
    with contextlib.suppress(Killed):
        recover(folder, dying(office, calls, after=after))
    assert recover(folder, office.ask).words == ()
    is_done(office, Truth(70, 1))


def test_use_beyond_the_lease_is_booked_in_full(office: Office, worker: Worker, folder: str) -> None:
    """L11: of credits, and of a measure that something limits."""
    lease = worker.lease()
    worker.ask(lease, 100)
    held = office.balance.held
    worker.settle(lease, worker.begin(lease, 100), held + 500)
    worker.die()
    assert recover(folder, office.ask).words == ()
    is_done(office, Truth(held + 500, 1))
    limits: Any = office.ask("acme", Read("limits"))
    assert [(limit.used, limit.held) for limit in limits] == [(held + 500, 0)]


def test_use_beyond_the_lease_beside_an_open_step_is_booked_in_full(
    office: Office, worker: Worker, folder: str
) -> None:
    """L11: the open step is charged what it held, the other what it cost."""
    lease = worker.lease()
    worker.ask(lease, 100)
    held = office.balance.held
    open_step, other = worker.begin(lease, 100), worker.begin(lease, 100)
    worker.settle(lease, other, held - 100 + 50)
    assert open_step
    worker.die()
    assert recover(folder, office.ask).words == ()
    is_done(office, Truth(held + 50, 2))


@pytest.mark.parametrize("has_lapsed", [True, False])
def test_use_beyond_the_lease_is_booked_once_when_its_replay_dies(
    office: Office, worker: Worker, folder: str, has_lapsed: bool
) -> None:
    """L4: the message depends on what the lease held, so it is noted before it is sent."""
    lease = worker.lease()
    worker.ask(lease, 100)
    held = office.balance.held
    worker.settle(lease, worker.begin(lease, 100), held + 500)
    worker.die()

    def ask(customer: str, command: Command) -> Answer:
        answer = office.ask(customer, command)
        if isinstance(command, Renew) and command.overrun and command.over:
            raise Killed
        return answer

    with pytest.raises(Killed):
        recover(folder, ask)
    assert office.balance.consumed == held + 500
    if has_lapsed:
        office.lapse()
    assert recover(folder, office.ask).words == ()
    is_done(office, Truth(held + 500, 1))


def test_settled_steps_of_a_lease_that_had_ended_are_said_and_kept(
    office: Office, worker: Worker, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L1: it cannot be (a lease is closed with its last report), so it must not pass unseen if it is."""
    lease = worker.lease()
    worker.ask(lease)
    office.ask("acme", replace(lease.message(worker.holder, worker.now_us, close=True), steps=()))
    lease.sent = None
    assert lease.trail is not None
    assert lease.trail.settled(StepReport(f"{lease.id}.1", 70, (7,), 0, {}, None, 0, 0))
    worker.die()
    done = recover(folder, office.ask)
    assert done.damaged == ("h1.spool.damaged",)
    assert "1 settled steps of it were never reported" in caplog.text


def test_a_step_whose_end_found_no_room_is_booked_once(office: Office, folder: str) -> None:
    """L4: its message says that it ended, its log does not. Applied before the process died, or not."""
    for was_heard in (True, False):
        worker = Worker(office, folder, f"h-{was_heard}", max_bytes=1 << 16)
        lease = worker.lease()
        worker.ask(lease, 1_000)
        worker.settle(lease, worker.begin(lease), 5)
        n = worker.begin(lease, 10)
        assert lease.trail is not None
        while lease.trail.begun(999, 0, {}, 0, False):
            pass
        worker.settle(lease, n, 7)
        assert lease.unwritten
        if was_heard:
            worker.ask(lease, heard=False)
        else:
            lease.message(worker.holder, worker.now_us)
        worker.die()
        assert recover(folder, office.ask).words == ()
    is_done(office, Truth(24, 6))  # step 999, which filled the log, cost nothing and is counted


@pytest.mark.parametrize("was_heard", [True, False])
def test_a_message_whose_steps_are_torn_books_none_of_them_twice(
    office: Office, worker: Worker, folder: str, was_heard: bool
) -> None:
    """L4: between a report and the message that has it a record is damaged, so nobody can tell what the message said."""
    lease = worker.lease()
    worker.ask(lease)
    for cost in (70, 30):
        worker.settle(lease, worker.begin(lease), cost)
    worker.ask(lease, heard=False) if was_heard else lease.message(worker.holder, worker.now_us)
    lease.trail = None
    worker.die()
    path = Path(folder, "h1.spool")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"h1-0.2")] ^= 1
    path.write_bytes(data)
    done = recover(folder, office.ask)
    assert done.damaged == ("h1.spool.damaged",)
    assert office.balance.consumed == (100 if was_heard else 70)
    assert office.balance.held > 0
    office.lapse()
    assert office.balance.held == 0


def test_without_an_answer_the_file_waits_for_the_next_try(office: Office, worker: Worker, folder: str) -> None:
    lease = worker.lease()
    worker.ask(lease)
    worker.settle(lease, worker.begin(lease), 70)
    worker.die()

    def nobody(customer: str, command: Command) -> Answer:
        raise OwnerUnavailable("nobody answers")

    assert recover(folder, nobody).waiting == ("h1.spool",)
    recover(folder, office.ask)
    is_done(office, Truth(70, 1))


def test_the_living_and_oneself_are_left_alone(office: Office, worker: Worker, folder: str) -> None:
    other = Worker(office, folder, "h2")
    for each in (worker, other):
        each.ask(each.lease())
    other.die()
    assert recover(folder, office.ask, own="h2").spools == 0
    assert recover(folder, office.ask, own="h1").spools == 1
    assert os.listdir(folder) == ["h1.spool"]


def test_of_several_that_try_at_once_one_replays(office: Office, worker: Worker, folder: str) -> None:
    """L4"""
    truth = []
    for index in range(8):
        each = Worker(office, folder, f"dead-{index}", seed=index)
        each.live(40)
        truth.append(each.truth())
        each.die()
    one_at_a_time = threading.Lock()

    def ask(customer: str, command: Command) -> Answer:
        with one_at_a_time:
            return office.ask(customer, command)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: recover(folder, ask, own="h1"), range(4)))
    assert sum(each.spools for each in done) == 8
    assert all(each.words == () for each in done)
    is_done(office, Truth(sum(each.consumed for each in truth), sum(each.steps for each in truth)))
    assert os.listdir(folder) == ["h1.spool"]


@pytest.mark.parametrize("torn", [b"", b"\1", bytes(40), b"\7" * 30])
def test_a_note_that_was_not_written_whole_was_never_sent(
    office: Office, worker: Worker, folder: str, torn: bytes
) -> None:
    """L4: and what is noted after it counts."""
    lease = worker.lease()
    worker.ask(lease)
    worker.settle(lease, worker.begin(lease), 70)
    worker.die()
    Path(folder, "h1.spool.told").write_bytes(torn)
    with contextlib.suppress(Killed):
        recover(folder, dying(office, 1, after=True))
    assert office.balance.consumed == 70
    recover(folder, office.ask)
    is_done(office, Truth(70, 1))


def test_a_replay_that_cannot_note_what_it_sends_waits(office: Office, worker: Worker, folder: str) -> None:
    """L4: what is not noted is not sent."""
    lease = worker.lease()
    worker.ask(lease)
    worker.settle(lease, worker.begin(lease), 70)
    worker.die()
    os.mkdir(os.path.join(folder, "h1.spool.told"))
    assert recover(folder, office.ask).waiting == ("h1.spool",)
    os.rmdir(os.path.join(folder, "h1.spool.told"))
    recover(folder, office.ask)
    is_done(office, Truth(70, 1))


def test_a_file_that_nobody_understands_is_set_aside_and_said(
    office: Office, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(folder)
    Path(folder, "h9.spool").write_bytes(b"what is this?" * 1_000)
    Path(folder, "h8.spool.new").write_bytes(b"")
    assert recover(folder, office.ask).damaged == ("h9.spool.damaged",)
    assert os.listdir(folder) == ["h9.spool.damaged"]
    assert "h9.spool" in caplog.text
    assert recover(folder, office.ask).spools == 0


def test_of_a_damaged_spool_nothing_is_given_back(office: Office, worker: Worker, folder: str) -> None:
    """L1: what may have been spent stays held until it lapses; what is surely settled is booked."""
    lease = worker.lease()
    worker.ask(lease)
    for cost in (70, 30):
        worker.settle(lease, worker.begin(lease), cost)
    held = office.balance.held
    worker.die()
    path = Path(folder, "h1.spool")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"h1-0.2")] ^= 1
    path.write_bytes(data)
    done = recover(folder, office.ask)
    assert (done.reported, done.damaged) == (1, ("h1.spool.damaged",))
    assert (office.balance.consumed, office.balance.held) == (70, held - 70)
    office.lapse()
    assert (office.balance.consumed, office.balance.held) == (held, 0)


def test_after_another_boot_only_what_is_sure_is_booked(
    office: Office, worker: Worker, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: the power may have failed, and the end of the file with it. An operator may know better."""
    lease = worker.lease()
    worker.ask(lease)
    worker.settle(lease, worker.begin(lease), 70)
    assert worker.begin(lease, 60)
    held = office.balance.held
    worker.die()
    monkeypatch.setattr("agentbudget.runtime.spool.format.boot_id", lambda: "another")
    done = recover(folder, office.ask)
    assert (done.reported, done.unknown) == (1, 0)
    assert (office.balance.consumed, office.balance.held) == (70, held - 70)
    assert "--orderly-shutdown" in done.words[0]
    assert recover(folder, office.ask, trust_other_boots=True).spools == 0
    assert recover(folder, office.ask, with_set_aside=True).damaged == ("h1.spool.damaged",)
    assert recover(folder, office.ask, with_set_aside=True, trust_other_boots=True).words == ()
    is_done(office, Truth(130, 2))
    assert os.listdir(folder) == []


@pytest.mark.parametrize("on_lapse", ["charge", "release"])
def test_a_spool_that_comes_after_its_lease_lapsed_corrects_it(folder: str, on_lapse: str) -> None:
    """L4, L11: what was reported before stays, the rest takes the place of what the lapse booked."""
    office = Office(MemoryJournal(), ManualClock(), on_lapse=on_lapse).set_up()
    worker = Worker(office, folder)
    lease = worker.lease()
    worker.ask(lease)
    worker.settle(lease, worker.begin(lease), 70)
    worker.ask(lease, heard=False)
    lease.sent = None
    worker.settle(lease, worker.begin(lease, 10), 30)
    assert worker.begin(lease, 60)
    worker.die()
    office.lapse()
    assert office.balance.held == 0
    assert recover(folder, office.ask).corrected == 1
    is_done(office, Truth(160, 3))


@pytest.mark.parametrize("seed", range(SCALE(150)))
def test_any_death_and_any_number_of_dead_replays_book_the_truth(folder: str, seed: int) -> None:
    """L1, L4, L5: processes die at any message, replays die before or after any of theirs, leases lapse in between."""
    chance = random.Random(seed)
    policy = {"on_lapse": chance.choice(("charge", "release"))}
    office = Office(MemoryJournal(), ManualClock(), **policy).set_up()
    worker = Worker(office, folder, seed=seed)
    worker.live(chance.randrange(1, 150))
    truth = worker.truth()
    worker.die()
    for _ in range(chance.randrange(4)):
        lapse_at = chance.choice((-1, -1, 0, chance.randrange(12)))
        ask = dying(office, chance.randrange(12), after=chance.random() < 0.5, lapse_at=lapse_at)
        with contextlib.suppress(Killed):
            recover(folder, ask)
    done = recover(folder, office.ask)
    assert done.words == ()
    is_done(office, truth)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("seed", range(SCALE(6)))
def test_the_same_on_sqlite(tmp_path: Path, folder: str, seed: int) -> None:
    """L1"""
    chance = random.Random(seed)
    url = f"sqlite:///{tmp_path}/ledger.db"
    office = Office(open_journal(url, synchronous="NORMAL"), ManualClock()).set_up()
    worker = Worker(office, folder, seed=seed)
    worker.live(120)
    truth = worker.truth()
    worker.die()
    office.owner.close()
    office = Office(open_journal(url, synchronous="NORMAL"), office.clock)
    with pytest.raises(Killed):
        recover(folder, dying(office, chance.randrange(2), after=True))
    if seed % 2:
        office.ask("acme", Read("balance"))
        office.lapse()
    assert recover(folder, office.ask).words == ()
    is_done(office, truth)
    office.owner.close()


def test_a_step_that_was_extended_is_charged_all_that_it_held(office: Office, worker: Worker, folder: str) -> None:
    """L1, L5: what it got on its lease, and what its lease got for it, before its process died."""
    lease = worker.lease()
    worker.ask(lease)
    n = worker.begin(lease, 60)
    assert lease.extend(n, 40, {"tokens": 40}, worker.now_us)
    while lease.extend(n, 10, {"tokens": 10}, worker.now_us):
        assert lease.open[n].amount < 10_000
    held = lease.open[n].amount
    assert lease.free < 10
    worker.ask(lease, 25, grows=n)
    assert lease.extend(n, 25, {"tokens": 25}, worker.now_us)
    worker.die()
    assert recover(folder, office.ask).unknown == 1
    is_done(office, Truth(held + 25, 1))
