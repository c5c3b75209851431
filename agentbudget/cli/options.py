"""The options that commands share, and how they open the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from agentbudget.errors import InvalidRequest

if TYPE_CHECKING:
    from agentbudget.catalog.terms import Scope
    from agentbudget.ledger.journal import Archive
    from agentbudget.runtime.runtime import Runtime

LedgerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        envvar="AGENTBUDGET_LEDGER",
        metavar="URL",
        help="The ledger, as sqlite:///budget.db or postgresql+psycopg://user@host/database.",
        show_default=False,
    ),
]
CatalogOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        envvar="AGENTBUDGET_CATALOG",
        metavar="PATH",
        help="The catalog (TOML or YAML); without it the bundled one.",
        show_default=False,
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON: amounts are strings of credits.")]
CustomerArgument: TypeAlias = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
SessionArgument: TypeAlias = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
EntityArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="ENTITY", help="As team:eng or user:ana; customer is the root, user:* is every user.")
]
KeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--key", help="Idempotency key: with it the command has one effect, however often it is sent."),
]

Globs: TypeAlias = list[str] | None
KindsOption: TypeAlias = Annotated[Globs, typer.Option("--for-kind", help="Only steps of this kind; may be repeated.")]
ModelsOption: TypeAlias = Annotated[Globs, typer.Option("--for-model", help="Only models like this, as gpt-5*.")]
ToolsOption: TypeAlias = Annotated[Globs, typer.Option("--for-tool", help="Only tools like this.")]
FeaturesOption: TypeAlias = Annotated[Globs, typer.Option("--for-feature", help="Only features like this.")]
WorkflowsOption: TypeAlias = Annotated[Globs, typer.Option("--for-workflow", help="Only workflows like this.")]
EntitiesOption: TypeAlias = Annotated[Globs, typer.Option("--for-entity", help="Only below entities like this.")]


def ledger_url(url: str | None) -> str:
    """The URL that was named; raises :class:`InvalidRequest` when none was, or one that ends with this process."""
    if not url:
        raise InvalidRequest(
            "no ledger is named: give --ledger sqlite:///budget.db, or set AGENTBUDGET_LEDGER", "ledger"
        )
    if url == "memory://":
        raise InvalidRequest(
            "a memory ledger lives in one process only, so a command finds nothing in it: use sqlite:///budget.db",
            "ledger",
        )
    return url


@contextmanager
def archive(url: str | None) -> Iterator[Archive]:
    """The ledger for reading, beside whoever writes it."""
    from agentbudget.ledger.store import open_archive

    opened = open_archive(ledger_url(url))
    try:
        yield opened
    finally:
        close = getattr(opened, "close", None)
        if close is not None:
            close()


@contextmanager
def reader(url: str | None, catalog: str | None = None) -> Iterator[Runtime]:
    """A runtime that only reads."""
    from agentbudget.runtime.runtime import Runtime

    with Runtime.open(ledger_url(url), catalog or None, read_only=True) as runtime:
        yield runtime


@contextmanager
def writer(url: str | None, catalog: str | None = None, *, create: bool = False) -> Iterator[Runtime]:
    """A runtime that writes: through the process that owns the ledger, where one does, else as its owner meanwhile.
    Only with ``create`` may the ledger be new: a misspelt name is an error, not an empty file."""
    from agentbudget.runtime.runtime import Runtime

    if not create:
        with archive(url):
            pass
    with Runtime.open(ledger_url(url), catalog or None) as runtime:
        yield runtime


def moment(text: str | None, option: str) -> datetime | None:
    """An ISO 8601 time with its zone; raises :class:`InvalidRequest` by the option's name."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is no ISO 8601 time: write it as 2026-01-31T12:00:00+00:00", option) from None
    if when.tzinfo is None:
        raise InvalidRequest(f"{text!r} has no time zone: write it as 2026-01-31T12:00:00+00:00", option)
    return when


def scope_of(
    kinds: Globs, models: Globs, tools: Globs, features: Globs, workflows: Globs, entities: Globs
) -> Scope | None:
    """The scope of a grant or limit; None when it is for everything."""
    from agentbudget.catalog.terms import Scope

    dimensions = [tuple(globs or ()) for globs in (kinds, models, tools, features, workflows, entities)]
    return Scope(*dimensions) if any(dimensions) else None
