"""When each process that holds leases was last heard of, by a clock that counts suspend (DESIGN.md §4, leases)."""

from __future__ import annotations

from agentbudget.clock import Clock


class Heard:
    """``ttl_us``: how long a holder may be silent. Whoever was not heard of counts from the owner's start: it may have said
    something to the owner before."""

    def __init__(self, clock: Clock, ttl_us: int) -> None:
        self._clock, self._ttl_us = clock, ttl_us
        self._since_us = clock.monotonic_us()
        self._at_us: dict[str, int] = {}

    def note(self, holder: str) -> None:
        self._at_us[holder] = self._clock.monotonic_us()

    def is_silent(self, holder: str) -> bool:
        """True when it was not heard of for longer than the time to live."""
        return self._clock.monotonic_us() - self._at_us.get(holder, self._since_us) > self._ttl_us

    def forget_silent(self) -> None:
        """Holders that were not heard of for long are as good as never heard of: processes come and go."""
        if self._clock.monotonic_us() - self._since_us > self._ttl_us:
            self._at_us = {holder: at_us for holder, at_us in self._at_us.items() if not self.is_silent(holder)}
