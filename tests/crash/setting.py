"""What the dying processes and those who check their ledgers agree on."""

from __future__ import annotations

from typing import Final, Literal

from agentbudget import Catalog

CATALOG: Final = Catalog.loads(
    """
    [plans.prepaid]
    wallet = "prepaid"
    [plans.postpaid]
    wallet = "postpaid"
    """,
    source="crash",
)
CUSTOMERS: Final = {"paid-before": "prepaid", "paid-after": "postpaid"}
"""Customer -> plan; both are worked on at once, so that commits carry entries of several customers."""
THREADS: Final = 4
TTL_SECONDS: Final = 5
POLICIES: Final[tuple[Literal["charge", "release"], ...]] = ("charge", "release")
