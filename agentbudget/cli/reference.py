"""The reference of the command line, made from the commands themselves: ``python -m agentbudget.cli.reference``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import typer.main

from agentbudget.cli.app import NAME, app
from agentbudget.cli.failures import CODES

_INTRODUCTION: Final = """# The command line

Made by `python -m agentbudget.cli.reference > docs/cli.md`; a test compares the two.

Every command that opens a ledger takes `--ledger URL` (or `AGENTBUDGET_LEDGER`), and every command takes `--json`: one
document on standard output, with stable keys, amounts as decimal strings of credits, and times in ISO 8601 with zone. An error
is one line on standard error, or with `--json` one document `{"error": {"type", "message", "exit_code", ...}}`. Every
command runs beside whatever else has the ledger open: reading ones look at the file, writing ones ask the process that owns it
(or own it themselves while they run), and what they change counts at once for sessions that run in other processes. When
nobody who can be reached owns it, a writing command ends with exit code 3 and names who has it; so it is with a ledger on
PostgreSQL that another process owns.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, in the order of the help."""
    yield from _below(NAME, typer.main.get_command(app))


def reference() -> str:
    """The page."""
    parts = [_INTRODUCTION, _codes(), *(_command(name, command) for name, command in commands())]
    return "\n".join(parts)


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child, inner in children.items():
        yield from _below(f"{name} {child}", inner)


def _codes() -> str:
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in CODES.items())
    return f"| exit code | meaning |\n|---|---|\n{rows}"


def _command(name: str, command: Any) -> str:
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    usage = " ".join([name, *map(_argument, arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", f"`{usage}`", "", " ".join(command.help.split()), ""]
    if shown:
        lines += ["| | |", "|---|---|", *(_parameter(one) for one in shown), ""]
    return "\n".join(lines)


def _parameter(one: Any) -> str:
    if one.param_type_name == "argument":
        return f"| `{_argument(one)}` | {_cell(one.help)} |"
    takes = "" if one.is_flag else f" {one.metavar or one.opts[0].lstrip('-').upper()}"
    default = f" Default: `{one.default}`." if one.default not in (None, "", False) else ""
    return f"| `{one.opts[0]}{takes}` | {_cell(one.help)}{default} |"


def _argument(one: Any) -> str:
    return str(one.metavar) if one.required else f"[{one.metavar}]"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
