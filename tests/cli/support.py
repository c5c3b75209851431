"""The command line as tests use it: in this process through typer's runner, or as a process of its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from agentbudget.cli.app import app
from tests.tidy import rules

MAIN = "from agentbudget.cli import main; main()"
"""What the console script does."""


def ask(*arguments: str, ledger: str | None = None, code: int = 0) -> Any:
    """Run a command with ``--json`` in this process, expect its exit code, and give the document it printed."""
    result = CliRunner().invoke(app, [*arguments, "--json"], env=_environment(ledger))
    assert result.exit_code == code, result.output
    return json.loads(result.stdout if code in (0, 1, 4) and result.stdout else result.stderr)


def text(*arguments: str, ledger: str | None = None, code: int = 0) -> str:
    """The same for people: what standard output says (standard error, when the command failed without an answer)."""
    result = CliRunner().invoke(app, list(arguments), env=_environment(ledger))
    assert result.exit_code == code, result.output
    return result.stdout or result.stderr


def process(
    *arguments: str, ledger: str | None = None, code: int = 0, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run the console script in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], input=stdin, capture_output=True, env=environment(ledger), check=False
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def environment(ledger: str | None = None) -> dict[str, str]:
    """Of a process that finds the source tree, and no ledger or catalog but the given one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBUDGET_")}
    paths = os.pathsep.join([str(rules.ROOT), str(rules.ROOT / "integrations" / "langchain")])
    return {**kept, "PYTHONPATH": paths, **({} if ledger is None else {"AGENTBUDGET_LEDGER": ledger})}


def tamper(path: Path) -> None:
    """Give away a credit behind the ledger's back, as somebody with the file can."""
    with sqlite3.connect(path) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        (record,) = database.execute("SELECT record FROM entries WHERE seq = 2").fetchone()
        changed = bytes(record).replace(b"5000000000", b"9000000000")
        assert changed != bytes(record)
        database.execute("UPDATE entries SET record = ? WHERE seq = 2", (changed,))
    database.close()


def _environment(ledger: str | None) -> dict[str, str | None]:
    return {"AGENTBUDGET_LEDGER": ledger, "AGENTBUDGET_CATALOG": None}
