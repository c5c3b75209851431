"""What the pages show is executed, and what they point to is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages
from tests.tidy import rules

WITH_CODE = [rules.ROOT / "README.md", *sorted(rules.ROOT.glob("integrations/*/README.md"))]
ALL = rules.files(".md")

GIVEN = """
import warnings
warnings.simplefilter("ignore")
from langchain.agents import create_agent
from agentbudget_langchain import BudgetMiddleware, ScriptedChatModel
model, tools = ScriptedChatModel(model="gpt-5-mini", replies=["done"]), []
import atexit, os
from agentbudget.testing.provider import fake_provider
serving = fake_provider()
os.environ.update(OPENAI_BASE_URL=(served := serving.__enter__()).openai_url, OPENAI_API_KEY="none")
atexit.register(serving.__exit__, None, None, None)
os.environ.update(ANTHROPIC_BASE_URL=served.url, ANTHROPIC_API_KEY="none", OPENAI_AGENTS_DISABLE_TRACING="1")
"""
"""What a reader has already: a model, tools, LangChain, and keys of providers."""


def name(page: Path) -> str:
    return rules.name_of(page)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(rules.ROOT), *map(str, (rules.ROOT / "integrations").iterdir())])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AGENTBUDGET_")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**kept, "PYTHONPATH": paths}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_the_python_of_the_page_runs_in_order(page: Path, tmp_path: Path) -> None:
    blocks = pages.blocks(page, "python")
    assert blocks, "a page for developers shows code"
    done = run("\n".join([GIVEN, *blocks]), tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_first_example_of_the_readme_runs_a_step_and_denies_one(tmp_path: Path) -> None:
    first = pages.blocks(rules.ROOT / "README.md", "python")[0]
    done = run(f"import warnings\nwarnings.simplefilter('ignore')\n{first}", tmp_path)
    ran, denied = done.stdout.splitlines()
    assert ran.startswith("ran, left: ")
    assert denied.startswith("session_budget - would fit: ")
    assert len(first.splitlines()) <= 13  # short enough to be read at a glance


@pytest.mark.parametrize("page", ALL, ids=name)
def test_every_link_of_the_page_leads_somewhere(page: Path) -> None:
    assert pages.broken_links(page) == []


def test_a_broken_link_and_a_block_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("See [it](no/such.md) and [this](page.md#part).\n```python\nx = [1](2)\n```\n")
    assert pages.broken_links(page) == ["no/such.md"]
    assert pages.blocks(page, "python") == ["x = [1](2)\n"]
