"""The tests that every integration passes."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.testing.integration_suite import *  # noqa: F403
from integrations.anthropic.tests.adapter import Messages


@pytest.fixture
def adapter() -> Any:
    return Messages()
