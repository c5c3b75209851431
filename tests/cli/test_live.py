"""Commands act on sessions that run in another process, on what is leased there: no step starts after they count there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.support import ask, environment, text

AGENT = """
import sys
from agentbudget import BudgetDenied, Runtime

def step(session):
    session.reserve("tool", name="search", amount="0.000001").settle(amount="0.000001")

def until_refused(session):
    steps = 0
    while True:
        try:
            step(session)
        except BudgetDenied as denied:
            return steps, denied.decision.reason
        steps += 1
        if steps == 3:
            print("runs", flush=True)

def until_allowed(session):
    while True:
        try:
            return step(session)
        except BudgetDenied:
            pass

with Runtime.open(sys.argv[1]) as runtime:
    parent = runtime.customer("bolt").session(id="run", budget=sys.argv[2]).open()
    session = parent.child(id="sub", budget=sys.argv[3]).open() if len(sys.argv) > 3 else parent
    print("open", flush=True)
    for line in sys.stdin:
        if line.strip() == "work":
            print(*until_refused(session), flush=True)
        else:
            until_allowed(session)
            print("allowed", flush=True)
"""
"""A process with a leased session: on the word "work" it takes steps until one is refused, and says why."""


class Agent:
    """A child process that runs it."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def say(self, word: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()

    def hear(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()


@contextmanager
def agent(ledger: str, *arguments: str) -> Iterator[Agent]:
    command = [sys.executable, "-c", AGENT, ledger, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as child:
        try:
            made = Agent(child)
            assert made.hear() == "open"
            yield made
            assert child.stdin is not None
            child.stdin.close()
            assert child.wait(60) == 0
        finally:
            child.kill()


@pytest.fixture
def ledger(file: Path) -> str:
    """The URL of a ledger with one customer, ``bolt``, whose sessions' budgets alone bind."""
    url = f"sqlite:///{file}"
    ask("customer", "create", "bolt", ledger=url)
    return url


@pytest.fixture
def running(ledger: str) -> Iterator[Agent]:
    """It owns the ledger, and takes steps."""
    with agent(ledger, "4") as made:
        made.say("work")
        assert made.hear() == "runs"
        yield made


def test_a_paused_session_takes_no_step_in_any_process_until_it_is_resumed(ledger: str, running: Agent) -> None:
    paused = ask("session", "pause", "bolt", "run", "--reason", "too eager", ledger=ledger)
    assert (paused["id"], paused["state"]) == ("run", "paused")
    assert running.hear().endswith("paused")
    assert ask("session", "resume", "bolt", "run", ledger=ledger)["state"] == "open"
    running.say("recover")
    assert running.hear() == "allowed"


def test_a_child_of_a_paused_session_takes_no_step_either(ledger: str) -> None:
    with agent(ledger, "4", "3") as running:
        running.say("work")
        assert running.hear() == "runs"
        ask("session", "pause", "bolt", "run", ledger=ledger)
        assert running.hear().endswith("paused")


def test_a_closed_session_takes_no_step_in_any_process(ledger: str, running: Agent) -> None:
    assert ask("session", "close", "bolt", "run", ledger=ledger)["state"] == "closed"
    assert running.hear().endswith("session_closed")


def test_a_customer_and_an_entity_are_paused_and_resumed(ledger: str, running: Agent) -> None:
    assert ask("customer", "pause", "bolt", ledger=ledger)["paused"]
    assert running.hear().endswith("paused")
    assert not ask("customer", "resume", "bolt", ledger=ledger)["paused"]
    running.say("recover")
    assert running.hear() == "allowed"
    ask("entity", "put", "bolt", "team:eng", ledger=ledger)
    ask("customer", "pause", "bolt", "--entity", "team:eng", ledger=ledger)
    entities = ask("entity", "list", "bolt", ledger=ledger)["entities"]
    assert [one["id"] for one in entities if one["paused"]] == ["team:eng"]


def test_a_limit_that_is_set_counts_for_what_is_leased_already(ledger: str, running: Agent) -> None:
    ask("limit", "set", "bolt", "customer", "0", ledger=ledger)
    assert running.hear().endswith("limit")


def test_a_funded_session_goes_on(ledger: str) -> None:
    more = ("session", "fund", "bolt", "run", "0.000002", "--key", "more")
    with agent(ledger, "0.00001") as running:
        running.say("work")
        assert running.hear() == "runs"
        assert running.hear() == "10 session_budget"
        assert ask(*more, ledger=ledger)["budget"] == "0.000012"
        assert ask(*more, ledger=ledger)["budget"] == "0.000012"  # a key happens once
        assert ask("session", "fund", "bolt", "run", "NaN", ledger=ledger, code=2)["error"]["fault"] == "not_finite"
        running.say("work")
        assert running.hear() == "2 session_budget"


def test_a_child_is_funded_from_what_its_parent_has_left_or_refused(ledger: str) -> None:
    with agent(ledger, "0.5", "0.3"):
        assert ask("session", "fund", "bolt", "sub", "0.2", ledger=ledger)["budget"] == "0.5"
        refused = ask("session", "fund", "bolt", "sub", "0.1", ledger=ledger, code=1)["error"]
        assert refused["type"] == "BudgetDenied"
        assert ask("session", "show", "bolt", "sub", ledger=ledger)["budget"] == "0.5"


def test_what_is_leased_is_listed_and_shown(ledger: str, running: Agent) -> None:
    (lease,) = ask("session", "show", "bolt", "run", ledger=ledger)["leases"]
    assert (lease["kind"], lease["name"], lease["suspended_at"]) == ("tool", "search", None)
    (listed,) = ask("session", "list", "bolt", ledger=ledger)["sessions"]
    assert listed["suspended"] == "0"
    assert listed["leased"] != "0"
    assert ask("wallet", "balance", "bolt", ledger=ledger)["leased"] != "0"
    assert "leased by" in text("session", "show", "bolt", "run", ledger=ledger)
    ask("session", "close", "bolt", "run", ledger=ledger)


@pytest.mark.parametrize("command", ["pause", "resume", "fund", "close"])
def test_a_session_that_is_not_there_is_named(ledger: str, command: str) -> None:
    amount = ["1"] if command == "fund" else []
    assert ask("session", command, "bolt", "gone", *amount, ledger=ledger, code=2)["error"]["field"] == "session"
