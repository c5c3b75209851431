"""Holders, an owner and everything that may go wrong between them, thousands of times, each from a seed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, islice

import pytest

from tests.scale import SCALE
from tests.sim.planted import PLANTED
from tests.sim.reached import REQUIRED, missing
from tests.sim.world import World
from tests.summary import Record, publish
from tests.tidy.rules import ROOT

CHUNKS = 10
"""Parts of the work that may run beside each other."""
SEEDS = SCALE.pick(ci=5_000, night=100_000)
FEW_HUNDRED = 1_000
"""Seeds within which a planted bug must be noticed."""


def play(seeds: Iterator[int]) -> Counter[str]:
    """Run the seeds; the first that is red says how it is run again."""
    figures: Counter[str] = Counter()
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except Exception as error:
            pytest.fail(f"seed {seed}: {error!r}\nrun it again, with its trace: python -m tests.sim --seed {seed}")
        figures += world.figures
    return figures


@pytest.mark.timeout(4 * 3_600)  # a night's 10,000 seeds a chunk take some minutes on free cores
@pytest.mark.parametrize("chunk", range(1, CHUNKS + 1))
def test_L1_L2_L3_L4_L5_L6_L7_L9_L10_L11_L12_no_seed_is_red(chunk: int, record_property: Record) -> None:
    """Every law after every event, and all of them at the end: fresh seeds each time."""
    base, seeds = random.SystemRandom().randrange(2**32), SEEDS // CHUNKS
    figures = play(islice(count(base), seeds))
    died = figures["holder died"] + figures["owner died"] + figures["died while replaying"]
    shown = {
        "seeds": seeds, "red": 0, "events": figures["events"], "messages": figures["messages"], "crashes": died,
        "losses": figures["request lost"] + figures["answer lost"], "duplicates": figures["duplicate"] + figures["ghost"],
        "lost or unknown commits": figures["commit lost"] + figures["commit unknown"], "steps": figures["steps"],
        "from seed": base,
    }  # fmt: skip
    publish(record_property, f"simulation {chunk}/{CHUNKS}", shown)
    assert not missing(figures), f"seeds {base} to {base + seeds - 1} never saw {missing(figures)}"


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: within a few hundred seeds one is red, and without the bug that one is green."""
    with monkeypatch.context() as patch:
        plant(patch)
        with pytest.raises(pytest.fail.Exception, match=r"python -m tests\.sim --seed \d+") as red:
            play(iter(range(FEW_HUNDRED)))
    World(int(str(red.value).rpartition(" ")[2])).run()


def test_what_was_never_reached_is_named() -> None:
    """T16: a chunk that missed something fails."""
    seen = Counter(REQUIRED)
    assert missing(seen) == []
    del seen["ghost"]
    assert missing(seen) == ["ghost"]


def test_L6_the_same_seed_is_the_same_run_in_any_process() -> None:
    """A red seed stays red: nothing depends on the order of a set, on a clock, or on what ran before."""
    said = {_told(str(hash_seed)) for hash_seed in range(2)}
    assert len(said) == 1
    assert "green" in said.pop()


def _told(hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.sim", "--seed", "7", "--quiet"]
    environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
