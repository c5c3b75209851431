"""Providers in memory, and a runtime that is watched by them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentbudget import Runtime, telemetry
from agentbudget.runtime.customer import Customer
from tests.runtime.support import PREPAID
from tests.telemetry.watched import Seen


@pytest.fixture(autouse=True)
def _unwatched() -> Iterator[None]:
    """Nobody watches after the test."""
    yield
    telemetry.stop()


@pytest.fixture
def seen() -> Seen:
    """What was emitted, from now on."""
    return Seen()


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime.open("memory://", PREPAID) as opened:
        yield opened


@pytest.fixture
def acme(runtime: Runtime) -> Customer:
    """With 1,000 credits."""
    acme = runtime.customers.create("acme", plan="prepaid")
    acme.wallet.grant(1_000)
    return acme
