"""Recorded traffic replayed: both formats, budgets that are too small and large enough, and honest repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.runaway import replay
from benchmarks.runaway.catalogue import POLICIES

CALLS = [{"tool": "get_status", "arguments_sha": "a1"}]
RUN = {"task": 0, "trial": 0, "reward": 1.0, "steps": [
    step for turn in range(6) for step in (
        {"kind": "user", "bytes": 80},
        {"kind": "llm", "context_bytes": 6_000 + 900 * turn, "output_bytes": 200, "tool_calls": CALLS},
        {"kind": "tool", "tool": "get_status", "result_bytes": 700},
    )
]}  # fmt: skip
SERVICE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:{17 + n // 30}:{n % 30:02}.0039600,{400 + n},{20 + n}\n" for n in range(60)
)


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent.jsonl"
    path.write_text("\n".join([json.dumps(RUN)] * 2), "utf-8")
    return path


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "service.csv"
    path.write_text(SERVICE, "utf-8")
    return path


def test_a_run_is_finished_without_a_policy_and_at_four_times_its_cost_under_every_budget(agent: Path) -> None:
    scenario = replay.scenarios(agent, 1)[0]
    for name in ("none", "post_hoc", "agentbudget_strict", "agentbudget_leased", "agentbudget_clamp"):
        row = replay.replayed(scenario, 4, POLICIES[name])
        assert (row.completed, row.false_stop, row.useful, row.steps) == (True, False, 6, 12), name


def test_a_budget_of_exactly_the_true_cost_is_spent_by_nobody_who_holds_upper_bounds(agent: Path) -> None:
    row = replay.replayed(replay.scenarios(agent, 1)[0], 1, POLICIES["agentbudget_strict"])
    assert row.false_stop
    assert row.overspend == 0
    assert 0 < row.useful < 6


def test_a_breaker_against_repeats_stops_an_honest_run_that_repeats_often_enough(agent: Path) -> None:
    """Five of the same in ten: this run asks six times. It is what the breaker's rule costs, and it is counted."""
    row = replay.replayed(replay.scenarios(agent, 1)[0], 4, POLICIES["agentbudget_breaker"])
    assert row.false_stop


def test_each_minute_of_a_service_is_a_run_whose_requests_overlap(service: Path) -> None:
    minutes = replay.scenarios(service, 10)
    assert len(minutes) == 2
    row = replay.replayed(minutes[0], 4, POLICIES["agentbudget_leased"])
    assert (row.completed, row.useful) == (True, 30)
    assert 29_000_000 < row.virtual_us < 40_000_000


def test_the_command_prints_a_table_and_writes_a_line_a_run(
    agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    assert command.main(["replay", str(agent), "--policy", "post_hoc", "--policy", "none", "--out", str(out)]) == 0
    assert "2/2 (100.0 %" in capsys.readouterr().out
    assert len(out.read_text("utf-8").splitlines()) == 1 + 2 * (2 * 5 + len(replay.REPEATS))


def test_breakers_count_the_honest_repeats_that_they_stop_at_their_own_number(agent: Path) -> None:
    """The run asks the same thing six times, with room for it."""
    rows = [row for _, row in replay.play_run(agent, 1, "bound", 0, ["none"])[-len(replay.REPEATS) :]]
    assert [(row.policy, row.false_stop) for row in rows] == [(name, True) for name in replay.REPEATS]
    assert [row.useful for row in rows] == [2, 3, 4, 5]


def test_what_is_kept_of_a_file_makes_the_table_of_the_readme(agent: Path, service: Path, tmp_path: Path) -> None:
    readme, kept = tmp_path / "README.md", tmp_path / "kept"
    readme.write_text("before\n<!-- replay -->\nold\n<!-- /replay -->\nafter\n", "utf-8")
    for path in (agent, service):
        ask = ["replay", str(path), "--policy", "none", "--policy", "soft_alert", "--policy", "agentbudget_leased"]
        assert command.main([*ask, "--workers", "1", "--keep", str(kept), "--readme", str(readme)]) == 0
    text = readme.read_text("utf-8")
    assert {path.name for path in kept.iterdir()} == {"agent.csv", "service.csv", "environment.json"}
    assert set(json.loads((kept / "environment.json").read_bytes())) == {"agent", "service"}
    assert "| `agent`, 2 runs | none; soft alert | 100 % (100 %) | 100 % (100 %) |" in text
    assert "|  | agentbudget: leased | 0 % (33 %) | 0 % (50 %) | 0 % (67 %) | 100 % (100 %) | 100 % (100 %) |" in text
    assert "old" not in text
    assert text.endswith("<!-- /replay -->\nafter\n")


def test_another_format_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["replay", str(tmp_path / "x.parquet")]) == 2
    assert "neither .jsonl nor .csv" in capsys.readouterr().err
