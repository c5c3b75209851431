"""The tables of ``docs/scale.md``."""

from __future__ import annotations

from math import ceil
from typing import Final

from benchmarks.scale.capacity import MOST_BUSY, MOST_STALLED, SHAPES, Carried, carried
from benchmarks.scale.constants import Constants

NODES: Final = (1, 100, 10_000)
PROCESSES: Final = 8
"""Of a node, each with a core of its own."""
MOST_OWNERS: Final = 64
"""Of one ledger: it has as many virtual shards."""


def report(constants: Constants, *, seconds: float = 2) -> str:
    """Markdown: the constants, what one owner carries, and what fleets need."""
    found = [carried(constants, shape, seconds=seconds) for shape in SHAPES]
    return "\n\n".join([_constants(constants), _owners(found), _fleets(constants, found)])


def _constants(c: Constants) -> str:
    return (
        f"A step in its process {c.pair_us:.1f} us; at the owner {c.message_us:.0f} us a message and {c.step_us:.2f} us a step "
        f"that it\nreports; {c.commit_us:,.0f} us a commit (PostgreSQL); {c.call_us:,.0f} us a call (Ray); "
        f"{c.rows_per_second:,.0f} entries a second (PostgreSQL,\nCOPY). An owner is busy at most {MOST_BUSY:.0%}, "
        f"a lease waits at most {MOST_STALLED:.1%} of its time."
    )


def _owners(found: list[Carried]) -> str:
    lines = [
        "| one owner serves | processes | sessions | steps/s | messages/s | busy | p99 of an answer |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        outcome, shape = one.outcome, one.shape
        lines.append(
            f"| {shape.name}, {shape.sessions} sessions a process | {one.processes:,} | {one.processes * shape.sessions:,} "
            f"| {outcome.steps_per_second:,.0f} | {outcome.messages_per_second:,.0f} | {outcome.busy:.0%} "
            f"| {outcome.wait_p99_us / 1_000:.1f} ms |"
        )
    return "\n".join(lines)


def _fleets(constants: Constants, found: list[Carried]) -> str:
    lines = ["| nodes | each process | steps/s | owners | databases | bound by |", "|---:|---|---:|---:|---:|---|"]
    for nodes in NODES:
        lines += [_fleet(constants, one, nodes) for one in found]
    return "\n".join(lines)


def _fleet(constants: Constants, one: Carried, nodes: int) -> str:
    """What so many nodes decide, and what they need for it."""
    share = nodes * PROCESSES / one.processes
    steps, messages, owners = one.outcome.steps_per_second * share, one.outcome.messages_per_second * share, ceil(share)
    by_rows, by_shards = ceil(messages / constants.rows_per_second), ceil(owners / MOST_OWNERS)
    core = one.outcome.steps_per_second / one.processes * constants.pair_us / 1e6
    bound = "its own cores" if core > 0.1 else "the agents' pace" if owners == 1 else "owners"
    return f"| {nodes:,} | {one.shape.name} | {steps:,.0f} | {owners:,} | {max(by_rows, by_shards):,} | {bound} |"
