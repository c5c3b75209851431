"""A process that is killed leaves all that it had finished, and nothing that it had not begun: in its file, and in the ledger
after the next process has opened it."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agentbudget import Credits, Runtime
from agentbudget.runtime.spool.reading import read_spool
from tests.scale import SCALE
from tests.spool import spender
from tests.spool.life import HOLDER, by_lease, last_truths

MOST = 20_000


def kill_after(folder: Path, seed: int, operation: int) -> int:
    """Let a process write until it has done so many operations, kill it while it goes on, and tell how many it had done."""
    process = start("writer", folder, seed, operation, MOST)
    wait_until_ready(process)
    kill(process)
    return max(struct.unpack_from("@QQ", (folder / "done").read_bytes()))


def start(module: str, *arguments: object) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", f"tests.spool.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE)


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("seed", range(SCALE(8)))
def test_kill_anywhere_leaves_the_truth(tmp_path: Path, seed: int) -> None:
    """L1: the operation that was being written is there or not; everything before it is, and nothing is damaged."""
    finished = kill_after(tmp_path, seed, random.Random(seed).randrange(100, MOST // 2))
    contents = read_spool(str(tmp_path / "spool" / f"{HOLDER}.spool"))
    assert contents.damages == ()
    assert all(records.whole for records in contents.leases)
    before, after = last_truths(seed, min(MOST, finished + 1))
    assert by_lease(contents) in (before, after)


@pytest.mark.parametrize("seed", range(SCALE(2)))
def test_what_killed_processes_spent_is_booked_once_by_the_next(tmp_path: Path, seed: int) -> None:
    """L1, L4, L5: the owner among them, and whoever replays meanwhile; a step that was under way is charged what it held."""
    with Runtime.open(f"sqlite:///{tmp_path}/ledger.db") as runtime:
        runtime.customers.create("acme", plan="local")
    chance = random.Random(seed)
    spenders = [start("spender", tmp_path, f"s{index}", chance.randrange(50, 3_000)) for index in range(3)]
    for process in spenders:
        wait_until_ready(process)
    for process in chance.sample(spenders, 3):
        kill(process)
    counts = [spender.counts(tmp_path / f"s{index}") for index in range(3)]
    with Runtime.open(f"sqlite:///{tmp_path}/ledger.db") as runtime:
        acme = runtime.customer("acme")
        with acme.session() as session, session.step("tool", name="search", amount=0):
            pass
        balance = acme.wallet.balance()
        assert balance.held == 0
        assert (
            sum(ended for ended, _ in counts) <= Credits(balance.consumed) * 1_000 <= sum(begun for _, begun in counts)
        )
        assert runtime.ledger.verify().ok
        assert runtime.ledger.reconcile() == []
