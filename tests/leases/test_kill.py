"""kill -9 in a loop: what a worker was told is booked once, whatever comes first, its replay or its leases' lapse."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from agentbudget import Runtime
from agentbudget.clock import SECOND_US
from agentbudget.testing import ManualClock
from tests.leases.processes import PATIENCE, Crew, Life
from tests.leases.spending import (
    CREDIT,
    CUSTOMER,
    SPENDING_THREADS,
    Heard,
    books,
    books_beside,
    found,
    is_sound,
    lines_of,
    open_ledger,
    spend_until_killed,
)
from tests.scale import Scale
from tests.summary import Record, publish

GRANTED = 10**6 * CREDIT
LAPSE_SECONDS = 60
LIVES_OF_A_FILE = 10
SILENCE_SECONDS = 11
"""More than the ten after which a holder counts as silent."""


def spend_when_told(path: Path, seed: int, life: Life) -> None:
    """Forked early, before the test had any thread; it opens the ledger when it is told to."""
    life.wait()
    spend_until_killed(path, seed, life)


def kill_in_the_middle(life: Life, chance: random.Random) -> Heard:
    """Let it end some steps, kill it, and give what it had said."""
    heard, enough = Heard(), chance.randint(5, 80)
    while len(heard.ended) < enough:
        heard.take([life.hear()])
    life.kill()
    return heard.take(life.said)


def merged(all_heard: list[Heard]) -> Heard:
    one = Heard()
    for heard in all_heard:
        one.begun |= heard.begun
        one.ended |= heard.ended
    return one


def check_whole(runtime: Runtime, heard: Heard, *, kills: int) -> Counter[str]:
    """Everything is over: nothing is held, each step is booked as it was told, and the sums are the sums."""
    acme = runtime.customer(CUSTOMER)
    after, lines = books(acme), lines_of(acme)
    assert (after.held, after.leased, after.suspended) == (0, 0, 0)
    assert after.consumed + after.available == GRANTED
    assert sum(line.amount for some in lines.values() for line in some) == after.consumed
    assert is_sound(runtime)
    return heard.check(lines, unheard=kills * SPENDING_THREADS)


@pytest.mark.timeout(1_200)
def test_L1_L4_L5_workers_are_killed_again_and_again_and_each_step_is_booked_once(
    tmp_path: Path, scale: Scale, record_property: Record
) -> None:
    """Half of them own the ledger as they die, and the next to open it replays; half are served by this process."""
    kills, seed = scale.pick(ci=50, night=300), random.randrange(2**32)
    figures: Counter[str] = Counter()
    for n in range(kills // LIVES_OF_A_FILE):
        path = tmp_path / str(n)
        path.mkdir()
        found(path, GRANTED)
        one_file = owners_die if n % 2 else clients_die
        figures += one_file(path, seed + 1_000 * n)
        shutil.rmtree(path)
    assert figures["unknown"] > 0
    assert figures["given back"] > 0
    publish(record_property, "kill -9 of leased workers", {**figures, "kills": kills, "seed": seed})


def owners_die(path: Path, seed: int) -> Counter[str]:
    """One after the other; each replays what the one before it left."""
    chance, heard = random.Random(seed), list[Heard]()
    with Crew() as crew:
        for n in range(LIVES_OF_A_FILE):
            life = crew.start(partial(spend_until_killed, path, seed + n))
            heard.append(kill_in_the_middle(life, chance))
            now = books_beside(path)
            assert now.consumed + now.held + now.available == GRANTED
    assert now.held > 0
    with open_ledger(path) as runtime:
        return check_whole(runtime, merged(heard), kills=LIVES_OF_A_FILE)


def clients_die(path: Path, seed: int) -> Counter[str]:
    """Beside each other; the owner replays at its next pulse."""
    chance = random.Random(seed)
    with Crew() as crew:
        lives = [crew.start(partial(spend_when_told, path, seed + n)) for n in range(LIVES_OF_A_FILE)]
        with open_ledger(path) as runtime:
            for life in lives:
                life.tell("go")
            heard = [kill_in_the_middle(life, chance) for life in lives]
            let_replay(runtime, path)
            return check_whole(runtime, merged(heard), kills=LIVES_OF_A_FILE)


# --- replay and lapse ---------------------------------------------------------------------------------------------------


@contextmanager
def killed_worker(path: Path) -> Iterator[Heard]:
    """A worker has owned the ledger and was killed; its spool is there, and nobody has the ledger open."""
    found(path, GRANTED)
    with Crew() as crew:
        life = crew.start(partial(spend_until_killed, path, 1))
        yield kill_in_the_middle(life, random.Random())


def spools(path: Path) -> Path:
    return path / "budget.db.spool"


def let_replay(runtime: Runtime, path: Path) -> None:
    """Have the owner replay what is there; its keeper may be at it already, and then a sweep does not wait for that."""
    deadline = time.monotonic() + PATIENCE
    runtime.sweep()
    while list(spools(path).glob("*.spool")) and time.monotonic() < deadline:
        runtime.sweep()


def later() -> ManualClock:
    return ManualClock(time.time_ns() // 1_000 + SECOND_US)


def let_lapse(runtime: Runtime, clock: ManualClock) -> None:
    """Long enough that whatever a silent process holds is suspended, and then lapses."""
    for seconds in (SILENCE_SECONDS, LAPSE_SECONDS + 1):
        runtime.host.sweep()
        clock.advance(seconds)
        runtime.host.sweep()


def test_L5_a_replay_and_then_the_time_of_a_lapse_book_nothing_twice(tmp_path: Path) -> None:
    clock = later()
    with killed_worker(tmp_path) as heard, open_ledger(tmp_path, clock=clock, lapse_after_seconds=60) as runtime:
        figures = check_whole(runtime, heard, kills=1)
        entries = len(list(runtime.customer(CUSTOMER).ledger.entries()))
        let_lapse(runtime, clock)
        assert check_whole(runtime, heard, kills=1) == figures
        assert len(list(runtime.customer(CUSTOMER).ledger.entries())) == entries


@pytest.mark.parametrize("on_lapse", ["charge", "release"])
def test_L4_L11_a_lapse_and_then_the_replay_book_what_is_true_once(
    tmp_path: Path, on_lapse: Literal["charge", "release"]
) -> None:
    """The spool comes back after the lapse: one correction, and the sums are as if it had come in time."""
    clock = later()
    with killed_worker(tmp_path) as heard:
        away = spools(tmp_path).rename(tmp_path / "away")
        with open_ledger(tmp_path, clock=clock, lapse_after_seconds=60, on_lapse=on_lapse) as runtime:
            acme = runtime.customer(CUSTOMER)
            held = books(acme)
            assert held.held == held.leased > 0
            let_lapse(runtime, clock)
            lapsed = books(acme)
            assert lapsed.held == 0
            assert lapsed.consumed == held.consumed + (held.held if on_lapse == "charge" else 0)
            away.rename(spools(tmp_path))
            let_replay(runtime, tmp_path)
            check_whole(runtime, heard, kills=1)


def test_L5_what_a_dead_process_holds_is_suspended_before_it_lapses(tmp_path: Path) -> None:
    """Suspended is still held: nobody else may have it, and nothing is booked."""
    clock = later()
    with killed_worker(tmp_path) as heard:
        away = spools(tmp_path).rename(tmp_path / "away")
        with open_ledger(tmp_path, clock=clock) as runtime:
            acme = runtime.customer(CUSTOMER)
            before = books(acme)
            runtime.host.sweep()
            clock.advance(SILENCE_SECONDS)
            runtime.host.sweep()
            after = books(acme)
            assert (after.held, after.consumed, after.available) == (before.held, before.consumed, before.available)
            assert after.suspended == after.leased == after.held > 0
            away.rename(spools(tmp_path))
            let_replay(runtime, tmp_path)
            check_whole(runtime, heard, kills=1)


@pytest.mark.parametrize("between", ["nothing", "lapse"])
def test_L4_a_spool_that_is_replayed_twice_books_nothing_twice(tmp_path: Path, between: str) -> None:
    """A replay that died right before it removed the file; a backup that somebody put back."""
    clock = later()
    with killed_worker(tmp_path) as heard:
        shutil.copytree(spools(tmp_path), tmp_path / "copy")
        with open_ledger(tmp_path, clock=clock, lapse_after_seconds=60) as runtime:
            once = check_whole(runtime, heard, kills=1)
            before = books(runtime.customer(CUSTOMER))
            if between == "lapse":
                let_lapse(runtime, clock)
            shutil.copytree(tmp_path / "copy", spools(tmp_path), dirs_exist_ok=True)
            let_replay(runtime, tmp_path)
            assert check_whole(runtime, heard, kills=1) == once
            assert books(runtime.customer(CUSTOMER)) == before


def test_the_check_would_see_a_lost_a_changed_and_a_doubled_step(tmp_path: Path) -> None:
    """The checks above can fail."""
    with killed_worker(tmp_path) as heard, open_ledger(tmp_path) as runtime:
        lines = lines_of(runtime.customer(CUSTOMER))
        step, (_, cost) = next((s, end) for s, end in heard.ended.items() if end[0] == "settled" and end[1] > 0)
        lies: list[Callable[[], object]] = [
            lambda: heard.check({**lines, step: []}, unheard=SPENDING_THREADS),
            lambda: heard.check({**lines, step: lines[step] * 2}, unheard=SPENDING_THREADS),
            lambda: heard.take([["settled", step, cost + 1]]).check(lines, unheard=SPENDING_THREADS),
        ]
        for lie in lies:
            with pytest.raises(AssertionError, match="the ledger says"):
                lie()
