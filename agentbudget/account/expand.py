"""The settled steps of an entry: what billing, statements and checks read instead of bodies of many kinds (law L10).

A strict step is an entry of its own; a renewal of a lease lists many. The amounts of one entry's lines sum to what it
moved to consumed, corrections included, so a sum of lines is a sum of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from agentbudget.account import events as e
from agentbudget.account.commands import StepReport
from agentbudget.account.decide import event_of
from agentbudget.ledger.entry import Entry

State: TypeAlias = Literal["settled", "unknown", "part", "corrected"]


class StepLine(Struct, frozen=True):
    """One step's cost (nanocredits, negative where a correction gives back). ``state``: ``settled``; ``unknown``, charged by a
    policy (of a lapsed lease: all it held, under the lease's id); ``part`` of a hold; ``corrected``, the difference to what
    a policy had charged. ``seq``, ``time_us``: of its entry; ``started_us``, ``ended_us``: by the clock of who ran it."""

    step: str
    session: str
    state: State
    amount: int
    seq: int
    time_us: int
    used: dict[str, int] = {}
    usage: dict[str, int] = {}
    model: str | None = None
    rate: str = ""
    catalog: str = ""
    started_us: int | None = None
    ended_us: int | None = None


def step_lines(entry: Entry) -> Iterator[StepLine]:
    """The lines of one entry; none for an entry that settles nothing."""
    if entry.kind not in _KINDS:
        return
    event = event_of(entry)
    if isinstance(event, e.LeaseRenewed):
        yield from _reported(entry, event.session, event.names, event.tariffs, event.steps)
    elif isinstance(event, e.HoldCorrected):
        yield from _corrected(entry, event)
    elif isinstance(event, e.HoldSettled) and event.state not in ("released", "lapsed"):
        state: State = "part" if event.state == "partial" else "unknown" if event.state == "unknown" else "settled"
        yield StepLine(
            event.step, event.session, state, event.amount, entry.seq, entry.time_us, event.used, event.usage,
            event.served, event.rate, event.catalog,
        )  # fmt: skip


_KINDS = frozenset(("hold_settled", "hold_corrected", "lease_renewed"))


def _corrected(entry: Entry, event: e.HoldCorrected) -> Iterator[StepLine]:
    if not event.steps:
        yield StepLine(
            event.step, event.session, "corrected", event.delta, entry.seq, entry.time_us, event.used, event.usage,
            event.served, event.rate, event.catalog,
        )  # fmt: skip
        return
    told = sum(report.amount for report in event.steps)
    yield StepLine(event.step, event.session, "corrected", event.delta - told, entry.seq, entry.time_us)
    yield from _reported(entry, event.session, event.names, event.tariffs, event.steps)


def _reported(
    entry: Entry, session: str, names: tuple[str, ...], tariffs: tuple[tuple[str, str], ...],
    steps: tuple[StepReport, ...],
) -> Iterator[StepLine]:  # fmt: skip
    for report in steps:
        rate, catalog = tariffs[report.tariff] if report.tariff < len(tariffs) else ("", "")
        used = dict(zip(names, report.used, strict=False))
        yield StepLine(
            report.step, session, "settled", report.amount, entry.seq, entry.time_us, used, report.usage, report.model, rate,
            catalog, report.opened_us or None, report.ended_us or None,
        )  # fmt: skip
