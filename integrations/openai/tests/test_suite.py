"""The tests that every integration passes."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.testing.integration_suite import *  # noqa: F403
from integrations.openai.tests.adapter import Chat, Responses


@pytest.fixture(params=[Chat, Responses], ids=["chat", "responses"])
def adapter(request: pytest.FixtureRequest) -> Any:
    return request.param()
