"""The suite can fail: every way in which integrations get it wrong is noticed by a test of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.testing.broken import NOTICED
from tests.tidy.rules import ROOT

FILE = "tests/testing/broken.py"


@pytest.fixture(scope="module")
def outcomes() -> str:
    """What pytest says of each broken adapter, for the test that must notice it."""
    tests = [f"{FILE}::test_{name}" for name in NOTICED.values()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "-rA", "-q", *tests],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("broken", NOTICED, ids=lambda broken: broken.__name__)
def test_a_broken_integration_is_noticed(broken: type, outcomes: str) -> None:
    name = NOTICED[broken]
    said = [line.split(" - ")[0] for line in outcomes.splitlines()]
    assert f"FAILED {FILE}::test_{name}" in said or f"ERROR {FILE}::test_{name}" in said, outcomes
