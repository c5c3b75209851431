from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.ledger.sql import SqlJournal
from tests.ledger.places import SqlPlace


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SqlPlace]:
    opened = SqlPlace(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def journal(place: SqlPlace) -> SqlJournal:
    opened = place.open()
    opened.claim("the test")
    return opened
