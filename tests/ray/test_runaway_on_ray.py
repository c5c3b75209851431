"""The runaway lab's grid played on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as command

ray = pytest.importorskip("ray")


def test_a_grid_played_on_ray_is_to_the_bit_what_this_process_plays(ray_cluster: str, tmp_path: Path) -> None:
    ask = ["runaway", "--seeds", "32", "--default-only"]  # two blocks a cell, that come back in any order
    for scenario in ("race", "worker_crash"):
        ask += ["--scenario", scenario]
    for policy in ("none", "agentbudget_leased"):
        ask += ["--policy", policy]
    assert command.main([*ask, "--workers", "1", "--out", str(tmp_path / "here")]) == 0
    assert command.main([*ask, "--parallel", "ray", "--out", str(tmp_path / "ray")]) == 0
    assert (tmp_path / "here" / "runs.csv").read_bytes() == (tmp_path / "ray" / "runs.csv").read_bytes()
