"""What is said to an ask that others' leases stand in the way of: not yet, or no."""

from __future__ import annotations

from msgspec.structs import replace

from agentbudget.account.decide import Call
from agentbudget.account.decision import Decision, Recalling, wording
from agentbudget.account.recall import Ask, Waiting

NAMED = 5
"""Silent leases named in a denial; of more, only how many."""


def recalling_or_final(call: Call, wanted: Ask, refused: Decision) -> Decision | Recalling:
    """A refusal becomes a ticket as long as leases that hold what lacks have not answered (DESIGN.md §4, shortage)."""
    found = call.books.recalls.wait(wanted, call.now_us)
    if isinstance(found, Waiting):
        return Recalling(found.ticket, refused, found.leases)
    if not found.silent:
        return refused
    names = ", ".join(found.silent[:NAMED])
    more = f" and {len(found.silent) - NAMED} more" if len(found.silent) > NAMED else ""
    return replace(refused, detail=f"{wording(refused)}; held by leases whose holders are silent: {names}{more}")
