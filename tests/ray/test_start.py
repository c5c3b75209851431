"""When Ray is chosen, and how quietly and lightly it is started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentbudget import InvalidRequest, OwnerUnavailable, Runtime
from agentbudget.runtime.on_ray import opening as ray_open
from agentbudget.runtime.on_ray.opening import QUIET, TOKEN, Caretaker, is_chosen, ledger_id, prepare, spool_base
from agentbudget.runtime.settings import Settings
from tests.tidy import rules

FILE = "sqlite:////data/budget.db"


def test_ray_is_chosen_where_this_process_is_on_a_cluster_or_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not is_chosen(Settings(ledger=FILE))
    assert is_chosen(Settings(ledger=FILE, host="ray"))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert is_chosen(Settings(ledger=FILE))
    assert not is_chosen(Settings(ledger=FILE, host="local"))
    assert not is_chosen(Settings(ledger="memory://"))
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setitem(sys.modules, "ray", _Initialized())
    assert is_chosen(Settings(ledger=FILE))


class _Initialized:
    """Ray as a program has it that called ``ray.init()``."""

    @staticmethod
    def is_initialized() -> bool:
        return True


def test_a_memory_ledger_cannot_be_on_ray() -> None:
    with pytest.raises(InvalidRequest, match="one process"):
        Runtime.open("memory://", host="ray")


def test_without_ray_installed_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """L8: never a local owner where one on Ray was meant."""
    monkeypatch.setattr(ray_open.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OwnerUnavailable, match=r"agentbudget-runtime\[ray\]"):
        Runtime.open(FILE, host="ray")


def test_settings_of_owners_are_checked_by_name() -> None:
    for wrong in ({"owners": 0}, {"owners": 65}, {"owners": True}, {"owner_lifetime": "for ever"}, {"host": "cloud"}):
        with pytest.raises(InvalidRequest) as refused:
            Settings(**wrong)  # type: ignore[arg-type]
        assert refused.value.field in wrong
    with pytest.raises(InvalidRequest, match="one owner"):
        ray_open.owners_of(Settings(ledger=FILE, owners=2))
    assert ray_open.owners_of(Settings(ledger=FILE)) == 1


def test_reports_and_copies_of_the_project_are_off_unless_the_program_wants_them(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1"}
    prepare(environ)
    assert environ == {**QUIET, "HOME": str(tmp_path), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1"}
    assert environ["RAY_USAGE_STATS_REPORT_URL"].startswith("http://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("more", "is_given"),
    [
        ({}, True),
        ({"RAY_AUTH_MODE": "disabled"}, False),
        ({"RAY_AUTH_TOKEN_PATH": "/etc/token"}, False),
        ({TOKEN: "mine"}, False),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, False),
    ],
    ids=["nothing said", "no tokens", "a token's path", "a token", "another's cluster"],
)
def test_a_home_that_cannot_be_written_needs_no_token_file(more: dict[str, str], is_given: bool) -> None:
    environ = {"HOME": "/dev/null", **more}
    prepare(environ)
    assert (environ.get(TOKEN) not in (None, "mine")) is is_given


def test_a_token_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("token")
    environ = {"HOME": str(tmp_path)}
    prepare(environ)
    assert TOKEN not in environ


def test_a_ledgers_name_on_the_cluster_says_nothing_of_it() -> None:
    url = "postgresql+psycopg://ana:secret@db/budget"
    assert ledger_id(url) == ledger_id(url)
    assert ledger_id(url) != ledger_id(url.replace("budget", "other"))
    assert not {"ana", "secret", "db"} & set(ledger_id(url).split("/"))


@pytest.mark.parametrize(
    "same",
    [
        "postgresql+psycopg://ana:changed@db/budget",
        "postgresql+psycopg://ben:p%40ss?word@db/budget",
        "postgresql+psycopg://db/budget?sslmode=require&connect_timeout=3&options=-csearch_path%3Dx",
        "postgresql://ana@DB:5432/budget?user=ben&password=other",
        "postgresql+psycopg:///budget?host=db&port=5432",
        "postgresql+psycopg:///?host=db&dbname=budget",
    ],
)
def test_a_database_has_one_name_whoever_opens_it_and_however(same: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """L9: under a second name there would be a second set of owners, and the two would take each other's shards."""
    monkeypatch.delenv("PGPORT", raising=False)
    assert ledger_id(same) == ledger_id("postgresql+psycopg://ana:secret@db/budget")


@pytest.mark.parametrize(
    "other",
    [
        "postgresql+psycopg://db/other",
        "postgresql+psycopg://db/Budget",
        "postgresql+psycopg://db2/budget",
        "postgresql+psycopg://db:5433/budget",
        "postgresql+psycopg://db/budget?port=5433",
        "postgresql+psycopg://db/budget?hostaddr=10.0.0.2",
        "postgresql+psycopg://db/budget?service=staging",
        "postgresql+psycopg://db,db2/budget",
        "postgresql+psycopg://[::1]:5432/budget",
        "postgresql+psycopg://ana:secret@other/budget?application_name=x@db",
    ],
)
def test_what_changes_the_database_changes_its_name(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPORT", raising=False)
    assert ledger_id(other) != ledger_id("postgresql+psycopg://ana:secret@db/budget")


def test_servers_of_a_database_may_be_named_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger_id("postgresql://a:1,[::1]:2/x") == ledger_id("postgresql://[::1]:2,a:1/x")
    assert ledger_id("postgresql://a:1,b:2/x") != ledger_id("postgresql://a:2,b:1/x")
    assert ledger_id("postgresql://a,b:5433/x") == ledger_id("postgresql:///x?host=b,a&port=5433,5432")
    monkeypatch.setenv("PGPORT", "5433")
    assert ledger_id("postgresql://a/x") == ledger_id("postgresql://a:5433/x")


def test_spools_are_beside_a_file_that_is_here_and_in_the_state_folder_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "budget.db").touch()
    assert spool_base(f"sqlite:///{tmp_path}/budget.db") == str(tmp_path / "budget.db")
    elsewhere = Path(spool_base("postgresql+psycopg://db/budget"))
    assert elsewhere.parent == tmp_path / "state" / "agentbudget"
    assert elsewhere.exists()
    assert elsewhere.stat().st_mode & 0o077 == 0
    assert spool_base("postgresql+psycopg://db/budget") == str(elsewhere)


def test_one_process_of_a_machine_looks_after_the_spools_of_dead_ones(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(ray_open.tempfile, "gettempdir", lambda: str(tmp_path))
    first, second = Caretaker("ledger"), Caretaker("ledger")
    assert (first(), second(), first()) == (True, False, True)
    assert Caretaker("another")()
    del first
    assert second()


PROGRAM = """
import sys
import time
from agentbudget import Runtime
assert "ray" not in sys.modules
with Runtime.open("sqlite:///budget.db", host="ray") as runtime:
    acme = runtime.customers.create("acme", plan="local")
    with acme.session(budget=1) as session:
        with session.step("tool", name="search", amount="0.5"):
            pass
    print(runtime.host.owner.split()[0], acme.wallet.balance().receivable, runtime.settings.ledger)
"""


def test_a_program_starts_a_cluster_of_its_own_also_without_a_home(tmp_path: Path) -> None:
    """The whole of it, in a process of its own: Ray's token needs no file, and a relative path means where it was started."""
    pytest.importorskip("ray")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AGENTBUDGET_"))}
    environ = {**kept, "HOME": "/dev/null", "PYTHONPATH": str(rules.ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"owner-0 0.5 sqlite:///{tmp_path}/budget.db"


LIFE = """
import sys, ray
from agentbudget import Runtime
ray.init(address=sys.argv[1], log_to_driver=False)
with Runtime.open(sys.argv[2], owner_lifetime=sys.argv[3]) as runtime:
    runtime.customers.create("acme", plan="local")
"""


@pytest.mark.parametrize("lifetime", ["detached", "driver"])
def test_owners_outlive_the_program_or_end_with_it_as_it_says(ray_cluster: str, tmp_path: Path, lifetime: str) -> None:
    from agentbudget.runtime.on_ray.cluster import names
    from tests.ray.ending import end_owners

    ledger = f"sqlite:///{tmp_path}/budget.db"
    environ = {**os.environ, "PYTHONPATH": str(rules.ROOT)}
    program = [sys.executable, "-c", LIFE, ray_cluster, ledger, lifetime]
    subprocess.run(program, env=environ, capture_output=True, timeout=120, check=True)
    if lifetime == "detached":
        assert names(ledger_id(ledger)) == ["owner-0"]
        end_owners(ledger)
    deadline = time.monotonic() + 30
    while names(ledger_id(ledger)):
        assert time.monotonic() < deadline
