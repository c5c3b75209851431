"""`import agentbudget` brings in nothing heavy, and the promised names are the ones it has."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

import agentbudget
from tests.tidy import rules

HEAVY = (
    "alembic",
    "genai_prices",
    "langchain",
    "langchain_core",
    "opentelemetry.sdk",
    "pydantic",
    "pydantic_settings",
    "ray",
    "rich",
    "sqlalchemy",
    "sqlmodel",
    "typer",
    "yaml",
)

PROMISED = {
    "Runtime", "Usage", "Credits", "USD", "Breaker", "Scope", "Catalog", "Decision", "Session", "SessionHandle", "Step",
    "AgentBudgetError", "BudgetDenied", "BudgetAbort", "KeyConflict", "HoldResolved", "OwnerUnavailable",
    "LedgerCorrupt", "CatalogError", "InvalidAmount", "InvalidRequest", "find_denied",
    "session", "current_session", "current_step", "carry", "budgeted", "__version__",
}  # fmt: skip


def heavy_modules_after(code: str) -> set[str]:
    """Which of HEAVY a fresh interpreter has loaded after running the code."""
    ask = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(rules.ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", ask], env=environment, cwd=rules.ROOT, capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split())


def test_import_agentbudget_loads_nothing_heavy() -> None:
    assert heavy_modules_after("import agentbudget") == set()


def test_amounts_errors_and_terms_load_nothing_heavy() -> None:
    code = "from agentbudget import AgentBudgetError, Credits, USD, find_denied\nCredits('2.5')"
    assert heavy_modules_after(code) == set()


def test_a_heavy_module_would_be_seen() -> None:
    assert heavy_modules_after("import agentbudget, rich") == {"rich"}


def test_the_public_names_are_the_promised_ones() -> None:
    assert set(agentbudget.__all__) == PROMISED
    assert len(agentbudget.__all__) == len(PROMISED)
    assert set(dir(agentbudget)) >= PROMISED


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_every_promised_name_is_there(name: str) -> None:
    module = agentbudget._MODULE_OF.get(name)
    value = getattr(agentbudget, name)
    assert module is None or value is getattr(importlib.import_module(module), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Wallet'"):
        getattr(agentbudget, "Wallet")  # noqa: B009 - an attribute access would not pass the type checker
