"""The command tree, and how a command line is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import typer

from agentbudget.cli import catalog, customer, demo, entity, explain, ledger, limit, owners, session, wallet
from agentbudget.cli.failures import BUG, DONE, INTERRUPTED, UNREAD

NAME: Final = "agentbudget"
_CODES_HELP: Final = (
    "Exit codes: 0 done, 1 refused, 2 usage, 3 unavailable, 4 integrity failure. "
    "Every command takes --json. The ledger is --ledger, else AGENTBUDGET_LEDGER."
)

app = typer.Typer(
    name=NAME,
    help="Decides before every step of an agent whether it may spend, and keeps the books of what it spent.",
    epilog=_CODES_HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from agentbudget import __version__

        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit(DONE)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Decides before every step of an agent whether it may spend, and keeps the books of what it spent.

    Start with: agentbudget demo
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


demo.add_to(app)
explain.add_to(app)
for group in (customer, wallet, entity, limit, session, catalog, ledger, owners):
    app.add_typer(group.app, no_args_is_help=True)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and give its exit code. Nothing is raised: an unforeseen error is printed with its trace."""
    from agentbudget._conflict import refuse_unrelated_distribution
    from agentbudget.cli.answer import report
    from agentbudget.cli.failures import code_of
    from agentbudget.errors import AgentBudgetError

    as_json = "--json" in arguments
    try:
        refuse_unrelated_distribution()
        answer = app(args=list(arguments), prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
    except AgentBudgetError as error:
        report(error, as_json=as_json)
        return code_of(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except SystemExit as stop:  # how typer ends when its output cannot be written
        return _unread() if isinstance(stop.__context__, BrokenPipeError) else int(stop.code or DONE)
    except Exception as error:
        return _usage(error, as_json=as_json) if hasattr(error, "format_message") else _bug()
    return answer if isinstance(answer, int) else DONE


def _usage(error: Any, *, as_json: bool) -> int:
    """What the parser refuses: one line that says where to look. (Its class moved between versions of typer.)"""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else NAME
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message)
        return DONE
    if as_json:
        data = {"type": "UsageError", "message": message, "exit_code": error.exit_code}
        sys.stderr.write(msgspec.json.encode({"error": data}).decode() + "\n")
    else:
        sys.stderr.write(f"{NAME}: {message.rstrip()} (see {path} --help)\n")
    return int(error.exit_code)


def _unread() -> int:
    """Who read our output has gone, as ``head`` does; what is left in the buffer must not complain at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UNREAD


def _bug() -> int:
    import traceback

    traceback.print_exc()
    sys.stderr.write(f"{NAME}: this is a bug: please report it with the lines above\n")
    return BUG
