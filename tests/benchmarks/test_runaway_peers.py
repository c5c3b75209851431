"""Peers in the lab: their protocol, their pins, what is left out. Their environments are not needed here; where a library is
among the tests' own packages its adapter is tried on it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runaway import grid, report
from benchmarks.runaway.catalogue import POLICIES, SCENARIOS, peers
from benchmarks.runaway.measures import label
from benchmarks.runaway.peers import child
from benchmarks.runaway.peers.calls import Calls, Failed, Provider
from benchmarks.runaway.peers.policy import PINS, PeerPolicy

FILES = sorted(path for path in child.ADAPTERS.glob("*.py") if path.stem != "__init__")
CALLS = child.ADAPTERS.with_name("calls.py")


class Shouting:
    """A peer that refuses the third step, and raises after the first."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        self.budget, self.begun = budget, 0

    def before(self, step: dict[str, Any]) -> str:
        self.begun += 1
        return "no" if self.begun == 3 else ""

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        return "raised" if self.begun == 1 else ""

    def books(self) -> tuple[float, float]:
        return self.budget, 0.0


def test_what_a_peer_raises_after_a_call_its_agent_meets_once_at_the_next() -> None:
    desk = child.Desk(Shouting)
    step = {"ask": "before", "name": "main", "step": {"id": 1, "estimate": 0.1}}
    desk.answer({"ask": "open", "budget": 1.5, "usual_calls": 50, "wallet": None})
    assert desk.answer(step) == ""
    desk.answer({"ask": "after", "name": "main", "step": step["step"], "told": {"cost": 0.1, "failure": ""}})
    assert [desk.answer(step) for _ in range(4)] == ["raised", "", "no", ""]
    assert desk.answer({"ask": "close"}) == (1.5, 0.0)


def test_cells_that_a_peer_cannot_express_are_left_out() -> None:
    names = {cell.scenario for cell in grid.cells(sorted(SCENARIOS), ["peer_token_budget"], 1)}
    assert set(SCENARIOS) - names == {"topup_cut", "worker_crash", "owner_crash", "shared_wallet"}
    names = {cell.scenario for cell in grid.cells(sorted(SCENARIOS), ["peer_litellm_proxy"], 1)}
    assert set(SCENARIOS) - names == {"worker_crash", "owner_crash"}


def line(scenario: str, policy: str) -> dict[str, str]:
    """A cell of summary.csv, as far as the headline reads it."""
    figures = {"runs": "30", "over_runs": "3", "overspend_percent_mean": "12.4", "overspend_percent_most": "1234.5"}
    return {"scenario": scenario, "policy": policy, "params": label(SCENARIOS[scenario].grid[0]), **figures}


def test_every_peer_stands_in_one_of_the_tables_beside_ours_and_what_it_cannot_express_is_said() -> None:
    names = ["none", "agentbudget_leased", *(peer.name for peer in peers())]
    scenarios = [SCENARIOS["race"], SCENARIOS["topup_cut"]]
    able = [(one, name) for one in scenarios for name in names if not one.needs & POLICIES[name].cannot]
    text = report.headline([line(one.name, name) for one, name in able], {"commit": "abc"})
    tables = text.split("\n\n")
    assert len(tables) == -(-len(peers()) // report.ABREAST)
    heads = [table.splitlines()[0].split(" | ") for table in tables]
    assert all(head[1:3] == ["none", "agentbudget, leased"] for head in heads)
    assert all(sum(peer.title in table.splitlines()[0] for table in tables) == 1 for peer in peers())
    assert text.count("left out") == sum("change" in peer.cannot for peer in peers())
    assert text.count("12 % (1,234 %)") == len(able) + len(tables) * 4 - 4


def test_a_picture_compares_policies_over_the_faults_that_all_of_them_can_express() -> None:
    plots = pytest.importorskip("benchmarks.runaway.plots")
    race, cut = (("race", "", name) for name in ("none", "peer_token_budget")), (("topup_cut", "", "none"),)
    assert {key[0] for key in plots._expressed({key: [] for key in (*race, *cut)})} == {"race"}
    assert {key[0] for key in plots._expressed({key: [] for key in cut})} == {"topup_cut"}


class Sharing(Shouting):
    """A peer whose sessions share a wallet and whose budgets change."""

    wallet = 0.0

    def share(self, wallet: float) -> None:
        self.wallet = wallet

    def session(self, budget: float) -> Sharing:
        other = Sharing(budget, 0)
        other.wallet = self.wallet
        return other

    def change(self, what: str, amount: float) -> None:
        self.budget = self.budget + amount if what == "fund" else amount


def test_sessions_and_changes_come_to_the_peer_that_can_express_them() -> None:
    desk = child.Desk(Sharing)
    desk.answer({"ask": "open", "budget": 1.5, "usual_calls": 50, "wallet": 4.0})
    desk.answer({"ask": "session", "name": "other1", "budget": 2.0})
    assert (desk.guards["other1"].budget, desk.guards["other1"].wallet) == (2.0, 4.0)
    desk.answer({"ask": "change", "name": "main", "what": "fund", "amount": 0.5})
    desk.answer({"ask": "change", "name": "other1", "what": "cut", "amount": 0.5})
    assert (desk.guards["main"].budget, desk.guards["other1"].budget) == (2.0, 0.5)


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_who_can_be_changed_or_share_a_wallet_has_a_way_to_be_asked(peer: PeerPolicy) -> None:
    stem, _, name = peer.adapter.partition(":")
    has = classes(child.ADAPTERS / f"{stem}.py")[name]
    assert ("change" in has) is ("change" not in peer.cannot)
    assert ({"share", "session"} <= has) is ("sessions" not in peer.cannot)


# --- files ----------------------------------------------------------------------------------------------------------


def classes(path: Path) -> dict[str, set[str]]:
    """The classes of an adapter and the methods that each has, its bases' included; the library is not needed for it."""
    found: dict[str, set[str]] = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            own = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
            found[node.name] = own.union(
                *(found.get(base.id, set()) for base in node.bases if isinstance(base, ast.Name))
            )
    return found


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_a_peer_names_a_class_that_answers_every_question(peer: PeerPolicy) -> None:
    stem, _, name = peer.adapter.partition(":")
    asked = {"before", "after", "dropped", "child", "ended", "books"}
    assert asked <= classes(child.ADAPTERS / f"{stem}.py")[name]


def test_every_adapter_is_of_a_peer_and_every_environment_too() -> None:
    assert {path.stem for path in FILES} == {peer.adapter.partition(":")[0] for peer in peers()}
    assert set(PINS) == {peer.environment for peer in peers()}


@pytest.mark.parametrize("path", [*FILES, CALLS], ids=lambda path: path.stem)
def test_an_adapter_imports_the_standard_library_alone_until_it_is_opened(path: Path) -> None:
    """Nothing of this project: the peer's interpreter has not got it, or has another library of that name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | {"__future__"}


@pytest.mark.parametrize("environment", PINS)
def test_every_package_of_an_environment_is_pinned_and_no_index_is_named(environment: str) -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9A-Za-z.]+", line) for line in PINS[environment])
    assert len({line.partition("=")[0].lower() for line in PINS[environment]}) == len(PINS[environment])


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_a_peer_is_shown_by_the_version_that_its_environment_holds(peer: PeerPolicy) -> None:
    assert peer.requirements[0].partition("==")[2] in peer.title


def test_another_version_or_another_library_is_another_environment() -> None:
    folders = {peer.environment: peer.folder for peer in peers()}
    assert len(set(folders.values())) == len(PINS)
    same = PeerPolicy("other", "other", "token_budget:Reserved", "token_budget")
    assert same.folder == folders["token_budget"]
    same.requirements = ("token-budget-py==0.0.1",)
    assert same.folder != folders["token_budget"]


# --- adapters on the libraries that the tests have ------------------------------------------------------------------


def step(number: int, scope: str = "main", *, is_model: bool = True) -> dict[str, Any]:
    return {"id": number, "scope": scope, "estimate": 0.01, "is_model": is_model, "is_stream": False, "input_cost": 0.0}


def run(guard: Any, count: int, scope: str = "main", *, first: int = 0, **what: Any) -> list[str]:
    """What each of so many steps was told; those that run are settled at once."""
    said = []
    for number in range(first, first + count):
        said.append(guard.before(step(number, scope, **what)))
        if not said[-1]:
            guard.after(step(number, scope, **what), {"cost": 0.01, "counted": 0.01, "failure": ""})
    return said


def test_langchain_counts_the_calls_of_a_run_and_forgets_them_when_it_ends() -> None:
    guard = child.adapter("langchain_limit:PerRun")(1.0, 2)
    assert [bool(told) for told in run(guard, 8)] == [False, False, False, True] * 2
    assert not any(run(guard.child(0.1), 3))


def test_langchain_keeps_the_count_of_a_thread_and_callers_at_once_do_not_see_one_another() -> None:
    guard = child.adapter("langchain_limit:PerThread")(1.0, 2)
    callers = [f"main/{n}" for n in range(9)]
    assert not any(guard.before(step(number, caller)) for number, caller in enumerate(callers))
    for number, caller in enumerate(callers):
        guard.after(step(number, caller), {"cost": 0.01, "counted": 0.01, "failure": ""})
    assert [bool(told) for told in run(guard, 5, first=100)] == [False, False, True, True, True]


def test_langchain_counts_neither_what_failed_nor_what_is_told_again() -> None:
    guard = child.adapter("langchain_limit:PerThread")(1.0, 2)
    for number in range(9):
        assert not guard.before(step(number))
        guard.after(step(number), {"cost": None, "counted": None, "failure": "lost"})
    assert not guard.before(step(10))
    for _ in range(9):
        guard.after(step(10), {"cost": 0.01, "counted": 0.01, "failure": ""})
    assert [bool(told) for told in run(guard, 4, first=11)] == [False, False, True, True]


def test_langchain_limits_tools_by_a_count_of_their_own() -> None:
    guard = child.adapter("langchain_limit:PerThread")(1.0, 2)
    assert [bool(told) for told in run(guard, 5, is_model=False)] == [False, False, False, True, True]
    assert not guard.before(step(9))


def test_openai_agents_ends_a_run_at_its_maximum_and_the_next_begins_with_nothing() -> None:
    guard = child.adapter("openai_agents_turns:MaxTurns")(1.0, 2)
    assert run(guard, 8) == ["", "", "", "MaxTurnsExceeded"] * 2
    assert run(guard, 9, is_model=False) == [""] * 9
    assert run(guard.child(0.1), 4) == ["", "", "", "MaxTurnsExceeded"]
    assert guard.books() == (0, 0)


def test_openai_agents_tries_a_failed_call_again_within_its_turn_and_callers_at_once_are_runs_of_their_own() -> None:
    guard = child.adapter("openai_agents_turns:MaxTurns")(1.0, 2)
    for number in range(9):
        assert guard.before(step(number)) == ""
        guard.after(step(number), {"cost": None, "counted": None, "failure": "lost"})
    assert run(guard, 3, "main/1", first=20) == [""] * 3
    assert run(guard, 4, first=30) == ["", "", "", "MaxTurnsExceeded"]
    assert guard.books() == (0, 0)


# --- calls that are under way ---------------------------------------------------------------------------------------


def test_a_call_waits_at_its_provider_until_the_lab_says_what_came_of_it() -> None:
    calls, seen = Calls(), list[object]()

    async def call(provider: Provider) -> None:
        seen.append(await provider())

    assert [calls.begin(number, call) for number in (1, 2, 3)] == [None] * 3
    assert seen == []
    assert calls.end(2, "second") is None
    assert calls.end(1, "first") is None
    assert seen == ["second", "first"]
    assert calls.end(1, "again") is None
    calls.close()
    assert calls.end(3, "late") is None
    assert seen == ["second", "first"]


def test_what_a_library_raises_before_or_after_its_provider_is_told() -> None:
    calls = Calls()

    async def refuses(provider: Provider) -> None:
        raise ValueError("before")

    async def raises(provider: Provider) -> None:
        await provider()
        raise ValueError("after")

    assert str(calls.begin(1, refuses)) == "before"
    assert calls.begin(2, raises) is None
    assert str(calls.end(2, "reply")) == "after"
    assert calls.begin(3, raises) is None
    assert isinstance(calls.end(3, Failed("lost")), Failed)


def test_a_cancelled_call_is_told_nothing() -> None:
    calls, seen = Calls(), list[str]()

    async def call(provider: Provider) -> None:
        try:
            await provider()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    assert calls.begin(1, call) is None
    calls.cancel(1)
    assert seen == ["CancelledError"]
