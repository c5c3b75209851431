"""The cells of a run of the lab, played by processes or by Ray, kept one file a cell so that a run goes on where it was
stopped."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.record import ROOT
from benchmarks.runaway.catalogue import POLICIES, SCENARIOS
from benchmarks.runaway.measures import Row, Timing, label, play

SEEDS: Final = 30
HEADLINE_SEEDS: Final = 300
BLOCK: Final = 30
"""Seeds that one task plays: long enough to be worth sending, short enough that the last ones end together."""


class Cell(Struct, frozen=True):
    """Scenario x parameters (their place in the grid) x policy, with seeds 0 to ``seeds`` - 1."""

    scenario: str
    place: int
    policy: str
    seeds: int

    @property
    def name(self) -> str:
        params = label(SCENARIOS[self.scenario].grid[self.place])
        return f"{self.scenario}--{params}--{self.policy}"


class Part(Struct, frozen=True):
    """A finished cell on disk. ``version``: of the code that played it."""

    version: str
    rows: list[Row]
    timings: list[Timing]


Block = tuple[str, int, str, int, int]


def cells(
    scenarios: Sequence[str], policies: Sequence[str], seeds: int | None, *, only_default: bool = False
) -> list[Cell]:
    """What is to be played: 30 seeds a cell, 300 of a headline's default; or ``seeds`` of each. What a
    policy cannot express is left out."""
    found = []
    for name in scenarios:
        scenario = SCENARIOS[name]
        for place in range(1 if only_default else len(scenario.grid)):
            usual = HEADLINE_SEEDS if scenario.headline and place == 0 else SEEDS
            able = [policy for policy in policies if not scenario.needs & POLICIES[policy].cannot]
            found += [Cell(name, place, policy, usual if seeds is None else seeds) for policy in able]
    return sorted(
        found, key=lambda cell: cell.place > 0
    )  # the defaults first: a run that is stopped has most of what is asked


AFTERWARDS: Final = ("command.py", "grid.py", "plots.py", "replay.py", "report.py", "results.py", "statistics.py")
"""What only plays, counts and shows runs, and decides nothing in them."""


def version() -> str:
    """A hash of everything that decides what a run does: this library and the lab."""
    digest = hashlib.sha256()
    for folder in ("agentbudget", "benchmarks/runaway"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".toml") and not (folder != "agentbudget" and path.name in AFTERWARDS):
                digest.update(f"{path.relative_to(ROOT)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def play_block(block: Block) -> tuple[list[Row], list[Timing]]:
    """Some seeds of a cell, in this process."""
    name, place, policy, first, count = block
    scenario = SCENARIOS[name]
    played = [play(scenario, scenario.grid[place], POLICIES[policy], seed) for seed in range(first, first + count)]
    return [one.row for one in played], [one.timing for one in played]


def blocks(cell: Cell) -> Iterator[Block]:
    for first in range(0, cell.seeds, BLOCK):
        yield cell.scenario, cell.place, cell.policy, first, min(BLOCK, cell.seeds - first)


class Shelf:
    """Where parts are kept."""

    def __init__(self, out: Path) -> None:
        self.folder, self.version = out / "parts", version()
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.json"

    def has(self, cell: Cell) -> bool:
        part = self.read(cell)
        return part is not None and part.version == self.version and len(part.rows) == cell.seeds

    def read(self, cell: Cell) -> Part | None:
        path = self.path(cell)
        return msgspec.json.decode(path.read_bytes(), type=Part) if path.exists() else None

    def put(self, cell: Cell, rows: list[Row], timings: list[Timing]) -> None:
        part = Part(self.version, sorted(rows, key=lambda row: row.seed), sorted(timings, key=lambda row: row.seed))
        half = self.path(cell).with_suffix(".half")
        half.write_bytes(msgspec.json.encode(part))
        half.replace(self.path(cell))


Progress = Callable[[int], None]


def run(wanted: Sequence[Cell], shelf: Shelf, *, workers: int, parallel: str, on_block: Progress) -> None:
    """Play every cell that the shelf has not; ``on_block`` hears of each block that is done."""
    waiting = {cell.name: cell for cell in wanted if not shelf.has(cell)}
    tasks = [(name, block) for name, cell in waiting.items() for block in blocks(cell)]
    found: dict[str, tuple[list[Row], list[Timing]]] = {name: ([], []) for name in waiting}
    for name, rows, timings in (_by_ray if parallel == "ray" else _by_processes)(tasks, workers):
        found[name][0].extend(rows)
        found[name][1].extend(timings)
        on_block(len(rows))
        if len(found[name][0]) == waiting[name].seeds:
            shelf.put(waiting[name], *found.pop(name))


def processes(workers: int) -> ProcessPoolExecutor:
    """A pool that ends with this process, also when it is killed."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


Done = Iterator[tuple[str, list[Row], list[Timing]]]


def _by_processes(tasks: Sequence[tuple[str, Block]], workers: int) -> Done:
    if workers <= 1:
        for name, block in tasks:
            yield (name, *play_block(block))
        return
    with processes(workers) as pool:
        waiting = {pool.submit(play_block, block): name for name, block in tasks}
        for future in as_completed(waiting):
            yield (waiting.pop(future), *future.result())


def _by_ray(tasks: Sequence[tuple[str, Block]], workers: int) -> Done:
    """On the cluster that RAY_ADDRESS names, else on one of this machine; its workers need this checkout as their folder."""
    import ray

    started = not ray.is_initialized()
    if started:
        here: dict[str, Any] = (
            {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        )
        ray.init(log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, **here)
    try:
        remote = ray.remote(play_block)
        waiting = {remote.remote(block): name for name, block in tasks}
        while waiting:
            for done in ray.wait(list(waiting), num_returns=1)[0]:
                yield (waiting.pop(done), *ray.get(done))
    finally:
        if started:
            ray.shutdown()
