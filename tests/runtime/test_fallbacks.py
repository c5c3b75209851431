"""What the runtime does instead, when it cannot do what was asked, is written down and seen: one line, and why."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget import Credits, Runtime, Session, Step
from agentbudget.account.commands import Command, Renew
from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.journal import Batch
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.leases.lease import Key
from agentbudget.runtime.machine.sharing import Recovery
from agentbudget.runtime.spool import recovery
from agentbudget.runtime.spool.writing import Spool
from agentbudget.testing import ManualClock, MemoryJournal

SMALL = 1 << 16
SECRET = "customer-text"


@pytest.fixture
def spools() -> list[Spool]:
    return []


@pytest.fixture
def shop(tmp_path: Path, spools: list[Spool]) -> Iterator[Runtime]:
    """A runtime whose spool holds a few leases."""

    def small(holder: str) -> Spool:
        spool = Spool.open(str(tmp_path / "spool"), holder, segment_bytes=SMALL, max_bytes=SMALL)
        spools.append(spool)
        return spool

    with Runtime.open("memory://", clock=ManualClock()) as runtime:
        assert runtime.holder is not None
        runtime.holder._open_spool = small
        yield runtime


@pytest.fixture
def acme(shop: Runtime) -> Customer:
    return shop.customers.create(SECRET, plan="local")


def fill(spool: Spool) -> None:
    """Take every chunk that a step may take."""
    n = itertools.count()
    while spool.trail("acme", f"other-{next(n)}", "s", Key("tool", None, "search", None, False), "charge") is not None:
        pass


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_session_whose_lease_finds_no_room_in_the_spool_goes_strict_and_says_so_once(
    acme: Customer, spools: list[Spool], caplog: pytest.LogCaptureFixture
) -> None:
    """L8: the step runs, held by the owner; nothing is taken for written that is not."""
    with acme.session(budget=5) as first:
        with first.step("tool", name="search", amount=1):
            assert first.mode == "leased"
        with acme.session(budget=5) as second, acme.session(budget=5) as third:
            for session in (second, third):
                fill(spools[0])
                with session.step("tool", name=SECRET, amount=1) as step:
                    pass
                assert (step.state, session.mode, session.stated_mode) == ("settled", "strict", "leased")
                assert session.status().spent == 1
    (said,) = warnings(caplog)
    assert "gone strict" in said
    assert "64 KiB are full" in said
    assert SECRET not in said


def test_a_session_whose_step_finds_no_room_in_the_spool_goes_strict_and_says_so_once(
    acme: Customer, spools: list[Spool], caplog: pytest.LogCaptureFixture
) -> None:
    with acme.session(budget=50) as session:
        with session.step("tool", name="search", amount=1):
            fill(spools[0])
        steps = []
        while session.mode == "leased":
            steps.append(session.reserve("tool", name="search", amount="0.01", dispatched=True))
        strict = session.reserve("tool", name="search", amount="0.01", dispatched=True)
        for step in (*steps, strict):
            step.settle()
        assert session.status().spent == 1 + (len(steps) + 1) * 0.01
    assert len(warnings(caplog)) == 1


def test_what_is_full_for_long_is_said_again(
    shop: Runtime, acme: Customer, spools: list[Spool], caplog: pytest.LogCaptureFixture
) -> None:
    with acme.session(budget=5) as session, session.step("tool", name="search", amount=1):
        pass
    for _ in range(2):
        fill(spools[0])
        with acme.session(budget=5) as session, session.step("tool", name="search", amount=1):
            assert session.mode == "strict"
        shop.clock.advance(seconds=61)  # type: ignore[attr-defined]
    assert len(warnings(caplog)) == 2


def test_a_closed_ledger_is_not_called_full(acme: Customer, shop: Runtime) -> None:
    session = acme.session(budget=5).open()
    shop.close()
    with pytest.raises(OwnerUnavailable, match="closed"):
        session.reserve("tool", name="search", amount=1)


def test_that_nobody_answers_is_said_once_and_so_is_that_somebody_does_again(
    shop: Runtime, acme: Customer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """L8"""

    def silent(beat: object) -> None:
        raise OwnerUnavailable("no answer within 1 s", "", "see whether it lives")

    holder = shop.holder
    assert holder is not None
    with acme.session(budget=5) as session, session.step("tool", name="search", amount=1):
        with monkeypatch.context() as patched:
            patched.setattr(shop.host, "beat", silent)
            for _ in range(20):
                shop.clock.advance(seconds=1)  # type: ignore[attr-defined]
                holder.pulse()
        (said,) = warnings(caplog)
        assert "no answer within 1 s" in said
        holder.pulse()
    assert ["answers again" in line for line in warnings(caplog)] == [False, True]


def test_what_a_closing_process_could_not_report_is_said(
    shop: Runtime, acme: Customer, caplog: pytest.LogCaptureFixture
) -> None:
    """L1"""
    session = acme.session(budget=5).open()
    step = session.reserve("tool", name="search", amount=1, dispatched=True)
    shop.close()
    assert step.is_open
    (said,) = warnings(caplog)
    assert "0 settled steps" in said
    assert "1 steps that still run" in said


class Desk:
    """A host that says why nothing can be booked."""

    is_owner = True
    why = "the owner is away"

    def ask(self, customer: str, command: Command) -> object:
        raise OwnerUnavailable(self.why, "", "wait")


def test_a_spool_that_waits_is_said_once_with_its_reason_and_again_when_that_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = str(tmp_path / "budget.db")
    key = Key("tool", None, "search", None, False)
    spool = Spool.open(f"{database}.spool", "h1", segment_bytes=SMALL)
    trail = spool.trail("acme", "lease", "s", key, "charge")
    assert trail is not None
    assert trail.sending(Renew("lease", 1, "s", "h1", *key))
    spool.close()
    desk = Desk()
    looking = Recovery(database, desk, "h2")  # type: ignore[arg-type]
    for _ in range(3):
        looking.run_as_owner()
    (said,) = warnings(caplog)
    assert "h1.spool" in said
    assert "the owner is away" in said
    desk.why = "the ledger is damaged"
    looking.run()
    assert len(warnings(caplog)) == 2


def test_a_folder_of_spools_that_cannot_be_read_waits(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.symlink_to(folder)  # as unreadable to root as to anybody
    done = recovery.recover(str(folder), lambda customer, command: pytest.fail("nobody is asked"))
    assert "cannot be read" in done.why_waiting[0]


def test_a_spool_that_cannot_be_put_away_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one tries again; whoever opens the ledger is not kept from it."""
    folder = str(tmp_path / "spool")
    os.mkdir(folder)
    Path(folder, "h9.spool").write_bytes(b"what is this?" * 1_000)

    def refused(*names: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    done = recovery.recover(folder, lambda customer, command: pytest.fail("nobody is asked"))
    assert (done.waiting, done.damaged) == (("h9.spool",), ())
    assert "Permission denied" in done.why_waiting[0]


class Stuck(MemoryJournal):
    """Its commits wait for the test to be over."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def commit(self, batch: Batch) -> None:
        self.gate.wait()
        super().commit(batch)


def reserved(session: Session) -> Step:
    return session.reserve("tool", name="search", amount=1)


def reserved_async(session: Session) -> Step:
    return asyncio.run(session.areserve("tool", name="search", amount=1))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_step_that_gets_no_answer_names_the_owner(is_async: bool) -> None:
    """L8"""
    journal = Stuck()
    with Runtime.open(journal, clock=ManualClock(), timeout_seconds=0.05) as runtime:
        session = runtime.customers.create("acme", plan="local").session(budget=5).open()
        reserve = reserved_async if is_async else reserved
        journal.gate.clear()
        try:
            with pytest.raises(OwnerUnavailable, match="no answer within") as raised:
                reserve(session)
        finally:
            journal.gate.set()
        assert raised.value.owner == runtime.host.owner  # type: ignore[attr-defined]


def test_the_wallet_says_what_is_leased_and_the_holds_by_whom(quick: Runtime, bolt: Customer) -> None:
    bolt.limits.set("customer", 1_000, measure="steps")
    with bolt.session(budget=5) as session, session.step("tool", name="search", amount=1):
        view = bolt.link.read("balance")
        found = bolt.wallet.balance()
        (hold,) = bolt.holds(session.id)
        assert bolt.holds("another") == ()
        assert (found.leased, found.held, found.suspended) == (Credits.of_nano(view.leased), 1, 0)
        assert (hold.amount, hold.measures, hold.suspended_at) == (1, {"steps": 1}, None)
        assert quick.holder is not None
        assert hold.holder == quick.holder.id
    assert bolt.wallet.balance().leased == 0
