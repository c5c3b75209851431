"""The tests that every integration passes."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.testing.integration_suite import *  # noqa: F403
from integrations.openai_agents.tests.adapter import Agents, ChatAgents


@pytest.fixture(params=[Agents, ChatAgents], ids=["responses", "chat"])
def adapter(request: pytest.FixtureRequest) -> Any:
    return request.param()
