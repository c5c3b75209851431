"""Every example runs as it is, offline and from nothing, and says something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy import rules

EXAMPLES = sorted((rules.ROOT / "examples").glob("*.py"))

SAYS = {
    "01_quickstart.py": ["search 3 refused (session_budget)", "4 consumed, 0 held", "verified"],
    "02_langchain_agent.py": ["stopped: refused (session_budget)", "held 0"],
    "03_team_budgets.py": ["user:ana after 4 reports: refused (limit)", "BINDS team:search", "18 of 30 credits"],
    "04_sub_agents.py": ["three more do not fit", "[3, 3, 3, 3, 3, 3]", "left 0 of 20"],
    "05_telemetry.py": [
        "outcome denied, charged 0.0, <- agentbudget.step.denied",
        "outcome corrected",
        "    agentbudget.owner",
    ],
}

OFFLINE = (
    "import runpy, socket, sys\n"
    "def refuse(*_): raise AssertionError('an example used the network')\n"
    "socket.socket.connect = socket.getaddrinfo = refuse\n"
    "runpy.run_path(sys.argv[1], run_name='__main__')\n"
)


def test_the_examples_are_numbered_and_all_of_them_are_checked() -> None:
    assert [path.name[:2] for path in EXAMPLES] == [f"{number:02}" for number in range(1, len(EXAMPLES) + 1)]
    assert {path.name for path in EXAMPLES} == set(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs_offline_and_says_what_it_should(path: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(rules.ROOT), str(rules.ROOT / "integrations" / "langchain")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBUDGET_")}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(path)],
        cwd=tmp_path, env={**kept, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in SAYS[path.name]:
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind
