"""Many processes drain one wallet while workers and the owner are killed: exact to the nanocredit (L1, L3, L4, L5, L11)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from agentbudget import Catalog, Runtime
from tests.summary import Record, publish

CATALOG = Catalog.loads('[plans.prepaid]\nwallet = "prepaid"', source="drain")
GRANTED = 60
WORKERS, THREADS = 8, 4
PATIENCE_SECONDS = 120
"""Bound of a test that hangs; nothing waits for it to pass."""


class Worker:
    """A child process and what it told: step to nanocredits."""

    def __init__(self, url: str, seed: int, threads: int = THREADS) -> None:
        command = [sys.executable, "-m", "tests.processes.worker", url, str(seed), str(threads)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=os.environ)
        self.told: dict[str, int] = {}
        self.spent = threading.Event()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = line.split()
            if len(words) == 2 and line.endswith(b"\n"):
                self.told[words[0].decode()] = int(words[1])
                if len(self.told) >= 50:
                    self.spent.set()
        self.spent.set()

    def kill(self) -> None:
        """In the middle of its work."""
        assert self.spent.wait(PATIENCE_SECONDS)
        self.process.kill()
        self.join()

    def join(self) -> None:
        self.process.wait(PATIENCE_SECONDS)
        self.reader.join(PATIENCE_SECONDS)


def settled_books(runtime: Runtime) -> None:
    """Until nothing of a dead process is held any more: its owner replays spools once a second."""
    acme, until = runtime.customer("acme"), time.monotonic() + PATIENCE_SECONDS
    while acme.wallet.balance().held:
        assert time.monotonic() < until, acme.link.read("holds")
        runtime.sweep()


def test_eight_processes_drain_one_wallet_while_workers_and_the_owner_die(
    tmp_path: Path, record_property: Record
) -> None:
    url = f"sqlite:///{tmp_path}/budget.db"
    with Runtime.open(url, CATALOG) as runtime:
        runtime.customers.create("acme", plan="prepaid").wallet.grant(GRANTED)
    owner = Worker(url, 1)  # opens the ledger first, so it owns it
    assert owner.spent.wait(PATIENCE_SECONDS)
    workers = [Worker(url, 100 * n) for n in range(2, WORKERS + 1)]
    workers[0].kill()
    owner.kill()
    workers[1].kill()
    everybody = [owner, *workers, Worker(url, 9_000)]
    for worker in everybody:
        worker.join()
    with Runtime.open(url, CATALOG) as runtime:
        settled_books(runtime)
        acme = runtime.customer("acme")
        balance = acme.wallet.balance()
        assert balance.consumed + balance.available == GRANTED
        assert balance.overdraft == 0
        booked = [(line.step, line.state, line.amount) for line in acme.ledger.steps()]
        assert len({step for step, _, _ in booked}) == len(booked)
        told = {step: nano for worker in everybody for step, nano in worker.told.items()}
        settled = {step: nano for step, state, nano in booked if state == "settled"}
        lost = {step for step, nano in told.items() if settled.get(step) != nano}
        assert not lost
        assert sum(nano for _, _, nano in booked) == balance.consumed.nano
        assert runtime.ledger.verify().ok
        assert runtime.ledger.reconcile() == []
    guesses = sum(state == "unknown" for _, state, _ in booked)
    figures = {"steps": len(booked), "told": len(told), "lost": 0, "doubled": 0, "unknown": guesses}
    publish(record_property, "drain by 8 processes x 4 threads, 3 of them killed", figures)


def test_idle_leases_of_another_process_are_given_up_to_who_needs_them(tmp_path: Path) -> None:
    """No denial for lack of credits while a responsive holder has idle ones."""
    url = f"sqlite:///{tmp_path}/budget.db"
    with Runtime.open(url, CATALOG) as runtime:
        acme = runtime.customers.create("acme", plan="prepaid")
        acme.wallet.grant(10)
        with Runtime.open(url, CATALOG) as other:  # a process of its own to the owner: a client with its own leases
            idle = other.customer("acme").session().open()
            idle.reserve("tool", name="search", amount=1).settle()
            assert acme.session().reserve("tool", name="work", amount=9).hold == 9
