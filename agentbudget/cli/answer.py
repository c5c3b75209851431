"""What every command does alike: compute an answer, print it as a table or as JSON, and end with its code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

import msgspec
import typer
from msgspec import Struct

from agentbudget.cli.failures import DONE, code_of, data_of
from agentbudget.errors import AgentBudgetError, BudgetAbort

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")


class Show(Protocol):
    """Prints an answer for people."""

    def __call__(self, console: Console) -> None: ...


class Answer(Struct, frozen=True):
    """``data`` is what ``--json`` prints (keys are stable), ``show`` what people see, ``code`` the exit code."""

    data: dict[str, Any]
    show: Show
    code: int = DONE


def answers(command: Callable[P, Answer | None]) -> Callable[P, None]:
    """A command that returns an :class:`Answer` (or None, when it has printed what it has to say) as one that prints it
    and ends. It takes ``--json`` as ``as_json``."""

    @functools.wraps(command)
    def printing(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            answer = command(*args, **kwargs)
        except (AgentBudgetError, BudgetAbort) as error:
            report(error, as_json=as_json)
            raise typer.Exit(code_of(error)) from None
        if answer is not None:
            _print(answer, as_json=as_json)
            raise typer.Exit(answer.code)

    return printing


def _print(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print_json(answer.data)
        return
    answer.show(console())


def print_json(data: Any) -> None:
    """One JSON document on standard output, indented."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data)).decode() + "\n")


def report(error: BaseException, *, as_json: bool) -> None:
    """An error on standard error: one line (a catalog's faults have a line each), or one JSON document."""
    text = msgspec.json.encode(data_of(error)).decode() if as_json else f"agentbudget: {error}"
    sys.stderr.write(text + "\n")


def console(*, width: int | None = None) -> Console:
    """Where people read. Not a terminal: as wide as the text needs, so that what is piped is not cut."""
    from rich.console import Console

    if width is None and not sys.stdout.isatty():
        width = PIPED_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False)


PIPED_WIDTH = 160
"""Columns of output that goes to a file or a program: wide enough for the longest table here."""
