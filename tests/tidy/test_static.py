"""Lint, format and types are tests too, so that one command is everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tidy import rules

CONFIG = rules.ROOT / "pyproject.toml"
BENCHMARKS = (
    "benchmarks/__main__.py",
    "benchmarks/compare",
    "benchmarks/peers",
    "benchmarks/runaway",
    "benchmarks/scale",
    "benchmarks/speed",
)
"""With all that they import, most of the runaway lab included."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A tool of this environment, as a module, with the project's settings."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=rules.ROOT, capture_output=True, text=True, check=False
    )


def assert_clean(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, f"\n{result.stdout}{result.stderr}"


def test_ruff_finds_no_fault() -> None:
    assert_clean(run("ruff", "check", "."))


def test_every_file_is_formatted() -> None:
    assert_clean(run("ruff", "format", "--check", "."))


def test_the_types_are_strict_and_right() -> None:
    assert_clean(run("mypy", "--strict", *(rules.name_of(package) for package in rules.packages()), *BENCHMARKS))


def test_ruff_would_find_a_fault(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import os\nx = {  'a':1 }\n")
    lint = run("ruff", "check", "--no-cache", "--config", str(CONFIG), str(bad))
    assert lint.returncode == 1
    assert "F401" in lint.stdout
    assert run("ruff", "format", "--no-cache", "--check", "--config", str(CONFIG), str(bad)).returncode == 1


def test_mypy_would_find_a_fault(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("from agentbudget.amounts import Credits\n\ndef f(x):\n    return x\n\ny: int = Credits('1')\n")
    result = run("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(bad))
    assert result.returncode == 1
    assert "no-untyped-def" in result.stdout
    assert "assignment" in result.stdout
