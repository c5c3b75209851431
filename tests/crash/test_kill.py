"""kill -9 in a loop: processes die in the middle of their work, and nothing that they were answered is lost or doubled."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget import Credits, Runtime
from agentbudget.clock import SECOND_US
from agentbudget.ledger import open_archive
from agentbudget.testing import ManualClock
from tests.crash.server import ForkServer
from tests.crash.setting import CATALOG, CUSTOMERS, TTL_SECONDS
from tests.crash.witness import Witness
from tests.scale import Scale
from tests.summary import Record, publish

CYCLES_OF_A_FILE = 8
"""Enough for a ledger to be taken over again and again; then a new file, so that each check stays cheap."""
WORK_SECONDS = (0.04, 0.15)
"""How long a process may work, by chance: from a few dozen answers to some hundreds."""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.mark.timeout(4 * 3_600)  # a night's 10,000 cycles take about an hour
def test_L1_L4_L5_kill_in_a_loop_loses_and_doubles_nothing(
    server: ForkServer, tmp_path: Path, scale: Scale, record_property: Record
) -> None:
    """L1 durable, L4 once, L5 every hold ends, L2 and L7 clean books: at least 200 times in CI, 10,000 at night."""
    cycles, seed = scale.pick(ci=200, night=10_000), random.randrange(2**32)
    figures: Counter[str] = Counter(kills=0)
    while figures["kills"] < cycles:
        path = tmp_path / f"{figures['kills']}.db"
        figures += one_file(server, path, seed + figures["kills"], min(CYCLES_OF_A_FILE, cycles - figures["kills"]))
        for leftover in tmp_path.glob(f"{path.name}*"):
            leftover.unlink()
    publish(record_property, "kill -9 loop", {**figures, "lost": 0, "doubled": 0, "seed": seed})
    for sometimes in (
        "acknowledged",
        "unheard",
        "lapsed charged",
        "lapsed free",
    ):  # a test that never got there proves nothing
        assert figures[sometimes] > 0, sometimes


def one_file(server: ForkServer, path: Path, seed: int, cycles: int) -> Counter[str]:
    """One ledger through so many lives and deaths."""
    witness, chance, url = Witness(), random.Random(seed), f"sqlite:///{path}"
    for cycle in range(cycles):
        ahead_us = max(0, witness.newest_us + SECOND_US - time.time_ns() // 1_000)
        life = server.start({"do": "work", "url": url, "cycle": cycle, "seed": seed, "ahead_us": ahead_us})
        life.hear_until("ready")
        life.hear_for(chance.uniform(*WORK_SECONDS))
        life.kill()
        assert life.status == 9, f"seed {seed}: it did not die by the signal"
        witness.figures["kills"] += 1
        witness.check_facts(open_archive(url), life.heard)
        later = ManualClock(witness.newest_us + (TTL_SECONDS + 1) * SECOND_US)
        with Runtime.open(url, catalog=CATALOG, clock=later) as runtime:
            witness.check_lapses(runtime)
            witness.check_books(runtime)
    witness.check_again()
    return witness.figures


def test_the_witness_would_see_a_lost_and_a_changed_fact(tmp_path: Path) -> None:
    """L1: the check above can fail."""
    with Runtime.open(f"sqlite:///{tmp_path}/budget.db", catalog=CATALOG) as runtime:
        for name, plan in CUSTOMERS.items():
            runtime.customers.create(name, plan=plan).wallet.grant(5, key="a")
        Witness().check_facts(runtime.archive, [["paid-before", "grant:a", 5 * 10**9]])
        for lie in (["paid-before", "grant:b", 5 * 10**9], ["paid-before", "grant:a", 4 * 10**9]):
            with pytest.raises(AssertionError, match="lost or changed"):
                Witness().check_facts(runtime.archive, [lie])


def test_L9_a_second_process_is_served_by_the_first_and_takes_over_when_it_is_killed(
    server: ForkServer, tmp_path: Path
) -> None:
    """L1, L8: one writer at a time; what the first was answered is there for the second."""
    url = f"sqlite:///{tmp_path}/budget.db"
    life = server.start({"do": "keep", "url": url})
    life.hear_until("ready")
    with Runtime.open(url, catalog=CATALOG, read_only=True) as beside:
        assert beside.customer("acme").wallet.balance().held == 1
    with Runtime.open(url, catalog=CATALOG) as heir:
        assert f"process {life.pid} on " in heir.host.owner  # type: ignore[attr-defined]
        acme = heir.customer("acme")
        assert acme.wallet.balance().held == 1
        life.kill()
        assert [[hold.step, hold.amount] for hold in acme.link.read("holds")] == [["kept-step", 10**9]]
        session = acme.session(budget=1, id="kept")
        again = session.reserve("tool", name="search", amount=1, key="kept-step")
        assert again.settle(amount="0.5").charged == Credits("0.5")
        assert session.status().remaining == Credits("0.5")
        assert heir.ledger.verify().ok
        assert heir.ledger.reconcile() == []
