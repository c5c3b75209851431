"""``agentbudget wallet``: a customer's credits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.options import (
    CatalogOption,
    CustomerArgument,
    EntitiesOption,
    FeaturesOption,
    JsonOption,
    KeyOption,
    KindsOption,
    LedgerOption,
    ModelsOption,
    ToolsOption,
    WorkflowsOption,
    moment,
    reader,
    scope_of,
    writer,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agentbudget.runtime.statement import StatementLine
    from agentbudget.runtime.views import Balance, Grant

app = typer.Typer(name="wallet", help="A customer's credits: grant, balance, void, statement.")

_GRANT_COLUMNS = (
    "grant",
    "label",
    "category",
    "priority",
    "state",
    "issued",
    "available",
    "held",
    "consumed",
    "expires",
)
_AMOUNTS = ("issued", "available", "held", "consumed", "expired", "voided")
_TOTALS = ("available", "pending", "held", "consumed", "expired", "voided", "overdraft", "receivable")
_ALWAYS = ("available", "held", "consumed")


@app.command("grant")
@answers
def grant(
    customer: CustomerArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Credits, as 500 or 2.50.")],
    label: Annotated[str | None, typer.Option("--label", help="What it is for, as promotion.")] = None,
    priority: Annotated[int, typer.Option("--priority", help="Lower burns first.")] = 50,
    category: Annotated[str, typer.Option("--category", help="paid or promo.")] = "paid",
    effective_at: Annotated[
        str | None, typer.Option("--effective-at", metavar="TIME", help="From when, ISO 8601 with zone.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", metavar="TIME", help="Until when, ISO 8601 with zone.")
    ] = None,
    kinds: KindsOption = None,
    models: ModelsOption = None,
    tools: ToolsOption = None,
    features: FeaturesOption = None,
    workflows: WorkflowsOption = None,
    entities: EntitiesOption = None,
    key: KeyOption = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Issue credits to a customer."""
    starts, ends = moment(effective_at, "effective_at"), moment(expires_at, "expires_at")
    scope = scope_of(kinds, models, tools, features, workflows, entities)
    with writer(ledger, catalog) as runtime:
        issued = runtime.customer(customer).wallet.grant(
            amount, label=label, priority=priority, effective_at=starts, expires_at=ends,
            category=category, scope=scope, key=key,  # type: ignore[arg-type]  # the wallet judges it, by name
        )  # fmt: skip
    return _grant_answer(customer, issued)


@app.command("void")
@answers
def void(
    customer: CustomerArgument,
    grant: Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id.")],
    amount: Annotated[str | None, typer.Option("--amount", help="Credits; without it all that is free.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")] = "",
    key: KeyOption = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Take back free credits of a grant. What is held stays."""
    with writer(ledger, catalog) as runtime:
        voided = runtime.customer(customer).wallet.void(grant, amount, reason=reason, key=key)
    return _grant_answer(customer, voided)


@app.command("balance")
@answers
def balance(customer: CustomerArgument, ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """Show what is available, held (of it leased, of that by processes gone silent), consumed and owed, and every grant
    in burn order."""
    from agentbudget.cli.data import to_data

    with reader(ledger) as runtime:
        found = runtime.customer(customer).wallet.balance()
    made = balance_tables(customer, found)
    return Answer({"customer": customer, **to_data(found)}, lambda console: console.print(*made))


@app.command("statement")
@answers
def statement(
    customer: CustomerArgument,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="From, ISO 8601 with zone.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before, ISO 8601 with zone.")] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Show what each entry of the ledger moved."""
    from agentbudget.cli.data import to_data

    start, end = moment(since, "since"), moment(until, "until")
    with reader(ledger) as runtime:
        one = runtime.customer(customer)
        one.info()  # a customer that does not exist is an error, not an empty statement
        lines = one.wallet.statement(since=start, until=end)
    made = _statement_table(customer, lines)
    return Answer({"customer": customer, "lines": to_data(lines)}, lambda console: console.print(made))


def balance_tables(customer: str, found: Balance, *, with_expiry: bool = True) -> tuple[RenderableType, ...]:
    """The totals and the grants of a wallet in burn order."""
    from agentbudget.cli.tables import pairs, table

    totals = [(name, getattr(found, name)) for name in _TOTALS if name in _ALWAYS or getattr(found, name)]
    parts = (("leased", found.leased), ("suspended", found.suspended))
    totals += [(f"{name} (of held)", amount) for name, amount in parts if amount]
    columns = _GRANT_COLUMNS if with_expiry else _GRANT_COLUMNS[:-1]
    rows = [_grant_row(grant)[: len(columns)] for grant in found.grants]
    return pairs(f"Wallet of {customer}, in credits", totals), table("", columns, rows, right=_AMOUNTS)


def _grant_row(grant: Grant) -> tuple[object, ...]:
    said = (grant.id, grant.label, grant.category, grant.priority, grant.state)
    return (*said, grant.issued, grant.available, grant.held, grant.consumed, grant.expires_at)


def _grant_answer(customer: str, grant: Grant) -> Answer:
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import pairs

    data = to_data(grant)
    made = pairs(f"grant {grant.id} of {customer}", [(name.replace("_", " "), data[name]) for name in data][1:])
    return Answer({"customer": customer, "grant": data}, lambda console: console.print(made))


def _statement_table(customer: str, lines: list[StatementLine]) -> RenderableType:
    from agentbudget.cli.tables import table

    rows = [
        (line.seq, line.at, line.kind, line.grants, *(_signed(getattr(line, name)) for name in _AMOUNTS))
        for line in lines
    ]
    return table(f"statement of {customer}, credits", ("seq", "at", "kind", "grants", *_AMOUNTS), rows, right=_AMOUNTS)


def _signed(moved: object) -> str:
    """A change with its sign, nothing where nothing moved."""
    return "" if not moved else str(moved) if str(moved).startswith("-") else f"+{moved}"
