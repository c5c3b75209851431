"""What five hundred seeds must have seen (facts: T16): a fault that never happened proves nothing."""

from __future__ import annotations

from collections import Counter
from typing import Final

REQUIRED: Final = (
    # the network
    "request lost", "answer lost", "no answer", "refused at once", "duplicate", "ghost", "number skipped", "out of order",
    # processes
    "holder died", "died while writing", "holder suspended", "holder cut off", "claim abandoned", "no room: begun",
    "no room: settled", "no room: dispatched", "no room: extended", "no room: trail",
    # the owner and its store
    "owner died", "owner died before commit", "owner died after commit", "owner died before answering", "owner down for long",
    "owner handed over", "zombie asked", "commit lost", "commit unknown", "store stuttered", "snapshot used",
    # silence
    "entry: lease_suspended", "lease woken", "lease lapsed: charged", "lease lapsed: released", "lapsed lease corrected",
    "replayed", "replayed as unknown", "died while replaying",
    # leases
    "lease past its end", "lease in debt", "recalled by beat", "recalling", "ticket served", "ticket refused in the end",
    "denied: silent leases named", "step longer than the TTL", "overrun", "guessed", "corrected", "expired while held",
    "extended on its lease", "extended by the owner",
    # everything around them
    "denied: limit", "denied: session_budget", "denied: insufficient_credits", "denied: overdraft", "denied: paused",
    "denied: circuit_open", "denied: session_closed", "session closed under its steps", "child opened", "child refused",
    "administrator told to wait", "entry: plan_assigned", "entry: limit_set", "entry: entity_put", "entry: tombstoned",
    "entry: session_stopped", "entry: grants_expired",
)  # fmt: skip


def missing(reached: Counter[str]) -> list[str]:
    """What was never seen."""
    return [what for what in REQUIRED if not reached[what]]
