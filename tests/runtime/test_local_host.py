"""The local host: everybody is answered, whatever happens to the owner's thread."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator

import pytest

from agentbudget import OwnerUnavailable, Runtime
from agentbudget.account.commands import CreateCustomer, Read
from agentbudget.account.decision import Answer
from agentbudget.errors import AgentBudgetError
from agentbudget.ledger.journal import Batch
from agentbudget.ledger.store import open_journal
from agentbudget.runtime.owner.local_host import LocalHost
from agentbudget.testing import ManualClock, MemoryJournal, MemoryStore
from tests.runtime.support import PREPAID

CREATE = CreateCustomer(PREPAID.terms("prepaid"))
BALANCE = Read("balance")


class GatedJournal(MemoryJournal):
    """Its commits wait until the gate is open; ``waiting`` says that one does, ``writing`` that one which writes does."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.waiting, self.writing = threading.Event(), threading.Event(), threading.Event()
        self.gate.set()

    def commit(self, batch: Batch) -> None:
        self.waiting.set()
        if batch.entries:
            self.writing.set()
        self.gate.wait()
        super().commit(batch)

    def shut(self) -> None:
        self.waiting.clear()
        self.writing.clear()
        self.gate.clear()


@pytest.fixture
def gated() -> GatedJournal:
    return GatedJournal()


@pytest.fixture
def host(gated: GatedJournal, clock: ManualClock) -> Iterator[LocalHost]:
    made = LocalHost(gated, clock)
    made.ask("acme", CREATE)
    yield made
    gated.gate.set()
    made.close()


class Answers:
    """Collects what ``submit`` is answered."""

    def __init__(self, count: int) -> None:
        self.found: list[Answer | AgentBudgetError] = []
        self.all = threading.Event()
        self._count = count

    def take(self, answer: Answer | AgentBudgetError) -> None:
        self.found.append(answer)
        if len(self.found) == self._count:
            self.all.set()


def test_an_interrupt_of_a_waiting_caller_leaves_nothing_held(gated: GatedJournal, clock: ManualClock) -> None:
    """L5: a real signal, while the owner is busy with the hold."""
    with Runtime.open(gated, clock=clock) as runtime:
        acme = runtime.customers.create("acme", plan="local")
        session = acme.session(budget=1).open()
        gated.shut()

        def interrupt() -> None:
            gated.writing.wait()  # a tick commits too, and writes nothing
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever another test's library left
        threading.Thread(target=interrupt).start()
        try:
            with pytest.raises(KeyboardInterrupt):
                session.reserve("tool", name="search", amount=1, dispatched=True)
        finally:
            gated.gate.set()
            signal.signal(signal.SIGINT, before)
        runtime.sweep()
        assert acme.link.read("holds") == ()
        assert session.status().remaining == 1


def test_when_the_owner_dies_every_caller_is_answered(
    host: LocalHost, gated: GatedJournal, caplog: pytest.LogCaptureFixture
) -> None:
    """L8."""
    gated.shut()
    answers = Answers(2)
    host.submit("acme", BALANCE, _die)
    gated.waiting.wait()
    host.submit("acme", BALANCE, answers.take)
    host.submit("acme", BALANCE, answers.take)
    gated.gate.set()
    answers.all.wait()
    assert all(isinstance(answer, OwnerUnavailable) for answer in answers.found)
    with pytest.raises(OwnerUnavailable, match="died"):
        host.ask("acme", BALANCE)
    assert "MemoryError: planted" in caplog.text


def _die(answer: object) -> None:
    raise MemoryError("planted")


def test_a_host_that_is_forgotten_gives_the_ledger_up(tmp_path: object, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path}/budget.db"
    host = LocalHost(open_journal(url, clock=clock), clock)
    thread, gone = host._thread, weakref.ref(host)
    host.ask("acme", CREATE)
    del host
    gc.collect()
    assert gone() is None
    thread.join()
    open_journal(url, clock=clock).close()


def test_an_owner_that_was_fenced_gives_up_and_says_who_took_over(clock: ManualClock) -> None:
    """L9."""
    store = MemoryStore()
    host = LocalHost(MemoryJournal(store), clock)
    MemoryJournal(store).claim("another")
    for _ in range(2):
        with pytest.raises(OwnerUnavailable, match="fenced") as fenced:
            host.ask("acme", CREATE)
        assert fenced.value.owner == "another"
    assert store.entries == {}
    host.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused_with_advice_and_leaves_the_parent_whole(quick: Runtime) -> None:
    """L8: a ledger in memory is one process's."""
    runtime = quick
    acme = runtime.customers.create("acme", plan="local")
    session = acme.session(budget=1).open()
    step = session.reserve("tool", name="search", amount="0.5")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            session.reserve("tool", name="search")
        except OwnerUnavailable as error:
            code = 0 if "fork" in str(error) else 2
        runtime.close()
        del step
        gc.collect()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert step.settle().charged == step.hold
    assert runtime.ledger.verify().ok
