"""The suite passes for an adapter that does what the README says, with no integration at all."""

from __future__ import annotations

import pytest

from agentbudget.testing.integration_suite import *  # noqa: F403
from tests.testing.by_hand import ByHand


@pytest.fixture
def adapter() -> ByHand:
    return ByHand()
