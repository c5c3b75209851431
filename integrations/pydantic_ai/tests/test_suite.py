"""The tests that every integration passes."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.testing.integration_suite import *  # noqa: F403
from integrations.pydantic_ai.tests.adapter import Chat, Messages, Responses


@pytest.fixture(params=[Chat, Responses, Messages], ids=["chat", "responses", "anthropic"])
def adapter(request: pytest.FixtureRequest) -> Any:
    return request.param()
