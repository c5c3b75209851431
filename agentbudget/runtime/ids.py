"""Ids: those that sort by time, so that the ledger's key index grows at its end, and those that come out the same when a
piece of work is done again."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from contextvars import ContextVar

from agentbudget.account.commands import LEASE_PREFIX

_RANDOM_BITS = 74  # RFC 9562: what version 7 leaves beside 48 bits of milliseconds, the version and the variant


def new_lease_id() -> str:
    """The id of a lease: no key that a caller may choose."""
    return LEASE_PREFIX + new_id()


def new_id() -> str:
    """A UUID of version 7 (RFC 9562) as 32 hex digits."""
    chance = int.from_bytes(os.urandom(10), "big") >> (80 - _RANDOM_BITS)
    high, low = chance >> 62, chance & ((1 << 62) - 1)
    milliseconds = time.time_ns() // 1_000_000
    return f"{(milliseconds << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low:032x}"


class Execution:
    """One execution of work that may be done again under the same ``name``, as Ray does with tasks whose worker died."""

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, threading.Lock()
        self._counts: Counter[str] = Counter()

    def id_of(self, request: str) -> str:
        """For the n-th equal request of this execution: the same in every execution, whatever else is asked in between."""
        with self._lock:
            self._counts[request] += 1
            n = self._counts[request]
        return hashlib.sha256(f"{self._name}\0{n}\0{request}".encode()).hexdigest()[:32]


EXECUTION: ContextVar[Execution | None] = ContextVar("agentbudget_execution", default=None)


def id_for(*request: object) -> str:
    """An id for what is asked: in work that may be done again one that then comes out the same, else a new one."""
    execution = EXECUTION.get()
    return new_id() if execution is None else execution.id_of(repr(request))
