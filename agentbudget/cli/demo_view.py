"""How the demonstration looks: a live table on a terminal, plain lines elsewhere, and the report after it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from agentbudget.amounts import Credits
from agentbudget.cli.demo_run import Facts, Row
from agentbudget.cli.explain import constraints_table
from agentbudget.cli.tables import kept_ledger, proven
from agentbudget.cli.wallet import balance_tables
from agentbudget.errors import InvalidRequest

_DECIMALS: Final = 6
"""Shown of a credit in the table of steps (a millionth of a dollar); ``--json`` has them all."""

_LINES_AROUND: Final = 7
"""Lines of the screen that the table's rows do not get: headline, its head and end, and where the cursor is."""


class Silent:
    """Watches, and says nothing."""

    def started(self, row: Row) -> None:
        """Nothing."""

    def finished(self, row: Row) -> None:
        """Nothing."""


class Lines:
    """A plain line for each step."""

    def __init__(self, screen: Console, model: str, budget: Credits) -> None:
        self._screen, self._head = screen, headline(model, budget)

    def __enter__(self) -> Self:
        self._screen.print(self._head)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take down."""

    def started(self, row: Row) -> None:
        """Nothing: a line is printed when its step is done."""

    def finished(self, row: Row) -> None:
        """Print the step."""
        number, kind, name, held, charged, left = _cells(row)
        self._screen.print(
            f"{number:>3}  {kind:<5} {name:<14} held {held:>8}  charged {charged:>8}  left {left}", markup=False
        )


class Live:
    """A table that grows while the agent works."""

    def __init__(self, screen: Console, model: str, budget: Credits) -> None:
        self._screen, self._head, self._rows = screen, headline(model, budget), list[Row]()
        self._live = RichLive(console=screen, refresh_per_second=12, vertical_overflow="visible")

    def __enter__(self) -> Self:
        self._live.__enter__()
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(Group(self._head, steps_table(self._rows)))
        self._live.__exit__(kind, error, trace)

    def started(self, row: Row) -> None:
        """Show what is held for a step that runs."""
        self._rows.append(row)
        self._draw()

    def finished(self, row: Row) -> None:
        """Show what it cost."""
        self._rows = [row if one.number == row.number else one for one in self._rows]
        self._draw()

    def _draw(self) -> None:
        """The newest steps that the screen has room for: what is taller cannot be drawn over. All of them at the end."""
        room = max(self._screen.height - _LINES_AROUND, 1)
        self._live.update(Group(self._head, steps_table(self._rows[-room:])))


def headline(model: str, budget: Credits) -> Text:
    """What is about to be seen."""
    return Text.assemble(
        "A LangChain agent, ", (f"{budget} credits", "bold"), " (US dollars) to spend, ",
        (f"{model} prices, scripted replies.", "dim"),
    )  # fmt: skip


def steps_table(rows: Sequence[Row]) -> Table:
    """Every step: what was held before it, what it cost, what was left after it."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("step", "kind", "model or tool", "held", "charged", "left"):
        made.add_column(name, justify="left" if name in ("kind", "model or tool") else "right", no_wrap=True)
    for row in rows:
        made.add_row(*_cells(row), style="" if row.charged is not None else "yellow")
    return made


def print_report(screen: Console, facts: Facts, *, kept: str | None) -> None:
    """Everything after the steps."""
    for part in report(facts):
        screen.print(part)
    if kept is not None:
        screen.print(_look_further(facts, kept))


def report(facts: Facts) -> Iterator[RenderableType]:
    """The refusal, the retries, the same agent unguarded, the wallet, the proof."""
    decision, binding = facts.refusal, facts.refusal.binding
    yield Text.assemble((f"Step {len(facts.steps) + 1} was refused before it ran", "bold red"), f": {decision.reason}.")
    if binding is not None and binding.remaining is not None:
        yield Text(f"  binds       {binding.entity} has {binding.remaining} {binding.measure} left, the step needs "
                   f"{binding.need}")  # fmt: skip
    yield Text(f"  would fit   {_what_fits(facts)}")
    yield constraints_table(decision, with_resets=False)
    yield from _comparison(facts)
    yield Group(*balance_tables(facts.customer, facts.wallet, with_expiry=False))
    proof = facts.ledger
    sound = proof.verified and not proof.differences
    said = proven(proof.entries, verified=proof.verified, differences=proof.differences)
    yield Text.assemble(
        ("Ledger ", "bold"), (f"{said}, {proof.open_holds} holds open", "green" if sound else "bold red")
    )


def save_picture(facts: Facts, path: Path, *, width: int) -> None:
    """The same output as an SVG, for a page. The fonts are the viewer's: nothing is loaded from elsewhere."""
    screen = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, highlight=False)
    screen.print(headline(facts.model, facts.budget), steps_table(facts.steps))
    print_report(screen, facts, kept=None)
    try:
        path.write_text(_without_fonts(screen.export_svg(title="agentbudget demo")), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written ({error.strerror})", "svg") from None


def _without_fonts(svg: str) -> str:
    """Without rich's two @font-face rules, which name files on another machine."""
    head, *rules = svg.split("@font-face {")
    return head + "".join(rule.split("}", 1)[1] for rule in rules)


def _cells(row: Row) -> tuple[str, ...]:
    return str(row.number), row.kind, row.name, _shown(row.held), _shown(row.charged), _shown(row.left)


def _shown(amount: Credits | None) -> str:
    if amount is None:
        return "..."
    return f"{amount.decimal:.{_DECIMALS}f}" if amount else "0"


def _what_fits(facts: Facts) -> str:
    affordable = facts.refusal.affordable
    if affordable.max_output_tokens:
        return f"{affordable.amount} credits: this call with at most {affordable.max_output_tokens} output tokens"
    return f"{affordable.amount} credits, which this call's input alone passes"


def _comparison(facts: Facts) -> Iterator[RenderableType]:
    retries, free = facts.retries, facts.unguarded
    stayed = "stayed refused" if retries.refused == retries.attempts else f"was refused {retries.refused} times"
    yield Text.assemble(
        (f"It tried {retries.attempts} more times", "bold"), f" and {stayed}: {retries.model_calls} calls reached the model, "
        f"{retries.spent} credits spent.",
    )  # fmt: skip
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("the same agent", "steps", "model calls", "cost", "of the budget", "stopped by"):
        made.add_column(name, justify="left" if name in ("the same agent", "stopped by") else "right")
    calls = sum(row.kind == "llm" for row in facts.steps)
    share = facts.spent.decimal / facts.budget.decimal
    made.add_row("with agentbudget", str(len(facts.steps)), str(calls), _shown(facts.spent), f"{share:.0%}",
                 _stopped_by(facts), style="green")  # fmt: skip
    made.add_row("without", str(free.steps), str(free.model_calls), _shown(free.cost), f"{free.times_the_budget:.1f} x",
                 f"us, at {free.stopped_because}", style="red")  # fmt: skip
    yield made


def _stopped_by(facts: Facts) -> str:
    reason = str(facts.refusal.reason)
    return "its budget" if reason == "session_budget" else reason.replace("_", " ")


def _look_further(facts: Facts, kept: str) -> RenderableType:
    return kept_ledger(
        kept,
        f"agentbudget session show {facts.customer} {facts.session}",
        f"agentbudget explain {facts.customer} --session {facts.session} --model {facts.model}",
        f"agentbudget wallet statement {facts.customer}",
    )
