"""The runaway lab: every scenario and policy keeps its protocol, runs repeat to the bit, and agentbudget keeps its promises."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from random import Random

import msgspec
import pytest

from agentbudget import Catalog, Usage
from agentbudget.catalog import PriceRequest
from benchmarks import __main__ as command
from benchmarks.runaway import grid, provider, results, statistics, traffic
from benchmarks.runaway.catalogue import HERE, POLICIES, SCENARIOS
from benchmarks.runaway.command import OURS, broken_promises
from benchmarks.runaway.measures import Played, play
from benchmarks.runaway.peers.policy import PeerPolicy

SEED = 7


@cache
def played(scenario: str, policy: str, seed: int = SEED) -> Played:
    return play(SCENARIOS[scenario], SCENARIOS[scenario].grid[0], POLICIES[policy], seed)


# --- what agentbudget promises --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", OURS)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_L3_L5_L11_agentbudget_never_overspends_leaves_no_hold_and_books_what_was_billed(
    name: str, policy: str
) -> None:
    """The smoke grid: three seeds of each scenario's default."""
    assert broken_promises([played(name, policy, seed).row for seed in range(3)]) == []


def test_a_broken_promise_is_named() -> None:
    row = played("tool_loop", "agentbudget_strict").row
    over = msgspec.structs.replace(row, overspend=1)
    held = msgspec.structs.replace(row, held=1)
    lost = msgspec.structs.replace(row, is_booked_right=False)
    assert [line.split(" in ")[0] for line in broken_promises([row, over, held, lost])] == ["agentbudget_strict"] * 3
    assert broken_promises([msgspec.structs.replace(over, scenario="low_estimates")]) == []
    assert broken_promises([msgspec.structs.replace(over, policy="none")]) == []


def test_without_a_policy_every_fault_overspends() -> None:
    """Else a scenario shows nothing."""
    for name, scenario in SCENARIOS.items():
        if not scenario.honest:
            assert played(name, "none").row.overspend > 0, name


# --- every scenario -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_scenario_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    scenario = SCENARIOS[name]
    assert scenario.name == name
    assert len(scenario.provenance.split()) >= 15
    assert "\n" not in scenario.provenance
    assert scenario.title
    assert scenario.fault
    assert len({json.dumps(params, sort_keys=True) for params in scenario.grid}) == len(scenario.grid) >= 1
    assert scenario.budget is not None or all("times" in params for params in scenario.grid)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_run_is_the_same_again_and_another_seed_is_another_run(name: str) -> None:
    scenario, policy = SCENARIOS[name], POLICIES["none"]
    again, other = (play(scenario, scenario.grid[0], policy, seed) for seed in (SEED, SEED + 1))
    assert again.row == played(name, "none").row
    assert again.events == played(name, "none").events
    assert other.events != again.events


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_no_call_costs_more_than_could_be_reckoned_with_where_the_scenario_says_so(name: str) -> None:
    events = [event for event in played(name, "none").events if event.ran]
    assert all(event.cost <= event.estimate for event in events) is SCENARIOS[name].within_estimate


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.honest])
def test_honest_work_is_finished_when_nobody_stops_it(name: str) -> None:
    row = played(name, "none").row
    assert row.completed
    assert row.overspend == 0


# --- every policy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", sorted(name for name, policy in POLICIES.items() if not isinstance(policy, PeerPolicy))
)
def test_a_policy_plays_every_kind_of_action_and_is_the_same_again(name: str) -> None:
    policy = POLICIES[name]
    assert policy.name == name
    assert policy.title
    for scenario in ("tool_loop", "cap_reset", "parallel_tools", "runaway_stream"):
        again = play(SCENARIOS[scenario], SCENARIOS[scenario].grid[0], policy, SEED)
        assert again.row == played(scenario, name).row
    for scenario in (
        "leaked_holds",
        "retry_storm",
        "early_error",
        "topup_cut",
        "worker_crash",
        "owner_crash",
        "shared_wallet",
    ):
        if not SCENARIOS[scenario].needs & policy.cannot:
            assert played(scenario, name).row.steps > 0


def test_a_run_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Whatever the hashes of texts are there."""
    code = (
        "import sys, msgspec\n"
        "from benchmarks.runaway.catalogue import POLICIES, SCENARIOS\n"
        "from benchmarks.runaway.measures import play\n"
        "for name in ('fan_out', 'race'):\n"
        "    row = play(SCENARIOS[name], SCENARIOS[name].grid[0], POLICIES['agentbudget_leased'], 7).row\n"
        "    print(msgspec.json.encode(row).decode())\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=command.HERE.parent,
    )
    assert told.stdout.splitlines() == [
        msgspec.json.encode(played(name, "agentbudget_leased").row).decode() for name in ("fan_out", "race")
    ]


# --- the provider ---------------------------------------------------------------------------------------------------


def test_the_provider_uses_nothing_of_agentbudget() -> None:
    tree = ast.parse((HERE / "provider.py").read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any("agentbudget" in name or name.startswith("benchmarks") for name in names)


@pytest.mark.parametrize("model", sorted(provider.PRICES))
def test_the_provider_and_the_catalog_agree_on_what_a_usage_costs(model: str) -> None:
    rng, catalog = Random(1), Catalog.bundled()
    for _ in range(50):
        prompt = provider.Prompt().plus(provider.text(rng, rng.randrange(1, 300_000)))
        served = provider.serve(model, prompt, rng.randrange(5_000), cached_prefix=rng.randrange(200_000))
        usage = Usage(input_tokens=served.input, cache_read_tokens=served.cached, output_tokens=served.output)
        request = PriceRequest(kind="llm", model=model, input_tokens=served.input, max_output_tokens=5_000)
        assert catalog.charge(request, usage).nano == served.billed


def test_a_text_has_the_tokens_and_the_bytes_that_it_says() -> None:
    rng = Random(2)
    for tokens in (1, 7, 300, 70_000):
        text = provider.text(rng, tokens)
        assert len(provider.tokenise(text.read())) == tokens
        assert len(text.read().encode()) == text.bytes >= tokens


def test_draws_lie_within_their_table() -> None:
    rng = Random(3)
    for table in (traffic.CODE_CONTEXT, traffic.AGENT_OUTPUT, traffic.TOKEN_US):
        drawn = [traffic.draw(rng, table) for _ in range(2_000)]
        assert len(table) == 21
        assert table[0] <= min(drawn) < table[5] < table[15] < max(drawn) <= table[20]


# --- running and counting -------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = [
        "runaway",
        "--scenario",
        "race",
        "--policy",
        "none",
        "--seeds",
        "4",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert command.main([*ask, "--default-only"]) == 0
    part = tmp_path / "parts" / f"{grid.cells(['race'], ['none'], 4)[0].name}.json"
    before = part.stat().st_mtime_ns
    assert command.main(ask) == 0
    assert part.stat().st_mtime_ns == before
    rows = results.load(tmp_path)
    assert [row.seed for row in rows] == [0, 1, 2, 3] * 2
    assert rows[0] == played("race", "none", 0).row
    assert results.place(tmp_path)["runs"] == 8
    assert "race" in capsys.readouterr().out


def test_a_run_that_was_killed_goes_on_where_it_was_and_comes_to_the_same(tmp_path: Path) -> None:
    """Killed with -9 once the first cell is on disk; its workers end with it."""
    names = ("none", "post_hoc", "agentbudget_leased", "agentbudget_strict")
    ask = ["runaway", "--scenario", "ping_pong", "--seeds", "5", "--workers", "2"]
    ask += [part for name in names for part in ("--policy", name)]
    killed = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *ask, "--out", str(tmp_path / "killed")],
        cwd=command.HERE.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    parts = tmp_path / "killed" / "parts"
    while not (parts.exists() and list(parts.glob("*.json"))):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.stderr is not None
    killed.stderr.read()  # the workers hold its other end: it comes to its end when they have ended
    killed.wait()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert 0 < len(kept) < 8
    ask += ["--workers", "1"]
    assert command.main([*ask, "--out", str(tmp_path / "killed")]) == 0
    assert command.main([*ask, "--out", str(tmp_path / "whole")]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (tmp_path / "killed" / "runs.csv").read_bytes() == (tmp_path / "whole" / "runs.csv").read_bytes()


def test_what_is_played_when_nobody_says_which_is_every_policy_but_the_peers(tmp_path: Path) -> None:
    ask = ["runaway", "--scenario", "race", "--seeds", "1", "--default-only", "--workers", "1", "--out", str(tmp_path)]
    assert command.main(ask) == 0
    played = [row.policy for row in results.load(tmp_path)]
    assert played == [name for name, policy in POLICIES.items() if policy.family != "peer"]


def test_processes_and_this_process_write_the_same(tmp_path: Path) -> None:
    for workers in ("1", "2"):
        ask = [
            "runaway",
            "--scenario",
            "tool_loop",
            "--policy",
            "post_hoc",
            "--seeds",
            "31",
            "--default-only",
            "--workers",
            workers,
        ]
        assert command.main([*ask, "--out", str(tmp_path / workers)]) == 0
    assert (tmp_path / "1" / "runs.csv").read_bytes() == (tmp_path / "2" / "runs.csv").read_bytes()


def test_the_bounds_of_a_share_are_those_of_clopper_and_pearson() -> None:
    """By the closed forms for none and all, and a value from their tables for 5 of 20."""
    assert statistics.share_of(0, 300).high == pytest.approx(1 - 0.025 ** (1 / 300))
    assert statistics.share_of(30, 30).low == pytest.approx(0.025 ** (1 / 30))
    assert (statistics.share_of(0, 30).low, statistics.share_of(30, 30).high) == (0, 1)
    found = statistics.share_of(5, 20)
    assert (found.low, found.high) == (pytest.approx(0.0866, abs=1e-4), pytest.approx(0.4910, abs=1e-4))


def test_an_interval_holds_its_mean_and_pairs_cancel_what_they_share() -> None:
    rng = Random(4)
    base = [rng.gauss(100, 50) for _ in range(100)]
    shifted = [value + rng.gauss(1, 0.1) for value in base]
    found = statistics.paired(shifted, base)
    assert 0.9 < found.low < found.mean < found.high < 1.1
    assert statistics.mean_of([2.0] * 30) == statistics.Mean(2, 2, 2, 2, 2)
