"""docs/deploy.md and docs/failures.md name only what there is: commands, options, variables, settings, log lines, fields, times
and tests."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from agentbudget import Runtime
from agentbudget.ledger.postgres.database import PostgresDatabase
from agentbudget.runtime.settings import Settings
from tests.cli.support import ask, process
from tests.docs import stated
from tests.tidy import rules

DOCS = rules.ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
DEPLOY, FAILURES = DOCS / "deploy.md", DOCS / "failures.md"
USAGE = {DOCS / "cli.md"}
"""Pages that show commands with placeholders; test_cli_reference.py compares them with the commands themselves."""


def name(page: Path) -> str:
    return page.name


# --- commands, variables, settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if page not in USAGE], ids=name)
def test_every_command_of_the_page_would_be_understood(page: Path) -> None:
    assert [fault for words in stated.lines(page) if (fault := stated.command_fault(words))] == []


def test_the_pages_for_operators_show_commands() -> None:
    assert len(stated.lines(DEPLOY)) >= 10
    assert ["agentbudget", "ledger", "migrate"] in stated.lines(DEPLOY)  # the Job's
    assert stated.lines(FAILURES)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_variable_of_the_page_is_read_by_the_program(page: Path) -> None:
    read = {text for text in stated.texts() if stated.variables(text) == {text}}
    assert stated.variables(page.read_text("utf-8")) <= read


def test_every_setting_of_the_deployment_page_is_an_argument() -> None:
    names = {found for span in stated.spans(DEPLOY) for found in re.findall(r"\b([a-z_]+)=(?=[\"\d])", span)}
    assert {"owners", "owner_lifetime", "host"} <= names
    assert names <= set(inspect.signature(Runtime.open).parameters)


def test_the_yaml_is_kubernetes_objects_with_ledgers_that_can_be_read() -> None:
    found = stated.documents(DEPLOY)
    assert [one["kind"] for one in found] == ["Job", "RayCluster"]
    assert all(one["apiVersion"] and one["metadata"]["name"] and one["spec"] for one in found)
    job, cluster = (one["spec"] for one in found)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [job["template"], *(group["template"] for group in groups)]
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        environ = {one["name"]: one.get("value") for one in container["env"]}
        ledger = environ["AGENTBUDGET_LEDGER"]
        assert PostgresDatabase.of_url(ledger).name == "postgresql://db.example.com/agents"
        assert "password" not in ledger
        assert environ["PGPASSWORD"] is None  # from the secret
        mounted = {one["name"] for one in container.get("volumeMounts", ())}
        assert mounted == {one["name"] for one in pod["spec"].get("volumes", ())}


# --- what to watch -----------------------------------------------------------------------------------------------------------


def test_every_log_line_is_one_that_the_program_writes() -> None:
    shown = [line for row in stated.rows(DEPLOY, "log line") for cell in row for line in stated.ticked(cell)]
    said = "\n".join(stated.texts())
    assert len(shown) >= 6
    assert [line for line in shown if line not in said and not line.startswith("agentbudget ")] == []


def test_every_field_is_in_the_answer_of_its_command(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/budget.db"
    ask("customer", "create", "acme", ledger=ledger)
    shown = {cells[0].strip("`"): set(stated.ticked(cells[1])) for cells in stated.rows(DEPLOY, "command, with")}
    owners = shown.pop("agentbudget owners status")
    source = next(tree for path, tree in stated.trees() if path.match("cli/owners.py"))
    assert owners <= set(stated.keys_of(source))
    assert shown
    for command, fields in shown.items():
        assert fields <= set(ask(*command.split()[1:], ledger=ledger)), command


def test_the_last_line_of_an_export_is_the_anchor_that_shows_an_old_backup(tmp_path: Path) -> None:
    """L7: as the page says, `tail -n 1` of it."""
    ledger, old = f"sqlite:///{tmp_path}/budget.db", f"sqlite:///{tmp_path}/old.db"
    ask("customer", "create", "acme", ledger=ledger)
    backup = tmp_path / "backup.jsonl"
    ask("ledger", "export", str(backup), ledger=ledger)
    ask("ledger", "import", str(backup), ledger=old)
    ask("wallet", "grant", "acme", "5", ledger=ledger)
    anchors = tmp_path / "anchors.jsonl"
    anchors.write_bytes(process("ledger", "export", ledger=ledger).stdout.splitlines(keepends=True)[-1])
    assert ask("ledger", "verify", "--against", str(anchors), ledger=ledger)["ok"]
    assert ask("ledger", "verify", ledger=old)["ok"]
    assert not ask("ledger", "verify", "--against", str(anchors), ledger=old, code=4)["ok"]


# --- failures ----------------------------------------------------------------------------------------------------------------


def test_every_failure_is_shown_by_a_test_that_is_there() -> None:
    rows = stated.rows(FAILURES, "what fails")
    assert len(rows) >= 20
    assert [row[0] for row in rows if len(row) != 5 or "::test_" not in row[4]] == []
    assert stated.missing_tests(FAILURES.read_text("utf-8")) == []


def test_every_time_is_what_the_program_has() -> None:
    known = stated.constants()
    for name in Settings.__struct_fields__:
        known.setdefault(name, set()).add(getattr(Settings(), name))
    limits = {}
    for names, values, _ in stated.rows(FAILURES, "limit"):
        limits.update(zip(stated.ticked(names), map(float, values.split(", ")), strict=True))
    units = {"_US": 1_000_000, "_MS": 1_000}
    for limit, seconds in limits.items():
        unit = next((unit for suffix, unit in units.items() if limit.endswith(suffix)), 1)
        assert seconds * unit in known[limit], limit
    used = {name for row in stated.rows(FAILURES, "what fails") for cell in row[1:4] for name in stated.ticked(cell)}
    assert {name for name in used if name.endswith(("_seconds", "_SECONDS", "_US", "_MS", "_PAUSE"))} <= limits.keys()


@pytest.mark.parametrize(("page", "most"), [(DEPLOY, 120), (FAILURES, 90)], ids=["deploy", "failures"])
def test_the_page_is_short(page: Path, most: int) -> None:
    assert rules.size_faults(page.read_text("utf-8"), page.name, most) == []


# --- these checks can fail ---------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `agentbudget ledger verify --again` or `agentbudget owners list`, set `AGENTBUDGET_OWNERS`.\n"
        "```yaml\nspec: {containers: [{command: [agentbudget, ledger, vanish]}]}\n```\n"
        "```sh\nagentbudget owners move --shard x\n```\n"
        "| what | by |\n|---|---|\n| it | `tests/a.py::test_b` |\n\n| other | by |\n| no | no |\n"
    )
    faults = [stated.command_fault(words) for words in stated.lines(page)]
    assert ["--again" in faults[0], "no such" in faults[1], bool(faults[2]), "no such" in faults[3]] == [True] * 4
    assert stated.variables(page.read_text()) == {"AGENTBUDGET_OWNERS"}
    assert stated.rows(page, "what") == [["it", "`tests/a.py::test_b`"]]
    assert stated.missing_tests(page.read_text(), tmp_path) == ["tests/a.py::test_b"]
    assert stated.constants()["HOLDER_TTL_US"] == {10_000_000}
