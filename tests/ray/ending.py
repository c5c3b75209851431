"""Owners of a test's ledger: their processes, and their end."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from agentbudget.runtime.on_ray.cluster import Post, Seat, names
from agentbudget.runtime.on_ray.opening import ledger_id

SILENT_SECONDS = 60.0
"""Until workers that are forgotten must have given back their leases."""


def seat_of(ledger: str, name: str = "owner-0") -> Seat:
    """To talk to an owner that is there."""
    return Seat(name, Post(ledger_id(ledger), _nothing, _nothing, may_make=False))  # type: ignore[arg-type]


def end_owners(ledger: str) -> None:
    """A worker of the test that still has something to say has an owner made again: it ends too, when that worker is silent."""
    deadline = time.monotonic() + SILENT_SECONDS
    while there := names(ledger_id(ledger)):
        assert time.monotonic() < deadline, f"made again and again: {there}"
        for name in there:
            seat_of(ledger, name).kill()


def pid_of(ledger: str, name: str = "owner-0") -> int:
    status: dict[str, Any] = seat_of(ledger, name).ask("status")
    return int(status["pid"])


def kill_owner(ledger: str, name: str = "owner-0") -> int:
    """As the system does it when it is out of memory; its process then."""
    pid = pid_of(ledger, name)
    os.kill(pid, signal.SIGKILL)
    return pid


def _nothing() -> None:
    """An owner is never made from this."""
