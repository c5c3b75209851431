"""The demonstration shows what happened, and its figures agree with its ledger."""

from __future__ import annotations

import json
import socket
import sys
import xml.etree.ElementTree as ElementTree
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentbudget.cli.app import app
from tests.cli.support import ask, text


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "demo.db"


@pytest.fixture(scope="module")
def facts(kept: Path) -> Any:
    """One run of it, kept."""
    result = CliRunner().invoke(app, ["demo", "--json", "--keep", str(kept)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_L3_no_step_passes_the_budget_and_nothing_reaches_the_model_after_the_refusal(facts: Any) -> None:
    steps = facts["steps"]
    assert len(steps) > 10
    assert sum(Decimal(step["charged"]) for step in steps) == Decimal(facts["spent"]) <= Decimal(facts["budget"])
    assert all(Decimal(step["charged"]) <= Decimal(step["held"]) for step in steps)
    retries = facts["retries"]
    assert retries["refused"] == retries["attempts"] == 5
    assert (retries["model_calls"], retries["spent"]) == (0, "0")


def test_the_context_grows_so_each_call_costs_more_and_holds_more(facts: Any) -> None:
    calls = [step for step in facts["steps"] if step["kind"] == "llm"]
    for amount in ("held", "charged"):
        amounts = [Decimal(call[amount]) for call in calls]
        assert amounts == sorted(amounts)
        assert len(set(amounts)) == len(amounts)


def test_handler_and_middleware_together_charge_a_call_once(facts: Any) -> None:
    kinds = [step["kind"] for step in facts["steps"]]
    assert kinds == ["llm", "tool"] * (len(kinds) // 2)


def test_the_refusal_says_what_binds_what_is_left_and_what_would_fit(facts: Any) -> None:
    refusal = facts["refusal"]
    assert refusal["reason"] == "session_budget"
    assert refusal["binding"]["entity"] == "session:demo"
    assert refusal["binding"]["remaining"] == facts["left"] == facts["steps"][-1]["left"]
    assert Decimal(refusal["need"]) > Decimal(facts["left"])
    assert refusal["affordable"]["max_output_tokens"] > 0
    assert {"session:demo", "team:platform", "user:ana", "customer"} <= {
        one["entity"] for one in refusal["constraints"]
    }


def test_the_same_agent_unguarded_spends_many_times_the_budget(facts: Any) -> None:
    free = facts["unguarded"]
    assert Decimal(free["cost"]) >= 25 * Decimal(facts["budget"])
    assert free["steps"] <= 200
    assert free["stopped_because"] == "25 times the budget"


def test_L2_the_ledger_that_it_keeps_says_the_same(facts: Any, kept: Path) -> None:
    url = f"sqlite:///{kept}"
    assert facts["ledger"] == {
        "url": url, "entries": facts["ledger"]["entries"], "verified": True, "differences": 0, "open_holds": 0,
    }  # fmt: skip
    assert ask("ledger", "verify", ledger=url)["entries"] == facts["ledger"]["entries"]
    assert ask("ledger", "reconcile", ledger=url)["ok"]
    session = ask("session", "show", "acme", "demo", ledger=url)
    assert (session["spent"], session["steps"]) == (facts["spent"], len(facts["steps"]))
    assert sum(note["count"] for note in session["refusals"]) == 1 + facts["retries"]["refused"]
    balance = ask("wallet", "balance", "acme", ledger=url)
    assert balance["consumed"] == facts["wallet"]["consumed"] == facts["spent"]


def test_without_a_terminal_it_prints_plain_lines_within_100_columns(tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    lines = text("demo", "--svg", str(picture)).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("\x1b" in line for line in lines)
    told = "\n".join(lines)
    for words in ("was refused before it ran", "REFUSES, binds", "would fit", "stayed refused", "without", "verified"):
        assert words in told
    drawn = picture.read_text("utf-8")
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert "refused" in drawn
    assert "@font-face" not in drawn


def test_it_uses_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "none")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert ask("demo", "--budget", "0.01")["ledger"]["verified"]


def test_any_priced_model_will_do_and_one_without_a_price_is_refused_first(tmp_path: Path) -> None:
    assert ask("demo", "--model", "claude-sonnet-4-5", "--budget", "0.2")["retries"]["model_calls"] == 0
    error = ask("demo", "--model", "gpt-99-none", "--keep", str(tmp_path / "x.db"), code=2)["error"]
    assert error["type"] == "UnknownPrice"
    assert "[[rates]]" in error["line"]
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_there_is_never_touched(kept: Path, facts: Any) -> None:
    before = kept.read_bytes()
    assert ask("demo", "--keep", str(kept), code=2)["error"]["field"] == "keep"
    assert kept.read_bytes() == before


@pytest.mark.parametrize("budget", ["0", "-1", "much"])
def test_a_budget_must_be_an_amount(budget: str) -> None:
    assert ask("demo", f"--budget={budget}", code=2)["error"]["exit_code"] == 2


def test_a_missing_langchain_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "agentbudget_langchain"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "agentbudget.cli.demo_agent", raising=False)
    monkeypatch.delattr("agentbudget.cli.demo_agent", raising=False)
    monkeypatch.setitem(sys.modules, "agentbudget_langchain", None)
    error = ask("demo", code=3)["error"]
    assert error["type"] == "MissingExtra"
    assert "agentbudget-runtime[demo]" in error["message"]
    assert "integrations/langchain" in error["message"]
