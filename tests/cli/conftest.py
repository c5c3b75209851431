from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import ask


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "budget.db"


@pytest.fixture
def ledger(file: Path) -> str:
    """The URL of a ledger with one prepaid customer, ``acme``, who has 5 credits on trial."""
    url = f"sqlite:///{file}"
    ask("customer", "create", "acme", "--plan", "starter", ledger=url)
    return url
