"""Rules of the breaker that look for patterns: watched by process, since only it sees every step of its leases."""

from __future__ import annotations

import threading
from collections import deque

from agentbudget.catalog.terms import Breaker


class Patterns:
    """What a session's recent tool steps were, in this process. ``rules``: its breaker, once the owner has told."""

    __slots__ = ("_lock", "_recent", "rules")

    def __init__(self) -> None:
        self.rules: Breaker | None = None
        self._recent: deque[str] | None = None
        self._lock = threading.Lock()

    def watch(self, rules: Breaker) -> None:
        """Apply these rules from now on."""
        self.rules = rules
        if rules.repeat is not None and self._recent is None:
            self._recent = deque(maxlen=rules.repeat[1])

    @property
    def repeats_count(self) -> bool:
        """Whether the same call again may be refused."""
        return self._recent is not None

    @property
    def failures_count(self) -> bool:
        """Whether failures in a row stop the session, so that the owner judges the step after one."""
        return self.rules is not None and self.rules.error_burst is not None

    def is_too_dear(self, amount: int) -> bool:
        """Whether one step may not hold so much."""
        rules = self.rules
        return rules is not None and rules.max_step_cost is not None and amount > rules.max_step_cost

    def refuse(self, fingerprint: str | None, name: str) -> str | None:
        """Why the repeat rule refuses a tool step, or None."""
        rules, recent = self.rules, self._recent
        if rules is None or rules.repeat is None or recent is None or fingerprint is None:
            return None
        times, window = rules.repeat
        with self._lock:
            seen = list(recent)[-(window - 1) :] if window > 1 else []
        count = 1 + seen.count(fingerprint)
        if count < times:
            return None
        return f"breaker repeat: {name} with the same arguments {count} times in {window} tool steps"

    def remember(self, fingerprint: str | None) -> None:
        """Note a tool step that has begun."""
        if self._recent is not None and fingerprint is not None:
            with self._lock:
                self._recent.append(fingerprint)

    def rest(self) -> None:
        """The session was resumed or funded: patterns begin anew."""
        if self._recent is not None:
            with self._lock:
                self._recent.clear()
