"""Imports point towards values: the contracts of [tool.importlinter], kept by the tree, broken by what is planted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy import rules

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
SUBPACKAGES = ("account", "billing", "catalog", "cli", "console", "ledger", "ledger/migrations", "runtime", "telemetry")
VALUES = ("amounts", "errors", "clock")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts on the package ``agentbudget`` of a folder."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--config", str(rules.ROOT / "pyproject.toml")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def empty_tree(tmp_path: Path) -> Path:
    """A package of our shape without any import."""
    for name in ("", *SUBPACKAGES):
        (tmp_path / "agentbudget" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "agentbudget" / name / "__init__.py").touch()
    for name in VALUES:
        (tmp_path / "agentbudget" / f"{name}.py").touch()
    return tmp_path


def test_the_tree_keeps_every_contract() -> None:
    result = lint(rules.ROOT)
    assert result.returncode == 0, f"\n{result.stdout}{result.stderr}"


def test_a_tree_without_imports_keeps_every_contract(empty_tree: Path) -> None:
    result = lint(empty_tree)
    assert result.returncode == 0, f"\n{result.stdout}{result.stderr}"


@pytest.mark.parametrize(
    ("module", "code", "contract"),
    [
        ("ledger/sql", "import agentbudget.account", "Imports point towards values"),
        ("account/wallet", "def f():\n    import agentbudget.runtime", "Imports point towards values"),
        ("errors", "from agentbudget.catalog import x", "Imports point towards values"),
        ("runtime/owner/owner", "import agentbudget.billing", "Imports point towards values"),
        ("runtime/owner/owner", "import ray", "Only runtime/on_ray/cluster.py imports ray"),
        ("ledger/sql", "import psycopg", "Only ledger/postgres imports psycopg"),
        ("runtime/owner/owner", "from sqlalchemy import text", "Only the ledger's tables"),
        ("catalog/load", "from sqlmodel import Field", "Only the ledger's tables"),
        ("runtime/owner/owner", "import langchain_core", "No agent framework"),
        ("runtime/owner/owner", "from opentelemetry import trace", "Only telemetry"),
        ("telemetry/seen", "import agentbudget.runtime", "Imports point towards values"),
        ("account/wallet", "import time", "The account is pure"),
        ("account/deep/wallet", "import threading", "The account is pure"),
    ],
)
def test_a_planted_import_breaks_its_contract(empty_tree: Path, module: str, code: str, contract: str) -> None:
    plant(empty_tree, module, code)
    result = lint(empty_tree)
    broken = [line for line in result.stdout.splitlines() if line.endswith("BROKEN")]
    assert result.returncode == 1
    assert [line for line in broken if line.startswith(contract)], result.stdout


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("runtime/on_ray/cluster", "import ray"),
        ("ledger/tables", "from sqlmodel import Field"),
        ("ledger/sql", "from sqlalchemy import text"),
        ("ledger/migrations/env", "from alembic import context"),
        ("ledger/migrations/versions/first", "import sqlalchemy"),
        ("cli/demo", "import langchain"),
        ("telemetry/otlp", "from opentelemetry.sdk.trace import TracerProvider"),
        ("runtime/session", "import agentbudget.telemetry"),
        ("account/wallet", "from agentbudget.clock import SECOND_US"),
        ("account/wallet", "import agentbudget.ledger\nfrom datetime import datetime"),
        ("errors", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import agentbudget.account"),
    ],
)
def test_an_allowed_import_breaks_nothing(empty_tree: Path, module: str, code: str) -> None:
    plant(empty_tree, module, code)
    result = lint(empty_tree)
    assert result.returncode == 0, result.stdout


def plant(tree: Path, module: str, code: str) -> None:
    path = tree / "agentbudget" / f"{module}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(code + "\n")
