"""A ledger file, and hosts that are closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agentbudget.runtime.machine.host import MachineHost
from tests.sockets.support import begin, open_host


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database file; it does not exist yet."""
    return tmp_path / "budget.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., MachineHost]]:
    """Opens hosts of the ledger."""
    with ExitStack() as stack:

        def open_one(**what: object) -> MachineHost:
            host = open_host(path, **what)  # type: ignore[arg-type]
            stack.callback(host.close)
            return host

        yield open_one


@pytest.fixture
def owner(opened: Callable[..., MachineHost]) -> MachineHost:
    """This process owns the ledger, which has a customer."""
    return begin(opened())


@pytest.fixture
def client(owner: MachineHost, opened: Callable[..., MachineHost]) -> MachineHost:
    """Another host of the same ledger, which reaches the owner over the socket."""
    return opened()
