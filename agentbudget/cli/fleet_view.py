"""How ``agentbudget demo --workers`` (and ``--ray``) looks: a live table on a terminal, plain lines elsewhere, then the proof."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from agentbudget.amounts import Credits
from agentbudget.cli.fleet_facts import FleetFacts, FleetProof, Happening, Look, Totals, WorkerRow
from agentbudget.cli.tables import count, kept_ledger, proven

_EVENTS_SHOWN: Final = 6
_COLORS: Final = {"killed": "red", "owns": "cyan", "replayed": "green", "ended": "bold red", "stopped": "bold green"}


class SilentFleet:
    """Watches, and says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take down."""

    def looked(self, look: Look) -> None:
        """Nothing."""

    def happened(self, one: Happening) -> None:
        """Nothing."""


class FleetLines(SilentFleet):
    """A plain line for each event, and one for the wallet whenever a tenth more of it is spent."""

    def __init__(self, screen: Console, head: Text, wallet: Credits) -> None:
        self._screen, self._head, self._wallet, self._tenths = screen, head, wallet, -1

    def __enter__(self) -> Self:
        self._screen.print(self._head)
        return self

    def looked(self, look: Look) -> None:
        """Print the totals, if they are news."""
        tenths = 10 * look.totals.consumed.nano // self._wallet.nano
        if tenths > self._tenths:
            self._tenths = tenths
            steps = sum(row.steps for row in look.workers)
            self._screen.print(f"       {steps} steps; {_totals(look.totals)}", markup=False, soft_wrap=True)

    def happened(self, one: Happening) -> None:
        """Print the event."""
        self._screen.print(f"{one.seconds:5.1f}s {one.text}", markup=False)


class FleetLive(SilentFleet):
    """A table of the workers, the wallet, and the newest events."""

    def __init__(self, screen: Console, head: Text) -> None:
        self._screen, self._head = screen, head
        self._look = Look((), Totals(), 0)
        self._events: list[Happening] = []
        self._live = RichLive(
            console=screen,
            refresh_per_second=8,
            vertical_overflow="crop",
            redirect_stdout=False,  # see _on_ray
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.vertical_overflow = "visible"
        self._draw(everything=True)
        self._live.__exit__(kind, error, trace)

    def looked(self, look: Look) -> None:
        """Show the workers and the wallet."""
        self._look = look
        self._draw()

    def happened(self, one: Happening) -> None:
        """Show the event."""
        self._events.append(one)
        self._draw()

    def _draw(self, *, everything: bool = False) -> None:
        events = self._events if everything else self._events[-_EVENTS_SHOWN:]
        told = [Text(f"{one.seconds:5.1f}s {one.text}", style=_COLORS.get(one.what, "")) for one in events]
        owner = f"owner: process {self._look.owner}" if self._look.owner else "owner: nobody at the moment"
        self._live.update(
            Group(self._head, Text(_totals(self._look.totals)), Text(owner, style="cyan"), *told,
                  workers_table(self._look.workers, owner=self._look.owner))
        )  # fmt: skip


def fleet_headline(workers: int, wallet: Credits) -> Text:
    """What is about to be seen."""
    plural = "process" if workers == 1 else "processes"
    return Text.assemble(
        (f"{workers} {plural}", "bold"), " of runaway agents, one prepaid wallet of ", (f"{wallet} credits", "bold"),
        ". Some are killed, the owner too.",
    )  # fmt: skip


def ray_headline(workers: int, wallet: Credits) -> Text:
    """The same on Ray."""
    plural = "actor" if workers == 1 else "actors"
    return Text.assemble(
        (f"{workers} Ray {plural}", "bold"), " of runaway agents, one prepaid wallet of ", (f"{wallet} credits", "bold"),
        ". The owner's actor is killed.",
    )  # fmt: skip


def workers_table(rows: tuple[WorkerRow, ...], *, owner: int = 0) -> Table:
    """Every worker: its process, how often it was started, what it did."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("worker", "process", "started", "state", "steps", "spent", "refused"):
        made.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for row in rows:
        state = f"{row.state}, owner" if row.pid == owner else row.state
        cells = (row.number, row.pid, row.lives, state, row.steps, f"{row.spent.decimal:.6f}", row.refused)
        made.add_row(*map(str, cells), style="cyan" if row.pid == owner else "")
    return made


def print_fleet_report(screen: Console, facts: FleetFacts, *, kept: str | None) -> None:
    """The workers at the end, and the proof."""
    if not screen.is_terminal:  # there it is on the screen already
        screen.print(workers_table(facts.workers))
    for part in fleet_report(facts):
        screen.print(part)
    if kept is not None:
        screen.print(kept_ledger(kept, f"agentbudget wallet balance {facts.customer}", "agentbudget ledger verify"))


def fleet_report(facts: FleetFacts) -> Iterator[RenderableType]:
    """What was done to them, and what the ledger says afterwards."""
    proof = facts.ledger
    killed = f"{facts.kills} processes were killed while they worked, {facts.owners_killed} of them the ledger's owner."
    if facts.on_ray:
        killed = f"The owner's actor was killed {count(facts.owners_killed, 'time')} while they worked."
    yield Text(f"{killed} {facts.refused} steps were refused.")
    claims = [
        *_claims(proof),
        *([_drained(proof)] if facts.on_ray else []),
        *([(False, f"{facts.failed} workers ended with an error")] if facts.failed else []),
    ]
    for is_right, text in claims:
        yield Text.assemble(("  ok     " if is_right else "  WRONG  ", "green" if is_right else "bold red"), text)


def _claims(proof: FleetProof) -> Iterator[tuple[bool, str]]:
    sides = proof.consumed + proof.available + proof.held
    held = f" + {proof.held} held" if proof.held else ""
    differs = abs(proof.granted.nano - sides.nano)
    yield differs == 0, (f"granted {proof.granted} = consumed {proof.consumed} + available {proof.available}{held}, "
                         f"{differs} nanocredits apart")  # fmt: skip
    yield not proof.overspend, f"overspend {proof.overspend}"
    yield (
        not (proof.lost or proof.twice),
        (
            f"{proof.steps} steps booked, {proof.twice} of them twice; of the {proof.settled} that workers saw settled "
            f"{proof.lost} are missing"
        ),
    )
    yield True, f"{proof.cut_short} steps were under way when their process was killed: charged what they held"
    yield proof.unresolved == 0, f"{proof.unresolved} holds of dead processes left"
    yield (
        proof.verified and not proof.differences,
        proven(proof.entries, verified=proof.verified, differences=proof.differences),
    )


def _drained(proof: FleetProof) -> tuple[bool, str]:
    apart = abs(proof.granted.nano - proof.consumed.nano - proof.suspended.nano)
    return proof.is_drained, (f"stopped at the exact credit: consumed {proof.consumed} + suspended {proof.suspended} = "
                              f"granted {proof.granted}, {apart} nanocredits apart")  # fmt: skip


def _totals(totals: Totals) -> str:
    said = [f"{name} {getattr(totals, name).decimal:.6f}" for name in ("consumed", "available", "held")]
    said += [f"of it by the killed {totals.dead.decimal:.6f}"] if totals.dead else []
    said += [f"suspended {totals.suspended.decimal:.6f}"] if totals.suspended else []
    return ", ".join(said)
