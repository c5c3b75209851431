"""The tests that every integration passes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from agentbudget_langchain.runs import OPEN

from agentbudget.testing.integration_suite import *  # noqa: F403
from integrations.langchain.tests.adapter import Attached, Graph, Guarded, Handler, Middleware

ADAPTERS = [kind(api) for kind in (Attached, Handler, Middleware, Graph, Guarded) for api in ("openai", "anthropic")]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.name)
def adapter(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Afterwards no run is open (L5)."""
    yield request.param
    if len(OPEN):
        gc.collect()
    assert len(OPEN) == 0, "a run is still open"
