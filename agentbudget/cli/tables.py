"""Tables and lines for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agentbudget.amounts import Credits

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = (), marked: int = -1
) -> RenderableType:
    """A table under its title; ``right`` names the columns of numbers, ``marked`` is the row to look at."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for number, row in enumerate(rows):
        made.add_row(*(text(cell) for cell in row), style="bold red" if number == marked else None)
    return _titled(title, made)


def text(value: Any) -> str:
    """A cell: nothing as a dash, times as ISO 8601 to the second, and no markup out of data."""
    from rich.markup import escape

    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return escape(", ".join(str(item) for item in value)) or "-"
    return escape(str(value))


def pairs(title: str, values: Iterable[tuple[str, Any]]) -> RenderableType:
    """Names and their values, one a line, under their title."""
    from rich.table import Table

    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in values:
        made.add_row(name, text(value))
    return _titled(title, made)


def count(number: int, noun: str) -> str:
    """``1 entry``, ``2 entries``, ``0 differences``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def kept_ledger(path: str, *commands: str) -> RenderableType:
    """Where a demonstration's ledger is kept, and commands that look at it."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    lines = "\n".join([f"export AGENTBUDGET_LEDGER={shlex.quote(f'sqlite:///{path}')}", *commands])
    return Group(Text(f"\nThe ledger is kept in {path}. Look at it:"), Padding(Text(lines, style="cyan"), (0, 2)))


def proven(entries: int, *, verified: bool, differences: int) -> str:
    """A ledger that was checked, in words."""
    return f"{entries} entries, chain {'verified' if verified else 'DAMAGED'}, {differences} differences"


def _titled(title: str, made: Table) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(Text(title, style="bold"), made) if title else made


def amount(value: Credits | int | None, measure: str) -> str:
    """An amount of a measure: ``1.5 credits``, ``20 steps``; None is without limit."""
    return "-" if value is None else f"{value} {measure}" if measure else str(value)
