"""How a command ends: one mapping from errors to exit codes, one line or one document that says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentbudget import Runtime, errors
from agentbudget.cli import failures
from agentbudget.ledger.store import open_journal
from tests.cli.support import ask, environment, process, tamper

EXPECTED = {
    "BudgetDenied": 1, "BudgetAbort": 1, "KeyConflict": 1, "HoldResolved": 1, "CatalogError": 2, "InvalidAmount": 2,
    "InvalidRequest": 2, "OwnerUnavailable": 3, "LedgerCorrupt": 4, "InvariantBroken": 4, "OutOfOrder": 4, "AgentBudgetError": 2,
}  # fmt: skip


def test_every_error_of_the_tree_has_its_code() -> None:
    tree = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.AgentBudgetError | errors.BudgetAbort)
    }
    assert {name: failures.code_of(kind()) for name, kind in tree.items()} == EXPECTED


def test_an_error_that_nobody_foresaw_is_no_refusal() -> None:
    assert failures.code_of(RuntimeError("bug")) == failures.BUG == 70


def test_an_error_is_data_with_what_it_carries() -> None:
    data = failures.data_of(errors.OwnerUnavailable("no answer", "process 7", "wait"))["error"]
    assert data["type"] == "OwnerUnavailable"
    assert (data["owner"], data["advice"], data["exit_code"]) == ("process 7", "wait", 3)
    assert data["message"] == "no answer (owner: process 7); wait"


def test_0_done_and_1_refused(ledger: str) -> None:
    step = ("explain", "acme", "--kind", "tool", "--name", "search", "--amount")
    process(*step, "1", ledger=ledger, code=0)
    refused = process(*step, "6", ledger=ledger, code=1)
    assert b"customer has 5 credits left, the step needs 6" in refused.stdout
    conflict = process("customer", "create", "acme", "--plan", "team", ledger=ledger, code=1)
    assert conflict.stderr.startswith(b"agentbudget: 'acme' was used before")


def test_2_usage_is_one_line_that_says_where_to_look() -> None:
    assert process("budget", code=2).stderr == b"agentbudget: No such command 'budget'. (see agentbudget --help)\n"
    missing = process("wallet", "grant", "acme", code=2).stderr
    assert missing == b"agentbudget: Missing argument 'AMOUNT'. (see agentbudget wallet grant --help)\n"
    error = json.loads(process("wallet", "balance", "acme", "--jsn", "--json", code=2).stderr)["error"]
    assert (error["type"], error["exit_code"]) == ("UsageError", 2)


@pytest.mark.parametrize("stated", [None, "", "memory://", "mysql://x"])
def test_2_a_ledger_must_be_named_and_outlive_the_command(stated: str | None) -> None:
    error = ask("customer", "list", ledger=stated, code=2)["error"]
    assert error["field"] == "ledger"
    assert "sqlite:///" in error["message"]


def test_3_a_ledger_that_is_not_there_is_not_made_by_a_misspelt_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/typo.db"
    for command in (("wallet", "grant", "acme", "1"), ("customer", "list"), ("ledger", "verify")):
        assert "there is no ledger at" in ask(*command, ledger=url, code=3)["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_0_a_second_writer_is_served_by_the_process_that_owns_the_ledger(ledger: str) -> None:
    with Runtime.open(ledger) as runtime:
        runtime.customer("acme").wallet.grant(1, key="mine")
        process("wallet", "grant", "acme", "1", ledger=ledger, code=0)
        assert runtime.customer("acme").wallet.balance().available == 7
        balance = json.loads(process("wallet", "balance", "acme", "--json", ledger=ledger).stdout)
        assert balance["available"] == "7"
    process("wallet", "grant", "acme", "1", ledger=ledger, code=0)


def test_3_where_the_owner_cannot_be_reached_a_writer_is_told_who_it_is_and_reading_goes_on(ledger: str) -> None:
    with closing(open_journal(ledger)):  # has the lock, and serves nobody
        error = json.loads(process("entity", "put", "acme", "team:x", "--json", ledger=ledger, code=3).stderr)["error"]
        assert f"process {os.getpid()} on " in error["owner"]
        assert json.loads(process("wallet", "balance", "acme", "--json", ledger=ledger).stdout)["available"] == "5"
    process("wallet", "grant", "acme", "1", ledger=ledger, code=0)


def test_4_L7_a_tampered_ledger_is_named_entry_by_entry(ledger: str, file: Path) -> None:
    process("ledger", "verify", ledger=ledger, code=0)
    tamper(file)
    report = json.loads(process("ledger", "verify", "--json", ledger=ledger, code=4).stdout)
    assert not report["ok"]
    fault = report["customers"][0]["fault"]
    assert (fault["customer"], fault["seq"], fault["how"]) == ("acme", 2, "edited")
    assert b"DAMAGED" in process("ledger", "verify", ledger=ledger, code=4).stdout
    assert not json.loads(process("ledger", "reconcile", "--json", ledger=ledger, code=4).stdout)["ok"]
    export = process("ledger", "export", ledger=ledger, code=4)
    assert b"the ledger is damaged at customer 'acme' entry 2" in export.stderr


def test_4_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"not a database " * 400)
    error = ask("wallet", "balance", "acme", ledger=f"sqlite:///{junk}", code=4)["error"]
    assert error["type"] == "LedgerCorrupt"
    assert junk.read_bytes() == b"not a database " * 400


def test_an_export_goes_from_one_process_to_another(ledger: str, tmp_path: Path) -> None:
    lines = process("ledger", "export", ledger=ledger).stdout
    copy = f"sqlite:///{tmp_path}/copy.db"
    process("ledger", "import", "-", ledger=copy, stdin=lines)
    assert process("ledger", "export", ledger=copy).stdout == lines
    cut = lines[: lines.rindex(b"\n", 0, -1) + 1]
    empty = f"sqlite:///{tmp_path}/empty.db"
    assert b"no last line" in process("ledger", "import", "-", ledger=empty, stdin=cut, code=4).stderr


def test_help_is_for_people_and_ends_with_0() -> None:
    bare = process().stdout.decode()
    assert process("--help").stdout.decode() == bare
    for word in ("demo", "wallet", "limit", "explain", "ledger", "Exit codes"):
        assert word in bare
    assert b"statement" in process("wallet").stdout
    assert process("--version").stdout.startswith(b"agentbudget ")


@pytest.mark.parametrize("form", ["['customer', 'list', '--json']", "['customer', 'list']", "['ledger', 'export']"])
def test_an_answer_that_nobody_reads_ends_as_a_broken_pipe_without_a_trace(ledger: str, form: str) -> None:
    code = f"from agentbudget.cli import main; main({form})"
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, env=environment(ledger), check=False
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_simple_commands_load_nothing_heavy(ledger: str) -> None:
    heavy = ("alembic", "genai_prices", "langchain", "langchain_core", "ray", "sqlalchemy", "sqlmodel")
    code = (
        "import sys; from agentbudget.cli.app import run; "
        f"run(['wallet', 'balance', 'acme']); print(*(name for name in {heavy!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment(ledger), check=True)
    assert done.stdout.splitlines()[-1] == b""


@pytest.mark.parametrize(
    ("option", "words"), [("window", "hour, day, week, month, quarter, year, lifetime"), ("mode", "hard, soft")]
)
def test_a_word_that_is_none_of_a_few_is_answered_with_those(ledger: str, option: str, words: str) -> None:
    wrong = ["limit", "set", "acme", "customer", "5", f"--{option}", "fortnight"]
    error = ask(*wrong, ledger=ledger, code=2)["error"]
    assert error["field"] == option
    assert error["message"].endswith(f"use one of {words}")
